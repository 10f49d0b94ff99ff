//! Calls as state machines that are stepped with a budget.
//!
//! A call whose work has no small bound lives in its VM's one operation `Slot` and is stepped at
//! that VM's entries into EL2, by its caller or without it. A *short* call (one packet, at most one
//! address range, work that fits one step) needs no slot and may run beside an occupied one.

pub mod budget;
pub(crate) mod message;

use rm_abi::{Bytes, Header};

use crate::address::VmIndex;
use crate::call::Caller;
use crate::call::accept::Accept;
use crate::call::append::Append;
use crate::call::copy::Copy;
use crate::call::create::Create;
use crate::call::device::DeviceCall;
use crate::call::device::access::CpuAccess;
use crate::call::extension::Subscribe;
use crate::call::heap::HeapCall;
use crate::call::info::Ask;
use crate::call::inspect::Inspect;
use crate::call::list::List;
use crate::call::lookup::Lookup;
use crate::call::map::Map;
use crate::call::notify::Notify;
use crate::call::policy::SetPolicy;
use crate::call::reclaim::Reclaim;
use crate::call::release::Release;
use crate::call::revoke::Revoke;
use crate::call::trim::Trim;
use crate::call::vm::Manage;
use crate::call::will::SetWill;
use crate::call::window::SetWindow;
use crate::life::teardown::Teardown;
use crate::link::fragment::Assembly;
use crate::machine::Machine;
use crate::operation::budget::Budget;
use crate::operation::message::Message;
use crate::refusal::Refusal;

/// Weights of one step: what bounds a stay in EL2 and the time a lock is held.
pub const STEP: u32 = 1200;
/// Milliseconds for which the caller of a long direct call keeps its reply's place once another call wants it.
/// Long for a vCPU that is on its way, even if all others have their time slices first, and short for those
/// who wait for one that has given up.
const PATIENCE: u32 = 1000;
/// The most pages of a short call.
pub(crate) const SHORT_PAGES: u64 = 512;

/// Which way a call came, and its reply goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Origin {
    /// The direct call.
    Direct,
    /// The message queues.
    Queue,
}

/// The data of a successful call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reply {
    /// None.
    Empty,
    /// A handle or a VMID.
    Word(u32),
    /// Address ranges that the manager chose; they are in the operation's message.
    Ranges {
        /// How many.
        count: u16,
        /// Units are left that need an address.
        incomplete: bool,
    },
    /// Bytes that stand in the operation's message.
    Data {
        /// How many.
        length: u16,
    },
    /// As [`Reply::Data`], of a call some parts of which were refused.
    Partly {
        /// How many bytes.
        length: u16,
        /// Why the first of those parts was.
        refusal: Refusal,
    },
    /// Something about the caller itself, read when the reply is sent.
    Told(Topic),
}

/// What a call asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Topic {
    /// What the manager offers.
    Discovery,
    /// Why the last refused call was refused.
    LastRefusal,
    /// The VMs that the caller has to do with.
    Peers,
    /// What a VM is called.
    Name(VmIndex),
}

/// How a call ended.
pub type Answer = Result<Reply, Refusal>;

/// Why a call was refused, or the first refused part of one.
pub(crate) const fn refusal_of(answer: &Answer) -> Option<Refusal> {
    match *answer {
        Err(refusal) | Ok(Reply::Partly { refusal, .. }) => Some(refusal),
        Ok(_) => None,
    }
}

/// What a call's checks led to. Nothing that a VM can notice has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Begun {
    /// There is nothing to do.
    Answer(Reply),
    /// There is work to do, in one step at most. A creation may find that it is longer; then its
    /// first step changes nothing either.
    Short,
    /// There is work to do that may take many steps.
    Long,
    /// The reply would not fit the room that the caller has for it.
    ReplyTooLarge,
}

/// Whether an operation has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// It wants another step.
    More,
    /// It is done.
    Done(Answer),
}

/// A call at work.
#[derive(Debug)]
pub(crate) enum Operation {
    Create(Create),
    Append(Append),
    Accept(Accept),
    Release(Release),
    Reclaim(Reclaim),
    Lookup(Lookup),
    Notify(Notify),
    Subscribe(Subscribe),
    Revoke(Revoke),
    Trim(Trim),
    SetPolicy(SetPolicy),
    Manage(Manage),
    Ask(Ask),
    List(List),
    Inspect(Inspect),
    Map(Map),
    Heap(HeapCall),
    SetWill(SetWill),
    Copy(Copy),
    SetWindow(SetWindow),
    Device(DeviceCall),
    CpuAccess(CpuAccess),
}

impl Operation {
    /// Goes on until the work is done or the budget spent. `payload` is the call's request, `data`
    /// takes what the reply says beyond a word.
    pub(crate) fn step<M: Machine>(
        &mut self,
        caller: Caller<'_, '_, M>,
        payload: &dyn Bytes,
        data: &mut Message,
        budget: &mut Budget,
    ) -> Step {
        match self {
            Self::Create(create) => create.step(caller, payload, budget),
            Self::Append(append) => append.step(caller, payload, budget),
            Self::Accept(accept) => accept.step(caller, payload, data, budget),
            Self::Release(release) => release.step(caller, budget),
            Self::Reclaim(reclaim) => reclaim.step(caller, budget),
            Self::Lookup(lookup) => lookup.step(caller, payload, budget),
            Self::Notify(notify) => notify.step(caller, payload, budget),
            Self::Subscribe(subscribe) => Step::Done(subscribe.step(caller)),
            Self::Revoke(revoke) => revoke.step(caller, budget),
            Self::Trim(trim) => trim.step(caller, budget),
            Self::SetPolicy(policy) => policy.step(caller, budget),
            Self::Manage(manage) => Step::Done(manage.step(caller)),
            Self::Ask(ask) => Step::Done(ask.step(caller, data)),
            Self::List(list) => list.step(caller, data, budget),
            Self::Inspect(inspect) => Step::Done(inspect.step(caller, data)),
            Self::Map(map) => map.step(caller, data, budget),
            Self::Heap(heap) => heap.step(caller, data, budget),
            Self::SetWill(will) => will.step(caller, budget),
            Self::Copy(copy) => copy.step(caller, payload, data, budget),
            Self::SetWindow(window) => Step::Done(window.step(caller)),
            Self::Device(call) => call.step(caller, budget),
            Self::CpuAccess(access) => access.step(caller, budget),
        }
    }

    /// The most bytes that the reply can have in the operation's message.
    pub(crate) const fn data_size(&self) -> usize {
        match self {
            Self::Accept(accept) => accept.data_size(),
            Self::Create(_) | Self::Append(_) | Self::Release(_) | Self::Reclaim(_) => 0,
            Self::Lookup(_) | Self::Notify(_) | Self::Subscribe(_) | Self::Revoke(_) => 0,
            Self::Trim(_) | Self::SetPolicy(_) | Self::Manage(_) => 0,
            Self::Device(_) | Self::CpuAccess(_) => 0,
            Self::Ask(ask) => ask.data_size(),
            Self::List(list) => list.data_size(),
            Self::Inspect(inspect) => inspect.data_size(),
            Self::Map(map) => map.data_size(),
            Self::Heap(heap) => heap.data_size(),
            Self::SetWill(_) | Self::SetWindow(_) => 0,
            Self::Copy(copy) => copy.data_size(),
        }
    }

    /// Takes back what the checks did, of an operation that was never stepped.
    pub(crate) fn abandon<M: Machine>(self, caller: Caller<'_, '_, M>) {
        match self {
            Self::Create(create) => create.abandon(caller),
            Self::Append(append) => append.abandon(caller),
            Self::Accept(accept) => accept.abandon(caller),
            Self::Release(release) => release.abandon(caller),
            Self::Reclaim(reclaim) => reclaim.abandon(caller),
            Self::SetPolicy(policy) => policy.abandon(caller),
            Self::Trim(trim) => trim.abandon(caller),
            Self::Device(call) => call.abandon(caller),
            Self::Lookup(_) | Self::Notify(_) | Self::Subscribe(_) | Self::Revoke(_) => {}
            Self::Manage(_) | Self::Ask(_) | Self::List(_) => {}
            Self::Inspect(_) | Self::Map(_) | Self::Heap(_) | Self::CpuAccess(_) => {}
            Self::SetWill(_) | Self::Copy(_) | Self::SetWindow(_) => {}
        }
    }
}

/// The place of a VM's one long call, and of the reply that nobody has fetched yet.
#[derive(Debug)]
pub(crate) struct Slot {
    /// Names the call in the slot to its caller; never reused while the VM lives.
    pub(crate) token: u64,
    pub(crate) header: Header,
    pub(crate) request: Message,
    pub(crate) data: Message,
    pub(crate) work: Work,
    pub(crate) origin: Origin,
    /// Packets of the reply that are in the receive queue.
    pub(crate) sent: u8,
    /// The reply's place among the news that waits; 0 while it has none.
    pub(crate) stamp: u64,
    /// Whether another call may take the reply's place.
    pub(crate) claim: Claim,
    /// The caller was told that the reply cannot be written.
    pub(crate) was_told: bool,
    /// The queued request whose packets are coming in.
    pub(crate) assembly: Assembly,
    /// The VM is being reset.
    pub(crate) teardown: Option<Teardown>,
}

// EL2 keeps one for each VM.
const _: () = assert!(size_of::<Slot>() <= 1024);

/// How a slot with a reply that its caller has yet to fetch stands with other calls that want it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Claim {
    /// None has come.
    Nobody,
    /// One came first at this time, in milliseconds that wrap, and was told to come again.
    Since(u32),
    /// The caller was told twice that the reply cannot be written: the next call need not wait.
    Free,
}

/// What is in a slot.
#[derive(Debug)]
pub(crate) enum Work {
    Idle,
    Running(Operation),
    /// The reply waits for its caller.
    Answered(Answer),
}

impl Slot {
    pub(crate) const fn new() -> Self {
        Self {
            token: 0,
            header: Header::request(0, 0),
            request: Message::new(),
            data: Message::new(),
            work: Work::Idle,
            origin: Origin::Direct,
            sent: 0,
            stamp: 0,
            claim: Claim::Nobody,
            was_told: false,
            assembly: Assembly::new(),
            teardown: None,
        }
    }

    /// Names the call that takes the slot. Tokens given out before name nothing any more.
    pub(crate) fn occupy(&mut self, origin: Origin, header: Header) {
        self.token += 1;
        self.origin = origin;
        self.header = header;
        self.sent = 0;
        self.stamp = 0;
        self.claim = Claim::Nobody;
        self.was_told = false;
    }

    /// Puts an operation that has begun to work.
    pub(crate) fn run(&mut self, begun: &mut Option<Operation>) {
        let operation = begun.take();
        self.work = Work::Running(operation.expect("G4: a call that has work has an operation"));
    }

    /// Takes over the queued request whose last packet has come.
    pub(crate) fn take_assembled(&mut self) {
        self.assembly.take(&mut self.request);
    }

    /// Makes room for another call. `false` if that must come again: a call is at work, or its reply is
    /// on its way through the queue, or to a caller that has not been seen since the reply is there. The
    /// latter is waited for no longer than [`PATIENCE`].
    pub(crate) fn make_room<M: Machine>(&mut self, caller: Caller<'_, '_, M>) -> bool {
        match (&self.work, self.origin) {
            (Work::Idle, _) => return true,
            (Work::Running(_), _) | (Work::Answered(_), Origin::Queue) => return false,
            (Work::Answered(_), Origin::Direct) => {}
        }
        let now = caller.machine().milliseconds() as u32;
        let is_late = match self.claim {
            Claim::Nobody => {
                self.claim = Claim::Since(now);
                false
            }
            Claim::Since(first) => now.wrapping_sub(first) >= PATIENCE,
            Claim::Free => true,
        };
        if is_late {
            self.drop_reply(caller);
        }
        is_late
    }

    /// Whether the reply waits for room in the receive queue.
    pub(crate) const fn awaits_queue(&self) -> bool {
        matches!((&self.work, self.origin), (Work::Answered(_), Origin::Queue))
    }

    /// Steps the operation in the slot, if there is one.
    pub(crate) fn step<M: Machine>(&mut self, caller: Caller<'_, '_, M>, budget: &mut Budget) {
        let Work::Running(operation) = &mut self.work else { return };
        let payload = message::View::new(caller.mem(), &self.request);
        if let Step::Done(answer) = operation.step(caller, &payload, &mut self.data, budget) {
            self.request.clear(caller.mem(), caller.vm);
            self.work = Work::Answered(answer);
        }
    }

    pub(crate) const fn is_running(&self) -> bool {
        matches!(self.work, Work::Running(_))
    }

    /// Empties the slot of a reply that was fetched, or that its caller left behind.
    pub(crate) fn drop_reply<M: Machine>(&mut self, caller: Caller<'_, '_, M>) {
        assert!(!self.is_running(), "G4: a running call was dropped");
        self.data.clear(caller.mem(), caller.vm);
        self.work = Work::Idle;
    }
}
