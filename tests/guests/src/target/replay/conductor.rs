//! The primary: it reads the text, tells the VMs what to do, and compares.

use core::fmt::Arguments;

use rm_abi::{Capability, PACKET};
use rm_vectors::exchange::Exchange;
use rm_vectors::registers::{COUNT, Call, Registers};
use rm_vectors::replay::Access;
use rm_vectors::{BOOTS, Boot, Replay, System, Verdict, Vm};

use super::deed::{Deed, NOTHING, Room, act};
use crate::channel::Channel;
use crate::layout::{
    DISTRIBUTOR, LINK_AB, LINK_AC, MEMORY, PAGE, RAM, REPLAY_MAILBOX, REPLAY_MEMORY,
};
use crate::{cpu, gic, memory};

/// Where the manager maps first in a secondary of the original.
const FIRST_CHOICE: u64 = 0x4000_1000;
/// Behind what it chose.
const CHOSEN_END: u64 = 0x4800_0000;
/// The end of the original's primary.
const THEIR_END: u64 = 0x8000_0000;
/// The exchange of boot `accept` from which on the primary must be mapped directly, which no
/// manifest can ask for yet.
const DIRECTLY_MAPPED: u16 = 253;

/// The running system.
struct Running {
    rooms: [Room; 3],
    channels: [Option<Channel>; 3],
    /// Interrupts that were acknowledged and not asked for yet, by queue.
    acknowledged: [bool; 2],
    complaints: u32,
}

/// The program.
pub fn main() {
    gic::enable();
    let mut running = Running {
        rooms: [LINK_AB.owner + PAGE * 2, LINK_AB.owner, LINK_AC.owner].map(Room::in_page),
        channels: [None, Some(Channel::owner(LINK_AB)), Some(Channel::owner(LINK_AC))],
        acknowledged: [false; 2],
        complaints: 0,
    };
    let mut tally = Tally::default();
    let mut replay = Replay::new(BOOTS[0]);
    for boot in BOOTS {
        replay.begin(boot);
        running.hold(&mut replay, boot, &mut tally);
    }
    running.tell(Vm::Secondary, Deed::End);
    running.tell(Vm::Secondary2, Deed::End);
    let Tally { same, differs, not_here, failed } = tally;
    println!("{same} exchanges went as with the original, {differs} as the table says");
    println!("{not_here} need a VM that is mapped directly");
    assert!(failed == 0, "{failed} exchanges went otherwise");
}

/// How many exchanges went how.
#[derive(Default)]
struct Tally {
    same: u32,
    differs: u32,
    not_here: u32,
    failed: u32,
}

impl Running {
    /// Holds a boot, and gives back what is left of it.
    fn hold(&mut self, replay: &mut Replay, boot: Boot, tally: &mut Tally) {
        memory::write32(DISTRIBUTOR + ICPENDR, QUEUES as u32);
        self.acknowledged = [false; 2];
        for exchange in boot.exchanges() {
            match replay.exchange(self, &exchange) {
                Verdict::Same => tally.same += 1,
                Verdict::Differs(_) => tally.differs += 1,
                Verdict::NotHere => tally.not_here += 1,
                Verdict::Failed => tally.failed += 1,
            }
        }
        for handle in replay.handles() {
            for vm in [Vm::Secondary, Vm::Secondary2, Vm::Primary] {
                self.room(vm).set(0, handle.into());
                self.tell(vm, Deed::GiveBack);
            }
        }
        println!("boot {}: {} so far as with the original", boot.name, tally.same);
    }

    const fn room(&self, vm: Vm) -> Room {
        self.rooms[vm as usize]
    }

    /// Has a VM do what its room describes.
    fn tell(&self, vm: Vm, deed: Deed) {
        match &self.channels[vm as usize] {
            Some(channel) => {
                channel.say(deed as u64);
                channel.expect(deed as u64);
            }
            None => act(deed, self.room(vm)),
        }
    }
}

/// The distributor's registers of the original's two interrupts, 960 and 961, and of ours, 32 and 33.
const REGISTERS: [(u64, u64, u64); 6] = [
    (0x800_00f8, IGROUPR, QUEUES),
    (0x800_0178, 0x104, QUEUES),
    (0x800_0278, 0x204, QUEUES),
    (0x800_02f8, ICPENDR, QUEUES),
    (0x800_07c0, 0x420, 0xffff),
    (0x800_0cf0, 0xc08, 0xf),
];
const IGROUPR: u64 = 0x84;
const ICPENDR: u64 = 0x284;
/// The bits of the two interrupts.
const QUEUES: u64 = 3;

/// Our register for one of the original's, and the bits that count.
fn register(at: u64) -> Option<(u64, u64)> {
    let found = REGISTERS.into_iter().find(|(theirs, ..)| *theirs == at);
    found.map(|(_, offset, bits)| (DISTRIBUTOR + offset, bits))
}

impl System for Running {
    fn send(&mut self, vm: Vm, packet: &[u8]) -> (i64, bool) {
        let room = self.room(vm);
        room.set(0, packet.len() as u64);
        room.put_bytes(0, packet);
        self.tell(vm, Deed::Send);
        (room.get(0) as i64, room.get(1) == 1)
    }

    fn receive(&mut self, vm: Vm, into: &mut [u8; PACKET]) -> Option<usize> {
        let room = self.room(vm);
        self.tell(vm, Deed::Receive);
        let length = room.get(0);
        if length == NOTHING {
            return None;
        }
        room.bytes(0, &mut into[..length as usize]);
        Some(length as usize)
    }

    fn wait(&mut self, _: Vm) {
        cpu::relax();
    }

    fn capability(&self, queue: &str) -> u64 {
        match queue {
            "tx" => Capability::SEND_QUEUE.0,
            _ => Capability::RECEIVE_QUEUE.0,
        }
    }

    fn address(&self, vm: Vm, theirs: u64) -> u64 {
        match vm {
            Vm::Primary if (THEIR_END - PAGE..THEIR_END).contains(&theirs) => {
                theirs + REPLAY_MEMORY - (THEIR_END - RAM)
            }
            Vm::Secondary | Vm::Secondary2 if (FIRST_CHOICE..CHOSEN_END).contains(&theirs) => {
                theirs - FIRST_CHOICE + REPLAY_MAILBOX
            }
            _ => theirs,
        }
    }

    fn has(&self, exchange: &Exchange) -> bool {
        exchange.id.boot != "accept" || exchange.id.number < DIRECTLY_MAPPED
    }

    fn hypercall(&mut self, vm: Vm, call: &Call, registers: &mut Registers) -> bool {
        let room = self.room(vm);
        room.set(0, call.instruction.into());
        (1..).zip(&*registers).for_each(|(n, value)| room.set(n, *value));
        self.tell(vm, Deed::Execute);
        *registers = core::array::from_fn::<_, COUNT, _>(|n| room.get(1 + n as u64));
        true
    }

    fn write(&mut self, vm: Vm, at: u64, bytes: &[u8]) {
        let at = register(at).map_or_else(|| self.address(vm, at), |(at, _)| at);
        let room = self.room(vm);
        room.set(0, at);
        room.set(1, bytes.len() as u64);
        room.put_bytes(1, bytes);
        self.tell(vm, Deed::Write);
    }

    fn acknowledge(&mut self, _: Vm, queue: usize) -> bool {
        while let Some(interrupt) = gic::acknowledge() {
            match interrupt {
                gic::SPI_TX => self.acknowledged[0] = true,
                gic::SPI_RX => self.acknowledged[1] = true,
                other => panic!("interrupt {other} came"),
            }
        }
        core::mem::take(&mut self.acknowledged[queue])
    }

    fn registers(&mut self, _: Vm, at: u64, value: Option<u64>) -> Option<u64> {
        let (at, bits) = register(at)?;
        Some(match value {
            Some(value) => {
                memory::write32(at, value as u32);
                value
            }
            None => u64::from(memory::read32(at)) & bits,
        })
    }

    fn access(&mut self, vm: Vm, at: u64, value: Option<u64>) -> Option<Access> {
        let room = self.room(vm);
        room.set(0, at);
        room.set(1, value.is_some().into());
        room.set(2, value.unwrap_or(0));
        self.tell(vm, Deed::Access);
        Some(match room.get(0) {
            0 => Access::Done { value: room.get(1) },
            _ => Access::Fault { at: Some((room.get(2), room.get(3))) },
        })
    }

    fn start(&mut self, vm: Vm, mailbox: u32, image: u32) {
        let room = self.room(vm);
        room.set(0, mailbox.into());
        room.set(1, image.into());
        room.set(2, REPLAY_MAILBOX);
        self.tell(vm, Deed::Start);
    }

    fn report(&mut self, exchange: &Exchange, what: Arguments<'_>) {
        self.complaints += 1;
        if self.complaints <= MOST_COMPLAINTS {
            println!("{}: {what}", exchange.id);
            // The log drops what comes too fast.
            let start = cpu::now();
            while !cpu::passed(start, cpu::frequency() / 20) {
                cpu::relax();
            }
        }
    }
}

/// As many lines as help.
const MOST_COMPLAINTS: u32 = 300;

// The manager maps where a secondary's own memory ends.
const _: () = assert!(REPLAY_MAILBOX == RAM + MEMORY);
