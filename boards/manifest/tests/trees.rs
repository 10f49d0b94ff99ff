//! The device trees of VMs, as kernels read them.
//!
//! Each tree of the full manifest is compared with a text in `trees/`. After a change that is meant,
//! `RM_BLESS=1 cargo test -p manifest --test trees` writes the texts anew.

mod common;

use std::path::PathBuf;
use std::{env, fs};

use common::{FULL, read};
use dtoolkit::fdt::Fdt;
use dtoolkit::model::DeviceTree;
use dtoolkit::{Node, Property};
use manifest::Manifest;
use rm_abi::Capability;

fn full() -> Manifest {
    read(FULL).unwrap_or_else(|report| panic!("{report}"))
}

/// The tree of one VM of a manifest, as its bytes say it.
fn tree(manifest: &Manifest, vm: &str) -> DeviceTree {
    let vm = manifest.vms().iter().find(|planned| planned.name == vm).unwrap();
    DeviceTree::from_fdt(&Fdt::new(vm.device_tree.as_ref().unwrap()).unwrap())
}

/// The cells of a property.
fn cells(tree: &DeviceTree, path: &str, property: &str) -> Vec<u32> {
    let node = tree.find_node(path).unwrap_or_else(|| panic!("no {path}"));
    let property = node.property(property).unwrap_or_else(|| panic!("no {property} in {path}"));
    property.value_as().unwrap()
}

/// The texts of a property.
fn texts(tree: &DeviceTree, path: &str, property: &str) -> Vec<String> {
    let node = tree.find_node(path).unwrap_or_else(|| panic!("no {path}"));
    let property = node.property(property).unwrap_or_else(|| panic!("no {property} in {path}"));
    property.value_as::<Vec<&str>>().unwrap().into_iter().map(str::to_owned).collect()
}

/// Two cells as one number.
fn wide(cells: &[u32]) -> Vec<u64> {
    cells.chunks(2).map(|pair| u64::from(pair[0]) << 32 | u64::from(pair[1])).collect()
}

#[test]
fn the_trees_are_those_that_were_read_by_people() {
    let (manifest, mut differences) = (full(), Vec::new());
    for vm in manifest.vms() {
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/trees");
        let file = file.join(format!("{}.dts", vm.name));
        let now = tree(&manifest, &vm.name).to_string();
        if env::var_os("RM_BLESS").is_some() {
            fs::write(&file, &now).unwrap();
        }
        let then = fs::read_to_string(&file).unwrap_or_default();
        if now != then {
            differences.push(format!("{} differs; it is now\n{now}", file.display()));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn the_resource_managers_node_is_what_gunyahs_linux_driver_binds_to() {
    let (manifest, manager) =
        (full(), format!("gunyah-resource-mgr@{:x}", Capability::SEND_QUEUE.0));
    for vm in ["linux", "service", "driver"] {
        let tree = tree(&manifest, vm);
        assert_eq!(texts(&tree, "/hypervisor", "compatible")[0], "gunyah-hypervisor");
        let path = format!("/hypervisor/{manager}");
        let names = texts(&tree, &path, "compatible");
        assert_eq!(names[..2], ["gunyah-resource-manager", "qcom,resource-manager-1-0"]);
        let queues = [Capability::SEND_QUEUE.0, Capability::RECEIVE_QUEUE.0];
        assert_eq!(wide(&cells(&tree, &path, "reg")), queues);
        // INTID 32 and 33, both by an edge.
        assert_eq!(cells(&tree, &path, "interrupts"), [0, 0, 1, 0, 1, 1]);
    }
    assert_eq!(
        cells(&tree(&manifest, "service"), "/hypervisor/qcom,gunyah-vm", "qcom,vmid"),
        [0x11]
    );
}

#[test]
fn a_kernel_finds_memory_console_initrd_and_command_line() {
    let manifest = full();
    let linux = tree(&manifest, "linux");
    let vm = &manifest.configuration().vms[0];
    let initrd = vm.initrd.unwrap();
    assert_eq!(wide(&cells(&linux, "/memory@40000000", "reg")), [0x4000_0000, 64 << 20]);
    assert_eq!(texts(&linux, "/chosen", "bootargs"), ["console=ttyAMA0 quiet"]);
    assert_eq!(wide(&cells(&linux, "/chosen", "linux,initrd-start")), [initrd.at]);
    assert_eq!(wide(&cells(&linux, "/chosen", "linux,initrd-end")), [initrd.at + 5000]);
    let console = texts(&linux, "/chosen", "stdout-path").remove(0);
    assert_eq!(texts(&linux, &console, "compatible"), ["arm,pl011", "arm,primecell"]);
    // INTID 42, by its level.
    assert_eq!(cells(&linux, &console, "interrupts"), [0, 10, 4]);
    assert_eq!(wide(&cells(&linux, &console, "reg")), [0x900_0000, 0x1000]);
}

#[test]
fn vcpus_start_by_psci_and_the_virtual_timer_is_interrupt_27() {
    let linux = tree(&full(), "linux");
    assert_eq!(texts(&linux, "/psci", "method"), ["hvc"]);
    for cpu in [0, 1] {
        assert_eq!(cells(&linux, &format!("/cpus/cpu@{cpu}"), "reg"), [cpu]);
        assert_eq!(texts(&linux, &format!("/cpus/cpu@{cpu}"), "enable-method"), ["psci"]);
    }
    assert!(linux.find_node("/cpus/cpu@2").is_none());
    // The third of the list (timer/arm,arch_timer.yaml).
    assert_eq!(cells(&linux, "/timer", "interrupts")[6..9], [1, 11, 4]);
}

#[test]
fn the_interrupt_controller_is_the_boards() {
    let controller = "/interrupt-controller@8000000";
    let linux = tree(&full(), "linux");
    assert_eq!(texts(&linux, controller, "compatible"), ["arm,gic-v3"]);
    let reg = [0x800_0000, 0x1_0000, 0x80a_0000, 2 * 0x2_0000];
    assert_eq!(wide(&cells(&linux, controller, "reg")), reg);
    let old = read(&FULL.replace("gic = 3", "gic = 2")).unwrap();
    assert_eq!((old.gic(), full().gic()), (2, 3));
    let linux = tree(&old, "linux");
    assert_eq!(texts(&linux, controller, "compatible"), ["arm,gic-400"]);
    let reg = [0x800_0000, 0x1_0000, 0x801_0000, 0x2000];
    assert_eq!(wide(&cells(&linux, controller, "reg")), reg);
    assert_eq!(cells(&linux, "/timer", "interrupts")[6..9], [1, 11, 0x304]);
}

#[test]
fn both_ends_of_a_channel_name_its_memory_and_its_doorbells() {
    let manifest = full();
    for (number, channel) in (0..).zip(&manifest.configuration().channels) {
        let ends = [(channel.owner, channel.owner_ipa), (channel.peer, channel.peer_ipa)];
        for (vm, at) in ends {
            let tree = tree(&manifest, &manifest.vms()[usize::from(vm)].name);
            let path = format!("/reserved-memory/channel@{at:x}");
            assert_eq!(wide(&cells(&tree, &path, "reg")), [at, channel.pages * 4096]);
            assert_eq!(cells(&tree, &path, "qcom,label"), [channel.label]);
            // Both channels are linux's, and the only ones of the others.
            let bell = if vm == 0 { number } else { 0 };
            let own = format!("/hypervisor/doorbell@{:x}", Capability::doorbell_receive(bell).0);
            assert_eq!(cells(&tree, &own, "interrupts"), [0, 2 + u32::from(bell), 1]);
            assert_eq!(cells(&tree, &own, "qcom,label"), [channel.label]);
            let others = format!("doorbell-source@{:x}", Capability::doorbell_send(bell).0);
            assert!(tree.find_node(&format!("/hypervisor/{others}")).is_some());
        }
    }
}

#[test]
fn a_device_is_where_the_vm_finds_it_with_the_interrupts_that_the_vm_gets() {
    let manifest = full();
    let (service, driver) = (tree(&manifest, "service"), tree(&manifest, "driver"));
    assert_eq!(texts(&service, "/rtc@a000000", "compatible"), ["arm,pl031", "arm,primecell"]);
    assert_eq!(wide(&cells(&service, "/rtc@a000000", "reg")), [0xa00_0000, 0x1000]);
    assert_eq!(cells(&service, "/rtc@a000000", "interrupts"), [0, 43 - 32, 4]);
    assert_eq!(cells(&service, "/rtc@a000000", "vendor,cells"), [1, 2]);
    assert_eq!(texts(&service, "/rtc@a000000", "clock-names"), ["apb_pclk"]);
    let clock = cells(&service, "/apb-pclk", "phandle");
    assert_eq!(cells(&service, "/rtc@a000000", "clocks"), clock);
    let flag = service.find_node("/rtc@a000000").unwrap().property("wakeup-source").unwrap();
    assert!(flag.value().is_empty());
    assert_eq!(cells(&driver, "/virtio@a000000", "interrupts"), [0, 50 - 32, 1, 0, 43 - 32, 4]);
}

#[test]
fn the_tree_that_is_shown_is_the_one_in_the_package() {
    let manifest = full();
    for (planned, vm) in manifest.vms().iter().zip(&manifest.configuration().vms) {
        let image = vm.device_tree.unwrap().image as usize;
        assert_eq!(planned.device_tree.as_ref(), manifest.configuration().images.get(image));
    }
}
