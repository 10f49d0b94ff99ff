//! The calls, one file for each family.
//!
//! A call begins with every check that needs no work on pages, in the protocol's order; what remains
//! is an operation that is stepped. Whatever can be refused is refused before the first commit step,
//! and a refused operation takes back what it prepared before it answers.

pub(crate) mod accept;
pub(crate) mod append;
pub(crate) mod claim;
pub(crate) mod copy;
pub(crate) mod create;
pub(crate) mod device;
pub(crate) mod evict;
pub(crate) mod extension;
pub(crate) mod heap;
pub(crate) mod info;
pub(crate) mod inspect;
pub(crate) mod list;
pub(crate) mod lookup;
pub(crate) mod map;
pub(crate) mod notify;
pub(crate) mod owner;
pub(crate) mod policy;
pub(crate) mod reclaim;
pub(crate) mod release;
pub(crate) mod revoke;
pub(crate) mod trim;
pub(crate) mod vm;
pub(crate) mod will;
pub(crate) mod window;

use core::hint::black_box;

use rm_abi::{Bytes, Handle, MAX_ENTRIES, Vmid, extension as extensions, message};

use crate::address::VmIndex;
use crate::frame_pool::NoFrame;
use crate::lock::Guard;
use crate::machine::{FrameIndex, FrameUse, Machine};
use crate::manager::{Manager, Vm};
use crate::memparcel::table::{ParcelGuard, RecordIndex};
use crate::operation::budget::weight;
use crate::operation::{Begun, Operation, SHORT_PAGES};
use crate::quota::Ledger;
use crate::refusal::Refusal;
use crate::stage2::{Memory, Stage2};

/// A parcel's record, and its lock.
pub(crate) type FoundParcel<'a, M> = (RecordIndex, ParcelGuard<'a, <M as Machine>::Relax>);

/// A manager at work for one VM: the identity that every check asks for.
pub(crate) struct Caller<'a, 's, M: Machine> {
    pub(crate) manager: &'a Manager<'s, M>,
    pub(crate) vm: VmIndex,
    /// Weights of one step.
    pub(crate) step: u32,
    /// The embedder asks on the VM's behalf.
    pub(crate) at_boot: bool,
}

impl<M: Machine> Clone for Caller<'_, '_, M> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<M: Machine> Copy for Caller<'_, '_, M> {}

impl<'a, 's, M: Machine> Caller<'a, 's, M> {
    pub(crate) fn mem(&self) -> Memory<'a, 's, M> {
        self.manager.mem()
    }

    pub(crate) fn machine(&self) -> &'a M {
        self.manager.machine()
    }

    pub(crate) fn state(&self) -> &'a Vm<M::Relax> {
        self.manager.vm(self.vm)
    }

    /// What the VM is charged with.
    pub(crate) fn ledger(&self) -> Ledger<'a, M> {
        self.manager.ledger(self.vm)
    }

    /// That the VM's configuration lets it give memory to others.
    pub(crate) fn check_supplies(&self) -> Result<(), Refusal> {
        if self.at_boot || self.state().may_supply { Ok(()) } else { Err(Refusal::Role) }
    }

    /// That the VM's configuration lets it take memory of others.
    pub(crate) fn check_consumes(&self) -> Result<(), Refusal> {
        if self.at_boot || self.state().may_consume { Ok(()) } else { Err(Refusal::Role) }
    }

    pub(crate) fn vmid(&self) -> Vmid {
        self.state().vmid
    }

    /// The parcel that a handle names, if the VM is a party to it. Otherwise there is no such parcel, and that
    /// takes as long whether there is one or not (G6).
    pub(crate) fn parcel(&self, handle: Handle) -> Result<FoundParcel<'a, M>, Refusal> {
        let (record, parcel) = self.manager.parcels().look(self.machine(), handle);
        // Opaque, so that the one is not left out where the other is false.
        let is_it = black_box(parcel.handle == handle);
        let is_party = black_box(parcel.is_party(self.vm));
        if is_it & is_party { Ok((record, parcel)) } else { Err(Refusal::NoParcel) }
    }

    /// Whether work of weight `page` for each of `pages` in `extents` pieces fits one step, whatever blocks
    /// they are in.
    pub(crate) fn fits_step(&self, pages: u64, extents: u32, page: u32) -> bool {
        let pieces = u64::from(extents) * u64::from(weight::PIECE);
        pages <= SHORT_PAGES && pages * u64::from(page) + pieces <= self.step.into()
    }

    /// A frame, all zero, that the VM is charged for. Nothing of rank VM or behind it is locked.
    pub(crate) fn take_frame(&self, user: FrameUse) -> Result<FrameIndex, NoFrame> {
        let mem = self.mem();
        match mem.pool.take(mem.machine, self.vm, user) {
            Err(NoFrame::Empty) => self.stage2().take_frame(mem, user),
            taken => taken,
        }
    }

    pub(crate) fn stage2(&self) -> Guard<'a, Stage2, M::Relax> {
        self.state().stage2.lock(self.machine())
    }
}

/// The most data that a reply through the queue can have behind its error word: all ranges of an accept.
pub(crate) const QUEUE_ROOM: usize = accept::data_size(MAX_ENTRIES);

/// Decodes a request and does its checks. `room` is how many bytes of data the reply can carry behind its
/// error word. Work that is left goes to `operation`.
pub(crate) fn begin<M: Machine>(
    caller: Caller<'_, '_, M>,
    message: u32,
    payload: &dyn Bytes,
    room: usize,
    operation: &mut Option<Operation>,
) -> Result<Begun, Refusal> {
    caller.state().counts.calls.raise();
    match message {
        message::MEM_DONATE => create::begin(caller, payload, rm_abi::Transfer::Donate, operation),
        message::MEM_LEND => create::begin(caller, payload, rm_abi::Transfer::Lend, operation),
        message::MEM_SHARE => create::begin(caller, payload, rm_abi::Transfer::Share, operation),
        message::MEM_APPEND => append::begin(caller, payload, operation),
        message::MEM_ACCEPT => accept::begin(caller, payload, room, operation),
        message::MEM_RELEASE => release::begin(caller, payload, operation),
        message::MEM_RECLAIM => reclaim::begin(caller, payload, operation),
        message::MEM_NOTIFY => notify::begin(caller, payload, operation),
        message::MEM_LOOKUP => lookup::begin(caller, payload, operation),
        message::VM_GET_VMID
        | message::VM_GET_OWNER
        | message::VM_GET_PEERS
        | message::VM_GET_STATE
        | message::VM_GET_ID
        | message::VM_START
        | message::VM_STOP
        | message::VM_RESET => vm::begin(caller, message, payload, operation),
        extensions::TRIM => trim::begin(caller, payload, operation),
        extensions::REVOKE => revoke::begin(caller, payload, operation),
        extensions::SET_POLICY => policy::begin(caller, payload, operation),
        extensions::NOTIFY_SET => will::begin(caller, payload, operation),
        extensions::COPY => copy::begin(payload, room, operation),
        extensions::SET_WINDOW => window::begin(caller, payload, operation),
        extensions::MAP => map::begin(caller, payload, room, operation),
        extensions::ATTACH | extensions::DETACH | extensions::DMA_MAP | extensions::DMA_UNMAP => {
            device::begin(caller, message, payload, operation)
        }
        extensions::CPU_ACCESS => device::access::begin(caller, payload, operation),
        extensions::VMS | extensions::COUNTERS | extensions::LEAF => {
            inspect::begin(caller, message, payload, room, operation)
        }
        extensions::LIST => list::begin(caller, payload, room, operation),
        extensions::INFO
        | extensions::HOLDERS
        | extensions::LIMITS
        | extensions::SET_NAME
        | extensions::DEVICES => info::begin(caller, message, payload, operation),
        extensions::HEAP | extensions::HEAP_ALLOC | extensions::HEAP_FREE => {
            heap::begin(caller, message, payload, operation)
        }
        _ => extension::begin(message, payload, operation),
    }
}
