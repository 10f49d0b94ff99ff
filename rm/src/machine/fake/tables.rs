//! Which frames are tables, where they stand, and whether each write to them is allowed.

use core::cell::Cell;
use core::sync::atomic::{AtomicU64, Ordering};
use std::collections::BTreeMap;
use std::vec::Vec;

use super::aliases::Special;
use super::decode::{Entry, Translation, decode, differ, hardware, is_valid, next_of, size};
use super::tlb::{Tlb, Walk};
use crate::address::{Pa, TlbTag};
use crate::machine::{Features, Frame, FrameIndex, FrameUse, Scope, TranslationContext};

/// Where a table, or an entry of one, stands in a VM's tree.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    tag: u16,
    level: u32,
    first: u64,
}

/// A frame in use.
#[derive(Debug)]
struct Used {
    user: FrameUse,
    /// Set while a walk from the root comes here.
    place: Option<Place>,
    /// Entries that are not 0, by what was written, one bit each.
    written: [u64; 8],
}

/// Writes to a frame that no walker need see yet, one bit for each entry, and the thread that must publish
/// them.
struct Unpublished {
    frame: FrameIndex,
    writer: u64,
    entries: [u64; 8],
}

impl Unpublished {
    const fn has(&self, index: usize) -> bool {
        self.entries[index / 64] & 1 << (index % 64) != 0
    }
}

/// Entries of a table, one behind the other, that say the same of pages one behind the other.
struct Run {
    /// Where the first of them stands.
    at: Place,
    /// Pages of all of them.
    pages: u64,
    /// The first of them. One that is a table is a run to itself.
    entry: Entry,
}

/// Which thread this is: its number, of those that have asked.
fn here() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    std::thread_local! {
        static NUMBER: Cell<u64> = const { Cell::new(0) };
    }
    match NUMBER.get() {
        0 => {
            let number = LAST.fetch_add(1, Ordering::Relaxed) + 1;
            NUMBER.set(number);
            number
        }
        number => number,
    }
}

/// The tables of all VMs.
pub(super) struct Tables {
    features: Features,
    base: Pa,
    /// By frame.
    used: Vec<Option<Used>>,
    roots: BTreeMap<u16, FrameIndex>,
    pub(super) tlb: Tlb,
    unpublished: Vec<Unpublished>,
    special: Special,
}

impl Tables {
    pub(super) fn new(features: Features, base: Pa) -> Self {
        Self {
            features,
            base,
            used: Vec::new(),
            roots: BTreeMap::new(),
            tlb: Tlb::default(),
            unpublished: Vec::new(),
            special: Special::default(),
        }
    }

    pub(super) fn count(&self, user: FrameUse) -> usize {
        self.used.iter().flatten().filter(|used| used.user == user).count()
    }

    fn used(&mut self, frame: FrameIndex) -> Option<&mut Used> {
        self.used.get_mut(frame.0 as usize)?.as_mut()
    }

    /// A frame leaves the pool. The first table of a tag is the root of its tree.
    pub(super) fn take(&mut self, frame: FrameIndex, user: FrameUse) {
        let mut place = None;
        if let FrameUse::Table(TlbTag(tag)) = user
            && !self.roots.contains_key(&tag)
        {
            self.roots.insert(tag, frame);
            place = Some(Place { tag, level: 1, first: 0 });
        }
        let index = frame.0 as usize;
        self.used.resize_with(self.used.len().max(index + 1), || None);
        let before = self.used[index].replace(Used { user, place, written: [0; 8] });
        assert!(before.is_none(), "{frame:?} was taken twice");
    }

    /// A frame returns to the pool.
    pub(super) fn put(&mut self, frames: &[Frame], frame: FrameIndex) {
        let used = self.used.get_mut(frame.0 as usize).and_then(Option::take);
        let used = used.expect("a frame that nobody took was returned");
        let mut entries = frames[frame.0 as usize].0.iter();
        let is_zero = cfg!(miri) || entries.all(|entry| entry.load(Ordering::Relaxed) == 0);
        assert!(is_zero && used.written == [0; 8], "{frame:?} was returned with data in it");
        let walk = self.tlb.walks.iter().find(|walk| walk.table == frame);
        assert!(walk.is_none(), "{frame:?} was freed while a cached walk leads there: {walk:?}");
        if let Some(place) = used.place {
            let root = self.roots.get(&place.tag) == Some(&frame);
            assert!(root, "{frame:?} was freed while it is linked at {place:?}");
            self.roots.remove(&place.tag);
        }
    }

    /// An entry is about to be written.
    pub(super) fn write(
        &mut self,
        frames: &[Frame],
        frame: FrameIndex,
        index: usize,
        (old, new): (u64, u64),
    ) {
        assert!(
            frames[frame.0 as usize].read(index) == old,
            "entry {index} of {frame:?} is not what its writer believes"
        );
        let used = self.used(frame).expect("a table is written that was not taken");
        assert!(matches!(used.user, FrameUse::Table(_)), "{frame:?} is written, and is no table");
        let (place, bit) = (used.place, 1 << (index % 64));
        if new == 0 {
            used.written[index / 64] &= !bit;
        } else {
            used.written[index / 64] |= bit;
        }
        if !differ(old, new) {
            return;
        }
        self.hide(frame, index);
        let Some(place) = place else { return };
        let at = Place { first: place.first + index as u64 * size(place.level), ..place };
        self.replace(frames, at, (old, new));
    }

    /// An entry was written, and no walker need see it before the calling CPU publishes it.
    fn hide(&mut self, frame: FrameIndex, index: usize) {
        let (writer, bit) = (here(), 1 << (index % 64));
        if let [only] = &mut self.unpublished[..]
            && only.frame == frame
            && only.writer == writer
        {
            only.entries[index / 64] |= bit;
            return;
        }
        let mut own = None;
        for (at, hidden) in
            self.unpublished.iter_mut().enumerate().filter(|(_, h)| h.frame == frame)
        {
            hidden.entries[index / 64] &= !bit;
            if hidden.writer == writer {
                own = Some(at);
            }
        }
        let own = own.unwrap_or_else(|| {
            self.unpublished.push(Unpublished { frame, writer, entries: [0; 8] });
            self.unpublished.len() - 1
        });
        self.unpublished[own].entries[index / 64] |= bit;
    }

    /// Frames with entries that no walker need see yet.
    fn hidden(&self) -> impl Iterator<Item = &Unpublished> {
        self.unpublished.iter().filter(|hidden| hidden.entries != [0; 8])
    }

    /// An entry that a walk from the root reaches changes.
    fn replace(&mut self, frames: &[Frame], at: Place, (old, new): (u64, u64)) {
        let pages = size(at.level);
        match (decode(self.features, old, at.level), decode(self.features, new, at.level)) {
            (Entry::Invalid, new) => self.make(frames, at, new),
            (old, Entry::Invalid) => self.retire(frames, at, pages, old),
            (Entry::Leaf(old), Entry::Leaf(new))
                if (old.pa, old.memory) == (new.pa, new.memory) =>
            {
                let runs = if old.exceeds(&new) { &mut self.tlb.stale } else { &mut self.tlb.weak };
                runs.add(at.tag, at.first, pages, old);
            }
            (old, new) => panic!("break-before-make: {old:?} turned into {new:?} at {at:?}"),
        }
    }

    /// An entry becomes valid.
    fn make(&mut self, frames: &[Frame], at: Place, new: Entry) {
        let pages = size(at.level);
        if let Entry::Leaf(new) = new {
            self.add_alias(frames, at, pages, &new);
        }
        let walk = self.tlb.walks.iter().find(|walk| walk.overlaps(at.tag, at.first, pages));
        assert!(
            walk.is_none(),
            "break-before-make: {new:?} was made at {at:?} while {walk:?} may be cached"
        );
        let stale = self.tlb.stale.overlapping(at.tag, at.first, pages);
        if let Entry::Leaf(new) = new
            && stale == [(at.first, pages, new)]
        {
            // What was broken is made again as it was: it is not stale after all.
            self.tlb.stale.remove(at.tag, at.first, pages);
            return;
        }
        assert!(
            stale.is_empty(),
            "break-before-make: {new:?} was made at {at:?} while {stale:?} may be cached"
        );
        if let Entry::Table(table) = new {
            self.link(frames, at, self.frame_of(table));
        }
    }

    /// A table, and what hangs below it, becomes reachable.
    fn link(&mut self, frames: &[Frame], at: Place, table: FrameIndex) {
        let hidden = self.hidden().any(|hidden| hidden.frame == table);
        assert!(!hidden, "{table:?} was linked at {at:?} before it was published");
        let place = Place { level: at.level + 1, ..at };
        let used = self.used(table).expect("a table was linked that was not taken");
        assert_eq!(used.user, FrameUse::Table(TlbTag(at.tag)), "a table of another VM was linked");
        let before = used.place.replace(place);
        assert!(before.is_none(), "{table:?} was linked at {before:?} and at {at:?}");
        for Run { at, pages, entry } in self.runs(frames, table, place) {
            match entry {
                Entry::Table(next) => self.link(frames, at, self.frame_of(next)),
                Entry::Leaf(leaf) => self.add_alias(frames, at, pages, &leaf),
                Entry::Invalid => {}
            }
        }
    }

    /// Leaves become reachable: their type must be that of every other mapping of their pages.
    fn add_alias(&mut self, frames: &[Frame], at: Place, pages: u64, leaf: &Translation) {
        self.special.add((at.tag, at.first), (pages, size(at.level)), leaf, &self.tlb.stale);
        if !leaf.is_write_back() {
            self.each_run(frames, |at, pages, leaf| {
                self.special.check_against(at.tag, pages, leaf);
            });
        }
    }

    /// All leaves that a walk finds: where the first of a run of them is, pages of all, and the first.
    pub(super) fn each_run(&self, frames: &[Frame], mut f: impl FnMut(Place, u64, &Translation)) {
        let root =
            |(tag, root): (&u16, &FrameIndex)| (Place { tag: *tag, level: 1, first: 0 }, *root);
        let mut left: Vec<_> = self.roots.iter().map(root).collect();
        while let Some((place, table)) = left.pop() {
            for Run { at, pages, entry } in self.runs(frames, table, place) {
                match entry {
                    Entry::Table(next) => {
                        let next = self.frame_of(next);
                        left.push((Place { level: at.level + 1, ..at }, next));
                    }
                    Entry::Leaf(leaf) => f(at, pages, &leaf),
                    Entry::Invalid => {}
                }
            }
        }
    }

    /// All leaves that a walk of a tree without blocks finds, by page, lowest first.
    pub(super) fn leaves(&self, frames: &[Frame]) -> Vec<(u64, Translation)> {
        let mut leaves = Vec::new();
        self.each_run(frames, |at, pages, leaf| {
            let page = |n| (at.first + n, Translation { pa: leaf.pa.add_pages(n), ..*leaf });
            leaves.extend((0..pages).map(page));
        });
        leaves.sort_unstable_by_key(|(page, _)| *page);
        leaves
    }

    /// An entry becomes invalid, with all that is reached through it.
    fn retire(&mut self, frames: &[Frame], at: Place, pages: u64, old: Entry) {
        match old {
            Entry::Invalid => {}
            Entry::Leaf(old) => {
                self.special.remove((at.tag, at.first), (pages, size(at.level)), &old);
                self.tlb.stale.add(at.tag, at.first, pages, old);
            }
            Entry::Table(table) => {
                let table = self.frame_of(table);
                let place = Place { level: at.level + 1, ..at };
                let walk = Walk { tag: at.tag, first: at.first, pages, table, level: place.level };
                self.tlb.walks.push(walk);
                self.used(table).expect("a linked table is in use").place = None;
                for Run { at, pages, entry } in self.runs(frames, table, place) {
                    self.retire(frames, at, pages, entry);
                }
            }
        }
    }

    /// The valid entries of a table at `place`.
    fn runs(&self, frames: &[Frame], table: FrameIndex, place: Place) -> Vec<Run> {
        let pages = size(place.level);
        let (mut runs, mut next) = (Vec::<Run>::new(), None);
        let used = self.used[table.0 as usize].as_ref().expect("a linked table is in use");
        let table = &frames[table.0 as usize].0;
        let mut index = 0;
        while index < 512 {
            // An interpreter looks at what was written alone.
            let unseen = used.written[index / 64] >> (index % 64);
            if cfg!(miri) && unseen & 1 == 0 {
                index += (unseen.trailing_zeros() as usize).min(64 - index % 64);
                next = None;
                continue;
            }
            let entry = table[index].load(Ordering::Relaxed);
            if is_valid(entry) {
                match runs.last_mut() {
                    Some(run) if next == Some(hardware(entry)) => run.pages += pages,
                    _ => {
                        let first = place.first + index as u64 * pages;
                        let entry = decode(self.features, entry, place.level);
                        runs.push(Run { at: Place { first, ..place }, pages, entry });
                    }
                }
                next = next_of(entry, place.level);
            } else {
                next = None;
            }
            index += 1;
        }
        runs
    }

    /// A barrier of the calling CPU: it covers what this CPU wrote.
    pub(super) fn publish(&mut self) {
        let here = here();
        self.unpublished.retain(|hidden| hidden.writer != here);
    }

    pub(super) fn invalidate(&mut self, context: TranslationContext, scope: Scope<'_>) {
        self.publish();
        let TlbTag(tag) = context.tag;
        if self.roots.get(&tag).map(|root| self.address(*root)) != Some(context.root) {
            // Another VM's translations go, which hides nothing.
            return;
        }
        match scope {
            Scope::All => self.tlb.invalidate_all(tag),
            Scope::Ranges(ranges) => {
                for range in ranges {
                    assert!(range.pages > 0, "an empty range was invalidated");
                    self.tlb.invalidate(tag, range.at.page(), range.pages);
                }
            }
        }
    }

    /// What a walk of `page` finds, as an adversary would choose: what is cached comes first.
    pub(super) fn translate(&self, frames: &[Frame], tag: u16, page: u64) -> Option<Translation> {
        if let Some(cached) = self.tlb.stale.lookup(tag, page) {
            return Some(cached);
        }
        let mut walks = self.tlb.walks.iter().filter(|walk| walk.overlaps(tag, page, 1));
        walks
            .find_map(|walk| self.walk(frames, walk.table, walk.level, page))
            .or_else(|| self.tlb.weak.lookup(tag, page))
            .or_else(|| self.walk(frames, *self.roots.get(&tag)?, 1, page))
    }

    fn walk(
        &self,
        frames: &[Frame],
        table: FrameIndex,
        level: u32,
        page: u64,
    ) -> Option<Translation> {
        let index = (page / size(level)) as usize;
        if level == 1 && index > 511 {
            return None;
        }
        let index = index % 512;
        if self.unpublished.iter().any(|hidden| hidden.frame == table && hidden.has(index)) {
            return None;
        }
        match decode(self.features, frames[table.0 as usize].read(index), level) {
            Entry::Invalid => None,
            Entry::Table(next) => self.walk(frames, self.frame_of(next), level + 1, page),
            Entry::Leaf(leaf) => {
                Some(Translation { pa: leaf.pa.add_pages(page % size(level)), ..leaf })
            }
        }
    }

    /// Between two steps nothing is stale and nothing unseen.
    pub(super) fn check_settled(&self) {
        let stale = self.tlb.stale.iter().next();
        assert!(stale.is_none(), "stale: a CPU may still use {stale:?}");
        let walk = self.tlb.walks.first();
        assert!(walk.is_none(), "stale: a CPU may still walk {walk:?}");
        let is_linked =
            |frame: FrameIndex| self.used.get(frame.0 as usize).and_then(Option::as_ref)?.place;
        let unseen = self.hidden().map(|hidden| hidden.frame).find(|f| is_linked(*f).is_some());
        assert!(unseen.is_none(), "not published: {unseen:?}");
    }

    /// A page is about to get new content that nobody with an old translation may meet.
    pub(super) fn check_out_of_reach(&self, page: Pa) {
        let reach =
            self.tlb.stale.iter().find(|(_, _, pages, to)| {
                (to.pa.page()..to.pa.page() + pages).contains(&page.page())
            });
        assert!(reach.is_none(), "G5: {page:?} is written while a CPU may still use {reach:?}");
    }

    fn frame_of(&self, table: Pa) -> FrameIndex {
        FrameIndex((table.page() - self.base.page()) as u32)
    }

    fn address(&self, frame: FrameIndex) -> Pa {
        self.base.add_pages(frame.0.into())
    }
}
