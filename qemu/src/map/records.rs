//! The inspector's lines, read strictly: what is not understood, missing or contradictory is an error.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};

use super::{Extent, Holder, Kind, Map, PAGE, Parcel, Policy, Run, State, Vm};

/// What a record's line begins with.
const MARK: &str = "MAP";

/// Reads the records among the lines of one VM's console; other lines are none of its business.
///
/// # Errors
///
/// The first line that is not a record, or what does not fit together.
pub fn read<S: AsRef<str>>(lines: &[S]) -> Result<Map> {
    let mut map = Map::default();
    let (mut seen, mut ended) = (0, false);
    for line in lines {
        let Some(rest) = line.as_ref().strip_prefix(MARK) else { continue };
        let Some(record) = rest.strip_prefix(' ') else { continue };
        ensure!(!ended, "a record behind the last one: {:?}", line.as_ref());
        if let Some(count) = record.strip_prefix("end ") {
            let count: usize = count.parse().context("how many records there are")?;
            ensure!(count == seen, "{seen} of {count} records arrived");
            ended = true;
        } else {
            add(&mut map, record).with_context(|| format!("in {:?}", line.as_ref()))?;
            seen += 1;
        }
    }
    ensure!(ended, "there is no record that says that all is said ({seen} records)");
    cut_at_parcels(&mut map);
    check(&map)?;
    Ok(map)
}

/// The words of a record.
struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    fn word(&mut self) -> Result<&'a str> {
        let (word, rest) = self.0.split_once(' ').unwrap_or((self.0, ""));
        ensure!(!word.is_empty(), "a word is missing");
        self.0 = rest;
        Ok(word)
    }

    /// A hexadecimal number of at most so many bits.
    fn hex(&mut self, bits: u32) -> Result<u64> {
        let word = self.word()?;
        let number = u64::from_str_radix(word, 16);
        let number = number.with_context(|| format!("{word:?} is no hexadecimal number"))?;
        ensure!(bits == 64 || number >> bits == 0, "{word:?} is too large");
        Ok(number)
    }

    fn vmid(&mut self) -> Result<u16> {
        Ok(self.hex(16)? as u16)
    }

    fn handle(&mut self) -> Result<u32> {
        Ok(self.hex(32)? as u32)
    }

    /// An address of a page.
    fn address(&mut self) -> Result<u64> {
        let address = self.hex(48)?;
        ensure!(address.is_multiple_of(PAGE), "{address:#x} is not the address of a page");
        Ok(address)
    }

    fn count(&mut self) -> Result<u64> {
        let word = self.word()?;
        word.parse().with_context(|| format!("{word:?} is no number"))
    }

    /// A number of pages, at least one and not more than an address space has.
    fn pages(&mut self) -> Result<u64> {
        let pages = self.count()?;
        ensure!((1..=1 << 36).contains(&pages), "{pages} pages");
        Ok(pages)
    }

    fn one_of<T: Copy>(&mut self, known: &[(&str, T)]) -> Result<T> {
        let word = self.word()?;
        let found = known.iter().find(|(name, _)| *name == word);
        found.map(|(_, value)| *value).with_context(|| format!("{word:?} is not known"))
    }

    fn rights(&mut self) -> Result<String> {
        let word = self.word()?;
        let fits = |(letter, right): (char, char)| letter == right || letter == '-';
        ensure!(word.len() == 3 && word.chars().zip("rwx".chars()).all(fits), "rights {word:?}");
        Ok(word.to_owned())
    }

    fn end(self) -> Result<()> {
        ensure!(self.0.is_empty(), "{:?} is too much", self.0);
        Ok(())
    }
}

const STATES: &[(&str, State)] = &[
    ("owned", State::Owned),
    ("claimed", State::Claimed),
    ("shared", State::Shared),
    ("borrowed", State::Borrowed),
    ("device", State::Device),
    ("lent", State::Lent),
    ("held", State::Held),
];
const POLICIES: &[(&str, Policy)] =
    &[("cached", Policy::Cached), ("uncached", Policy::Uncached), ("device", Policy::Device)];
const KINDS: &[(&str, Kind)] =
    &[("share", Kind::Share), ("lend", Kind::Lend), ("donate", Kind::Donate)];

fn add(map: &mut Map, record: &str) -> Result<()> {
    let mut words = Words(record);
    match words.word()? {
        "vm" => {
            let vmid = words.vmid()?;
            ensure!(map.vm(vmid).is_none(), "VM {vmid:#x} is there twice");
            let state = words.word()?.to_owned();
            let roles = words.hex(32)?;
            let frames = words.count()?;
            map.vms.push(Vm {
                vmid,
                name: words.0.to_owned(),
                state,
                inspects: roles & 1 != 0,
                manages: roles & 2 != 0,
                trusted_dma: roles & 4 != 0,
                frames,
                counts: Vec::new(),
                runs: Vec::new(),
            });
            return Ok(());
        }
        "count" => {
            let vm = vm(map, words.vmid()?)?;
            let counter = words.word()?.to_owned();
            vm.counts.push((counter, words.count()?));
        }
        "run" => {
            let vm = vm(map, words.vmid()?)?;
            let run = Run {
                ipa: words.address()?,
                pages: words.pages()?,
                pa: words.address()?,
                state: words.one_of(STATES)?,
                rights: words.rights()?,
                policy: words.one_of(POLICIES)?,
                parcel: words.handle()?,
            };
            let behind = vm.runs.last().map_or(0, |last| last.ipa + last.pages * PAGE);
            ensure!(run.ipa >= behind, "runs overlap or are out of order");
            vm.runs.push(run);
        }
        "parcel" => {
            let handle = words.handle()?;
            ensure!(handle != 0, "a parcel has no handle");
            ensure!(map.parcels.iter().all(|parcel| parcel.handle != handle), "it is there twice");
            map.parcels.push(Parcel {
                handle,
                owner: words.vmid()?,
                kind: words.one_of(KINDS)?,
                phase: words.word()?.to_owned(),
                pages: words.pages()?,
                label: words.handle()?,
                name: words.0.trim_end().to_owned(),
                extents: Vec::new(),
                holders: Vec::new(),
            });
            return Ok(());
        }
        "extent" => {
            let parcel = parcel(map, words.handle()?)?;
            let extent =
                Extent { ipa: words.address()?, pages: words.pages()?, pa: words.address()? };
            parcel.extents.push(extent);
        }
        "holder" => {
            let parcel = parcel(map, words.handle()?)?;
            let (vmid, stage) = (words.vmid()?, words.word()?.to_owned());
            parcel.holders.push(Holder { vmid, stage, rights: words.rights()? });
        }
        other => bail!("no record is called {other:?}"),
    }
    words.end()
}

fn vm(map: &mut Map, vmid: u16) -> Result<&mut Vm> {
    let vm = map.vms.iter_mut().find(|vm| vm.vmid == vmid);
    vm.with_context(|| format!("no VM {vmid:#x} was told of before"))
}

fn parcel(map: &mut Map, handle: u32) -> Result<&mut Parcel> {
    let parcel = map.parcels.iter_mut().find(|parcel| parcel.handle == handle);
    parcel.with_context(|| format!("no parcel {handle:#x} was told of before"))
}

/// Cuts runs where parcels begin and end: what is alike and contiguous may be in several.
fn cut_at_parcels(map: &mut Map) {
    let extents = map.parcels.iter().flat_map(|parcel| &parcel.extents);
    let edges: BTreeSet<u64> = extents.flat_map(|extent| [extent.pa, extent.span().1]).collect();
    for vm in &mut map.vms {
        let runs = core::mem::take(&mut vm.runs);
        for mut run in runs {
            let (start, end) = run.span();
            let inside = edges.range(start + 1..end).filter(|_| run.is_memory());
            for edge in inside.copied().collect::<Vec<_>>() {
                let pages = (edge - run.pa) / PAGE;
                vm.runs.push(Run { pages, ..run.clone() });
                run =
                    Run { ipa: run.ipa + pages * PAGE, pages: run.pages - pages, pa: edge, ..run };
            }
            vm.runs.push(run);
        }
    }
}

/// Whether the records tell of one moment: what is lent, shared or borrowed is in a parcel that says so.
fn check(map: &Map) -> Result<()> {
    const MOVED: &str = "the VMs were not still while the inspector looked";
    for parcel in &map.parcels {
        let handle = parcel.handle;
        ensure!(map.vm(parcel.owner).is_some(), "parcel {handle:#x} is of an unknown VM");
        let pages: u64 = parcel.extents.iter().map(|extent| extent.pages).sum();
        let promised = parcel.pages;
        // Trimming leaves fewer pages than the parcel was made of, never more.
        ensure!(pages <= promised, "{pages} of {promised} pages of parcel {handle:#x}: {MOVED}");
        for holder in &parcel.holders {
            let (known, vmid) = (map.vm(holder.vmid).is_some(), holder.vmid);
            ensure!(known, "parcel {handle:#x} is held by an unknown VM {vmid:#x}");
        }
    }
    for vm in &map.vms {
        for run in &vm.runs {
            let (who, what) = (map.name(vm.vmid), format!("{:#x} ({:?})", run.ipa, run.state));
            let parcel = map.parcel_of(run);
            let fits = match run.state {
                State::Borrowed => parcel.is_some_and(|parcel| parcel.is_held_by(vm.vmid)),
                State::Shared | State::Lent => parcel.is_some_and(|parcel| parcel.owner == vm.vmid),
                State::Owned | State::Claimed | State::Device | State::Held => true,
            };
            ensure!(fits, "{who}: no parcel accounts for {what}: {MOVED}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::tests::{RECORDS, map};

    /// The error when line `index` reads differently.
    fn with(index: usize, line: &str) -> String {
        let mut lines = RECORDS.to_vec();
        lines[index] = line;
        format!("{:#}", read(&lines).expect_err(line))
    }

    #[test]
    fn records_become_a_map() {
        let map = map();
        assert_eq!(map.vms.len(), 2);
        assert_eq!((map.vms[0].name.as_str(), map.vms[0].frames), ("camera", 12));
        assert_eq!((map.vms[0].inspects, map.vms[1].inspects), (false, true));
        assert_eq!((map.vms[0].trusted_dma, map.vms[1].trusted_dma), (true, false));
        assert_eq!(map.vms[0].counts, [("calls".to_owned(), 5)]);
        assert_eq!(map.vms[1].runs.len(), 4);
        assert_eq!(map.parcels[1].name, "video <frames>");
        assert_eq!(map.parcels[1].extents.len(), 2);
        assert_eq!(map.parcels[2].name, "");
    }

    #[test]
    fn lines_of_other_programs_are_passed_over() {
        let lines = [&["hello", "MAPS are nice"], RECORDS, &["bye"]].concat();
        assert_eq!(read(&lines).unwrap(), map());
    }

    #[test]
    fn a_run_of_two_parcels_becomes_two() {
        let records = [
            "MAP vm 10 running 0 12 camera",
            "MAP run 10 40000000 4 140000000 shared rw- cached 0",
            "MAP parcel 1 10 share offered 3 7 one",
            "MAP extent 1 40000000 3 140000000",
            "MAP parcel 2 10 share offered 1 7 two",
            "MAP extent 2 40003000 1 140003000",
            "MAP end 6",
        ];
        let map = read(&records).unwrap();
        let runs: Vec<_> = map.vms[0].runs.iter().map(|run| (run.ipa, run.pages, run.pa)).collect();
        assert_eq!(runs, [(0x4000_0000, 3, 0x1_4000_0000), (0x4000_3000, 1, 0x1_4000_3000)]);
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for (index, line, wrong) in [
            (0, "MAP wm 10 running 0 12 camera", "no record is called \"wm\""),
            (0, "MAP vm 10 running", "a word is missing"),
            (0, "MAP vm 12345 running 0 12 camera", "too large"),
            (1, "MAP count 10 calls many", "\"many\" is no number"),
            (1, "MAP count 10 calls 5 6", "\"6\" is too much"),
            (3, "MAP run 10 40000000 16 140000000 stolen rwx cached 0", "\"stolen\" is not known"),
            (3, "MAP run 10 40000000 16 140000000 owned rw cached 0", "rights"),
            (3, "MAP run 10 40000000 16 140000000 owned wrx cached 0", "rights"),
            (3, "MAP run 10 40000001 16 140000000 owned rwx cached 0", "not the address of a page"),
            (3, "MAP run 10 40000000 0 140000000 owned rwx cached 0", "0 pages"),
            (3, "MAP run 12 40000000 16 140000000 owned rwx cached 0", "no VM 0x12"),
            (4, "MAP run 10 4000f000 1 140010000 shared rw- cached 0", "overlap"),
            (9, "MAP vm 10 running 1 7 eye", "twice"),
            (15, "MAP extent 2009 40010000 1 140010000", "no parcel 0x2009"),
            (23, "MAP end 24", "23 of 24 records"),
            (23, "that is all", "no record that says that all is said"),
        ] {
            let error = with(index, line);
            assert!(error.contains(wrong), "{line}: {error}");
        }
        let behind = [RECORDS, &["MAP vm 12 running 0 1 late"]].concat();
        assert!(read(&behind).is_err());
        assert!(read::<&str>(&[]).is_err());
    }

    #[test]
    fn what_does_not_fit_together_is_an_error() {
        let moved = "were not still";
        for (index, line, wrong) in [
            (16, "MAP holder 2004 12 mapped r--", "unknown VM 0x12"),
            (20, "MAP holder 2004 11 mapped r--", moved),
            (17, "MAP parcel 2005 10 lend offered 4 0 frames", moved),
            (14, "MAP parcel 2004 11 share offered 1 7 ring", moved),
            (11, "MAP run 11 80000000 1 140000000 borrowed r-- uncached 0", moved),
        ] {
            let error = with(index, line);
            assert!(error.contains(wrong), "{line}: {error}");
        }
    }
}
