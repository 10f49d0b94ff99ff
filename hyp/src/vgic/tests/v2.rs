//! The controller where the machine has a GICv2.

use super::*;

const TARGETS: u64 = 0x800;
const SOFTWARE: u64 = 0xf00;
const GROUP_1: u64 = 1 << 60;

/// What `vcpu` finds at an offset of the distributor.
fn at(vcpu: usize, offset: u64) -> Place {
    Place::at(DISTRIBUTOR + offset, Version::V2, vcpu).expect("the distributor is there")
}

fn enabled(vcpus: usize) -> VirtualGic {
    let mut gic = VirtualGic::new(vcpus, Version::V2, Wires::default());
    gic.write(at(0, CTLR), 4, 1);
    for vcpu in 0..vcpus {
        gic.write(at(vcpu, SET_ENABLE), 4, u64::MAX);
        gic.interfaces[vcpu].control = 0xf8 << 24 | 1;
    }
    gic.write(at(0, SET_ENABLE + 4), 4, u64::MAX);
    for n in 0..32 {
        gic.write(at(0, TARGETS + 32 + n), 1, 1);
    }
    gic
}

fn lists_of(gic: &mut VirtualGic, vcpu: usize) -> Vec<u32> {
    let lists = gic.fill(vcpu, 4);
    let pending = lists.registers.iter().filter(|&&register| register & STATE == PENDING);
    pending.map(|&register| intid(register)).collect()
}

#[test]
fn a_guest_finds_a_gicv2() {
    let gic = enabled(2);
    assert_eq!(gic.read(at(0, 0xfe8), 4) >> 4 & 0xf, 2, "architecture revision");
    assert_eq!(gic.read(at(0, 0x4), 4), 1 << 5 | 1, "two CPUs, 64 interrupts");
    assert_eq!(gic.read(at(0, CTLR), 4), 1);
    assert_eq!(gic.read(at(0, 0x80), 4), 0, "no groups");
    assert_eq!(gic.read(at(0, 0x84), 4), 0, "no groups");
    assert_eq!(Place::at(REDISTRIBUTORS, Version::V2, 0), None, "no redistributors");
    assert_eq!(Place::at(CPU_INTERFACE, Version::V2, 0), None, "that one is the hardware's");
}

#[test]
fn each_vcpu_sees_its_own_interrupts_in_the_distributor() {
    let mut gic = enabled(2);
    gic.write(at(1, CLEAR_ENABLE), 4, 1 << 3);
    assert_eq!(gic.read(at(0, SET_ENABLE), 4), 0x0800_ffff);
    assert_eq!(gic.read(at(1, SET_ENABLE), 4), 0x0800_fff7);
    assert_eq!(gic.read(at(0, SET_ENABLE + 4), 4), gic.read(at(1, SET_ENABLE + 4), 4));
    gic.write(at(1, PRIORITY + 3), 1, 0x40);
    assert_eq!(gic.read(at(0, PRIORITY + 3), 1), 0);
    assert_eq!(gic.read(at(1, PRIORITY + 3), 1), 0x40);
    assert_eq!(gic.read(at(0, TARGETS), 4), 0x0101_0101);
    assert_eq!(gic.read(at(1, TARGETS + 28), 4), 0x0202_0202);
    assert_eq!(gic.read(at(1, TARGETS + 5), 1), 2);
}

#[test]
fn a_shared_interrupt_goes_to_the_first_of_its_targets() {
    let mut gic = enabled(2);
    let place = at(0, TARGETS + u64::from(MAILBOX));
    for (targets, reached) in [(0b01, Some(0)), (0b10, Some(1)), (0b11, Some(0)), (0b100, None)] {
        gic.write(place, 1, targets);
        let expected = reached.map_or(VcpuSet::default(), VcpuSet::only);
        assert_eq!(gic.raise(MAILBOX), expected, "{targets:#b}");
        assert_eq!(gic.read(place, 1), reached.map_or(0, |vcpu| 1 << vcpu));
    }
    // What a VM lacks has no targets.
    gic.write(at(0, TARGETS + 60), 1, 1);
    assert_eq!(gic.read(at(0, TARGETS + 60), 1), 0);
}

#[test]
fn software_interrupts_go_where_the_register_says() {
    let sent = |vcpu: usize, value: u64| enabled(2).write(at(vcpu, SOFTWARE), 4, value);
    assert_eq!(sent(0, 0b10 << 16 | 5), VcpuSet::only(1));
    assert_eq!(sent(0, 0xff << 16 | 5), VcpuSet::all(2), "only those that there are");
    assert_eq!(sent(0, 1 << 24 | 5), VcpuSet::only(1), "all others");
    assert_eq!(sent(1, 2 << 24 | 5), VcpuSet::only(1), "the sender");
    assert_eq!(sent(0, 3 << 24 | 5), VcpuSet::default(), "reserved");
    let mut gic = enabled(2);
    gic.write(at(0, SOFTWARE), 4, 1 << 24 | 5);
    assert_eq!(lists_of(&mut gic, 1), [5]);
    assert_eq!(lists_of(&mut gic, 0), []);
}

#[test]
fn everything_is_in_group_0() {
    let mut gic = enabled(1);
    gic.raise(MAILBOX);
    let registers = gic.fill(0, 4).registers;
    assert_eq!(registers[0] & (STATE | GROUP_1), PENDING);
}

#[test]
fn an_interrupt_wakes_a_vcpu_whose_interface_is_on() {
    let mut gic = enabled(1);
    gic.raise(MAILBOX);
    assert!(gic.has_pending(0));
    gic.interfaces[0].control = 0xf8 << 24 | 1 << 1;
    assert!(!gic.has_pending(0), "group 1 alone is on");
    gic.interfaces[0].control = 1;
    assert!(!gic.has_pending(0), "all priorities are masked");
}

#[test]
fn no_access_reaches_beyond_the_vms_interrupts() {
    for offset in 0..DISTRIBUTOR_SIZE {
        for size in [1, 2, 4, 8] {
            let mut gic = enabled(2);
            let place = at(1, offset);
            gic.write(place, size, u64::MAX);
            gic.read(place, size);
            let listed: Vec<u32> = lists_of(&mut gic, 1);
            assert!(listed.iter().all(|&intid| intid < 16 || (32..=CONSOLE).contains(&intid)));
        }
    }
}
