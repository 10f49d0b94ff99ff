//! The calls that Gunyah does not have: what there is, why a call was refused, what to be told of.
//!
//! A VM's last refusal is kept for each transport, so that a client which has lost its reply's error
//! word between two threads still finds the one it means. What ran out is looked up when a refusal is
//! noted, never on the way of a call that succeeds.

use core::sync::atomic::Ordering;

use rm_abi::extension::{
    self, Discovery, EventKind, EventReason, Events, LastRefusal, Limit, MAX_HOLDERS, Policies,
    Resource, SubscribeRequest,
};
use rm_abi::{Bytes, ErrorCode, Header, MAX_ENTRIES, MAX_PAYLOAD, Vmid, hypercall};

use crate::call::{Caller, vm};
use crate::link::notice::News;
use crate::machine::Machine;
use crate::memparcel::table::RecordIndex;
use crate::memparcel::{MAX_ACL, Memparcel};
use crate::operation::{Answer, Begun, Operation, Origin, Reply, Topic};
use crate::quota::Usage;
use crate::refusal::{Holders, Refusal};

/// The longest data of a reply, see [`encode`].
pub(crate) const MAX_DATA: usize = vm::MAX_DATA;
const _: () = assert!(Discovery::SIZE <= MAX_DATA && LastRefusal::SIZE <= MAX_DATA);

/// A refused call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Noted {
    message: u32,
    sequence: u16,
    refusal: Refusal,
    /// How the VM stood with the refusal's resource.
    usage: Usage,
}

/// A VM's last refused calls, one for each transport.
pub(crate) type LastRefusals = [Option<Noted>; 2];

/// A subscription at work, in one step.
#[derive(Debug)]
pub(crate) struct Subscribe {
    events: Events,
}

/// Decodes a request whose message id is in the range of extension calls.
pub(crate) fn begin(
    message: u32,
    payload: &dyn Bytes,
    operation: &mut Option<Operation>,
) -> Result<Begun, Refusal> {
    let told = |topic| {
        extension::decode_empty(payload).map_err(refusal)?;
        Ok(Begun::Answer(Reply::Told(topic)))
    };
    match message {
        extension::DISCOVER => told(Topic::Discovery),
        extension::LAST_REFUSAL => told(Topic::LastRefusal),
        extension::SUBSCRIBE => {
            let SubscribeRequest { events } = SubscribeRequest::decode(payload).map_err(refusal)?;
            *operation = Some(Operation::Subscribe(Subscribe { events }));
            Ok(Begun::Short)
        }
        _ => Err(Refusal::UnknownCall),
    }
}

/// What the decoders of extension calls mean by their codes.
pub(crate) const fn refusal(code: ErrorCode) -> Refusal {
    match code {
        ErrorCode::ArgumentInvalid => Refusal::UnknownBits,
        code => Refusal::Malformed(code),
    }
}

impl Subscribe {
    pub(crate) fn step<M: Machine>(&self, caller: Caller<'_, '_, M>) -> Answer {
        caller.state().events.store(self.events.bits(), Ordering::Relaxed);
        Ok(Reply::Empty)
    }
}

/// Tells the owner of a parcel what became of the VM of ACL entry `entry`, and why, if it wants to know.
/// Whether it was told.
pub(crate) fn tell<M: Machine>(
    caller: Caller<'_, '_, M>,
    parcel: &Memparcel,
    record: RecordIndex,
    entry: usize,
    (kind, reason): (EventKind, EventReason),
) -> bool {
    let events = caller.manager.vm(parcel.owner).events.load(Ordering::Relaxed);
    let wanted = Events(events).contains(kind.subscription());
    if wanted {
        let news = News::Event { what: kind as u8, reason: reason.0 };
        caller.manager.post(parcel, record, entry, news);
    }
    wanted
}

/// Writes the data of a reply that tells of a topic, behind its error word; gives its length. The room
/// is at least [`MAX_DATA`].
pub(crate) fn encode<M: Machine>(
    caller: Caller<'_, '_, M>,
    topic: Topic,
    origin: Origin,
    into: &mut [u8],
) -> usize {
    let written = match topic {
        Topic::Discovery => discovery(caller).encode(into),
        Topic::LastRefusal => {
            let noted = caller.state().refusals.lock(caller.machine())[origin as usize];
            noted.map_or(LastRefusal::NONE, |noted| last(caller, &noted)).encode(into)
        }
        Topic::Peers => vm::encode_peers(caller, into),
        Topic::Name(about) => vm::encode_id(caller, about, into),
    };
    written.expect("G7: the room is for the longest data")
}

fn discovery<M: Machine>(caller: Caller<'_, '_, M>) -> Discovery {
    Discovery {
        version: extension::VERSION,
        direct_call: hypercall::DIRECT_CALL.into(),
        calls: calls(caller),
        notices: extension::KNOWN_NOTICES,
        max_acl: MAX_ACL as u16,
        max_entries: MAX_ENTRIES as u16,
        max_payload: MAX_PAYLOAD as u32,
        vms: caller.manager.vm_count() as u16,
        forced: forced(caller),
    }
}

/// The calls that are served, of which one takes an SMMU.
fn calls<M: Machine>(caller: Caller<'_, '_, M>) -> u64 {
    let attach = 1 << (extension::ATTACH - extension::CALLS);
    let missing = if caller.machine().features().smmu { 0 } else { attach };
    extension::KNOWN_CALLS & !missing
}

/// The cache policies that hold whatever a VM's own tables say: stage 2 wins where it is the stricter
/// one; that write-back wins takes a feature of the CPU.
pub(crate) fn forced<M: Machine>(caller: Caller<'_, '_, M>) -> Policies {
    let always = Policies::UNCACHED | Policies::DEVICE;
    let cached = caller.machine().features().forced_write_back;
    if cached { always | Policies::CACHED } else { always }
}

fn last<M: Machine>(caller: Caller<'_, '_, M>, noted: &Noted) -> LastRefusal {
    let mut last = LastRefusal {
        message: noted.message,
        sequence: noted.sequence,
        rule: noted.refusal.rule() as u16,
        error: noted.refusal.code() as u32,
        resource: noted.refusal.resource().map_or(0, |resource| resource as u16),
        used: noted.usage.used,
        limit: noted.usage.limit,
        ..LastRefusal::NONE
    };
    let holders = match noted.refusal {
        Refusal::Held(holders) => holders,
        _ => Holders::default(),
    };
    let held = caller.manager.all().filter(|vm| holders.contains(*vm));
    for (place, vm) in last.holders.iter_mut().zip(held) {
        *place = caller.manager.vmid(vm);
        last.holder_count += 1;
    }
    last
}

impl<M: Machine> Caller<'_, '_, M> {
    /// Keeps why a call was refused, for LAST_REFUSAL. Nothing of rank account or behind it is locked.
    pub(crate) fn note_refusal(&self, origin: Origin, header: &Header, refusal: Refusal) {
        let usage = match (refusal, refusal.resource()) {
            (Refusal::HeapQuota(heap), _) => {
                let heap = self.manager.heaps().get(heap.into(), self.vm);
                heap.map_or(Usage::default(), |heap| heap.usage(self.machine(), self.vm))
            }
            // Another VM's, and so none of the caller's business.
            (_, None | Some(Resource::Unread)) => Usage::default(),
            (_, Some(resource)) => self.usage(resource),
        };
        let Header { message, sequence, .. } = *header;
        let noted = Noted { message, sequence, refusal, usage };
        let mut last = self.state().refusals.lock(self.machine());
        last[origin as usize] = Some(noted);
        self.state().counts.refusals.raise();
    }

    /// How the VM stands with a resource.
    pub(crate) fn limit(&self, resource: Resource) -> Limit {
        let Usage { used, guaranteed, limit, .. } = self.usage(resource);
        Limit { resource: resource as u16, used, guaranteed, limit }
    }

    /// How the VM stands with a resource. Nothing of rank account or behind it is locked.
    pub(crate) fn usage(&self, resource: Resource) -> Usage {
        match resource {
            // All dealt out at boot: none can be taken away, and none is shared.
            Resource::Handles => {
                let (used, limit) = self.state().account.lock(self.machine()).handles();
                Usage { used, guaranteed: limit, limit, shared: 0 }
            }
            Resource::Frames => {
                let pool = self.manager.pool();
                Usage {
                    used: pool.used(self.vm).into(),
                    guaranteed: pool.reserved(self.vm).into(),
                    limit: pool.limit(self.vm).into(),
                    shared: pool.shared(self.machine()).into(),
                }
            }
            Resource::PagesOfHeaps => self.manager.heaps().usage(self.machine(), self.vm),
            resource => self.ledger().usage(resource),
        }
    }
}

/// The VMs that hold a parcel, or have a device attached to it.
pub(crate) fn holders<M: Machine>(caller: Caller<'_, '_, M>, parcel: &Memparcel) -> Holders {
    let held = |entry: &usize| parcel.borrowers[*entry].holds();
    let vmids = (0..parcel.acl.len()).filter(held).map(|entry| parcel.acl.entries()[entry].vmid);
    let holders = vmids.filter_map(|vmid: Vmid| caller.manager.find(vmid));
    holders.chain(parcel.attachments.iter().map(|attachment| attachment.vm)).collect()
}

const _: () = assert!(crate::config::MAX_VMS <= MAX_HOLDERS);
