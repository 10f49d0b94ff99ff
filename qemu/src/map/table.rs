//! The map on a terminal: VMs, parcels, and who has what of the machine's memory.

use std::fmt::Write;

use super::layout::{Axis, Row};
use super::{Map, Parcel, Policy, Run, State, Vm, size};

/// All tables.
pub fn table(map: &Map) -> String {
    let mut text = String::new();
    grid(&mut text, &vms(map));
    for vm in map.vms.iter().filter(|vm| vm.trusted_dma) {
        let name = map.name(vm.vmid);
        let _ = writeln!(text, "{name} is trusted: nothing confines its devices to its memory");
    }
    text.push('\n');
    grid(&mut text, &parcels(map));
    text.push('\n');
    grid(&mut text, &memory(map));
    text
}

/// Writes rows with aligned columns; numbers are to be aligned by whoever makes the cells.
fn grid(text: &mut String, rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column| rows.iter().filter_map(|row| row.get(column)).map(String::len).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

fn strings(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|&cell| cell.to_owned()).collect()
}

/// Pages of a VM in a state.
pub(super) fn pages(vm: &Vm, state: State) -> u64 {
    vm.runs.iter().filter(|run| run.state == state).map(|run| run.pages).sum()
}

fn vms(map: &Map) -> Vec<Vec<String>> {
    let head = [
        "VM", "VMID", "state", "owned", "shared", "lent", "borrowed", "frames", "calls", "refused",
    ];
    let row = |vm: &Vm| {
        let count = |name| vm.counts.iter().find(|(counter, _)| counter == name);
        let count = |name| count(name).map_or("-".into(), |(_, value)| value.to_string());
        let amount = |state| match pages(vm, state) {
            0 => "-".into(),
            pages => size(pages),
        };
        let mut row = vec![map.name(vm.vmid), format!("{:#x}", vm.vmid), vm.state.clone()];
        row.extend([State::Owned, State::Shared, State::Lent, State::Borrowed].map(amount));
        row.extend([vm.frames.to_string(), count("calls"), count("refusals")]);
        row
    };
    core::iter::once(strings(&head)).chain(map.vms.iter().map(row)).collect()
}

fn parcels(map: &Map) -> Vec<Vec<String>> {
    let head = ["parcel", "kind", "name", "label", "owner", "pages", "cache", "who has it"];
    let row = |parcel: &Parcel| {
        let policy = match map.policy(parcel) {
            Policy::Cached => "write-back",
            Policy::Uncached => "uncached",
            Policy::Device => "device",
        };
        vec![
            format!("{:#x}", parcel.handle),
            parcel.kind.word().into(),
            parcel.title(),
            format!("{:#x}", parcel.label),
            map.name(parcel.owner),
            parcel.pages.to_string(),
            policy.into(),
            holders(map, parcel),
        ]
    };
    core::iter::once(strings(&head)).chain(map.parcels.iter().map(row)).collect()
}

/// Who holds a parcel, with which rights and where.
pub(super) fn holders(map: &Map, parcel: &Parcel) -> String {
    if parcel.holders.is_empty() {
        return "nobody yet".into();
    }
    let holder = |holder: &super::Holder| {
        let place = map.place(parcel, holder.vmid);
        let place = place.map_or(format!(" ({})", holder.stage), |at| format!(" at {at:#x}"));
        format!("{} {}{place}", map.name(holder.vmid), holder.rights)
    };
    parcel.holders.iter().map(holder).collect::<Vec<_>>().join(", ")
}

fn memory(map: &Map) -> Vec<Vec<String>> {
    let mut head = strings(&["machine", "size"]);
    head.extend(map.vms.iter().map(|vm| map.name(vm.vmid)));
    let row = |row: &Row| {
        let mut cells = vec![format!("{:#011x}", row.pa), size(row.pages)];
        if row.is_gap {
            cells.push("(no VM's)".into());
        } else {
            cells.extend(map.vms.iter().map(|vm| cell(vm, row)));
        }
        cells
    };
    core::iter::once(head).chain(Axis::new(map, 0.0).0.iter().map(row)).collect()
}

fn cell(vm: &Vm, row: &Row) -> String {
    let covers = |run: &&Run| {
        let (start, end) = run.span();
        run.is_memory() && start <= row.pa && row.pa < end
    };
    vm.runs
        .iter()
        .find(covers)
        .map_or(String::new(), |run| format!("{} @{:x}", what(run), run.ipa + (row.pa - run.pa)))
}

/// What a run is to its VM, in a few words.
pub(super) fn what(run: &Run) -> String {
    let policy = match run.policy {
        Policy::Cached => "",
        Policy::Uncached => " WC",
        Policy::Device => " device",
    };
    match run.state {
        State::Owned => "owned".into(),
        State::Claimed => "claimed".into(),
        State::Lent => "lent".into(),
        State::Held => "held".into(),
        State::Device => "device".into(),
        State::Shared => format!("shared {}{policy}", run.rights),
        State::Borrowed => format!("borrowed {}{policy}", run.rights),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::tests::map;

    /// The words of the line that begins so.
    fn line(text: &str, start: &str) -> String {
        let line = text.lines().find(|line| line.starts_with(start));
        let line = line.unwrap_or_else(|| panic!("no line begins with {start:?} in\n{text}"));
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_vm_parcel_and_range_has_a_line() {
        let text = table(&map());
        let camera = "camera 0x10 running 84 KiB 4 KiB 24 KiB - 12 5 -";
        assert_eq!(line(&text, "camera"), camera);
        assert_eq!(line(&text, "<eye>"), "<eye> & \"co\" 0x11 running 2 MiB - - 24 KiB 7 - -");
        assert_eq!(text.matches("camera is trusted").count(), 1);
        assert_eq!(text.matches("is trusted").count(), 1);
        let ring = "0x2004 share ring 0x7 camera 1 uncached <eye> & \"co\" r-- at 0x80000000";
        assert_eq!(line(&text, "0x2004"), ring);
        let frames = "0x2005 lend video <frames> 0x0 camera 5 write-back \
                      <eye> & \"co\" rw- at 0x80001000";
        assert_eq!(line(&text, "0x2005"), frames);
        assert_eq!(line(&text, "0x6 "), "0x6 donate (no name) 0xff camera 1 write-back nobody yet");
        let shared = "0x140010000 4 KiB shared rw- WC @40010000 borrowed r-- WC @80000000";
        assert_eq!(line(&text, "0x140010000"), shared);
        assert_eq!(line(&text, "0x14001c000"), "0x14001c000 1023.8 MiB (no VM's)");
    }
}
