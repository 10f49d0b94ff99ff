//! One cache policy for a parcel, whoever has it.
//!
//! Cast: this program as first and second VM, linked. A shares and lends pages with every attribute, and
//! changes the policy of a parcel while B does not hold it; each reads what the other wrote. A, which may
//! inspect, looks at the descriptors of both. It also calls from a page that is not cacheable.

use rm_abi::extension::{DISCOVER, Discovery};
use rm_abi::{Header, Kind};
use rm_client::hvc::Hvc;
use rm_client::{
    Acceptance, AclEntry, Attribute, AttributeEntry, ErrorCode, Handle, NewParcel, Policies,
    Policy, Rights, Sanitize, Session, SglEntry, Transfer, Vmid, grant, pages,
};

use crate::channel::Channel;
use crate::demo::{granted, refused};
use crate::layout::{BLOCK, LINK_AB, PAGE, PAGES, VMID_A, VMID_B, WINDOW};
use crate::{life, memory, raw};

/// A page, a run, and a whole block.
const RANGES: [SglEntry; 3] =
    [pages(PAGES, 1), pages(PAGES + 2 * PAGE, 2), pages(PAGES + BLOCK, BLOCK / PAGE)];
const COUNT: u64 = 3 + BLOCK / PAGE;
const SHARED: [AclEntry; 2] = [grant(Vmid(VMID_A), Rights::RW), grant(Vmid(VMID_B), Rights::RW)];
const ATTRIBUTES: [Attribute; 3] = [Attribute::Normal, Attribute::Uncached, Attribute::Cached];
const POLICIES: [Policy; 3] = [Policy::Uncached, Policy::Cached, Policy::Uncached];

/// A page in a list and one in a block, where A has them and where B does.
const OWN_SPOTS: [u64; 2] = [PAGES, PAGES + BLOCK + 5 * PAGE];
const BORROWED_SPOTS: [u64; 2] = [WINDOW, WINDOW + 8 * PAGE];
/// Said by B while it holds a parcel, and by A when it has looked.
const HOLDS: u64 = 100;

/// Bits 5:2 and 9:8 of a stage-2 descriptor: MemAttr and SH.
type Memory = (u64, u64);
const WRITE_BACK: u64 = 0b1111;
/// Write-back with FEAT_S2FWB, whatever stage 1 says.
const FORCED: u64 = 0b0110;
const INNER_SHAREABLE: u64 = 3;
const UNCACHED: Memory = (0b0101, 0);

fn expect_memory(session: &mut Session<Hvc>, vmid: u16, spots: &[u64], expected: Memory) {
    for &at in spots {
        let leaf = granted("looking at a leaf", session.leaf(Vmid(vmid), at));
        let found = (leaf.descriptor >> 2 & 0xf, leaf.descriptor >> 8 & 3);
        assert!(found == expected, "VM {vmid:#x} at {at:#x}: {:#x}", leaf.descriptor);
    }
}

fn all_with(attribute: Attribute) -> [AttributeEntry; 2] {
    let attribute = attribute as u16;
    [VMID_A, VMID_B].map(|vmid| AttributeEntry { attribute, vmid: Vmid(vmid) })
}

/// The program.
pub fn main() {
    let mut session = life::session();
    if granted("asking who I am", session.vmid()) == Vmid(VMID_A) {
        owner(&mut session, &Channel::owner(LINK_AB));
    } else {
        borrower(&mut session, &Channel::peer(LINK_AB));
    }
}

fn owner(session: &mut Session<Hvc>, b: &Channel) {
    let forced = granted("asking what is offered", session.discover()).forced;
    assert!(forced.contains(Policies::UNCACHED | Policies::DEVICE), "{forced:?}");
    let is_forced = forced.contains(Policies::CACHED);
    println!("write-back is {}", if is_forced { "forced" } else { "advisory" });
    let cached = (if is_forced { FORCED } else { WRITE_BACK }, INNER_SHAREABLE);
    for attribute in ATTRIBUTES {
        let memory = if attribute == Attribute::Uncached { UNCACHED } else { cached };
        offer_with(session, b, attribute, memory);
        expect_memory(session, VMID_A, &OWN_SPOTS, cached);
    }
    change(session, b, cached);
    expect_memory(session, VMID_A, &OWN_SPOTS, cached);
    call_from_uncached_memory(session);
    println!("every policy held on both sides, and nothing that was written was lost");
}

/// Shares and lends with an attribute; B finds what A wrote, and A what B did.
fn offer_with(session: &mut Session<Hvc>, b: &Channel, attribute: Attribute, memory: Memory) {
    let attributes = all_with(attribute);
    fill(1);
    let wanted = NewParcel::new(&RANGES, &SHARED).attributes(&attributes);
    let parcel = granted("sharing", session.share(&wanted));
    check(1);
    b.say_handle(parcel);
    b.expect(HOLDS);
    expect_memory(session, VMID_A, &OWN_SPOTS, memory);
    expect_memory(session, VMID_B, &BORROWED_SPOTS, memory);
    b.say(HOLDS);
    b.expect(0);
    check(2);
    granted("reclaiming", session.reclaim(parcel, Sanitize::empty()));
    check(2);
    let wanted = NewParcel::new(&RANGES, &SHARED[1..]).attributes(&attributes[1..]);
    let parcel = granted("lending", session.lend(&wanted));
    b.say_handle(parcel);
    b.expect(HOLDS);
    expect_memory(session, VMID_B, &BORROWED_SPOTS, memory);
    b.say(HOLDS);
    b.expect(0);
    granted("reclaiming", session.reclaim(parcel, Sanitize::empty()));
    check(3);
}

/// Changes the policy of a share between its acceptances.
fn change(session: &mut Session<Hvc>, b: &Channel, cached: Memory) {
    fill(1);
    let parcel = granted("sharing", session.share(&NewParcel::new(&RANGES, &SHARED)));
    b.say_handle(parcel);
    b.expect(0);
    for (round, policy) in (1..).zip(POLICIES) {
        granted("changing the policy", session.set_policy(parcel, policy));
        check(round);
        b.say(round);
        b.expect(round);
        let memory = if policy == Policy::Uncached { UNCACHED } else { cached };
        expect_memory(session, VMID_A, &OWN_SPOTS, memory);
        expect_memory(session, VMID_B, &BORROWED_SPOTS, memory);
        let early = session.set_policy(parcel, policy);
        refused("changing the policy of what B holds", early, ErrorCode::MemoryInUse);
        let why = granted("asking why", session.last_refusal());
        assert!(why.holders() == [Vmid(VMID_B)], "{:?}", why.holders());
        b.say(round);
        b.expect(round);
    }
    granted("reclaiming", session.reclaim(parcel, Sanitize::empty()));
    check(4);
}

/// Request and reply lie in a page that is not cacheable.
fn call_from_uncached_memory(session: &mut Session<Hvc>) {
    let attributes = all_with(Attribute::Uncached);
    let wanted = NewParcel::new(&RANGES[..1], &SHARED).attributes(&attributes);
    let parcel = granted("sharing", session.share(&wanted));
    let reply = PAGES + PAGE / 2;
    for sequence in 1..4 {
        let header = Header::request(DISCOVER, sequence).encode();
        memory::write(PAGES, u64::from_le_bytes(header));
        let [error, length, _] = raw::direct(PAGES, Header::SIZE as u64, reply, PAGE / 2, 0);
        assert!(error == 0 && length as usize >= Header::SIZE + 4 + Discovery::SIZE, "{error}");
        let answer = memory::read(reply).to_le_bytes();
        let expected = Header { kind: Kind::Reply, ..Header::request(DISCOVER, sequence) };
        assert!(answer == expected.encode(), "{answer:x?}");
        memory::write(reply, 0);
    }
    granted("reclaiming", session.reclaim(parcel, Sanitize::empty()));
}

fn borrower(session: &mut Session<Hvc>, a: &Channel) {
    for attribute in ATTRIBUTES {
        let attributes = all_with(attribute);
        let parcel = a.hear_handle();
        let share = Acceptance::new(parcel, Transfer::Share).contiguous();
        for other in ATTRIBUTES.into_iter().filter(|other| *other != attribute) {
            let expected = all_with(other);
            let outcome = accept(session, share.expect_acl(&SHARED, &expected));
            refused("accepting with another policy", outcome, ErrorCode::ValidateFailed);
        }
        granted("accepting", accept(session, share.expect_acl(&SHARED, &attributes)));
        a.say(HOLDS);
        a.expect(HOLDS);
        use_and_release(session, parcel, 2);
        a.say(0);
        let lend = Acceptance::new(a.hear_handle(), Transfer::Lend).contiguous();
        granted("accepting", accept(session, lend.expect_acl(&SHARED[1..], &attributes[1..])));
        a.say(HOLDS);
        a.expect(HOLDS);
        use_and_release(session, lend.handle(), 3);
        a.say(0);
    }
    let parcel = a.hear_handle();
    let outcome = session.set_policy(parcel, Policy::Uncached);
    refused("changing the policy of another's parcel", outcome, ErrorCode::Denied);
    a.say(0);
    for round in 1..=POLICIES.len() as u64 {
        a.expect(round);
        let share = Acceptance::new(parcel, Transfer::Share).contiguous();
        granted("accepting", accept(session, share));
        a.say(round);
        a.expect(round);
        use_and_release(session, parcel, round + 1);
        a.say(round);
    }
    println!("what I wrote was read");
}

fn accept(session: &mut Session<Hvc>, wanted: Acceptance<'_>) -> Result<(), rm_client::Error> {
    session.accept_at(&wanted, &[pages(WINDOW, COUNT)]).map(drop)
}

/// Checks what was written last, and writes anew.
fn use_and_release(session: &mut Session<Hvc>, parcel: Handle, seed: u64) {
    let mut at = WINDOW;
    for range in RANGES {
        memory::check(at, range.size / PAGE, seed - 1);
        memory::fill(at, range.size / PAGE, seed);
        at += range.size;
    }
    granted("releasing", session.release(parcel, Sanitize::empty()));
}

fn fill(seed: u64) {
    RANGES.iter().for_each(|range| memory::fill(range.ipa, range.size / PAGE, seed));
}

fn check(seed: u64) {
    RANGES.iter().for_each(|range| memory::check(range.ipa, range.size / PAGE, seed));
}
