//! The search for canaries in all memory of a machine, after its run.
//!
//! The VMs tell their seeds in the log, and each has marked a page of its own with a beacon; where that is
//! found, its memory is. What was changed hands must hold exactly what is left of it by the rules, in
//! the fields of the first VM; a VM's canary in any other memory than its own is a leak: in EL2's, in
//! free memory, or in another VM's.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use guests::layout::{BEACON, FIELD, FIELDS, Left, MEMORY, PAGE, PAGES, RAM, beacon, canary};
use qemu::log::Line;

/// As many equal words in a row are no accident of a register that was saved.
const RUN: usize = 4;

/// Who is searched for.
#[derive(Clone, Copy, Debug)]
struct Suspect {
    canary: u64,
    beacon: u64,
}

/// A VM's traces: numbers of pages of the machine.
#[derive(Debug, Default)]
struct Traces {
    canaries: Vec<u64>,
    beacons: Vec<u64>,
}

/// Searches the file of a run in which the VMs `A`, `B` and `C` changed memory, and removes it.
///
/// # Errors
///
/// Says where a canary is that must not be there, or is not where it must be.
pub fn search(lines: &[Line], memory: &Path) -> Result<()> {
    let names = ["A", "B", "C"];
    let mut suspects = BTreeMap::new();
    for name in names {
        suspects
            .insert(name, suspect(lines, name).with_context(|| format!("{name} told no seed"))?);
    }
    let file = File::open(memory).with_context(|| format!("cannot read {}", memory.display()))?;
    let traces = traces(file, &suspects)?;
    fs::remove_file(memory)?;
    let mut homes = BTreeMap::new();
    for name in names {
        let [beacon] = traces[name].beacons[..] else {
            bail!("{name} has marked one page, found: {:?}", traces[name].beacons)
        };
        homes.insert(name, beacon - (BEACON - RAM) / PAGE);
    }
    for name in names {
        judge(name, &traces[name].canaries, &homes)?;
    }
    Ok(())
}

fn suspect(lines: &[Line], name: &str) -> Option<Suspect> {
    let own = lines.iter().filter(|line| line.vm.as_deref() == Some(name));
    let seed = own.filter_map(|line| line.text.strip_prefix("CANARY 0x")).next()?;
    let seed = u64::from_str_radix(seed, 16).ok()?;
    Some(Suspect { canary: canary(seed), beacon: beacon(seed) })
}

/// All pages with a canary or beacon, by whose it is.
fn traces<'a>(
    mut file: impl Read,
    suspects: &BTreeMap<&'a str, Suspect>,
) -> Result<BTreeMap<&'a str, Traces>> {
    let mut traces: BTreeMap<_, _> =
        suspects.keys().map(|name| (*name, Traces::default())).collect();
    let mut page = [0; PAGE as usize];
    for number in 0.. {
        if file.read_exact(&mut page).is_err() {
            ensure!(number > 0, "the file is empty");
            break;
        }
        if page == [0; PAGE as usize] {
            continue;
        }
        for (name, suspect) in suspects {
            let traces = traces.get_mut(name).expect("one for each");
            if holds(&page, suspect.canary) {
                traces.canaries.push(number);
            }
            if holds(&page, suspect.beacon) {
                traces.beacons.push(number);
            }
        }
    }
    Ok(traces)
}

/// Whether a page holds the word several times in a row.
fn holds(page: &[u8], word: u64) -> bool {
    let bytes = word.to_le_bytes().repeat(RUN);
    page.windows(bytes.len()).any(|window| window == bytes)
}

/// Compares where a VM's canaries are with where they must be.
fn judge(name: &str, found: &[u64], homes: &BTreeMap<&str, u64>) -> Result<()> {
    let field = homes["A"] + (PAGES - RAM) / PAGE;
    let count = FIELDS.len() as u64 * FIELD;
    for page in (0..count).filter(|page| left(*page, name)) {
        ensure!(found.contains(&(field + page)), "{name}'s canary is gone from page {page}");
    }
    for &page in found {
        let own = homes[name]..homes[name] + MEMORY / PAGE;
        match page.checked_sub(field).filter(|page| *page < count) {
            Some(page) => ensure!(left(page, name), "{name}'s canary is left in page {page}"),
            None => ensure!(own.contains(&page), "{name}'s canary leaked to page {page:#x} of RAM"),
        }
    }
    Ok(())
}

/// Whether a page of the fields holds the VM's canary in the end.
fn left(page: u64, name: &str) -> bool {
    let beside = page % 2 == 1;
    match FIELDS[(page / FIELD) as usize] {
        _ if beside => name == "A",
        Left::Borrowers => name == "B",
        Left::Owners => name == "A",
        Left::Zeros => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canary_is_found_wherever_it_is_in_a_page() {
        let mut page = [0; PAGE as usize];
        assert!(!holds(&page, 7));
        page[1003..1035].copy_from_slice(&7_u64.to_le_bytes().repeat(RUN));
        assert!(holds(&page, 7));
        page[1034] = 1;
        assert!(!holds(&page, 7), "one word in a register is no trace");
    }

    #[test]
    fn what_must_be_left_and_what_must_not_are_both_noticed() {
        let homes = BTreeMap::from([("A", 0x1000), ("B", 0x2000), ("C", 0x3000)]);
        let field = 0x1000 + (PAGES - RAM) / PAGE;
        let pages = 0..FIELDS.len() as u64 * FIELD;
        let right: Vec<_> =
            pages.filter(|page| left(*page, "B")).map(|page| field + page).collect();
        assert!(judge("B", &right, &homes).is_ok());
        assert!(judge("B", &right[1..], &homes).is_err(), "one was wiped");
        for stray in [field + 2 * FIELD, field + 1, 0x3000, 0x9000] {
            let more = [&right[..], &[stray]].concat();
            assert!(judge("B", &more, &homes).is_err(), "{stray:#x}");
        }
        let own = [&right[..], &[0x2001]].concat();
        assert!(judge("B", &own, &homes).is_ok(), "what is in its own memory is its own");
    }
}
