//! Message buffers that are not wholly RAM of the VM, or that change while they are used.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rm_abi::memparcel::create::Create;
use rm_abi::{CreateFlags, Header, Kind, MemoryKind, PACKET, Transfer, message};
use rm_client::hvc::Hvc;
use rm_client::{NewParcel, Rights, Sanitize, Session, SglEntry, Vmid, grant, pages};

use super::call::Form;
use super::{ADDR_INVALID, EMPTY, OK, REPLY, request};
use crate::demo::granted;
use crate::layout::{CONSOLE, PAGE, PAGES, VMID_A};
use crate::{cpu, life};

/// The form of all calls here; which registers they use is another program's.
const FORM: Form = Form::Native;
/// A VMID that any access list may name.
const SOMEBODY: Vmid = Vmid(0x1e);
/// Where the VM has nothing.
const NOWHERE: u64 = 0x3_0000_0000;

/// The page whose rights change, behind one that is always there.
const CHANGING: u64 = PAGES + PAGE;

/// The program of the first vCPU.
pub fn main() {
    let mut session = life::session();
    good_buffers_straddle_pages();
    what_is_not_ram_is_refused();
    what_is_lent_is_refused(&mut session);
    what_may_only_be_read_is_sent_from_only(&mut session);
    a_request_may_lend_the_page_that_it_is_in();
    a_buffer_that_changes_is_read_once();
}

/// Sends the `size` bytes at an address; error, and whether another packet has room.
fn queue_send(at: u64, size: u64) -> (u64, u64) {
    let [error, not_full] = super::send(FORM, size, at);
    (error, not_full)
}

/// Receives a packet into `size` bytes at an address; error, size, and whether more wait.
fn queue_receive(at: u64, size: u64) -> (u64, u64, u64) {
    let [error, length, more] = super::receive(FORM, at, size);
    (error, length, more)
}

/// The header of a reply, and its error word.
fn reply(packet: &[u8]) -> (Header, u32) {
    let header = Header::decode(packet).expect("the manager sends whole headers");
    assert!(header.kind == Kind::Reply, "{header:?}");
    let word = packet[Header::SIZE..].first_chunk().expect("a reply has an error word");
    (header, u32::from_le_bytes(*word))
}

/// Puts bytes at an address.
fn put(at: u64, bytes: &[u8]) {
    for (at, byte) in (at..).zip(bytes) {
        // SAFETY: callers name pages of the VM's memory that hold no Rust object.
        unsafe { (at as *mut u8).write_volatile(*byte) };
    }
}

/// Sends what is at an address, and expects that it is queued and answered.
fn expect_sent(at: u64, length: usize) {
    assert!(queue_send(at, length as u64) == (OK, 1), "{at:#x} was not sent from");
    let mut answer = [0; PACKET];
    let (error, size, more) = queue_receive(answer.as_mut_ptr() as u64, PACKET as u64);
    assert!((error, size, more) == (OK, REPLY, 0), "{at:#x}: {error} {size} {more}");
}

/// Expects that nothing is sent from an address.
fn expect_not_sent(what: &str, at: u64, length: u64) {
    let sent = queue_send(at, length);
    assert!(sent == (ADDR_INVALID, 0), "{what} at {at:#x}: {sent:?}");
    let left = queue_receive(NOWHERE, PACKET as u64);
    assert!(left == (EMPTY, 0, 0), "{what} at {at:#x}: something was answered, {left:?}");
}

/// Expects that a reply that waits is not received to an address, and stays.
fn expect_not_received(what: &str, at: u64) {
    let asked = request(3);
    assert!(queue_send(asked.as_ptr() as u64, asked.len() as u64) == (OK, 1));
    let received = queue_receive(at, 16);
    assert!(received == (ADDR_INVALID, 0, 1), "{what} at {at:#x}: {received:?}");
    let mut answer = [0; PACKET];
    let received = queue_receive(answer.as_mut_ptr() as u64, PACKET as u64);
    assert!(received == (OK, REPLY, 0), "{what}: the packet was not kept, {received:?}");
    assert!(reply(&answer[..16]).0.sequence == 3);
}

fn good_buffers_straddle_pages() {
    let asked = request(1);
    for before in 1..asked.len() as u64 {
        put(CHANGING - before, &asked);
        expect_sent(CHANGING - before, asked.len());
    }
    for before in [1, 7, 8, 15] {
        put(CHANGING - 8, &asked);
        assert!(queue_send(CHANGING - 8, 8) == (OK, 1));
        assert!(queue_receive(CHANGING - before, 16) == (OK, REPLY, 0));
    }
    println!("buffers may straddle pages");
}

fn what_is_not_ram_is_refused() {
    for (what, at) in [
        ("no memory", NOWHERE),
        ("a device", CONSOLE),
        ("the null pointer's page", 0),
        ("an address that no table has", 0x0100_0000_0000_0000),
        ("the end of all addresses", u64::MAX - 3),
        ("an address that wraps", u64::MAX - 15),
    ] {
        expect_not_sent(what, at, 8);
        expect_not_received(what, at);
    }
    println!("what is not RAM of mine is no buffer");
}

/// Changes the rights of one page, does `work`, and takes it back.
fn while_given_away(
    session: &mut Session<Hvc>,
    transfer: Transfer,
    rights: Rights,
    work: impl FnOnce(),
) {
    let ranges = [pages(CHANGING, 1)];
    let acl = [grant(SOMEBODY, Rights::R), grant(Vmid(VMID_A), rights)];
    let handle = match transfer {
        Transfer::Share => session.share(&NewParcel::new(&ranges, &acl)),
        Transfer::Lend | Transfer::Donate => session.lend(&NewParcel::new(&ranges, &acl[..1])),
    };
    let handle = granted("giving a page away", handle);
    work();
    granted("taking it back", session.reclaim(handle, Sanitize::empty()));
}

fn what_is_lent_is_refused(session: &mut Session<Hvc>) {
    let asked = request(1);
    put(CHANGING - 4, &asked);
    while_given_away(session, Transfer::Lend, Rights::RW, || {
        expect_not_sent("a lent page", CHANGING, 8);
        expect_not_sent("half a lent page", CHANGING - 4, 8);
        expect_not_received("a lent page", CHANGING);
        expect_not_received("half a lent page", CHANGING - 8);
    });
    expect_sent(CHANGING - 4, asked.len());
    println!("what I lent is no buffer, wholly or in part");
}

fn what_may_only_be_read_is_sent_from_only(session: &mut Session<Hvc>) {
    let asked = request(1);
    put(CHANGING - 4, &asked);
    while_given_away(session, Transfer::Share, Rights::R, || {
        expect_sent(CHANGING - 4, asked.len());
        expect_not_received("a page to be read", CHANGING);
        expect_not_received("half a page to be read", CHANGING - 8);
    });
    println!("what I may only read is no buffer to receive to");
}

fn a_request_may_lend_the_page_that_it_is_in() {
    let mut payload = [0; 64];
    let lend = Create {
        memory: MemoryKind::NORMAL,
        flags: CreateFlags::empty(),
        label: 0,
        acl: &[grant(SOMEBODY, Rights::R)],
        sgl: &[SglEntry { ipa: CHANGING, size: PAGE }],
        attributes: &[],
    };
    let length = lend.encode(&mut payload).expect("a lend of one page is short");
    put(CHANGING + 64, &Header::request(message::MEM_LEND, 9).encode());
    put(CHANGING + 64 + Header::SIZE as u64, &payload[..length]);
    assert!(queue_send(CHANGING + 64, (Header::SIZE + length) as u64) == (OK, 1));
    let received = queue_receive(CHANGING + 64, 16);
    assert!(received == (ADDR_INVALID, 0, 1), "into the page that was lent: {received:?}");
    let mut answer = [0; PACKET];
    assert!(queue_receive(answer.as_mut_ptr() as u64, PACKET as u64) == (OK, REPLY, 0));
    assert!(reply(&answer[..16]).1 == 0, "{answer:x?}");
    let handle = u32::from_le_bytes([answer[12], answer[13], answer[14], answer[15]]);
    let reclaimed = life::session().reclaim(rm_client::Handle(handle), Sanitize::empty());
    granted("reclaiming what the request lent", reclaimed);
    println!("a request may lend the page that it is in; its reply then goes elsewhere");
}

/// What the second vCPU writes all the time, and whether it goes on.
static RACE: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
static GOES_ON: AtomicBool = AtomicBool::new(true);
static RUNS: AtomicU64 = AtomicU64::new(0);

/// Two requests of the same length with other sequence numbers, calls and payloads, as words.
fn racers() -> [[u64; 2]; 2] {
    let words = |header: Header, payload: [u8; 8]| {
        [u64::from_le_bytes(header.encode()), u64::from_le_bytes(payload)]
    };
    [
        words(Header::request(message::VM_GET_VMID, 0x1111), [0; 8]),
        words(Header::request(message::MEM_RELEASE, 0x2222), [0xff; 8]),
    ]
}

/// The program of the second vCPU: rewrites a buffer that the first one sends.
pub fn rewrite() {
    let racers = racers();
    while GOES_ON.load(Ordering::Relaxed) {
        for words in racers {
            for (word, value) in RACE.iter().zip(words) {
                word.store(value, Ordering::Relaxed);
            }
        }
        RUNS.fetch_add(1, Ordering::Release);
    }
}

fn a_buffer_that_changes_is_read_once() {
    let start = cpu::now();
    while RUNS.load(Ordering::Acquire) == 0 {
        assert!(!cpu::passed(start, 60 * cpu::frequency()), "the other vCPU does not run");
    }
    let mut heard = [0; 2];
    for _ in 0..2_000 {
        assert!(queue_send(RACE.as_ptr() as u64, 16) == (OK, 1));
        let mut answer = [0; PACKET];
        let (error, size, _) = queue_receive(answer.as_mut_ptr() as u64, PACKET as u64);
        assert!(error == 0 && size == 12, "{error} {size}");
        let (header, error) = reply(&answer[..12]);
        // Header and payload are a word each; either may be of either request, but whole. A request
        // for the VMID has no payload, and nobody holds the parcel that the other releases.
        let which = match (header.sequence, header.message, error) {
            (0x1111, message::VM_GET_VMID, 4) => 0,
            (0x2222, message::MEM_RELEASE, 7) => 1,
            other => panic!("torn: {other:x?}"),
        };
        heard[which] += 1;
    }
    GOES_ON.store(false, Ordering::Relaxed);
    println!("a buffer that changed was read once: {} and {} times", heard[0], heard[1]);
}
