//! The calls about VMs: who they are, how they are, and for who has the role `manage`, their life.
//!
//! A VM may ask about itself and its peers; of others it learns nothing, not even that they are there.
//! Stop, start and reset mark the VM and answer; what they bring about is told by VM_STATUS and VM_EXITED.

use rm_abi::vm::{StopFlags, VmRequest, VmState, VmStopRequest, decode_empty, encode_name};
use rm_abi::{Bytes, EncodeError, Vmid, Writer, message};

use crate::address::VmIndex;
use crate::call::Caller;
use crate::config::{MAX_NAME, MAX_VMS, Roles};
use crate::link::notice::News;
use crate::machine::Machine;
use crate::operation::{Answer, Begun, Operation, Reply, Topic};
use crate::refusal::Refusal;

/// The longest data of these calls' replies.
pub(crate) const MAX_DATA: usize = 4 + 4 * MAX_VMS;
const _: () = assert!(8 + MAX_NAME <= MAX_DATA);

/// A change in another VM's life, done in one step.
#[derive(Debug)]
pub(crate) struct Manage {
    vm: VmIndex,
    action: Action,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Start,
    Stop,
    Reset,
    /// The VM is asked to end itself, for this reason.
    Ask(u32),
}

pub(crate) fn begin<M: Machine>(
    caller: Caller<'_, '_, M>,
    message: u32,
    payload: &dyn Bytes,
    operation: &mut Option<Operation>,
) -> Result<Begun, Refusal> {
    let manage = match message {
        message::VM_START => start(caller, payload)?,
        message::VM_STOP => stop(caller, payload)?,
        message::VM_RESET => reset(caller, payload)?,
        _ => return ask(caller, message, payload).map(Begun::Answer),
    };
    *operation = Some(Operation::Manage(manage));
    Ok(Begun::Short)
}

fn ask<M: Machine>(caller: Caller<'_, '_, M>, message: u32, payload: &dyn Bytes) -> Answer {
    match message {
        message::VM_GET_VMID | message::VM_GET_OWNER | message::VM_GET_PEERS => {
            decode_empty(payload).map_err(Refusal::Malformed)?;
            let owner = caller.manager.owner(caller.vm);
            Ok(match message {
                message::VM_GET_VMID => Reply::Word(caller.vmid().0.into()),
                message::VM_GET_PEERS => Reply::Told(Topic::Peers),
                // Without a VM that manages, the manager itself does.
                _ => Reply::Word(
                    owner.map_or(Vmid::RESOURCE_MANAGER, |vm| caller.manager.vmid(vm)).0.into(),
                ),
            })
        }
        message::VM_GET_STATE => {
            let vm = acquaintance(caller, payload)?;
            Ok(Reply::Word(caller.manager.state(vm) as u32))
        }
        _ => {
            let vm = acquaintance(caller, payload)?;
            match caller.manager.state(vm) {
                VmState::Ready | VmState::Running => Ok(Reply::Told(Topic::Name(vm))),
                _ => Err(Refusal::VmState),
            }
        }
    }
}

/// The VM that a request names, if it is the caller or has to do with it.
fn acquaintance<M: Machine>(
    caller: Caller<'_, '_, M>,
    payload: &dyn Bytes,
) -> Result<VmIndex, Refusal> {
    let VmRequest { vmid } = VmRequest::decode(payload).map_err(Refusal::Malformed)?;
    if vmid == Vmid(0) || vmid == caller.vmid() {
        return Ok(caller.vm);
    }
    let manager = caller.manager;
    let known = if caller.state().roles.contains(Roles::INSPECT) {
        manager.find(vmid)
    } else {
        // Looked for among these alone, it takes as long whether it is none of them or nowhere.
        manager.peers(caller.vm).find(|&peer| manager.vmid(peer) == vmid)
    };
    known.ok_or(Refusal::NoSuchVm)
}

fn managed<M: Machine>(
    caller: Caller<'_, '_, M>,
    vmid: Vmid,
    otherwise: Refusal,
) -> Result<VmIndex, Refusal> {
    if !caller.state().roles.contains(Roles::MANAGE) {
        return Err(otherwise);
    }
    caller.manager.find(vmid).ok_or(Refusal::NoVm)
}

fn check_state<M: Machine>(
    caller: Caller<'_, '_, M>,
    vm: VmIndex,
    wanted: VmState,
) -> Result<(), Refusal> {
    if caller.manager.state(vm) == wanted { Ok(()) } else { Err(Refusal::VmState) }
}

fn start<M: Machine>(caller: Caller<'_, '_, M>, payload: &dyn Bytes) -> Result<Manage, Refusal> {
    let VmRequest { vmid } = VmRequest::decode(payload).map_err(Refusal::Malformed)?;
    let vm = managed(caller, vmid, Refusal::Role)?;
    check_state(caller, vm, VmState::Reset)?;
    Ok(Manage { vm, action: Action::Start })
}

/// Who may not stop or reset a VM is told that there is none, as in the original.
fn stop<M: Machine>(caller: Caller<'_, '_, M>, payload: &dyn Bytes) -> Result<Manage, Refusal> {
    let request = VmStopRequest::decode(payload).map_err(Refusal::Malformed)?;
    let vm = managed(caller, request.vmid, Refusal::NoVm)?;
    check_state(caller, vm, VmState::Running)?;
    let force = request.flags.contains(StopFlags::FORCE);
    let action = if force { Action::Stop } else { Action::Ask(request.reason) };
    Ok(Manage { vm, action })
}

fn reset<M: Machine>(caller: Caller<'_, '_, M>, payload: &dyn Bytes) -> Result<Manage, Refusal> {
    let VmRequest { vmid } = VmRequest::decode(payload).map_err(Refusal::Malformed)?;
    let vm = managed(caller, vmid, Refusal::NoVm)?;
    check_state(caller, vm, VmState::Exited)?;
    Ok(Manage { vm, action: Action::Reset })
}

impl Manage {
    /// Between the checks and this step the VM may have gone on by itself.
    pub(crate) fn step<M: Machine>(&self, caller: Caller<'_, '_, M>) -> Answer {
        let (manager, vm) = (caller.manager, self.vm);
        let done = match self.action {
            Action::Start => manager.begin_start(vm),
            Action::Reset => manager.begin_reset(vm),
            Action::Stop => {
                caller.machine().stop(vm);
                true
            }
            Action::Ask(reason) => {
                manager.post_life(vm, vm, News::Shutdown, reason);
                true
            }
        };
        if done { Ok(Reply::Empty) } else { Err(Refusal::VmState) }
    }
}

/// Writes the data of a reply that tells of VMs.
pub(crate) fn encode_peers<M: Machine>(
    caller: Caller<'_, '_, M>,
    into: &mut [u8],
) -> Result<usize, EncodeError> {
    let mut writer = Writer::new(into);
    writer.u32(caller.manager.peers(caller.vm).count() as u32);
    for peer in caller.manager.peers(caller.vm) {
        writer.u32(caller.manager.vmid(peer).0.into());
    }
    writer.finish()
}

/// Writes the data of a reply that tells a VM's name.
pub(crate) fn encode_id<M: Machine>(
    caller: Caller<'_, '_, M>,
    vm: VmIndex,
    into: &mut [u8],
) -> Result<usize, EncodeError> {
    let name = caller.manager.name(vm);
    let end = name.bytes().iter().position(|&byte| byte == 0).unwrap_or(MAX_NAME);
    encode_name(&name.bytes()[..end], into)
}
