//! A manifest as a scenario: its VMs on the model of its board, with semihosting off and the verdict by the
//! UART.

use manifest::Manifest;
use package::Board;

use super::{Guest, Machine, Scenario};

/// MiB of the machine that QEMU's `virt` is here, unless a manifest needs more.
const USUAL_MIB: u64 = 1024;

/// The scenario of a manifest. What it says of itself stays in memory for as long as the tool runs, as the
/// tables of the other scenarios do.
pub fn of(manifest: &Manifest, name: &str) -> Scenario {
    let vms = &manifest.configuration().vms;
    let guests = vms
        .iter()
        .zip(manifest.vms())
        .map(|(vm, planned)| Guest { program: planned.program.clone().leak(), vm: *vm });
    let machine = Machine::of(manifest.board());
    Scenario {
        name: name.to_owned().leak(),
        about: "a manifest",
        guests: guests.collect::<Vec<_>>().leak(),
        machine: Machine {
            cpus: manifest.cpus().max(machine.cpus),
            gic: manifest.gic(),
            ..machine
        },
        semihosting: false,
        ..Scenario::USUAL
    }
}

/// What QEMU has to be told beyond the machine: more memory, where the model can have it.
pub fn arguments(manifest: &Manifest) -> Vec<String> {
    // Room beside what is counted, for what EL2 aligns.
    let mib = (manifest.needs() >> 20) + 64;
    if manifest.board() != Board::QEMU_VIRT || mib <= USUAL_MIB {
        return Vec::new();
    }
    vec!["-m".to_owned(), format!("{}M", mib.next_multiple_of(128))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn manifest(memory: &str) -> Manifest {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("raw"), [0; 64]).unwrap();
        let file = folder.path().join("a.toml");
        let vm = "[[vm]]\nname = \"one\"\nvmid = 1\nprogram = \"raw\"\ncpus = [3]\n";
        let text = format!("board = \"qemu-virt\"\ngic = 2\n{vm}memory = \"{memory}\"\n");
        std::fs::write(&file, &text).unwrap();
        let read = manifest::parse(Path::new("a.toml"), &text, &manifest::Folder::of(&file));
        read.unwrap_or_else(|report| panic!("{report}"))
    }

    #[test]
    fn a_manifest_runs_on_the_machine_that_it_asks_for_and_without_semihosting() {
        let scenario = of(&manifest("16M"), "a");
        assert_eq!((scenario.machine.cpus, scenario.machine.gic), (4, 2));
        assert_eq!(scenario.vm_names().collect::<Vec<_>>(), ["one"]);
        assert!(!scenario.semihosting);
    }

    #[test]
    fn a_machine_grows_with_what_the_manifest_needs() {
        assert!(arguments(&manifest("16M")).is_empty());
        assert_eq!(arguments(&manifest("2G")), ["-m", "2176M"]);
    }
}
