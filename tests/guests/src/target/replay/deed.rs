//! What a VM can be told to do, and how two VMs talk about it.
//!
//! A deed is a word on the channel; what belongs to it, and what came of it, lies in the page behind
//! the channel's words.

use rm_abi::{Capability, PACKET};
use rm_client::{Acceptance, Handle, Sanitize, SglEntry, Transfer};
use rm_vectors::registers::{COUNT, Registers, filled};

use super::registers::execute;
use crate::layout::PAGE;
use crate::{life, memory, probe};

/// Where the room for a deed begins in the page.
const ROOM: u64 = 0x400;
/// Words in the room.
const WORDS: u64 = (PAGE - ROOM) / 8;

/// A deed, by its word on the channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub(super) enum Deed {
    /// Send a packet: its length, its bytes. Back: error, whether there is room.
    Send = 1,
    /// Receive a packet. Back: its length or [`NOTHING`], its bytes.
    Receive,
    /// Execute an instruction: its opcode, all registers. Back: all registers from word 1 on.
    Execute,
    /// Write bytes: where, how many, the bytes.
    Write,
    /// Load or store: where, whether to store, what. Back: whether it faulted, what was loaded, ESR and FAR.
    Access,
    /// Accept the mailbox and the image: their handles, and where the mailbox goes.
    Start,
    /// Release and reclaim this handle, if it can be.
    GiveBack,
    /// End.
    End,
}

impl Deed {
    const ALL: [Self; 8] = [
        Self::Send,
        Self::Receive,
        Self::Execute,
        Self::Write,
        Self::Access,
        Self::Start,
        Self::GiveBack,
        Self::End,
    ];

    /// The deed of this word.
    pub(super) fn of(word: u64) -> Self {
        match Self::ALL.into_iter().find(|deed| *deed as u64 == word) {
            Some(deed) => deed,
            None => panic!("no deed is called {word:#x}"),
        }
    }
}

/// No packet was there.
pub(super) const NOTHING: u64 = u64::MAX;

/// Words that two VMs share, or one keeps for itself.
#[derive(Clone, Copy)]
pub(super) struct Room {
    at: u64,
}

impl Room {
    /// The room in a page.
    pub(super) const fn in_page(page: u64) -> Self {
        Self { at: page + ROOM }
    }

    /// Word `index`.
    pub(super) fn get(self, index: u64) -> u64 {
        assert!(index < WORDS, "no word {index} in a room");
        memory::read(self.at + 8 * index)
    }

    /// Sets word `index`.
    pub(super) fn set(self, index: u64, word: u64) {
        assert!(index < WORDS, "no word {index} in a room");
        memory::write(self.at + 8 * index, word);
    }

    /// Puts bytes behind word `from`.
    pub(super) fn put_bytes(self, from: u64, bytes: &[u8]) {
        for (index, byte) in (0..).zip(bytes) {
            memory::write8(self.at + 8 * (from + 1) + index, *byte);
        }
    }

    /// Takes the bytes behind word `from`.
    pub(super) fn bytes(self, from: u64, into: &mut [u8]) {
        for (index, chunk) in (from + 1..).zip(into.chunks_mut(8)) {
            chunk.copy_from_slice(&self.get(index).to_le_bytes()[..chunk.len()]);
        }
    }
}

/// Does a deed that is described in `room`, and leaves there what came of it.
pub(super) fn act(deed: Deed, room: Room) {
    match deed {
        Deed::Send => {
            let mut packet = [0; PACKET];
            let packet = &mut packet[..room.get(0) as usize];
            room.bytes(0, packet);
            let [error, has_room, ..] = call(
                SEND,
                [Capability::SEND_QUEUE.0, packet.len() as u64, packet.as_ptr() as u64, 1, 0],
            );
            room.set(0, error);
            room.set(1, has_room);
        }
        Deed::Receive => {
            let mut packet = [0; PACKET];
            let to = packet.as_mut_ptr() as u64;
            let [error, length, ..] =
                call(RECEIVE, [Capability::RECEIVE_QUEUE.0, to, PACKET as u64, 0, 0]);
            room.set(0, if error == 0 { length } else { NOTHING });
            if error == 0 {
                room.put_bytes(0, &packet[..length as usize]);
            }
        }
        Deed::Execute => {
            let mut registers: Registers = core::array::from_fn(|n| room.get(1 + n as u64));
            execute(room.get(0) as u32, &mut registers);
            (1..).zip(registers).for_each(|(n, value)| room.set(n, value));
        }
        Deed::Write => {
            let mut bytes = [0; PACKET];
            let bytes = &mut bytes[..room.get(1) as usize];
            room.bytes(1, bytes);
            (room.get(0)..).zip(bytes).for_each(|(at, byte)| memory::write8(at, *byte));
        }
        Deed::Access => access(room),
        Deed::Start => start(room),
        Deed::GiveBack => give_back(Handle(room.get(0) as u32)),
        Deed::End => {}
    }
}

/// The SMCCC ids of the queues' calls.
const SEND: u64 = 0xc600_801b;
const RECEIVE: u64 = 0xc600_801c;

/// A hypercall by its SMCCC id.
fn call(id: u64, arguments: [u64; 5]) -> [u64; COUNT] {
    let mut registers = filled(core::iter::once(id).chain(arguments));
    execute(0xd400_0002, &mut registers);
    registers
}

fn access(room: Room) {
    let at = room.get(0);
    let outcome =
        if room.get(1) != 0 { probe::write(at, room.get(2)).map(|()| 0) } else { probe::read(at) };
    room.set(0, outcome.is_err().into());
    match outcome {
        Ok(value) => room.set(1, value),
        Err(abort) => {
            room.set(2, abort.esr);
            room.set(3, abort.far);
        }
    }
}

/// Where the original maps an image, and how large it is.
const IMAGE: SglEntry = SglEntry { ipa: 0x8000_0000, size: 0x40_0000 };
/// How large a mailbox is.
const MAILBOX: u64 = 0x2_0000;

fn start(room: Room) {
    let [mailbox, image] = [0, 1].map(|index| Handle(room.get(index) as u32));
    let place = SglEntry { ipa: room.get(2), size: MAILBOX };
    let mut session = life::session();
    let accepted = session
        .accept_at(&Acceptance::new(mailbox, Transfer::Share).contiguous(), &[place])
        .and_then(|()| {
            session.accept_at(&Acceptance::new(image, Transfer::Lend).contiguous(), &[IMAGE])
        });
    if let Err(error) = accepted {
        panic!("starting: {error}");
    }
}

/// Whatever of this parcel is the VM's to give back goes back.
fn give_back(handle: Handle) {
    let mut session = life::session();
    let _ = session.release(handle, Sanitize::empty());
    let _ = session.reclaim(handle, Sanitize::empty());
}
