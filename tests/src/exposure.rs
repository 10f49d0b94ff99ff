//! Whether a VM's tables show it a page of EL2's image: its code, its stacks, the rings of its log, the
//! package with all VMs' programs.

use anyhow::{Context, Result, ensure};
use qemu::log::Line;
use qemu::map::Map;

/// Where the arm64 header has the size of the image with all that it takes behind its bytes.
const IMAGE_SIZE: usize = 16;

/// Looks through the tables of all VMs, as the inspector of a run has printed them, for the memory of
/// `image`.
///
/// # Errors
///
/// Says which VM has a page of it.
pub fn search(map: &Map, lines: &[Line], image: &[u8]) -> Result<()> {
    let start = start(lines).context("EL2 has not told where it is")?;
    let size = image.get(IMAGE_SIZE..IMAGE_SIZE + 8).context("the image has no header")?;
    let size = u64::from_le_bytes(size.try_into().expect("eight bytes"));
    ensure!(size >= image.len() as u64, "the header forgets what is behind {size} bytes");
    for vm in &map.vms {
        for run in &vm.runs {
            let (first, end) = run.span();
            let name = &vm.name;
            ensure!(
                end <= start || first >= start + size,
                "{name} has EL2's memory at {:#x}",
                run.ipa
            );
        }
    }
    Ok(())
}

/// Where the image was loaded.
fn start(lines: &[Line]) -> Option<u64> {
    let own = lines.iter().filter(|line| line.vm.is_none());
    let at = own.filter_map(|line| line.text.split_once("EL2 at 0x")).next()?.1;
    u64::from_str_radix(at.split(',').next()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use qemu::log::Level;
    use qemu::map::{Policy, Run, State, Vm};

    use super::*;

    const START: u64 = 0x4020_0000;
    const PAGES: u64 = 3;

    /// What is found when a VM has a page at this address of the machine.
    fn found(pa: u64) -> Result<()> {
        let run = Run {
            ipa: 0x8000_0000,
            pages: 1,
            pa,
            state: State::Owned,
            rights: "rwx".into(),
            policy: Policy::Cached,
            parcel: 0,
        };
        let vm = Vm {
            vmid: 3,
            name: "A".into(),
            state: "running".into(),
            inspects: false,
            manages: false,
            trusted_dma: false,
            frames: 0,
            counts: vec![],
            runs: vec![run],
        };
        let mut image = vec![0; 0x1800];
        image[IMAGE_SIZE..IMAGE_SIZE + 8].copy_from_slice(&(PAGES * 0x1000).to_le_bytes());
        let line = Line {
            time: String::new(),
            level: Level::Info,
            vm: None,
            text: "qemu-virt: EL2 at 0x40200000, CPU 0 is".into(),
            part: false,
            place: None,
        };
        search(&Map { vms: vec![vm], parcels: vec![] }, &[line], &image)
    }

    #[test]
    fn a_page_beside_the_image_is_no_exposure_and_one_of_it_is() {
        for page in 0..PAGES {
            let wrong = found(START + page * 0x1000).unwrap_err().to_string();
            assert!(wrong.contains("A has EL2's memory at 0x80000000"), "{wrong}");
        }
        assert!(found(START - 0x1000).is_ok());
        assert!(found(START + PAGES * 0x1000).is_ok());
    }
}
