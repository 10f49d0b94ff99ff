//! VMS, COUNTERS and LEAF: one look, in one step.

use rm_abi::extension::{
    self, Count, Counter, CountersRequest, LeafInfo, LeafRequest, VmEntry, VmRoles, VmsRequest,
};
use rm_abi::{Bytes, EncodeError};

use crate::address::{Ipa, VmIndex};
use crate::call::{Caller, extension as replies};
use crate::config::Roles;
use crate::machine::Machine;
use crate::operation::message::Message;
use crate::operation::{Answer, Begun, Operation, Reply};
use crate::refusal::{Refusal, Resource};

/// A question about VMs at work. It changes nothing.
#[derive(Debug)]
pub(crate) enum Inspect {
    /// So many VMs from this one on.
    Vms { first: u32, most: u16 },
    /// What is counted of a VM.
    Counters(VmIndex),
    /// The descriptor of a page.
    Leaf(VmIndex, Ipa),
}

/// Bytes of what COUNTERS tells.
pub(crate) const COUNTERS_SIZE: usize = Count::HEAD + Counter::ALL.len() * Count::SIZE;
const _: () = assert!(COUNTERS_SIZE <= rm_abi::PACKET_PAYLOAD);

pub(crate) fn begin<M: Machine>(
    caller: Caller<'_, '_, M>,
    message: u32,
    payload: &dyn Bytes,
    room: usize,
    operation: &mut Option<Operation>,
) -> Result<Begun, Refusal> {
    let question = match message {
        extension::VMS => {
            let VmsRequest { cursor, most } =
                VmsRequest::decode(payload).map_err(replies::refusal)?;
            caller.check_role(Roles::INSPECT)?;
            let fits = room.saturating_sub(VmEntry::HEAD) / VmEntry::SIZE;
            let most = fits.min(most.into()).min(caller.manager.vm_count()) as u16;
            if most == 0 {
                return Ok(Begun::ReplyTooLarge);
            }
            Inspect::Vms { first: cursor, most }
        }
        extension::COUNTERS => {
            let request = CountersRequest::decode(payload).map_err(replies::refusal)?;
            Inspect::Counters(caller.inspected(request.vmid)?)
        }
        _ => {
            let request = LeafRequest::decode(payload).map_err(replies::refusal)?;
            caller.check_role(Roles::INSPECT)?;
            let vm = caller.inspected(request.vmid)?;
            let at = Ipa(request.ipa);
            if at.page() >= caller.manager.vm(vm).ipa_pages {
                return Err(Refusal::Address);
            }
            Inspect::Leaf(vm, at)
        }
    };
    let is_short = question.data_size() <= rm_abi::PACKET_PAYLOAD;
    *operation = Some(Operation::Inspect(question));
    Ok(if is_short { Begun::Short } else { Begun::Long })
}

impl Inspect {
    /// Bytes of the longest reply's data.
    pub(crate) const fn data_size(&self) -> usize {
        match self {
            Self::Vms { most, .. } => VmEntry::HEAD + *most as usize * VmEntry::SIZE,
            Self::Counters(_) => COUNTERS_SIZE,
            Self::Leaf(..) => LeafInfo::SIZE,
        }
    }

    pub(crate) fn step<M: Machine>(&self, caller: Caller<'_, '_, M>, data: &mut Message) -> Answer {
        let mut bytes = [0; COUNTERS_SIZE];
        let written = match *self {
            Self::Vms { first, most } => return Ok(list(caller, (first, most), data)),
            Self::Counters(vm) => counters(caller, vm, &mut bytes),
            Self::Leaf(vm, at) => {
                let stage2 = caller.manager.vm(vm).stage2.lock(caller.machine());
                stage2.descriptor(caller.mem(), at).encode(&mut bytes)
            }
        };
        let length = written.expect("G7: the room is for the longest data");
        data.write(caller.mem(), 0, &bytes[..length]);
        Ok(Reply::Data { length: length as u16 })
    }
}

fn list<M: Machine>(
    caller: Caller<'_, '_, M>,
    (first, most): (u32, u16),
    data: &mut Message,
) -> Reply {
    let manager = caller.manager;
    let (mut count, mut next) = (0_u16, 0_u32);
    for vm in manager.all().skip(first as usize) {
        if count == most {
            next = vm.0.into();
            break;
        }
        let entry = VmEntry {
            vmid: manager.vmid(vm),
            state: manager.state(vm),
            roles: VmRoles(manager.roles(vm).bits()),
            frames: manager.frames_used(vm),
            name: *manager.name(vm).bytes(),
        };
        let mut bytes = [0; VmEntry::SIZE];
        entry.encode(&mut bytes).expect("G7: the room is for an entry");
        data.write(caller.mem(), VmEntry::HEAD + usize::from(count) * VmEntry::SIZE, &bytes);
        count += 1;
    }
    let [a, b] = count.to_le_bytes();
    data.write(caller.mem(), 0, &next.to_le_bytes());
    data.write(caller.mem(), 4, &[a, b, 0, 0]);
    Reply::Data { length: (VmEntry::HEAD + usize::from(count) * VmEntry::SIZE) as u16 }
}

fn counters<M: Machine>(
    caller: Caller<'_, '_, M>,
    vm: VmIndex,
    into: &mut [u8],
) -> Result<usize, EncodeError> {
    let mut length = Count::HEAD;
    for &counter in Counter::ALL {
        let count = Count { counter: counter as u16, value: value(caller, vm, counter) };
        length += count.encode(&mut into[length..])?;
    }
    into[..4].copy_from_slice(&(Counter::ALL.len() as u32).to_le_bytes());
    Ok(length)
}

fn value<M: Machine>(caller: Caller<'_, '_, M>, vm: VmIndex, counter: Counter) -> u64 {
    let (manager, machine) = (caller.manager, caller.machine());
    let state = manager.vm(vm);
    match counter {
        Counter::Calls => state.counts.calls.get(),
        Counter::Refusals => state.counts.refusals.get(),
        Counter::PagesZeroed => state.counts.zeroed.get(),
        Counter::NoticesReplaced => manager.lost_news(vm).0,
        Counter::NoticesDropped => manager.lost_news(vm).1,
        Counter::Frames => manager.pool().taken(vm).into(),
        Counter::Invalidations => state.stage2.lock(machine).invalidations(),
        Counter::Tables => state.stage2.lock(machine).tables().into(),
        Counter::Mergeable => state.stage2.lock(machine).mergeable().into(),
        Counter::Parcels => state.meters.of(Resource::Parcels).used(),
        Counter::DeviceFaults => state.devices.iter().map(|device| device.faults().0).sum(),
        Counter::PagesCleaned => state.counts.cleaned.get(),
    }
}
