//! The stage-2 tables of one VM: what it may reach, and who owns each page.
//!
//! There is no second database of pages. The leaf that lets the hardware through also says what the
//! page is to this VM ([`State`]), in bits that the hardware leaves to software; so a check is a walk,
//! a transition is a descriptor write, and a block of 2 MiB or 1 GiB is one of each.
//!
//! Work comes in two halves. What may fail comes first and changes nothing that the VM can observe:
//! `Stage2::claim` and `Stage2::cut` cut blocks so that a range consists of whole leaves,
//! `Stage2::part` does that to leaves of a parcel, `Stage2::hold` reserves an address range together with
//! its tables. `Stage2::change` cannot
//! fail. Undoing needs no memory either: LENT and HELD entries keep the tables they stand in, and
//! those tables are the reserve for the way back.
//!
//! **Order against the hardware.** A change that the architecture wants done by break-before-make
//! (cutting and merging blocks, another memory type) breaks, invalidates and makes before the function
//! returns. A removed or restricted entry goes into the step's `Batch`, and `Stage2::finish`
//! invalidates once for all of them before the VM's lock is dropped and before an emptied table
//! returns to the pool. Software bits change without invalidation. A relaxed right needs none either,
//! provided the embedder's abort handler asks `Stage2::allows` again and, if the access is now
//! allowed, drops the faulting translation from its TLB before it retries.
//!
//! **Tables** are counted in the records beside the pool: an empty one is unlinked at once; one that
//! says no more than the block it was cut from is *mergeable*, credited to the VM, and merged when a
//! frame is wanted or the CPU has nothing better to do.
//!
//! The whole structure lives under the VM's lock.

mod batch;
mod change;
mod claim;
mod descriptor;
mod hold;
mod mergeable;
mod part;
mod search;
mod tables;
mod walk;

use rm_abi::Rights;
use rm_abi::extension::LeafInfo;

pub(crate) use self::batch::Batch;
pub(crate) use self::change::Change;
pub(crate) use self::claim::ClaimError;
pub use self::descriptor::{MemoryType, State};
pub(crate) use self::hold::HoldError;
pub(crate) use self::part::PART;
pub(crate) use self::search::{FreeCursor, Search};
pub(crate) use self::walk::Next;

use self::descriptor::Encoder;
use self::mergeable::List;
use self::search::Hint;
use crate::address::{Ipa, PAGES_PER_1G, Pa, TlbTag, VmIndex};
use crate::frame_pool::{FramePool, NoFrame};
use crate::machine::{
    Features, Frame, FrameIndex, FrameUse, Machine, Scope, Stream, StreamContext,
    TranslationContext,
};

/// The largest guest address space: 512 entries of the root table (T0SZ = 25, start level 1).
pub const MAX_IPA_PAGES: u64 = 512 * PAGES_PER_1G;

/// Where tables live and come from.
pub(crate) struct Memory<'a, 's, M: Machine> {
    pub machine: &'a M,
    pub pool: &'a FramePool<'s, M::Relax>,
}

impl<M: Machine> Clone for Memory<'_, '_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: Machine> Copy for Memory<'_, '_, M> {}

impl<'a, M: Machine> Memory<'a, '_, M> {
    #[inline]
    fn frame(self, index: FrameIndex) -> &'a Frame {
        &self.machine.frames()[index.0 as usize]
    }

    fn address(self, index: FrameIndex) -> Pa {
        self.machine.frames_base().add_pages(index.0.into())
    }

    /// The frame at `pa`, which comes from a table descriptor.
    #[inline]
    fn frame_at(self, pa: Pa) -> FrameIndex {
        FrameIndex((pa.page() - self.machine.frames_base().page()) as u32)
    }
}

/// What an access is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Access {
    /// Load.
    Read,
    /// Store.
    Write,
    /// Instruction fetch.
    Execute,
}

/// A page of RAM that a VM may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Page {
    /// Its machine address.
    pub pa: Pa,
    /// How stage 2 lets the VM cache it; the VM's own tables can only make it less cached.
    pub memory: MemoryType,
}

/// What is known of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Leaf {
    pub state: State,
    /// Machine address of the page asked for; 0 if Absent.
    pub pa: Pa,
    /// Pages from the one asked for to the end of the leaf, or of the absent entry.
    pub pages: u64,
    /// What the hardware allows; nothing unless the leaf is valid.
    pub rights: Rights,
    pub memory: MemoryType,
    /// The parcel of a lent page, else 0.
    pub parcel: u16,
}

/// Who walks a tree.
#[derive(Clone, Copy, Debug)]
enum Walker {
    /// The CPUs, while they run the VM.
    Cpus(TranslationContext),
    /// The SMMU, for one device of the VM. It finds pages alone.
    Device(StreamContext),
}

/// The stage-2 tables of one VM, or of one device of it.
pub(crate) struct Stage2 {
    vm: VmIndex,
    walker: Walker,
    root: FrameIndex,
    ipa_pages: u64,
    encoder: Encoder,
    /// Tables that stand in this tree, the root included.
    tables: u32,
    mergeable: List,
    hint: Hint,
    /// How often translations were invalidated.
    invalidations: u64,
    /// A removed entry waits for its invalidation, so nothing new may be put in its place.
    unfinished: bool,
}

impl Stage2 {
    /// An address space of `ipa_pages` pages in which nothing is mapped.
    pub(crate) fn new<M: Machine>(
        mem: Memory<'_, '_, M>,
        vm: VmIndex,
        tag: TlbTag,
        ipa_pages: u64,
    ) -> Result<Self, NoFrame> {
        assert!(ipa_pages <= MAX_IPA_PAGES, "boot: a guest address space has at most 39 bits");
        let root = mem.pool.take(mem.machine, vm, FrameUse::Table(tag))?;
        let context = TranslationContext { tag, root: mem.address(root) };
        Ok(Self::with_root(mem, vm, Walker::Cpus(context), (root, ipa_pages)))
    }

    /// A tree for a device of the VM, which has the VM's addresses and reaches nothing yet.
    pub(crate) fn of_stream<M: Machine>(
        mem: Memory<'_, '_, M>,
        vm: VmIndex,
        stream: Stream,
        ipa_pages: u64,
    ) -> Result<Self, NoFrame> {
        let root = mem.pool.take(mem.machine, vm, FrameUse::StreamTable(stream))?;
        let context = StreamContext { stream, root: mem.address(root) };
        Ok(Self::with_root(mem, vm, Walker::Device(context), (root, ipa_pages)))
    }

    fn with_root<M: Machine>(
        mem: Memory<'_, '_, M>,
        vm: VmIndex,
        walker: Walker,
        (root, ipa_pages): (FrameIndex, u64),
    ) -> Self {
        mem.pool.record(root).adopt(descriptor::ROOT_LEVEL, 0);
        let features = match walker {
            Walker::Cpus(_) => mem.machine.features(),
            Walker::Device(_) => Features::default(),
        };
        Self {
            vm,
            walker,
            root,
            ipa_pages,
            encoder: Encoder::new(features),
            tables: 1,
            mergeable: List::new(),
            hint: Hint::default(),
            invalidations: 0,
            unfinished: false,
        }
    }

    /// What VTTBR_EL2 is made of.
    pub(crate) fn context(&self) -> TranslationContext {
        match self.walker {
            Walker::Cpus(context) => context,
            Walker::Device(_) => panic!("G5: no CPU walks the tree of a device"),
        }
    }

    /// What the SMMU is told of the tree.
    pub(crate) fn stream_context(&self) -> StreamContext {
        match self.walker {
            Walker::Device(context) => context,
            Walker::Cpus(_) => panic!("G5: no device walks the tree of a VM"),
        }
    }

    const fn is_of_device(&self) -> bool {
        matches!(self.walker, Walker::Device(_))
    }

    /// Removes what the walker has cached.
    fn invalidate<M: Machine>(&mut self, mem: Memory<'_, '_, M>, scope: Scope<'_>) {
        match self.walker {
            Walker::Cpus(context) => mem.machine.invalidate(context, scope),
            Walker::Device(context) => mem.machine.invalidate_stream(context, scope),
        }
        self.invalidations += 1;
    }

    /// Frames that stand in this tree as tables, the root included.
    pub(crate) const fn tables(&self) -> u32 {
        self.tables
    }

    /// Tables that could be merged into a block now.
    pub(crate) const fn mergeable(&self) -> u32 {
        self.mergeable.len()
    }

    /// How often translations of the VM were invalidated.
    pub(crate) const fn invalidations(&self) -> u64 {
        self.invalidations
    }

    /// The descriptor that translates `at`, which lies in the address space.
    pub(crate) fn descriptor<M: Machine>(&self, mem: Memory<'_, '_, M>, at: Ipa) -> LeafInfo {
        let page = at.page();
        let slot = self.find(mem, page);
        LeafInfo {
            level: slot.level as u8,
            descriptor: slot.entry,
            ipa: Ipa::of_page(page - slot.offset(page)).0,
            pages: slot.pages(),
        }
    }

    /// What the page at `at` is to this VM. Outside the address space everything is Absent.
    pub(crate) fn leaf<M: Machine>(&self, mem: Memory<'_, '_, M>, at: Ipa) -> Leaf {
        let page = at.page();
        if page >= self.ipa_pages {
            return walk::leaf_of(0, 0, u64::MAX - page);
        }
        let slot = self.find(mem, page);
        let offset = slot.offset(page);
        walk::leaf_of(slot.entry, offset, slot.pages() - offset)
    }

    /// The machine address of the page at `at` if it is RAM that the VM may use so.
    pub(crate) fn allows<M: Machine>(
        &self,
        mem: Memory<'_, '_, M>,
        at: Ipa,
        access: Access,
    ) -> Option<Pa> {
        self.page(mem, at, access).map(|page| page.pa)
    }

    /// The page at `at` if it is RAM that the VM may use so.
    pub(crate) fn page<M: Machine>(
        &self,
        mem: Memory<'_, '_, M>,
        at: Ipa,
        access: Access,
    ) -> Option<Page> {
        let page = at.page();
        if page >= self.ipa_pages {
            return None;
        }
        let slot = self.find(mem, page);
        descriptor::lets(slot.entry, access).then(|| Page {
            pa: descriptor::address(slot.entry).add_pages(slot.offset(page)),
            memory: descriptor::memory(slot.entry),
        })
    }

    /// Whether the range lies in the address space.
    fn contains(&self, at: Ipa, pages: u64) -> bool {
        at.page().checked_add(pages).is_some_and(|end| end <= self.ipa_pages)
    }
}

#[cfg(test)]
mod tests;
