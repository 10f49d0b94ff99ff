//! What the caches hold of each page, and what memory does.
//!
//! The worst that the architecture allows: a line that was written stays in the cache until it is
//! cleaned, and a line that is not held is fetched at once, because a CPU may read ahead whatever EL2
//! maps write-back, which is all RAM. So the cache has a copy of every line, right from the last
//! maintenance on. Who bypasses the cache meets memory alone; who goes through it meets the copy, also
//! after somebody has changed memory behind it.

use std::boxed::Box;
use std::collections::BTreeMap;
use std::vec::Vec;

use super::Page;
use crate::address::{PAGE_SIZE, Pa};

/// Bytes of a line: 64 of them are a page, one for each bit of a word.
const LINE: usize = PAGE_SIZE as usize / 64;

/// How an access reaches a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Path {
    /// Through the cache, write-back.
    Cached,
    /// To memory.
    Uncached,
}

/// A page in memory and in the cache.
struct Copies {
    memory: Page,
    cache: Page,
    /// Lines that are newer in the cache than in memory.
    dirty: u64,
}

/// All pages. Those that were never touched are zero everywhere.
#[derive(Default)]
pub(super) struct Cache(BTreeMap<u64, Box<Copies>>);

const fn line(offset: usize) -> u64 {
    1 << (offset / LINE)
}

impl Cache {
    fn copies(&mut self, pa: Pa) -> &mut Copies {
        let zeros = || Box::new(Copies { memory: ZEROS, cache: ZEROS, dirty: 0 });
        self.0.entry(pa.page()).or_insert_with(zeros)
    }

    /// Whether no page was ever touched.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Loads a byte.
    pub(super) fn load(&mut self, pa: Pa, path: Path) -> u8 {
        let offset = offset(pa);
        let copies = self.copies(pa);
        match path {
            Path::Cached => copies.cache[offset],
            Path::Uncached => copies.memory[offset],
        }
    }

    /// Stores a byte.
    pub(super) fn store(&mut self, pa: Pa, path: Path, value: u8) {
        let offset = offset(pa);
        let copies = self.copies(pa);
        match path {
            Path::Cached => {
                copies.cache[offset] = value;
                copies.dirty |= line(offset);
            }
            Path::Uncached => copies.memory[offset] = value,
        }
    }

    /// Stores a byte everywhere in a page.
    pub(super) fn fill(&mut self, page: Pa, path: Path, value: u8) {
        let copies = self.copies(page);
        match path {
            Path::Cached => {
                copies.cache = [value; PAGE_SIZE as usize];
                copies.dirty = u64::MAX;
            }
            Path::Uncached => copies.memory = [value; PAGE_SIZE as usize],
        }
    }

    /// Writes lines back that are newer in the cache, and fetches all of the page anew.
    pub(super) fn clean_invalidate(&mut self, page: Pa) {
        let copies = self.copies(page);
        for at in (0..copies.memory.len()).step_by(LINE).filter(|at| copies.dirty & line(*at) != 0)
        {
            copies.memory[at..][..LINE].copy_from_slice(&copies.cache[at..][..LINE]);
        }
        copies.cache = copies.memory;
        copies.dirty = 0;
    }

    /// Makes a page what it is said to be, for every observer.
    pub(super) fn settle(&mut self, page: Pa, to: &Page) {
        *self.copies(page) = Copies { memory: *to, cache: *to, dirty: 0 };
    }

    /// A page as one sees it who reaches it so.
    pub(super) fn page(&mut self, page: Pa, path: Path) -> Page {
        let copies = self.copies(page);
        match path {
            Path::Cached => copies.cache,
            Path::Uncached => copies.memory,
        }
    }

    /// The pages that hold these bytes, wherever in them and for whatever observer; lowest first.
    pub(super) fn holding(&self, bytes: &[u8]) -> Vec<Pa> {
        let is_in = |page: &Copies| holds(&page.memory, bytes) || holds(&page.cache, bytes);
        let holders = self.0.iter().filter(|(_, page)| is_in(page));
        holders.map(|(page, _)| Pa(page * PAGE_SIZE)).collect()
    }

    /// Between two calls: a line that nobody reaches through the cache any more is not newer there,
    /// or it would be written back over what somebody has put into memory; and a line that is clean
    /// says what memory says wherever somebody may use it through the cache.
    /// `path` is how the pages from `first` on are mapped.
    pub(super) fn check(&self, first: Pa, pages: u64, path: Path) {
        for (page, copies) in self.0.range(first.page()..first.page() + pages) {
            let pa = Pa(page * PAGE_SIZE);
            match path {
                Path::Uncached => {
                    assert!(
                        copies.dirty == 0,
                        "cache: {pa:?} is used uncached, but was not cleaned"
                    );
                }
                Path::Cached if copies.cache == copies.memory => {}
                Path::Cached => {
                    let stale = |at: &usize| {
                        copies.dirty & line(*at) == 0
                            && copies.cache[*at..][..LINE] != copies.memory[*at..][..LINE]
                    };
                    let stale = (0..copies.cache.len()).step_by(LINE).find(stale);
                    assert!(
                        stale.is_none(),
                        "cache: {pa:?} is used cached, but was not invalidated ({stale:?})"
                    );
                }
            }
        }
    }
}

/// Whether these bytes are anywhere in a page.
pub(super) fn holds(page: &[u8], bytes: &[u8]) -> bool {
    let lines = page.chunks(LINE).zip((0..).step_by(LINE));
    // Where they begin, their first byte is.
    lines.filter(|(line, _)| line.contains(&bytes[0])).any(|(line, at)| {
        let end = page.len().min(at + line.len() + bytes.len() - 1);
        page[at..end].windows(bytes.len()).any(|window| window == bytes)
    })
}

const ZEROS: Page = [0; PAGE_SIZE as usize];

const fn offset(pa: Pa) -> usize {
    (pa.0 % PAGE_SIZE) as usize
}
