//! A device tree as firmware leaves it for EL2: RAM, and what of it is kept.

use anyhow::Result;
use dtoolkit::ToPropertyValue;
use dtoolkit::error::ModelError;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use package::Board;

use crate::machine::Machine;

/// RAM that the tree names, from the start of the board's on. QEMU replaces it by what it models.
const RAM: u64 = 0x2000_0000;
/// A range that the tree reserves, counted from the start of RAM, and its size, which is not one of whole
/// pages. It lies where EL2 would otherwise give memory to VMs.
const RESERVED: (u64, u64) = (0x0300_0000, 0x0010_0800);

/// The tree of a board.
pub fn tree(board: Board) -> Result<Vec<u8>> {
    let start = Machine::of(board).ram_start();
    let reserved = start + RESERVED.0;
    let mut kept = DeviceTreeNode::new(format!("kept@{reserved:x}"))?;
    set(&mut kept, "reg", cells(&[reserved, RESERVED.1]))?;
    set(&mut kept, "no-map", cells(&[]))?;
    let mut all_kept = DeviceTreeNode::new("reserved-memory")?;
    set_cells(&mut all_kept)?;
    set(&mut all_kept, "ranges", cells(&[]))?;
    all_kept.add_child(kept);
    let mut memory = DeviceTreeNode::new(format!("memory@{start:x}"))?;
    set(&mut memory, "device_type", "memory")?;
    set(&mut memory, "reg", cells(&[start, RAM]))?;
    let mut tree = DeviceTree::new();
    set_cells(&mut tree.root)?;
    tree.root.add_child(memory);
    tree.root.add_child(all_kept);
    Ok(tree.to_dtb())
}

fn set<T: ToPropertyValue>(
    node: &mut DeviceTreeNode,
    name: &str,
    value: T,
) -> Result<(), ModelError> {
    node.add_property(DeviceTreeProperty::new(name, value)?);
    Ok(())
}

fn set_cells(node: &mut DeviceTreeNode) -> Result<(), ModelError> {
    ["#address-cells", "#size-cells"].into_iter().try_for_each(|name| set(node, name, 2_u32))
}

fn cells(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}
