//! The calls of the VMs, as bytes that the manager decodes.

use heapless::Vec;
use rm::address::VmIndex;
use rm::machine::Machine;
use rm::manager::Manager;
use rm::operation::Reply;
use rm::refusal::Refusal;
use rm_abi::extension::{Policy, SET_POLICY, SetPolicyRequest};
use rm_abi::memparcel::accept::Accept;
use rm_abi::memparcel::create::Create;
use rm_abi::memparcel::handle::HandleRequest;
use rm_abi::{
    AcceptFlags, AclEntry, Attribute, AttributeEntry, CreateFlags, Handle, MemoryKind,
    PACKET_PAYLOAD, Sanitize, SglEntry, Transfer, message,
};

use crate::world::VMS;

const LABEL: u32 = 0;

fn flag(wanted: bool) -> Sanitize {
    if wanted { Sanitize::SANITIZE } else { Sanitize::empty() }
}

/// DONATE, LEND or SHARE, with the same memory type for everybody in the ACL.
///
/// # Errors
///
/// What the manager refused it for.
pub fn create<M: Machine>(
    manager: &Manager<'_, M>,
    owner: VmIndex,
    transfer: Transfer,
    acl: &[AclEntry],
    sgl: &[SglEntry],
    attribute: Attribute,
) -> Result<Handle, Refusal> {
    let flags = CreateFlags::empty();
    let attributes: Vec<AttributeEntry, VMS> = acl
        .iter()
        .map(|entry| AttributeEntry { vmid: entry.vmid, attribute: attribute as u16 })
        .collect();
    let attributes = attributes.as_slice();
    let request = Create { memory: MemoryKind::NORMAL, flags, label: LABEL, acl, sgl, attributes };
    let mut payload = [0; PACKET_PAYLOAD];
    let length = request.encode(&mut payload).expect("the lists fit a packet");
    match manager.perform(owner, transfer.message(), &payload[..length])? {
        Reply::Word(handle) => Ok(Handle(handle)),
        other => panic!("the reply to a create is a handle, not {other:?}"),
    }
}

/// ACCEPT, all at once. An empty list lets the manager choose the place.
///
/// # Errors
///
/// What the manager refused it for.
pub fn accept<M: Machine>(
    manager: &Manager<'_, M>,
    borrower: VmIndex,
    handle: Handle,
    transfer: Transfer,
    flags: AcceptFlags,
    sgl: &[SglEntry],
) -> Result<(), Refusal> {
    let request = Accept {
        handle,
        memory: MemoryKind::NORMAL,
        transfer,
        flags: flags | AcceptFlags::DONE,
        label: LABEL,
        acl: &[],
        sgl,
        attributes: &[],
    };
    let mut payload = [0; PACKET_PAYLOAD];
    let length = request.encode(&mut payload).expect("the lists fit a packet");
    manager.perform(borrower, message::MEM_ACCEPT, &payload[..length]).map(drop)
}

/// RELEASE.
///
/// # Errors
///
/// What the manager refused it for.
pub fn release<M: Machine>(
    manager: &Manager<'_, M>,
    borrower: VmIndex,
    handle: Handle,
) -> Result<(), Refusal> {
    by_handle(manager, borrower, message::MEM_RELEASE, HandleRequest { handle, flags: flag(false) })
}

/// RECLAIM.
///
/// # Errors
///
/// What the manager refused it for.
pub fn reclaim<M: Machine>(
    manager: &Manager<'_, M>,
    owner: VmIndex,
    handle: Handle,
    sanitize: bool,
) -> Result<(), Refusal> {
    let request = HandleRequest { handle, flags: flag(sanitize) };
    by_handle(manager, owner, message::MEM_RECLAIM, request)
}

/// SET_POLICY.
///
/// # Errors
///
/// What the manager refused it for.
pub fn set_policy<M: Machine>(
    manager: &Manager<'_, M>,
    owner: VmIndex,
    handle: Handle,
    policy: Policy,
) -> Result<(), Refusal> {
    let mut payload = [0; SetPolicyRequest::SIZE];
    let request = SetPolicyRequest { handle, policy };
    let length = request.encode(&mut payload).expect("eight bytes");
    manager.perform(owner, SET_POLICY, &payload[..length]).map(drop)
}

fn by_handle<M: Machine>(
    manager: &Manager<'_, M>,
    vm: VmIndex,
    message: u32,
    request: HandleRequest,
) -> Result<(), Refusal> {
    let mut payload = [0; 8];
    let length = request.encode(&mut payload).expect("eight bytes");
    manager.perform(vm, message, &payload[..length]).map(drop)
}
