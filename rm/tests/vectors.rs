//! The exchanges captured from the original, replayed against the manager over the strict fake.
//!
//! Every boot is a conversation of three VMs through the message queues, packet by packet as it was
//! captured. What needs a CPU (registers that a call must keep, a GIC, what an exception says) is
//! replayed by a guest on the running system instead.

use core::fmt::Arguments;
use std::collections::BTreeMap;

use rm::address::{Ipa, Pa, VmIndex};
use rm::config::VmConfig;
use rm::direct::{GuestFault, GuestMemory};
use rm::hypercall::Hypercall;
use rm::machine::Line;
use rm::machine::fake::effort::few;
use rm::machine::fake::world::{Guest, World, vm};
use rm::operation::budget::Budget;
use rm::quota::Quotas;
use rm::stage2::Access;
use rm_abi::{Capability, PACKET, Transfer};
use rm_vectors::differences::Reason;
use rm_vectors::exchange::Exchange;
use rm_vectors::registers::{Call, Registers};
use rm_vectors::replay::Access as Accessed;
use rm_vectors::{BOOTS, Boot, Replay, STORY, System, Verdict, Vm};

/// The primary's RAM, at the same addresses in the machine.
const PRIMARY_RAM: u64 = 0x4000_0000;
const PRIMARY_PAGES: u64 = 1 << 18;
/// Below it a secondary of the original has devices, and one page of the manager's.
const SECONDARY_FROM: u64 = 0x4000_1000;
/// Where the original mapped a secondary's image.
const IMAGE: u64 = 0x8000_0000;
const IMAGE_PAGES: u64 = 1024;
const MAILBOX_PAGES: u64 = 32;

/// The machine of the captured exchanges.
struct Host<'w> {
    world: &'w World,
    guests: [Guest<'w>; 3],
    /// Interrupts of each VM's queues that were acknowledged.
    acknowledged: [[u64; 2]; 3],
    complaints: Vec<String>,
}

fn configured(which: Vm) -> VmConfig {
    let quotas = Quotas { frames: few(600, 80), frames_reserved: few(60, 20), ..Quotas::default() };
    let from = if which == Vm::Primary { 0 } else { SECONDARY_FROM };
    VmConfig {
        quotas,
        accept_from: Ipa(from),
        direct_mapped: which == Vm::Primary,
        ..vm(which.vmid())
    }
}

fn world() -> World {
    let world = World::without_memory(&Vm::ALL.map(configured), Default::default());
    let story = [0xa000_0000, 0x1_0000_0000, 0x8_8000_0000, 0x8_9000_0000].map(|at| (at, 512));
    for (at, pages) in [(PRIMARY_RAM, PRIMARY_PAGES)].into_iter().chain(story) {
        world.manager.give(index(Vm::Primary), Ipa(at), Pa(at), pages).expect("it is free");
    }
    world
}

const fn index(vm: Vm) -> VmIndex {
    VmIndex(vm as u8)
}

impl<'w> Host<'w> {
    fn new(world: &'w World) -> Self {
        Self {
            world,
            guests: Vm::ALL.map(|vm| world.caller(index(vm))),
            acknowledged: [[0; 2]; 3],
            complaints: vec![],
        }
    }

    fn guest(&self, vm: Vm) -> &Guest<'w> {
        &self.guests[vm as usize]
    }

    fn cpu_memory(&self, vm: Vm) -> Memory<'w> {
        Memory { world: self.world, vm: index(vm) }
    }
}

impl System for Host<'_> {
    fn send(&mut self, vm: Vm, packet: &[u8]) -> (i64, bool) {
        self.guest(vm).queue_send(packet, true)
    }

    fn receive(&mut self, vm: Vm, into: &mut [u8; PACKET]) -> Option<usize> {
        let (packet, _) = self.guest(vm).queue_receive().ok()?;
        into[..packet.len()].copy_from_slice(&packet);
        Some(packet.len())
    }

    fn wait(&mut self, vm: Vm) {
        self.world.manager.step(index(vm), &mut Budget::new(1000));
    }

    fn capability(&self, queue: &str) -> u64 {
        match queue {
            "tx" => Capability::SEND_QUEUE.0,
            _ => Capability::RECEIVE_QUEUE.0,
        }
    }

    fn hypercall(&mut self, vm: Vm, call: &Call, registers: &mut Registers) -> bool {
        let Some(number) = call.number else { return false };
        let first = usize::from(!call.native);
        let args = core::array::from_fn(|index| registers[first + index]);
        let hypercall = Hypercall { number, args, native: call.native };
        let memory = self.cpu_memory(vm);
        let Some(results) = self.world.manager.hypercall(index(vm), &hypercall, &memory) else {
            return false;
        };
        registers[..results.count].copy_from_slice(&results.x[..results.count]);
        true
    }

    fn write(&mut self, vm: Vm, at: u64, bytes: &[u8]) {
        self.cpu_memory(vm).write(at, bytes).expect("a guest writes to its own memory");
    }

    fn acknowledge(&mut self, vm: Vm, queue: usize) -> bool {
        let line = [Line::Send, Line::Receive][queue];
        let raised = self.world.interrupts(index(vm), line);
        let before = core::mem::replace(&mut self.acknowledged[vm as usize][queue], raised);
        raised > before
    }

    fn registers(&mut self, _: Vm, _: u64, _: Option<u64>) -> Option<u64> {
        None
    }

    fn access(&mut self, vm: Vm, at: u64, value: Option<u64>) -> Option<Accessed> {
        let memory = self.cpu_memory(vm);
        let mut bytes = [0; 8];
        let done = match value {
            Some(value) => memory.write(at, &value.to_le_bytes()),
            None => memory.read(at, &mut bytes),
        };
        let value = u64::from_le_bytes(bytes);
        Some(done.map_or(Accessed::Fault { at: None }, |()| Accessed::Done { value }))
    }

    fn start(&mut self, vm: Vm, mailbox: u32, image: u32) {
        let guest = self.guest(vm);
        guest
            .accept(mailbox, Transfer::Share, &[(SECONDARY_FROM, MAILBOX_PAGES)])
            .expect("the primary shares the mailbox");
        guest
            .accept_contiguous(image, Transfer::Lend, (IMAGE, IMAGE_PAGES))
            .expect("the primary lends the image");
    }

    fn report(&mut self, exchange: &Exchange, what: Arguments<'_>) {
        self.complaints.push(format!("{} ({}): {what}", exchange.id, exchange.case));
    }
}

/// A VM's memory as its CPU sees it, with the MMU off.
struct Memory<'w> {
    world: &'w World,
    vm: VmIndex,
}

impl GuestMemory for Memory<'_> {
    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), GuestFault> {
        for (at, byte) in (at..).zip(into) {
            self.look(at, Access::Read)?;
            *byte = self.world.cpu(self.vm).read(Ipa(at)).map_err(|_| GuestFault::Unmapped)?;
        }
        Ok(())
    }

    fn write(&self, at: u64, from: &[u8]) -> Result<(), GuestFault> {
        self.writable(at, from.len())?;
        let cpu = self.world.cpu(self.vm);
        for (at, byte) in (at..).zip(from) {
            cpu.write(Ipa(at), *byte).map_err(|_| GuestFault::Unmapped)?;
        }
        Ok(())
    }

    fn writable(&self, at: u64, length: usize) -> Result<(), GuestFault> {
        (at..at + length as u64).try_for_each(|at| self.look(at, Access::Write))
    }
}

impl Memory<'_> {
    /// Whether an access is allowed, asked as a CPU asks that still knows an older translation.
    fn look(&self, at: u64, access: Access) -> Result<(), GuestFault> {
        let allows = |at, access| self.world.manager.allows(self.vm, at, access);
        let found = self.world.cpu(self.vm).retrying(Ipa(at), access, allows);
        found.map(drop).map_err(|_| GuestFault::Unmapped)
    }
}

/// How many exchanges went how.
#[derive(Default, Debug)]
struct Tally {
    same: usize,
    not_here: usize,
    failed: usize,
    differs: BTreeMap<&'static str, usize>,
}

fn replay(boot: Boot, tally: &mut Tally) -> Vec<String> {
    let world = world();
    let mut host = Host::new(&world);
    let mut replay = Replay::new(boot);
    for exchange in boot.exchanges().take(few(usize::MAX, 12)) {
        match replay.exchange(&mut host, &exchange) {
            Verdict::Same => tally.same += 1,
            Verdict::NotHere => tally.not_here += 1,
            Verdict::Failed => tally.failed += 1,
            Verdict::Differs(line) => *tally.differs.entry(line.reason.name()).or_default() += 1,
        }
    }
    world.check();
    host.complaints
}

fn assert_replays(name: &str) {
    let boot = BOOTS.into_iter().find(|boot| boot.name == name).expect("there is such a boot");
    assert_boot_replays(boot);
}

fn assert_boot_replays(boot: Boot) {
    let name = boot.name;
    let mut tally = Tally::default();
    let complaints = replay(boot, &mut tally);
    println!("{name}: {tally:?}");
    assert!(complaints.is_empty() && tally.failed == 0, "{}\n{tally:?}", complaints.join("\n"));
}

#[test]
fn creations_are_answered_as_the_original_answers_them() {
    assert_replays("create");
}

#[test]
fn appends_are_answered_as_the_original_answers_them() {
    assert_replays("append");
}

#[test]
fn accepts_are_answered_as_the_original_answers_them() {
    assert_replays("accept");
}

#[test]
fn notifications_and_lookups_go_as_with_the_original() {
    assert_replays("notify");
}

#[test]
fn packets_are_taken_and_dropped_as_by_the_original() {
    assert_replays("transport");
}

#[test]
fn memory_is_handed_over_as_by_the_original() {
    assert_replays("mem");
}

#[test]
fn queue_hypercalls_answer_as_those_of_the_original() {
    assert_replays("hyp");
}

#[test]
fn interrupts_come_when_the_original_raises_them() {
    assert_replays("irq");
}

#[test]
fn random_requests_are_answered_as_the_original_answers_them() {
    assert_replays("fuzz1");
}

#[test]
fn the_worked_examples_come_true() {
    assert_boot_replays(STORY);
}

#[test]
fn the_table_gives_only_reasons_that_are_in_it() {
    let used =
        |reason: &Reason| rm_vectors::differences::lines().any(|line| line.reason == *reason);
    let unused: Vec<_> = Reason::ALL.iter().filter(|reason| !used(reason)).collect();
    assert!(unused.is_empty(), "reasons without a line: {unused:?}");
}
