//! The device tree of a VM: what a kernel or program must know of the machine that it runs on.
//!
//! Sources: the Devicetree Specification v0.4 for the nodes that every machine has, and the bindings
//! of Linux by file name, below `Documentation/devicetree/bindings/`, for the others. The nodes below
//! `/hypervisor` are those that Gunyah's drivers look for.

mod devices;
mod gunyah;
mod system;

use dtoolkit::ToPropertyValue;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};

use crate::draft::{Draft, Vm};
use crate::machine::FIRST_SHARED;

/// The interrupt controller's phandle.
const CONTROLLER: u32 = 1;
/// The phandle of the clock of devices on the peripheral bus.
pub(crate) const CLOCK: u32 = 2;

/// Interrupt types (`include/dt-bindings/interrupt-controller/irq.h`).
const EDGE: u32 = 1;
const LEVEL: u32 = 4;

/// The tree of the VM, in the form that kernels read. `None` as long as the VM has no memory.
pub(crate) fn make(draft: &Draft<'_>, vm: &Vm<'_>) -> Option<Vec<u8>> {
    let memory = vm.memory.as_ref()?;
    let mut tree = DeviceTree::new();
    let root = &mut tree.root;
    set(root, "#address-cells", 2u32);
    set(root, "#size-cells", 2u32);
    set(root, "interrupt-parent", CONTROLLER);
    // What kernels know QEMU's machine without a board by: nothing but the tree describes it.
    set(root, "compatible", "linux,dummy-virt");
    set(root, "model", vm.said.called());
    root.add_child(system::chosen(vm));
    root.add_child(system::aliases());
    root.add_child(system::memory(memory));
    if !vm.ends.is_empty() {
        root.add_child(gunyah::channels(draft, vm));
    }
    root.add_child(system::cpus(vm.cpus.len() as u32));
    root.add_child(system::psci());
    root.add_child(system::timer(draft.gic, vm.cpus.len() as u32));
    root.add_child(system::interrupt_controller(draft.gic, vm.cpus.len() as u64));
    root.add_child(system::clock());
    root.add_child(system::console());
    root.add_child(gunyah::hypervisor(draft, vm));
    for device in &vm.devices {
        root.add_child(devices::node_of(device));
    }
    Some(tree.to_dtb())
}

fn node(name: impl Into<String>) -> DeviceTreeNode {
    DeviceTreeNode::new_unchecked(name)
}

fn set(node: &mut DeviceTreeNode, name: &str, value: impl ToPropertyValue) {
    node.add_property(DeviceTreeProperty::new_unchecked(name, value));
}

/// A property that says something by being there.
fn mark(node: &mut DeviceTreeNode, name: &str) {
    set(node, name, Vec::<u8>::new());
}

/// 64-bit numbers, each as two cells.
fn wide(numbers: &[u64]) -> Vec<u32> {
    numbers.iter().flat_map(|&number| [(number >> 32) as u32, number as u32]).collect()
}

/// A shared interrupt as three cells (interrupt-controller/arm,gic-v3.yaml and arm,gic.yaml).
fn shared(interrupt: u32, kind: u32) -> [u32; 3] {
    [0, interrupt - FIRST_SHARED, kind]
}
