//! Interrupts of devices that a VM drives itself.

use super::*;

const DEVICE: u32 = 50;
const PHYSICAL: u32 = 121;
/// The physical INTID in a list register.
const PHYSICAL_FIELD: u32 = 32;

fn with_a_device(vcpus: usize) -> VirtualGic {
    let mut wires = Wires::default();
    wires.connect(DEVICE, PHYSICAL, false);
    let mut gic = VirtualGic::new(vcpus, Version::V3, wires);
    gic.write(dist(CTLR), 4, 0x13);
    gic.write(dist(SET_ENABLE + 4), 4, u64::MAX);
    for vcpu in 0..vcpus {
        gic.interfaces[vcpu].control = 0xff << 24 | 1 << 1;
    }
    gic
}

/// Physical interrupts that the next lists ask EL2 to end.
fn left_over(gic: &mut VirtualGic) -> Vec<u32> {
    let all = gic.fill(0, 4).deactivate;
    all.into_iter().filter(|&intid| intid != 0).map(u32::from).collect()
}

#[test]
fn a_wire_is_found_from_both_ends() {
    let mut wires = Wires::default();
    wires.connect(DEVICE, PHYSICAL, true);
    assert_eq!(wires.virtual_of(PHYSICAL), Some(DEVICE));
    assert_eq!(wires.virtual_of(0), None);
    wires.connect(31, 99, false);
    wires.connect(64, 99, false);
    assert_eq!(wires.all().collect::<Vec<_>>(), [PHYSICAL]);
}

#[test]
fn only_what_is_wired_exists() {
    let mut gic = with_a_device(1);
    let bit = 1 << (DEVICE - SPI_BASE);
    assert_eq!(gic.read(dist(SET_ENABLE + 4), 4), 0x7ff | bit);
    // A guest cannot make the line of a device high.
    gic.write(dist(SET_PENDING + 4), 4, bit);
    let mut cpu = Cpu::with_lists(&mut gic, 0, 4);
    assert_eq!(cpu.acknowledge(), None);
}

#[test]
fn the_end_of_a_devices_interrupt_ends_the_physical_one() {
    let mut gic = with_a_device(1);
    let mut cpu = Cpu::with_lists(&mut gic, 0, 4);
    for _ in 0..2 {
        assert_eq!(gic.take_physical(DEVICE), VcpuSet::only(0));
        cpu.refresh(&mut gic);
        let register = cpu.lists[0];
        assert_eq!(register & HARDWARE, HARDWARE);
        assert_eq!(register >> PHYSICAL_FIELD & 0x1fff, PHYSICAL.into());
        assert_eq!(cpu.acknowledge(), Some(DEVICE));
        assert!(!cpu.end(DEVICE), "the hardware does it alone");
        cpu.refresh(&mut gic);
        assert_eq!(cpu.acknowledge(), None);
        assert_eq!(left_over(&mut gic), [], "it is the guest that has ended it");
    }
}

#[test]
fn one_that_comes_at_once_again_is_ended_with_the_guests_end_too() {
    let mut gic = with_a_device(2);
    let mut cpu = Cpu::with_lists(&mut gic, 0, 4);
    gic.take_physical(DEVICE);
    cpu.refresh(&mut gic);
    for _ in 0..3 {
        assert_eq!(cpu.acknowledge(), Some(DEVICE));
        cpu.end(DEVICE);
        // EL2 takes the next one before it has seen the end of this one, and whatever the route.
        gic.write(dist(0x6000 + 8 * u64::from(DEVICE)), 8, 1);
        assert_eq!(gic.take_physical(DEVICE), VcpuSet::only(0));
        gic.write(dist(0x6000 + 8 * u64::from(DEVICE)), 8, 0);
        cpu.refresh(&mut gic);
        assert_eq!(cpu.lists[0] & HARDWARE, HARDWARE);
    }
}

#[test]
fn an_interrupt_that_is_masked_or_on_its_way_stays_the_vms() {
    let mut gic = with_a_device(1);
    let bit = 1 << (DEVICE - SPI_BASE);
    gic.write(dist(CLEAR_ENABLE + 4), 4, bit);
    let mut cpu = Cpu::with_lists(&mut gic, 0, 4);
    gic.take_physical(DEVICE);
    cpu.refresh(&mut gic);
    assert_eq!(cpu.acknowledge(), None);
    // The vCPU leaves its CPU and comes back.
    cpu.leave(&mut gic);
    assert_eq!(left_over(&mut gic), []);
    gic.write(dist(SET_ENABLE + 4), 4, bit);
    let mut cpu = Cpu::with_lists(&mut gic, 0, 4);
    assert_eq!(cpu.acknowledge(), Some(DEVICE));
}

#[test]
fn an_edge_that_the_guest_takes_back_is_ended_by_el2() {
    let mut wires = Wires::default();
    wires.connect(DEVICE, PHYSICAL, true);
    let mut gic = VirtualGic::new(1, Version::V3, wires);
    gic.take_physical(DEVICE);
    assert_eq!(left_over(&mut gic), []);
    gic.write(dist(CLEAR_PENDING + 4), 4, 1 << (DEVICE - SPI_BASE));
    assert_eq!(left_over(&mut gic), [PHYSICAL]);
    assert_eq!(left_over(&mut gic), [], "once");
}

#[test]
fn an_end_in_no_list_register_is_ended_by_el2() {
    let mut gic = with_a_device(1);
    let mut cpu = Cpu::with_lists(&mut gic, 0, 1);
    gic.take_physical(DEVICE);
    cpu.refresh(&mut gic);
    assert_eq!(cpu.acknowledge(), Some(DEVICE));
    // A more urgent active one takes the only list register.
    gic.raise(MAILBOX);
    gic.write(dist(SET_ACTIVE + 4), 4, 1 << (MAILBOX - SPI_BASE));
    gic.write(dist(PRIORITY + u64::from(DEVICE)), 1, 0xa0);
    cpu.refresh(&mut gic);
    assert_eq!(intid(cpu.lists[0]), MAILBOX);
    assert!(cpu.end(DEVICE));
    gic.fold(0, &cpu.lists, 1);
    // The mailbox's is ended first, being more urgent; the guest ends both.
    gic.fold(0, &[0; MAX_LISTS], 1);
    assert_eq!(left_over(&mut gic), [PHYSICAL]);
}

#[test]
fn a_device_may_be_served_by_the_other_vcpu() {
    let mut gic = with_a_device(2);
    gic.write(dist(0x6000 + 8 * u64::from(DEVICE)), 8, 1);
    assert_eq!(gic.take_physical(DEVICE), VcpuSet::only(1));
    let mut first = Cpu::with_lists(&mut gic, 0, 4);
    let mut second = Cpu::with_lists(&mut gic, 1, 4);
    assert_eq!(first.acknowledge(), None);
    assert_eq!(second.acknowledge(), Some(DEVICE));
    first.refresh(&mut gic);
    second.end(DEVICE);
    second.refresh(&mut gic);
    assert_eq!(left_over(&mut gic), []);
}
