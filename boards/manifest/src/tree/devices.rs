//! Devices of the machine that the VM drives itself.

use dtoolkit::model::DeviceTreeNode;

use super::{EDGE, LEVEL, node, set, shared, wide};
use crate::draft::Device;

/// The device's node, with what the manifest adds.
pub(super) fn node_of(device: &Device<'_>) -> DeviceTreeNode {
    let name = device.said.name.as_ref().map_or("device", |name| name.value);
    let mut node = node(format!("{name}@{:x}", device.ipa));
    let compatible: Vec<&str> = device.said.compatible.iter().map(|name| name.value).collect();
    if !compatible.is_empty() {
        set(&mut node, "compatible", compatible);
    }
    set(&mut node, "reg", wide(&[device.ipa, device.size]));
    if !device.interrupts.is_empty() {
        let kind = |edge| if edge { EDGE } else { LEVEL };
        let cells = device.interrupts.iter().map(|it| shared(it.virtual_, kind(it.edge)));
        set(&mut node, "interrupts", cells.collect::<Vec<_>>().concat());
    }
    device.said.properties.iter().for_each(|property| node.add_property(property.node()));
    node
}
