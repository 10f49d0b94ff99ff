//! The resource manager, doorbells and shared memory, as Gunyah's guests look for them.
//!
//! `firmware/gunyah-hypervisor.yaml` is the binding of Linux; vendors' drivers match the names that
//! begin with `qcom,`.

use dtoolkit::model::DeviceTreeNode;
use rm_abi::Capability;

use super::{EDGE, mark, node, set, shared, wide};
use crate::draft::{Draft, End, Vm};
use crate::machine::{DOORBELL_INTERRUPT, RECEIVE_INTERRUPT, SEND_INTERRUPT};

/// Bytes of a packet, and packets in a queue.
const MESSAGE: u32 = rm_abi::PACKET as u32;
const DEPTH: u32 = 8;

/// `/hypervisor`.
pub(super) fn hypervisor(draft: &Draft<'_>, vm: &Vm<'_>) -> DeviceTreeNode {
    let mut hypervisor = node("hypervisor");
    let names =
        ["gunyah-hypervisor", "qcom,gunyah-hypervisor-1.0", "qcom,gunyah-hypervisor", "simple-bus"];
    set(&mut hypervisor, "compatible", &names[..]);
    set(&mut hypervisor, "#address-cells", 2u32);
    set(&mut hypervisor, "#size-cells", 0u32);
    hypervisor.add_child(identity(vm));
    hypervisor.add_child(manager());
    for end in &vm.ends {
        let Some(number) = end.doorbell else { continue };
        hypervisor.add_child(own_doorbell(draft, end, number));
        hypervisor.add_child(others_doorbell(draft, end, number));
    }
    hypervisor
}

/// The VM's own number.
fn identity(vm: &Vm<'_>) -> DeviceTreeNode {
    let mut identity = node("qcom,gunyah-vm");
    set(&mut identity, "compatible", vec!["qcom,gunyah-vm-id-1.0", "qcom,gunyah-vm-id"]);
    set(&mut identity, "qcom,vmid", vm.said.vmid.as_ref().map_or(0, |vmid| u32::from(vmid.value)));
    identity
}

/// The mailbox: first what the VM sends by, then what it receives by.
fn manager() -> DeviceTreeNode {
    let (send, receive) = (Capability::SEND_QUEUE.0, Capability::RECEIVE_QUEUE.0);
    let mut manager = node(format!("gunyah-resource-mgr@{send:x}"));
    let names = [
        "gunyah-resource-manager",
        "qcom,resource-manager-1-0",
        "qcom,resource-manager",
        "qcom,gunyah-message-queue",
        "qcom,gunyah-capability",
    ];
    set(&mut manager, "compatible", &names[..]);
    set(&mut manager, "reg", wide(&[send, receive]));
    let interrupts = [SEND_INTERRUPT, RECEIVE_INTERRUPT].map(|number| shared(number, EDGE));
    set(&mut manager, "interrupts", interrupts.concat());
    mark(&mut manager, "qcom,is-full-duplex");
    // No interrupt number is free for others to use.
    set(&mut manager, "qcom,free-irq-start", 0u32);
    for direction in ["tx", "rx"] {
        set(&mut manager, &format!("qcom,{direction}-message-size"), MESSAGE);
        set(&mut manager, &format!("qcom,{direction}-queue-depth"), DEPTH);
    }
    manager
}

/// What the other end rings.
fn own_doorbell(draft: &Draft<'_>, end: &End, number: u8) -> DeviceTreeNode {
    let capability = Capability::doorbell_receive(number).0;
    let mut bell = node(format!("doorbell@{capability:x}"));
    set(&mut bell, "compatible", vec!["qcom,gunyah-doorbell", "qcom,gunyah-capability"]);
    set(&mut bell, "reg", wide(&[capability]));
    set(&mut bell, "interrupts", shared(DOORBELL_INTERRUPT + u32::from(number), EDGE));
    about(draft, end, &mut bell);
    bell
}

/// What rings at the other end.
fn others_doorbell(draft: &Draft<'_>, end: &End, number: u8) -> DeviceTreeNode {
    let capability = Capability::doorbell_send(number).0;
    let mut bell = node(format!("doorbell-source@{capability:x}"));
    set(&mut bell, "compatible", vec!["qcom,gunyah-doorbell-source", "qcom,gunyah-capability"]);
    set(&mut bell, "reg", wide(&[capability]));
    about(draft, end, &mut bell);
    bell
}

/// `/reserved-memory`: a kernel uses a channel only as its driver says.
pub(super) fn channels(draft: &Draft<'_>, vm: &Vm<'_>) -> DeviceTreeNode {
    let mut reserved = node("reserved-memory");
    set(&mut reserved, "#address-cells", 2u32);
    set(&mut reserved, "#size-cells", 2u32);
    mark(&mut reserved, "ranges");
    for end in &vm.ends {
        let mut channel = node(format!("channel@{:x}", end.at));
        set(&mut channel, "reg", wide(&[end.at, end.size]));
        mark(&mut channel, "no-map");
        mark(&mut channel, "qcom,shared-memory");
        about(draft, end, &mut channel);
        reserved.add_child(channel);
    }
    reserved
}

/// Which channel it is.
fn about(draft: &Draft<'_>, end: &End, node: &mut DeviceTreeNode) {
    set(node, "qcom,label", end.label);
    if let Some(other) = draft.vms.get(end.other) {
        set(node, "peers", other.said.called());
    }
}
