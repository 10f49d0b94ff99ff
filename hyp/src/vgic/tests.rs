//! The controller as a guest sees it. [`Cpu`] plays the hardware's part of a CPU interface.

#![expect(unused_must_use, reason = "most stories have one CPU, or refresh the others anyway")]

mod v2;
mod wires;

use super::lists::MAX_LISTS;
use super::*;

const CTLR: u64 = 0x0;
const SGI_FRAME: u64 = 0x1_0000;
const SET_ENABLE: u64 = 0x100;
const CLEAR_ENABLE: u64 = 0x180;
const SET_PENDING: u64 = 0x200;
const CLEAR_PENDING: u64 = 0x280;
const SET_ACTIVE: u64 = 0x300;
const CLEAR_ACTIVE: u64 = 0x380;
const PRIORITY: u64 = 0x400;
const SPI_ROUTE: u64 = 0x6100;
const MAILBOX: u32 = 33;

const PENDING: u64 = 1 << 62;
const ACTIVE: u64 = 2 << 62;
const STATE: u64 = 3 << 62;
const HARDWARE: u64 = 1 << 61;
const REPORT_END: u64 = 1 << 41;

fn intid(register: u64) -> u32 {
    register as u32
}

fn urgency(register: u64) -> u8 {
    (register >> 48) as u8
}

/// A vCPU on a CPU with a few list registers.
struct Cpu {
    vcpu: usize,
    count: usize,
    lists: [u64; MAX_LISTS],
    unlisted_ends: u64,
    physical_timer_active: bool,
}

impl Cpu {
    fn with_lists(gic: &mut VirtualGic, vcpu: usize, count: usize) -> Self {
        let mut cpu = Self {
            vcpu,
            count,
            lists: [0; MAX_LISTS],
            unlisted_ends: 0,
            physical_timer_active: false,
        };
        gic.interfaces[vcpu].control = 0xff << 24 | 1 << 1;
        cpu.fill(gic);
        cpu
    }

    fn fill(&mut self, gic: &mut VirtualGic) {
        let lists = gic.fill(self.vcpu, self.count);
        self.physical_timer_active &= !lists.deactivate_timer;
        self.lists = lists.registers;
        assert!(self.lists[self.count..].iter().all(|&register| register == 0));
    }

    /// What EL2 does before an entry when something changed.
    fn refresh(&mut self, gic: &mut VirtualGic) -> VcpuSet {
        let others = gic.fold(self.vcpu, &self.lists, core::mem::take(&mut self.unlisted_ends));
        self.fill(gic);
        others
    }

    /// What EL2 does when the vCPU leaves.
    fn leave(mut self, gic: &mut VirtualGic) -> bool {
        gic.fold(self.vcpu, &self.lists, self.unlisted_ends);
        if gic.release_timer(self.vcpu) {
            self.physical_timer_active = false;
        }
        self.physical_timer_active
    }

    /// The guest reads ICC_IAR1_EL1.
    fn acknowledge(&mut self) -> Option<u32> {
        let pending = |register: &&mut u64| **register & STATE == PENDING;
        let register = self.lists.iter_mut().filter(pending).min_by_key(|r| urgency(**r))?;
        *register = *register & !STATE | ACTIVE;
        Some(intid(*register))
    }

    /// The guest writes ICC_EOIR1_EL1; whether a maintenance interrupt follows.
    fn end(&mut self, wanted: u32) -> bool {
        let active = |r: &&mut u64| **r & ACTIVE != 0 && intid(**r) == wanted;
        let Some(register) = self.lists.iter_mut().find(active) else {
            self.unlisted_ends += 1;
            return true;
        };
        *register &= !ACTIVE;
        if *register & HARDWARE != 0 {
            self.physical_timer_active = false;
        }
        *register & HARDWARE == 0 && *register & REPORT_END != 0
    }

    /// The comparator's line is high and the physical interrupt not masked.
    fn tick(&mut self, gic: &mut VirtualGic) {
        assert!(!self.physical_timer_active, "an active interrupt does not fire");
        self.physical_timer_active = true;
        gic.interfaces[self.vcpu].timer_fired = true;
        self.refresh(gic);
    }
}

fn dist(offset: u64) -> Place {
    Place::Distributor(offset)
}

fn own(vcpu: usize, offset: u64) -> Place {
    Place::Redistributor(vcpu, SGI_FRAME + offset)
}

/// A controller in which a guest has enabled everything, at priority 0xa0.
fn enabled(vcpus: usize) -> VirtualGic {
    let mut gic = VirtualGic::new(vcpus, Version::V3, Wires::default());
    gic.write(dist(CTLR), 4, 0x13);
    gic.write(dist(SET_ENABLE + 4), 4, u64::MAX);
    gic.write(dist(PRIORITY + 32), 4, 0xa0a0_a0a0);
    for vcpu in 0..vcpus {
        gic.write(own(vcpu, SET_ENABLE), 4, u64::MAX);
        for n in 0..8 {
            gic.write(own(vcpu, PRIORITY + 4 * n), 4, 0xa0a0_a0a0);
        }
    }
    gic
}

#[test]
fn a_guest_finds_a_gicv3_with_a_timer_and_eleven_spis() {
    let gic = enabled(2);
    assert_eq!(gic.read(dist(0xffe8), 4) >> 4 & 0xf, 3);
    assert_eq!(gic.read(dist(0x4), 4) & 0x1f, 1);
    assert_eq!(gic.read(dist(CTLR), 4), 0x52);
    assert_eq!(gic.read(dist(SET_ENABLE + 4), 4), 0x7ff);
    assert_eq!(gic.read(own(1, SET_ENABLE), 4), 0x0800_ffff);
    assert_eq!(gic.read(Place::Redistributor(0, 8), 8), 0);
    assert_eq!(gic.read(Place::Redistributor(1, 8), 8), 1 << 32 | 1 << 8 | 1 << 4);
    assert_eq!(gic.read(dist(0xc08), 4), 0xa_aaaa, "all SPIs but the console are edges");
    assert_eq!(gic.read(own(0, 0xc04), 4), 0, "the timer is a level");
}

#[test]
fn a_guest_address_names_one_register() {
    assert_eq!(Place::at(DISTRIBUTOR - 4, Version::V3, 0), None);
    assert_eq!(Place::at(0x0800_6100, Version::V3, 0), Some(dist(0x6100)));
    assert_eq!(Place::at(0x0801_0000, Version::V3, 0), None);
    assert_eq!(Place::at(0x080c_0014, Version::V3, 0), Some(Place::Redistributor(1, 0x14)));
    assert_eq!(Place::at(0x080e_0000, Version::V3, 0), None);
    assert!(!VirtualGic::new(1, Version::V3, Wires::default()).has(Place::Redistributor(1, 0)));
}

#[test]
fn a_redistributor_wakes_up() {
    let mut gic = VirtualGic::new(1, Version::V3, Wires::default());
    let waker = Place::Redistributor(0, 0x14);
    assert_eq!(gic.read(waker, 4), 0b110);
    gic.write(waker, 4, 0);
    assert_eq!(gic.read(waker, 4), 0);
}

#[test]
fn a_raised_interrupt_reaches_the_guest_and_can_come_again() {
    let mut gic = enabled(1);
    let mut cpu = Cpu::with_lists(&mut gic, 0, 4);
    for _ in 0..3 {
        assert_eq!(gic.raise(MAILBOX), VcpuSet::only(0));
        cpu.refresh(&mut gic);
        assert_eq!(cpu.acknowledge(), Some(MAILBOX));
        assert!(!cpu.end(MAILBOX));
    }
    cpu.refresh(&mut gic);
    assert_eq!(cpu.acknowledge(), None);
}

#[test]
fn an_interrupt_that_comes_while_it_is_served_is_served_again() {
    let mut gic = enabled(1);
    let mut cpu = Cpu::with_lists(&mut gic, 0, 4);
    gic.raise(MAILBOX);
    cpu.refresh(&mut gic);
    assert_eq!(cpu.acknowledge(), Some(MAILBOX));
    gic.raise(MAILBOX);
    cpu.refresh(&mut gic);
    assert_eq!(cpu.acknowledge(), None);
    cpu.end(MAILBOX);
    assert_eq!(cpu.acknowledge(), Some(MAILBOX));
}

#[test]
fn a_line_interrupts_again_until_it_is_low() {
    let mut gic = enabled(1);
    let mut cpu = Cpu::with_lists(&mut gic, 0, 4);
    assert_eq!(gic.set_line(CONSOLE, true), VcpuSet::only(0));
    for _ in 0..3 {
        cpu.refresh(&mut gic);
        assert_eq!(cpu.acknowledge(), Some(CONSOLE));
        assert!(cpu.end(CONSOLE), "the end brings EL2 back to look at the line");
    }
    cpu.refresh(&mut gic);
    assert_eq!(cpu.acknowledge(), Some(CONSOLE));
    assert_eq!(gic.set_line(CONSOLE, false), VcpuSet::only(0));
    cpu.refresh(&mut gic);
    cpu.end(CONSOLE);
    cpu.refresh(&mut gic);
    assert_eq!(cpu.acknowledge(), None);
    assert_eq!(cpu.lists, [0; MAX_LISTS]);
}

#[test]
fn a_line_that_goes_low_before_it_is_noticed_does_not_interrupt() {
    let mut gic = enabled(1);
    let mut cpu = Cpu::with_lists(&mut gic, 0, 4);
    gic.set_line(CONSOLE, true);
    cpu.refresh(&mut gic);
    gic.set_line(CONSOLE, false);
    cpu.refresh(&mut gic);
    assert_eq!(cpu.acknowledge(), None);
}

#[test]
fn a_guest_cannot_change_what_a_line_says() {
    let mut gic = enabled(1);
    let mut cpu = Cpu::with_lists(&mut gic, 0, 4);
    let bit = 1 << (CONSOLE - SPI_BASE);
    gic.write(dist(SET_PENDING + 4), 4, bit);
    cpu.refresh(&mut gic);
    assert_eq!(cpu.acknowledge(), None);
    gic.set_line(CONSOLE, true);
    gic.write(dist(CLEAR_PENDING + 4), 4, bit);
    cpu.refresh(&mut gic);
    assert_eq!(cpu.acknowledge(), Some(CONSOLE));
}

#[test]
fn a_disabled_interrupt_waits() {
    let mut gic = enabled(1);
    let mut cpu = Cpu::with_lists(&mut gic, 0, 4);
    gic.raise(MAILBOX);
    cpu.refresh(&mut gic);
    gic.write(dist(CLEAR_ENABLE + 4), 4, 0b10);
    cpu.refresh(&mut gic);
    assert_eq!(cpu.acknowledge(), None);
    assert_eq!(gic.read(dist(SET_PENDING + 4), 4), 0b10);
    gic.write(dist(SET_ENABLE + 4), 4, 0b10);
    gic.write(dist(CTLR), 4, 0);
    cpu.refresh(&mut gic);
    assert_eq!(cpu.acknowledge(), None);
    gic.write(dist(CTLR), 4, 0x12);
    cpu.refresh(&mut gic);
    assert_eq!(cpu.acknowledge(), Some(MAILBOX));
}

#[test]
fn a_cleared_interrupt_is_gone_from_the_lists_too() {
    let mut gic = enabled(1);
    let mut cpu = Cpu::with_lists(&mut gic, 0, 4);
    gic.write(dist(SET_PENDING + 4), 4, 0b11);
    cpu.refresh(&mut gic);
    gic.write(dist(CLEAR_PENDING + 4), 4, 0b01);
    assert_eq!(gic.read(dist(SET_PENDING + 4), 4), 0b10);
    cpu.refresh(&mut gic);
    assert_eq!(cpu.acknowledge(), Some(33));
    assert_eq!(cpu.acknowledge(), None);
    gic.write(dist(CLEAR_ACTIVE + 4), 4, 0b10);
    cpu.refresh(&mut gic);
    assert_eq!(gic.read(dist(SET_ACTIVE + 4), 4), 0);
    assert_eq!(cpu.lists, [0; MAX_LISTS]);
}

#[test]
fn more_interrupts_than_list_registers_come_by_priority() {
    let mut gic = enabled(1);
    for n in 0..16 {
        gic.write(own(0, PRIORITY + n), 1, 0xf8 - 8 * n);
    }
    gic.write(own(0, SET_PENDING), 4, 0xffff);
    let mut cpu = Cpu::with_lists(&mut gic, 0, 4);
    for expected in (0..16).rev() {
        assert_eq!(cpu.acknowledge(), Some(expected));
        if cpu.end(expected) {
            cpu.refresh(&mut gic);
        }
    }
    assert_eq!(cpu.acknowledge(), None);
}

#[test]
fn an_active_interrupt_keeps_its_list_register() {
    let mut gic = enabled(1);
    gic.write(own(0, SET_PENDING), 4, 1);
    let mut cpu = Cpu::with_lists(&mut gic, 0, 2);
    assert_eq!(cpu.acknowledge(), Some(0));
    gic.write(own(0, SET_PENDING), 4, 0xfffe);
    gic.write(own(0, PRIORITY), 1, 0xf8);
    cpu.refresh(&mut gic);
    assert!(cpu.lists.iter().any(|&r| r & STATE == ACTIVE && intid(r) == 0));
    assert!(cpu.end(0), "others wait, so the end is reported");
}

#[test]
fn the_end_of_an_unlisted_active_interrupt_counts() {
    let mut gic = enabled(1);
    gic.write(own(0, SET_ACTIVE), 4, 0b111);
    let mut cpu = Cpu::with_lists(&mut gic, 0, 2);
    let listed: Vec<u32> = cpu.lists[..2].iter().map(|&r| intid(r)).collect();
    assert!(gic.clone().fill(0, 0).count_ends);
    for n in [0, 1, 2] {
        cpu.end(n);
    }
    assert_eq!((listed, cpu.unlisted_ends), (vec![0, 1], 1));
    cpu.refresh(&mut gic);
    assert_eq!(gic.read(own(0, SET_ACTIVE), 4), 0);
}

#[test]
fn an_spi_goes_where_it_is_routed() {
    let mut gic = enabled(2);
    let mut first = Cpu::with_lists(&mut gic, 0, 4);
    let mut second = Cpu::with_lists(&mut gic, 1, 4);
    gic.write(dist(SPI_ROUTE + 8), 8, 1);
    assert_eq!(gic.raise(MAILBOX), VcpuSet::only(1));
    first.refresh(&mut gic);
    second.refresh(&mut gic);
    assert_eq!(first.acknowledge(), None);
    assert_eq!(second.acknowledge(), Some(MAILBOX));
    second.end(MAILBOX);
    gic.write(dist(SPI_ROUTE + 8), 8, 7);
    assert_eq!(gic.raise(MAILBOX), VcpuSet::default(), "a vCPU that does not exist");
}

#[test]
fn an_spi_that_moves_while_it_is_served_is_served_by_its_new_vcpu_afterwards() {
    let mut gic = enabled(2);
    let mut first = Cpu::with_lists(&mut gic, 0, 4);
    let mut second = Cpu::with_lists(&mut gic, 1, 4);
    gic.raise(MAILBOX);
    first.refresh(&mut gic);
    assert_eq!(first.acknowledge(), Some(MAILBOX));
    gic.write(dist(SPI_ROUTE + 8), 8, 1);
    gic.raise(MAILBOX);
    first.refresh(&mut gic);
    second.refresh(&mut gic);
    assert_eq!(second.acknowledge(), None, "still active elsewhere");
    assert!(first.end(MAILBOX), "the end must be heard of");
    assert_eq!(first.refresh(&mut gic), VcpuSet::only(1));
    second.refresh(&mut gic);
    assert_eq!(second.acknowledge(), Some(MAILBOX));
}

#[test]
fn a_vcpu_that_polls_for_the_end_on_another_vcpu_sees_it() {
    let mut gic = enabled(2);
    let mut other = Cpu::with_lists(&mut gic, 1, 4);
    gic.write(dist(SPI_ROUTE + 8), 8, 1);
    gic.raise(MAILBOX);
    other.refresh(&mut gic);
    assert_eq!(other.acknowledge(), Some(MAILBOX));
    let active = dist(SET_ACTIVE + 4);
    assert_eq!(gic.lagging(0, active), VcpuSet::only(1), "it is asked");
    other.refresh(&mut gic);
    assert_eq!(gic.read(active, 4), 0b10);
    other.end(MAILBOX);
    assert_eq!(gic.lagging(0, active), VcpuSet::only(1));
    other.refresh(&mut gic);
    assert_eq!(gic.read(active, 4), 0);
    assert_eq!(gic.lagging(0, active), VcpuSet::default());
}

#[test]
fn sgis_stay_within_the_vm() {
    let mut gic = enabled(2);
    assert_eq!(gic.send_sgi(0, 3 << 24 | 0b10), VcpuSet::only(1));
    assert_eq!(gic.send_sgi(1, 1 << 40), VcpuSet::only(0));
    assert_eq!(gic.send_sgi(0, 0xfffc), VcpuSet::default());
    assert_eq!(gic.send_sgi(0, 1 << 16 | 1), VcpuSet::default());
    assert_eq!(gic.send_sgi(0, 1 << 44 | 1), VcpuSet::default());
    assert_eq!(gic.send_sgi(0, 1 << 48 | 1), VcpuSet::default());
    let mut cpu = Cpu::with_lists(&mut gic, 1, 4);
    assert_eq!(cpu.acknowledge(), Some(3));
}

#[test]
fn a_tick_costs_one_exit_and_the_guests_end_lets_the_next_one_fire() {
    let mut gic = enabled(1);
    let mut cpu = Cpu::with_lists(&mut gic, 0, 4);
    for _ in 0..3 {
        cpu.tick(&mut gic);
        assert_eq!(cpu.acknowledge(), Some(TIMER));
        assert!(!cpu.end(TIMER));
        assert!(!cpu.physical_timer_active);
    }
}

#[test]
fn a_vcpu_that_leaves_never_leaves_the_physical_timer_blocked() {
    let mut gic = enabled(1);
    let mut cpu = Cpu::with_lists(&mut gic, 0, 4);
    cpu.tick(&mut gic);
    assert!(!cpu.leave(&mut gic), "pending");
    let mut cpu = Cpu::with_lists(&mut gic, 0, 4);
    assert_eq!(cpu.acknowledge(), None, "the level has to say so again");
    cpu.tick(&mut gic);
    assert_eq!(cpu.acknowledge(), Some(TIMER));
    assert!(!cpu.leave(&mut gic), "active");
    let mut cpu = Cpu::with_lists(&mut gic, 0, 4);
    cpu.tick(&mut gic);
    assert_eq!(cpu.acknowledge(), None, "it is being served");
    cpu.end(TIMER);
    assert!(!cpu.physical_timer_active, "the end reached the physical interrupt again");
}

#[test]
fn clearing_the_timers_interrupt_by_the_distributor_lets_it_fire_again() {
    let mut gic = enabled(1);
    let mut cpu = Cpu::with_lists(&mut gic, 0, 4);
    cpu.tick(&mut gic);
    assert_eq!(cpu.acknowledge(), Some(TIMER));
    gic.write(own(0, CLEAR_ACTIVE), 4, 1 << TIMER);
    cpu.refresh(&mut gic);
    assert!(!cpu.physical_timer_active);
    gic.write(own(0, SET_PENDING), 4, 1 << TIMER);
    cpu.refresh(&mut gic);
    assert_eq!(cpu.acknowledge(), None, "its line alone makes it pending");
}

#[test]
fn a_waiting_interrupt_wakes_a_vcpu_unless_it_is_masked() {
    let mut gic = enabled(1);
    let mut cpu = Cpu::with_lists(&mut gic, 0, 4);
    assert!(!gic.has_pending(0));
    gic.raise(MAILBOX);
    assert!(gic.has_pending(0));
    cpu.refresh(&mut gic);
    assert!(gic.has_pending(0), "also when it stands in a list register");
    for control in [0xa0 << 24 | 1 << 1, 0xff << 24] {
        gic.interfaces[0].control = control;
        assert!(!gic.has_pending(0));
    }
    gic.interfaces[0].control = 0xa8 << 24 | 1 << 1;
    assert!(gic.has_pending(0));
}

#[test]
fn bytes_words_and_doublewords_show_the_same_registers() {
    let mut gic = VirtualGic::new(1, Version::V3, Wires::default());
    gic.write(dist(PRIORITY + 33), 1, 0x47);
    assert_eq!(gic.read(dist(PRIORITY + 32), 4), 0x4000);
    assert_eq!(gic.read(dist(PRIORITY + 33), 1), 0x40);
    gic.write(dist(SPI_ROUTE), 4, 0xffff_ffff);
    gic.write(dist(SPI_ROUTE + 4), 4, 0xffff_ffff);
    assert_eq!(gic.read(dist(SPI_ROUTE), 8), 0x00ff_ffff);
    gic.write(dist(SPI_ROUTE + 1), 4, 0);
    assert_eq!(gic.read(dist(SPI_ROUTE + 2), 8), 0, "unaligned");
    assert_eq!(gic.read(dist(SPI_ROUTE), 8), 0x00ff_ffff);
}

#[test]
fn whatever_a_guest_writes_the_lists_hold_its_own_interrupts_only() {
    let mut gic = enabled(2);
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut cpus = [0, 1].map(|vcpu| Cpu::with_lists(&mut gic, vcpu, 4));
    for _ in 0..200_000 {
        let (kind, value, vcpu) = (random() % 8, random(), (random() % 2) as usize);
        let offset = (random() % 0x1_0000) & if kind % 2 == 0 { !3 } else { !0 };
        let near = [0x80, 0x100, 0x200, 0x300, 0x400, 0xc00, 0x6100][(value >> 7) as usize % 7];
        let offset = if kind < 4 { near + offset % 0x90 } else { offset };
        let place = if value & 64 == 0 { dist(offset) } else { own(vcpu, offset) };
        let size = 1 << (random() % 4);
        gic.read(place, size);
        gic.write(place, size, value);
        gic.send_sgi(vcpu, random() & 0x0f00_0003);
        gic.set_line(CONSOLE, random() & 1 == 1);
        let cpu = &mut cpus[vcpu];
        if kind == 6 && !cpu.physical_timer_active {
            cpu.tick(&mut gic);
        }
        if let Some(intid) = cpu.acknowledge().filter(|_| kind != 1) {
            cpu.end(intid);
        }
        cpu.refresh(&mut gic);
        for spi in 32..=CONSOLE {
            let lists = |cpu: &&Cpu| cpu.lists.iter().any(|&r| r & STATE != 0 && intid(r) == spi);
            assert!(cpus.iter().filter(lists).count() < 2, "an SPI is in one place");
        }
        for register in cpus.iter().flat_map(|cpu| cpu.lists).filter(|r| r & STATE != 0) {
            assert!(matches!(intid(register), 0..16 | TIMER | 32..=CONSOLE));
            let physical = register >> 32 & 0x1ff;
            assert!(physical == u64::from(if register & HARDWARE == 0 { 0 } else { TIMER }));
        }
    }
}
