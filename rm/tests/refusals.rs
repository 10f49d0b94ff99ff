//! Every refusal of the calls, by its code, in the protocol's order, and that it changes nothing (G4).
//!
//! A row names the rule, the request that breaks it, the error word and the rule as LAST_REFUSAL gives it. Where a request breaks two
//! rules, the row shows which one wins.

use rm::address::VmIndex;
use rm::audit::AuditReport;
use rm::config::{Roles, VmConfig};
use rm::life::VmState;
use rm::machine::fake::world::{Guest, RAM, RAM_PAGES, Turn, World, accept, append, vm};
use rm::operation::budget::Budget;
use rm_abi::extension::{
    COPY, COUNTERS, CopyRequest, CopySegment, CopySide, Count, Counter, LAST_REFUSAL, LastRefusal,
    Rule,
};
use rm_abi::{AcceptFlags, AppendFlags, Handle, Transfer, message};

const A: VmIndex = VmIndex(0);
const B: VmIndex = VmIndex(1);
const PAGE: u64 = RAM.0 + 0x7000;
const WINDOW: u64 = 0x9000_0000;

/// Little-endian fields one after the other.
#[derive(Clone, Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }
    fn u16(mut self, value: u16) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }
    fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }
    fn list<const N: usize>(self, entries: &[[u64; N]], widths: [usize; N]) -> Self {
        let mut bytes = self.u16(entries.len() as u16).u16(0);
        for entry in entries {
            for (value, width) in entry.iter().zip(widths) {
                bytes.0.extend(&value.to_le_bytes()[..width]);
            }
        }
        bytes
    }
}

/// An offer from its parts: memory kind, flags, ACL of VMID and rights, ranges in bytes, attributes.
#[derive(Clone)]
struct Offer {
    memory: u8,
    flags: u8,
    acl: Vec<[u64; 3]>,
    sgl: Vec<[u64; 2]>,
    attributes: Vec<[u64; 2]>,
}

impl Offer {
    fn to_b(rights: u64) -> Self {
        let (acl, sgl) = (vec![[4, rights, 0]], vec![[PAGE, 4096]]);
        Self { memory: 0, flags: 0, acl, sgl, attributes: vec![] }
    }

    fn acl(mut self, acl: &[(u64, u64)]) -> Self {
        self.acl = acl.iter().map(|&(vmid, rights)| [vmid, rights, 0]).collect();
        self
    }

    fn sgl(mut self, sgl: &[(u64, u64)]) -> Self {
        self.sgl = sgl.iter().map(|&(at, size)| [at, size]).collect();
        self
    }

    fn attributes(mut self, attributes: &[(u64, u64)]) -> Self {
        self.attributes = attributes.iter().map(|&(value, vmid)| [value, vmid]).collect();
        self
    }

    fn io(mut self) -> Self {
        self.memory = 1;
        self
    }

    fn flags(mut self, flags: u8) -> Self {
        self.flags = flags;
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let head = Bytes::default().u8(self.memory).u8(0).u8(self.flags).u8(0).u32(0x11);
        let lists = head.list(&self.acl, [2, 1, 1]).list(&self.sgl, [8, 8]);
        lists.list(&self.attributes, [2, 2]).0
    }
}

/// Asserts that A's offer is refused with `error` because of `why`, and changes nothing.
fn refused(
    world: &World,
    before: &AuditReport,
    rule: &str,
    transfer: Transfer,
    offer: &[u8],
    (error, why): (u32, Rule),
) {
    let (said, _) = world.caller(A).words(transfer.message(), offer);
    assert_eq!(said, error, "{rule}");
    assert_eq!(world.caller(A).last_refusal().rule, why as u16, "{rule}");
    while world.manager.idle(A) {}
    assert_eq!(world.check(), *before, "G4: {rule}");
}

#[test]
fn offers_are_refused_by_the_first_rule_they_break() {
    use Transfer::{Donate, Lend, Share};
    let ok = Offer::to_b(6);
    let many = |count: u64| (0..count).map(|vmid| (vmid + 3, 4)).collect::<Vec<_>>();
    let rows: &[(&str, Transfer, Offer, u32, Rule)] = &[
        ("seventeen ACL entries", Lend, ok.clone().acl(&many(17)), 2, Rule::AclTooLong),
        (
            "the ACL's length comes before an empty range list",
            Lend,
            ok.clone().acl(&many(17)).sgl(&[]),
            2,
            Rule::AclTooLong,
        ),
        ("an empty ACL", Lend, ok.clone().acl(&[]), 6, Rule::EmptyList),
        ("an empty range list", Lend, ok.clone().sgl(&[]), 6, Rule::EmptyList),
        ("a donation to two", Donate, ok.clone().acl(&[(4, 7), (5, 7)]), 6, Rule::DonateToMany),
        ("sanitising device memory", Lend, ok.clone().io().flags(1), 6, Rule::DeviceMemory),
        ("a VM named twice", Lend, ok.clone().acl(&[(4, 6), (4, 6)]), 6, Rule::AclRepeats),
        ("an impossible VM", Lend, ok.clone().acl(&[(77, 6)]), 6, Rule::AclVmid),
        ("no rights", Lend, Offer::to_b(0), 6, Rule::AclRights),
        ("write without read", Lend, Offer::to_b(2), 6, Rule::AclRights),
        ("execute without read", Lend, Offer::to_b(3), 6, Rule::AclRights),
        ("a right that does not exist", Lend, Offer::to_b(0xc), 6, Rule::AclRights),
        ("executable device memory", Lend, Offer::to_b(7).io(), 6, Rule::DeviceMemory),
        ("a donation with less than all rights", Donate, ok.clone(), 3, Rule::DonateRights),
        (
            "a bad VM comes before a donation's rights",
            Donate,
            ok.clone().acl(&[(77, 6)]),
            6,
            Rule::AclVmid,
        ),
        ("a share without its owner", Share, ok.clone(), 6, Rule::AclOwner),
        ("a lend that names its owner", Lend, ok.clone().acl(&[(3, 6), (4, 6)]), 6, Rule::AclOwner),
        ("a donation to oneself", Donate, ok.clone().acl(&[(3, 7)]), 6, Rule::AclOwner),
        (
            "an attribute for a VM twice",
            Lend,
            ok.clone().attributes(&[(0, 4), (0, 4)]),
            6,
            Rule::Attribute,
        ),
        ("an unknown attribute", Lend, ok.clone().attributes(&[(4, 4)]), 6, Rule::Attribute),
        ("device memory type for RAM", Lend, ok.clone().attributes(&[(1, 4)]), 6, Rule::Attribute),
        (
            "a cached attribute for device memory",
            Lend,
            ok.clone().io().attributes(&[(3, 4)]),
            6,
            Rule::Attribute,
        ),
        (
            "a donation with an attribute",
            Donate,
            Offer::to_b(7).attributes(&[(2, 4)]),
            6,
            Rule::Attribute,
        ),
        (
            "an attribute for a VM outside the ACL",
            Lend,
            ok.clone().attributes(&[(0, 5)]),
            0xd,
            Rule::AttributeVmid,
        ),
        (
            "two different memory types",
            Share,
            ok.clone().acl(&[(3, 6), (4, 6)]).attributes(&[(0, 3), (2, 4)]),
            6,
            Rule::Attribute,
        ),
        ("an unaligned address", Lend, ok.clone().sgl(&[(PAGE + 8, 4096)]), 6, Rule::Address),
        ("an unaligned size", Lend, ok.clone().sgl(&[(PAGE, 4097)]), 6, Rule::Address),
        ("an address of 45 bits", Lend, ok.clone().sgl(&[(1 << 44, 4096)]), 6, Rule::Address),
        ("a size of 45 bits", Lend, ok.clone().sgl(&[(PAGE, 1 << 44)]), 6, Rule::Address),
        ("the highest address", Lend, ok.clone().sgl(&[(u64::MAX - 4095, 4096)]), 6, Rule::Address),
        ("a size of nothing", Lend, ok.clone().sgl(&[(PAGE, 0)]), 0xa, Rule::NotOwned),
        (
            "a range beyond the address space",
            Lend,
            ok.clone().sgl(&[(PAGE, (1 << 44) - 4096)]),
            0xa,
            Rule::NotOwned,
        ),
        ("memory that nobody mapped", Lend, ok.clone().sgl(&[(WINDOW, 4096)]), 0xa, Rule::NotOwned),
        (
            "the page behind the last",
            Lend,
            ok.clone().sgl(&[(RAM.0 + RAM_PAGES * 4096, 4096)]),
            0xa,
            Rule::NotOwned,
        ),
        (
            "a range that runs out of RAM",
            Lend,
            ok.clone().sgl(&[(RAM.0 + (RAM_PAGES - 1) * 4096, 8192)]),
            0xa,
            Rule::NotOwned,
        ),
        (
            "one page twice",
            Lend,
            ok.clone().sgl(&[(PAGE, 4096), (PAGE, 4096)]),
            0xa,
            Rule::NotOwned,
        ),
        (
            "overlapping ranges",
            Lend,
            ok.clone().sgl(&[(PAGE, 8192), (PAGE + 4096, 4096)]),
            0xa,
            Rule::NotOwned,
        ),
        ("device memory that the VM does not have", Lend, ok.clone().io(), 0xa, Rule::NotOwned),
        (
            "addresses come after attributes",
            Lend,
            ok.clone().sgl(&[(1, 1)]).attributes(&[(0, 5)]),
            0xd,
            Rule::AttributeVmid,
        ),
    ];
    let world = World::new(&[vm(3), vm(4)]);
    let before = world.check();
    for (rule, transfer, offer, error, why) in rows {
        refused(&world, &before, rule, *transfer, &offer.bytes(), (*error, *why));
    }
}

#[test]
fn malformed_payloads_are_refused_before_anything_else() {
    let whole = Offer::to_b(6).bytes();
    let world = World::new(&[vm(3), vm(4)]);
    let before = world.check();
    let cut = |length: usize| whole[..length].to_vec();
    let count = |at: usize, value: u16| {
        let mut bytes = whole.clone();
        bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
        bytes
    };
    let rows = [
        ("nothing", vec![], 4, Rule::Malformed),
        ("nineteen bytes", cut(19), 4, Rule::Malformed),
        ("half an entry", cut(30), 4, Rule::Malformed),
        ("an ACL that runs past the end", count(8, 100), 4, Rule::Malformed),
        ("a list of 513", count(8, 513), 2, Rule::ListTooLong),
        ("a list of 65535", count(16, u16::MAX), 2, Rule::ListTooLong),
        ("bytes behind the last list", [whole.clone(), vec![0; 4]].concat(), 4, Rule::Malformed),
        ("three bytes of a list", [cut(36), vec![0; 3]].concat(), 4, Rule::Malformed),
    ];
    for (rule, payload, error, why) in rows {
        refused(&world, &before, rule, Transfer::Lend, &payload, (error, why));
    }
    for (call, error) in [(0x5100_0016, u32::MAX), (0, u32::MAX), (0x5600_0024, 0)] {
        assert_eq!(world.caller(A).words(call, &[]).0, error, "{call:#x}");
    }
    assert_eq!(world.caller(A).words(message::VM_GET_VMID, &[]), (0, 3));
    assert_eq!(world.caller(A).words(message::VM_GET_VMID, &[0; 4]).0, 4);
}

/// A lend of three runs (1, 2 and 1 pages) to B and C, and B's accept with one thing wrong.
#[test]
fn accepts_are_refused_by_the_first_rule_they_break() {
    let world = World::new(&[vm(3), vm(4), vm(5)]);
    let (a, b) = (world.caller(A), world.caller(B));
    let runs = [(PAGE, 1), (PAGE + 0x4000, 2), (PAGE + 0x9000, 1)];
    let handle = a.offer(Transfer::Lend, &[(4, 4), (5, 6)], &runs).unwrap();
    let before = world.check();
    let accept = |handle: u32, memory: u8, transfer: u8, flags: u8, label: u32| {
        Bytes::default().u32(handle).u8(memory).u8(transfer).u8(flags).u8(0).u32(label)
    };
    let at = |ranges: &[[u64; 2]]| {
        accept(handle, 0, 1, 0x80, 0).list::<3>(&[], [2, 1, 1]).list(ranges, [8, 8]).u32(0).0
    };
    let flagged = |flags: u8| {
        let empty = accept(handle, 0, 1, flags, 0x12).list::<3>(&[], [2, 1, 1]);
        empty.list::<2>(&[], [8, 8]).u32(0).0
    };
    let acl = |acl: &[[u64; 3]]| {
        let head = accept(handle, 0, 1, 0x82, 0).list(acl, [2, 1, 1]);
        head.list::<2>(&[], [8, 8]).u32(0).0
    };
    let good = [[WINDOW, 4096], [WINDOW + 0x10000, 8192], [WINDOW + 0x20000, 4096]];
    let with = |index: usize, range: [u64; 2]| {
        let mut ranges = good;
        ranges[index] = range;
        at(&ranges)
    };
    let kinds = |memory, transfer| {
        let head = accept(handle, memory, transfer, 0x80, 0).list::<3>(&[], [2, 1, 1]);
        head.list::<2>(&[], [8, 8]).u32(0).0
    };
    let for_other = |flags: u8, vmid: u16| {
        let head = accept(handle, 0, 1, flags, 0).u32(0).u16(0).u16(vmid);
        head.u32(0).0
    };
    let rows = [
        ("too short", vec![0; 23], 4, Rule::Malformed),
        (
            "no such handle",
            flagged(0x80).into_iter().skip(4).collect::<Vec<_>>(),
            4,
            Rule::Malformed,
        ),
        ("another memory kind", kinds(1, 1), 6, Rule::Kind),
        ("another transfer", kinds(0, 2), 6, Rule::Kind),
        ("a transfer that does not exist", kinds(0, 9), 6, Rule::Kind),
        ("not sanitised at creation", flagged(0x81), 8, Rule::Validation),
        ("another label", flagged(0x84), 8, Rule::Validation),
        ("an ACL too short", acl(&[[4, 4, 0]]), 8, Rule::Validation),
        ("an ACL in another order", acl(&[[5, 6, 0], [4, 4, 0]]), 8, Rule::Validation),
        ("an ACL with other rights", acl(&[[4, 6, 0], [5, 6, 0]]), 8, Rule::Validation),
        ("mapping for another", for_other(0x88, 5), 3, Rule::ForOther),
        ("a VM to map for without the flag", for_other(0x80, 5), 6, Rule::MapVmid),
        ("sanitising without the right to write", flagged(0xa0), 6, Rule::SanitizeRights),
        (
            "more addresses than runs",
            at(&[good[0], good[1], good[2], [WINDOW + 0x30000, 4096]]),
            6,
            Rule::TooManyAddresses,
        ),
        ("fewer addresses than runs", at(&good[..2]), 6, Rule::Unassigned),
        ("an unaligned address", with(1, [WINDOW + 0x10010, 8192]), 6, Rule::Address),
        ("an address of 45 bits", with(1, [1 << 44, 8192]), 6, Rule::Address),
        ("the highest address", with(1, [u64::MAX - 4095, 8192]), 6, Rule::Address),
        ("another size", with(1, [WINDOW + 0x10000, 4096]), 6, Rule::Address),
        ("the VM's own RAM", with(2, [RAM.0, 4096]), 2, Rule::NoRange),
        ("an address below what may be accepted", with(0, [0x900_0000, 4096]), 2, Rule::NoRange),
        (
            "an address behind the address space",
            with(0, [(1 << 36) - 4096 + 4096, 4096]),
            2,
            Rule::NoRange,
        ),
        ("a range of the same call", with(2, [WINDOW + 0x11000, 4096]), 2, Rule::NoRange),
    ];
    for (rule, payload, error, why) in rows {
        assert_eq!(b.words(message::MEM_ACCEPT, &payload).0, error, "{rule}");
        assert_eq!(b.last_refusal().rule, why as u16, "{rule}");
        while world.manager.idle(B) {}
        assert_eq!(world.check(), before, "G4: {rule}");
    }
    assert_eq!(a.accept(handle, Transfer::Lend, &[]), Err(0xd), "the owner, whom the ACL omits");
    let shared = a.offer(Transfer::Share, &[(3, 6), (4, 6)], &[(RAM.0, 1)]).unwrap();
    assert_eq!(a.accept(shared, Transfer::Share, &[]), Err(3), "the owner, whom the ACL names");
    assert_eq!(a.release(shared, 0), Err(3), "the owner, whom the ACL names");
    assert_eq!(b.words(message::MEM_ACCEPT, &at(&good)).0, 0);
    assert_eq!(b.words(message::MEM_ACCEPT, &at(&good)).0, 3, "a second time");
}

#[test]
fn releases_and_reclaims_are_refused_by_the_first_rule_they_break() {
    let world = World::new(&[vm(3), vm(4), vm(5)]);
    let (a, b) = (world.caller(A), world.caller(B));
    let handle = a.offer(Transfer::Lend, &[(4, 4)], &[(PAGE, 1)]).unwrap();
    assert_eq!(b.release(handle, 0), Err(0xc), "not accepted yet");
    assert_eq!(a.release(handle, 0), Err(7), "the owner, whom the ACL omits");
    assert_eq!(b.reclaim(handle, 0), Err(3), "a borrower");
    assert_eq!(b.release(handle ^ 1 << 20, 0), Err(7), "another generation");
    assert_eq!(b.release(0, 0), Err(7));
    assert_eq!(b.release(u32::MAX, 0), Err(7));
    b.accept(handle, Transfer::Lend, &[(WINDOW, 1)]).unwrap();
    assert_eq!(b.release(handle, 1), Err(6), "sanitising without the right to write");
    assert_eq!(a.reclaim(handle, 0), Err(0xb), "still held");
    assert_eq!(b.words(message::MEM_RELEASE, &handle.to_le_bytes()).0, 4, "too short");
    b.release(handle, 0).unwrap();
    assert_eq!(b.release(handle, 0), Err(0xc), "released already");
    a.reclaim(handle, 0).unwrap();
    assert_eq!(b.release(handle, 0), Err(7), "gone");
    world.check();
}

#[test]
fn an_unfinished_parcel_is_nobodys_but_its_owners() {
    let world = World::new(&[vm(3), vm(4)]);
    let (a, b) = (world.caller(A), world.caller(B));
    let before = world.check();
    let (said, handle) = a.words(message::MEM_LEND, &Offer::to_b(6).flags(2).bytes());
    assert_eq!(said, 0);
    assert_eq!(b.accept(handle, Transfer::Lend, &[(WINDOW, 1)]), Err(7));
    a.reclaim(handle, 0).unwrap();
    while world.manager.idle(A) {}
    assert_eq!(world.check(), before);
}

#[test]
fn direct_calls_with_bad_buffers_get_the_hypercalls_errors() {
    let world = World::new(&[vm(3), vm(4)]);
    let guest = world.caller(A);
    let request = [&rm_abi::Header::request(message::VM_GET_VMID, 1).encode()[..]].concat();
    assert!(matches!(guest.send_bytes(&request), Turn::Reply(_)));
    let direct = |length, capacity, token| guest.direct(length, capacity, token);
    assert_eq!(direct(7, 64, 0), Turn::Error(2, 0), "shorter than a header");
    assert_eq!(direct(0, 64, 0), Turn::Error(2, 0));
    assert_eq!(direct(14_625, 64, 0), Turn::Error(2, 0), "longer than any request");
    assert_eq!(direct(u64::MAX, 64, 0), Turn::Error(2, 0));
    assert_eq!(direct(9, 64, 0), Turn::Error(22, 0), "a byte beyond the page");
    assert_eq!(direct(8, 15, 0), Turn::Error(2, 0), "no room for the VMID");
    assert_eq!(direct(8, u64::MAX, 0), Turn::Error(22, 0), "a reply buffer that wraps");
    assert_eq!(direct(8, 64, 5), Turn::Error(1, 0), "a token that never was");
    guest.lose_reply_page(true);
    assert_eq!(direct(8, 64, 0), Turn::Error(22, 0), "a reply buffer that faults");
    let before = world.check();
    assert_eq!(
        guest.send(message::MEM_LEND, &Offer::to_b(6).bytes()),
        Turn::Error(22, 0),
        "a change whose reply could not be written is not made"
    );
    assert_eq!(world.check(), before);
    guest.lose_reply_page(false);
    for (byte, value) in [(0, 0x22), (0, 0x31), (1, 0), (1, 2), (1, 3), (1, 5), (1, 0xff)] {
        let mut bad = request.clone();
        bad[byte] = value;
        assert_eq!(guest.send_bytes(&bad), Turn::Error(1, 0), "byte {byte} = {value:#x}");
    }
}

#[test]
fn a_vm_without_frames_is_told_so_and_loses_nothing() {
    let quotas = rm::quota::Quotas { frames: 10, frames_reserved: 10, ..vm(3).quotas };
    let world = World::new(&[VmConfig { quotas, ..vm(3) }, vm(4)]);
    let a: Guest<'_> = world.caller(A);
    let before = world.check();
    // Each page lies in another block, which would have to be cut: eight tables
    // beside the two, and a frame for the extents.
    let apart: Vec<_> = (0..8).map(|block| (RAM.0 + 0x1000 + block * 0x20_0000, 1)).collect();
    assert_eq!(a.offer(Transfer::Lend, &[(4, 6)], &apart), Err(1));
    while world.manager.idle(A) {}
    assert_eq!(world.check(), before);
    let handle = a.offer(Transfer::Lend, &[(4, 6)], &apart[..7]).expect("seven tables fit");
    assert_eq!(a.offer(Transfer::Lend, &[(4, 6)], &apart[7..]), Err(1), "in a short call too");
    a.reclaim(handle, 0).unwrap();
    a.offer(Transfer::Lend, &[(4, 6)], &apart[7..]).expect("the tables are merged when wanted");
}

/// Rules that only calls break which come when others have been made.
#[test]
fn the_rule_is_told_of_every_refusal_about_a_parcel_that_there_is() {
    let manages = VmConfig { roles: Roles::MANAGE, ..vm(3) };
    let world = World::new(&[manages, vm(4), vm(5)]);
    let (a, b) = (world.caller(A), world.caller(B));
    let runs = [(PAGE, 1), (PAGE + 0x4000, 1)];
    let shared = a.offer(Transfer::Share, &[(3, 6), (4, 6)], &runs).unwrap();
    let lent = a.offer(Transfer::Lend, &[(4, 4)], &[(PAGE + 0x8000, 1)]).unwrap();
    let notify = |flag: u8, tag: u32, targets: &[u16]| {
        let head = Bytes::default().u32(shared).u8(flag).u8(0).u16(0).u32(tag);
        let head = head.u8(targets.len() as u8).u8(0).u16(0);
        (message::MEM_NOTIFY, targets.iter().fold(head, |list, vmid| list.u16(*vmid).u16(0)).0)
    };
    let accepts = |flags, ranges: &[(u64, u64)]| {
        (message::MEM_ACCEPT, accept(shared, Transfer::Share, flags, ranges))
    };
    let lookup = {
        let head = Bytes::default().u8(0).u8(0).u16(0).u32(0x11);
        let acl = head.list(&[[3, 6, 0], [4, 4, 0]], [2, 1, 1]);
        (message::MEM_LOOKUP, acl.list(&[[PAGE, 4096]], [8, 8]).u32(0).0)
    };
    let copies = |source, dest| {
        let mut payload = vec![0; 64];
        let segment = CopySegment { source, dest, length: 1 };
        let length = CopyRequest::encode(&[segment], &mut payload).unwrap();
        payload.truncate(length);
        (COPY, payload)
    };
    let of_lent = CopySide::Parcel(Handle(lent), 0);
    let append = append(shared, AppendFlags::END, &[(PAGE + 0x9000, 1)]);
    let piecewise = accepts(AcceptFlags::empty(), &[(WINDOW, 1)]);
    let whole = accepts(AcceptFlags::MAP_CONTIGUOUS, &[(WINDOW, 2)]);
    let rest = accepts(AcceptFlags::DONE, &[(WINDOW + 0x4000, 1)]);
    let vm_reset = (message::VM_RESET, 4_u32.to_le_bytes().to_vec());
    // Who asks, what, and the error word with its rule, or that it is done; one after the other.
    let story = [
        (&a, rest.clone(), Some((3, Rule::IsOwner))),
        (&a, (message::MEM_APPEND, append), Some((3, Rule::NotAppending))),
        (&a, lookup, Some((0xe, Rule::NoMatch))),
        (&a, notify(1, 7, &[4]), None),
        (&a, notify(1, 8, &[4]), Some((6, Rule::OtherTag))),
        (&a, notify(0x10, 7, &[4]), Some((6, Rule::NotifyFlag))),
        (&a, notify(1, 7, &[4, 5, 4]), Some((6, Rule::TooManyTargets))),
        (&a, notify(1, 7, &[0x90]), Some((0xd, Rule::NoVm))),
        (&a, notify(1, 7, &[5]), Some((6, Rule::TargetOutsideAcl))),
        (&a, vm_reset, Some((0x14, Rule::VmState))),
        (&b, piecewise, None),
        (&b, whole, Some((6, Rule::MixedAccept))),
        (&b, rest.clone(), None),
        (&b, rest, Some((3, Rule::Mapped))),
        (
            &b,
            (message::MEM_NOTIFY, notify(2, 7, &[]).1[..12].to_vec()),
            Some((0xb, Rule::StillHeld)),
        ),
        (&b, copies(of_lent, CopySide::Own(RAM.0)), None),
    ];
    for (guest, (message, payload), refused) in story {
        let (before, was) = (world.check(), guest.last_refusal());
        let said = guest.words(message, &payload).0;
        let last = guest.last_refusal();
        let Some((error, why)) = refused else {
            assert_eq!((said, last), (0, was), "{message:#x}");
            continue;
        };
        assert_eq!(said, error, "{why:?}");
        assert_eq!((last.rule, last.message), (why as u16, message), "{why:?}");
        assert_eq!(world.check(), before, "G4: {why:?}");
    }
}

#[test]
fn a_copy_says_why_the_first_of_its_refused_segments_was_refused() {
    let world = World::new(&[vm(3), vm(4)]);
    let (a, b) = (world.caller(A), world.caller(B));
    let lent = a.offer(Transfer::Lend, &[(4, 4)], &[(PAGE, 1)]).unwrap();
    let (own, of) = (CopySide::Own(RAM.0), CopySide::Parcel(Handle(lent), 0));
    let request = |segments: &[(CopySide, CopySide)]| {
        let segment = |&(source, dest)| CopySegment { source, dest, length: 1 };
        let segments: Vec<_> = segments.iter().map(segment).collect();
        let mut payload = vec![0; 256];
        let length = CopyRequest::encode(&segments, &mut payload).unwrap();
        payload.truncate(length);
        payload
    };
    for (segments, statuses, why) in [
        (&[(of, own), (own, own), (own, of)][..], &[0, 6, 3][..], Rule::CopyOwn),
        (&[(own, of), (own, own)], &[3, 6], Rule::CopyRights),
    ] {
        let wanted = [&[0, statuses.len() as u32][..], statuses].concat();
        let wanted: Vec<_> = wanted.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(b.call(COPY, &request(segments)), wanted);
        let last = b.last_refusal();
        assert_eq!((last.message, last.rule), (COPY, why as u16));
        // What came by the queue is told there.
        let none = LastRefusal::decode(&b.queue_call(LAST_REFUSAL, &[])[4..]).unwrap();
        assert_eq!(b.queue_call(COPY, &request(segments)), wanted);
        let queued = LastRefusal::decode(&b.queue_call(LAST_REFUSAL, &[])[4..]).unwrap();
        assert_eq!((queued.message, queued.rule), (COPY, why as u16));
        assert_ne!(queued, none);
    }
    let before = b.last_refusal();
    assert_eq!(b.call(COPY, &request(&[(of, own)])), [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(b.last_refusal(), before, "nothing of it was refused");
}

#[test]
fn a_refusal_that_is_written_at_the_second_try_counts_once() {
    let world = World::new(&[vm(3), vm(4)]);
    let a = world.caller(A);
    a.step.set(1);
    // Refused at its last range, so that the reply waits in the slot.
    let request = Offer::to_b(6).sgl(&[(PAGE, 4096), (PAGE, 4096)]).bytes();
    let Turn::More(token) = a.send(message::MEM_LEND, &request) else { panic!("not long") };
    while world.manager.pending(A) {
        world.manager.step(A, &mut Budget::new(100));
    }
    a.lose_reply_page(true);
    assert_eq!(a.resume(token), Turn::Error(22, token));
    a.lose_reply_page(false);
    assert_eq!(a.direct(0, 11, token), Turn::Error(2, token), "too small to say it");
    assert_eq!(a.last_refusal(), LastRefusal::NONE, "it has not been told yet");
    assert_eq!(a.resume(token), Turn::Reply(vec![0xa, 0, 0, 0]));
    assert_eq!(a.last_refusal().rule, Rule::NotOwned as u16);
    let reply = a.call(COUNTERS, &[0; 8]);
    let counts =
        (0..Counter::ALL.len()).map(|n| Count::decode(&reply[4..], Count::HEAD + n * Count::SIZE));
    let refusals = counts.flatten().find(|count| count.counter == Counter::Refusals as u16);
    assert_eq!(refusals.unwrap().value, 1);
    world.check();
}

#[test]
fn an_exit_that_is_malformed_ends_nobody() {
    let world = World::new(&[vm(3), vm(4)]);
    let a = world.caller(A);
    for payload in [&[][..], &[0; 3], &[0; 5], &[0, 0, 77, 0]] {
        assert_eq!(a.send(message::VM_EXIT, payload), Turn::Reply(vec![4, 0, 0, 0]), "{payload:?}");
        assert_eq!(a.last_refusal().rule, Rule::Malformed as u16);
    }
    // Longer than the packet that is read of it.
    let long = [&[0, 0, 3, 0][..], &[0; 1000]].concat();
    assert_eq!(a.send(message::VM_EXIT, &long), Turn::Reply(vec![4, 0, 0, 0]));
    a.lose_reply_page(true);
    assert_eq!(a.send(message::VM_EXIT, &[]), Turn::Error(22, 0), "nor one that cannot be told so");
    assert_eq!(world.manager.state(A), VmState::Running);
    a.lose_reply_page(false);
    assert_eq!(a.send(message::VM_EXIT, &[0, 0, 3, 0]), Turn::Exit(3));
}
