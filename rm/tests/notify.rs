//! MEM_NOTIFY: who is told what, byte for byte, and who may tell whom.

use rm::address::VmIndex;
use rm::machine::fake::world::{Guest, RAM, Turn, World, append, offer, vm};
use rm_abi::memparcel::notice::{BorrowerNews, Offer, Recall, SizeEntry};
use rm_abi::{
    AclEntry, AppendFlags, AttributeEntry, CreateFlags, Handle, Header, Kind, MemoryKind, Rights,
    Transfer, Vmid, message,
};

const A: VmIndex = VmIndex(0);
const B: VmIndex = VmIndex(1);
const C: VmIndex = VmIndex(2);
const PAGE: u64 = RAM.0 + 0x7000;
const WINDOW: u64 = 0x9000_0000;
const TAG: u32 = 0xabcd;
const SHARED: u8 = 1;
const RELEASED: u8 = 2;
const ACCEPTED: u8 = 4;
const RECALL: u8 = 8;

fn world() -> World {
    World::new(&[vm(3), vm(4), vm(5), vm(6)])
}

/// A request without a list.
fn head(handle: u32, flag: u8, tag: u32) -> Vec<u8> {
    [&handle.to_le_bytes()[..], &[flag, 0, 0, 0], &tag.to_le_bytes()].concat()
}

fn request(handle: u32, flag: u8, tag: u32, targets: &[u16]) -> Vec<u8> {
    let mut bytes = head(handle, flag, tag);
    bytes.extend([targets.len() as u8, 0, 0, 0]);
    for vmid in targets {
        bytes.extend(vmid.to_le_bytes());
        bytes.extend([0, 0]);
    }
    bytes
}

/// The error word of a notification.
fn tell(guest: &Guest<'_>, handle: u32, flag: u8, tag: u32, targets: &[u16]) -> u32 {
    guest.words(message::MEM_NOTIFY, &request(handle, flag, tag, targets)).0
}

/// The error word of a borrower's notification.
fn answer(guest: &Guest<'_>, handle: u32, flag: u8, tag: u32) -> u32 {
    guest.words(message::MEM_NOTIFY, &head(handle, flag, tag)).0
}

/// What a VM has been told: message ids and payloads.
fn heard(world: &World, vm: VmIndex) -> Vec<(u32, Vec<u8>)> {
    let packets = world.caller(vm).packets();
    let told = packets.iter().map(|packet| {
        let header = Header::decode(&packet[..]).expect("a notification has a header");
        assert_eq!((header.kind, header.fragments), (Kind::Notification, 0));
        (header.message, packet[Header::SIZE..].to_vec())
    });
    told.collect()
}

fn encoded(encode: impl FnOnce(&mut [u8]) -> Result<usize, rm_abi::EncodeError>) -> Vec<u8> {
    let mut bytes = vec![0; 512];
    let length = encode(&mut bytes).expect("a notification fits");
    bytes.truncate(length);
    bytes
}

fn news(handle: u32, borrower: u16, tag: u32) -> Vec<u8> {
    encoded(|into| {
        BorrowerNews { handle: Handle(handle), borrower: Vmid(borrower), tag }.encode(into)
    })
}

fn recall(handle: u32, tag: u32) -> Vec<u8> {
    encoded(|into| Recall { handle: Handle(handle), tag }.encode(into))
}

/// A share of three pages in two runs with B and C.
fn shared(world: &World) -> u32 {
    let acl = [(3, 6), (4, 6), (5, 4)];
    world.caller(A).offer(Transfer::Share, &acl, &[(PAGE, 1), (PAGE + 0x4000, 2)]).unwrap()
}

#[test]
fn notifications_are_refused_by_the_first_rule_they_break() {
    let world = world();
    let (a, b, stranger) = (world.caller(A), world.caller(B), world.caller(VmIndex(3)));
    let handle = shared(&world);
    assert_eq!(tell(&a, handle, SHARED, TAG, &[4]), 0);
    let good = request(handle, SHARED, TAG, &[4]);
    let other = request(handle, 0x10, TAG + 1, &[4]);
    let rows = [
        ("nothing", vec![], 4),
        ("eleven bytes", good[..11].to_vec(), 4),
        ("no such parcel", request(0x1234, SHARED, TAG, &[4]), 7),
        ("another tag", request(handle, SHARED, TAG + 1, &[4]), 6),
        ("another tag comes before the flag", other, 6),
        ("nothing to tell", request(handle, 0, TAG, &[4]), 6),
        ("two things to tell", request(handle, 3, TAG, &[4]), 6),
        ("a thing that does not exist", request(handle, 0x10, TAG, &[4]), 6),
        ("a thing and a bit that does not exist", request(handle, 0x11, TAG, &[4]), 6),
        ("no list", good[..12].to_vec(), 4),
        ("half a list", good[..14].to_vec(), 4),
        ("a list without its entry", good[..16].to_vec(), 4),
        ("half an entry", good[..18].to_vec(), 4),
        ("an empty list", request(handle, SHARED, TAG, &[]), 6),
        ("a recall of nobody", request(handle, RECALL, TAG, &[]), 6),
        ("more targets than the ACL has", request(handle, SHARED, TAG, &[4, 5, 3, 4]), 6),
        ("no such VM", request(handle, SHARED, TAG, &[0x90]), 0xd),
        ("no such VM behind a good one", request(handle, SHARED, TAG, &[4, 0x90]), 0xd),
        ("a fixed id without a VM", request(handle, SHARED, TAG, &[7]), 0xd),
        ("a VM outside the ACL", request(handle, SHARED, TAG, &[6]), 6),
        ("the manager outside the ACL", request(handle, SHARED, TAG, &[255]), 6),
    ];
    world.caller(B).packets();
    for (rule, payload, error) in rows {
        assert_eq!(a.words(message::MEM_NOTIFY, &payload).0, error, "{rule}");
        assert_eq!(heard(&world, B), [], "G4: {rule}");
    }
    assert_eq!(tell(&b, handle, SHARED, TAG, &[4]), 3, "only the owner offers");
    assert_eq!(tell(&b, handle, RECALL, TAG, &[]), 3, "the owner comes before the list");
    assert_eq!(answer(&b, handle, ACCEPTED, TAG), 0xc, "not accepted");
    assert_eq!(answer(&b, handle, RELEASED, 1), 6, "another tag");
    for flag in [SHARED, RELEASED, ACCEPTED, RECALL, 0] {
        assert_eq!(tell(&stranger, handle, flag, TAG, &[4]), 7, "a stranger (G6)");
    }
    world.check();
}

#[test]
fn an_offer_lists_all_that_a_borrower_needs() {
    let world = world();
    let a = world.caller(A);
    let acl = [(3, 6), (4, 6), (5, 4)];
    let runs = [(PAGE, 1), (PAGE + 0x4000, 2)];
    let (_, handle) =
        a.words(message::MEM_SHARE, &offer(CreateFlags::SANITIZE, &acl, &runs, &[(2, 4), (2, 3)]));
    // Bytes behind the list are nobody's business.
    let longer = [request(handle, SHARED, TAG, &[4, 5]), vec![9; 4]].concat();
    assert_eq!(a.words(message::MEM_NOTIFY, &longer).0, 0);
    let told = Offer {
        handle: Handle(handle),
        memory: MemoryKind::NORMAL,
        transfer: Transfer::Share,
        sanitized: true,
        owner: Vmid(3),
        label: rm::machine::fake::world::LABEL,
        tag: TAG,
    };
    let acl = acl.map(|(vmid, rights)| AclEntry { vmid: Vmid(vmid), rights: Rights(rights) });
    let named = [4, 3].map(|vmid| AttributeEntry { attribute: 2, vmid: Vmid(vmid) });
    let sizes = [SizeEntry(4096), SizeEntry(8192)];
    let told = (message::MEM_SHARED, encoded(|into| told.encode(&acl, &sizes, &named, into)));
    for vm in [B, C] {
        assert_eq!(heard(&world, vm), core::slice::from_ref(&told));
    }
    assert_eq!(heard(&world, A), []);
    // The same again, twice to one VM, and to the owner, which the ACL of a share names.
    assert_eq!(tell(&a, handle, SHARED, TAG, &[4, 3, 4]), 0);
    assert_eq!(heard(&world, B), [told.clone(), told.clone()]);
    assert_eq!(heard(&world, A), [told]);
}

#[test]
fn a_tag_is_kept_from_the_first_offer_that_succeeds() {
    let world = world();
    let a = world.caller(A);
    let handle = shared(&world);
    assert_eq!(answer(&world.caller(B), handle, RELEASED, 77), 0, "no tag yet, so any is right");
    assert_eq!(heard(&world, A), [(message::MEM_RELEASED, news(handle, 4, 0))]);
    assert_eq!(tell(&a, handle, RECALL, 88, &[4]), 0);
    assert_eq!(heard(&world, B), [(message::MEM_RECALL, recall(handle, 0))]);
    assert_eq!(tell(&a, handle, SHARED, 1, &[6]), 6, "a VM outside the ACL");
    assert_eq!(tell(&a, handle, SHARED, 0, &[4]), 0, "the failed one left no tag; 0 is one");
    assert_eq!(tell(&a, handle, SHARED, 2, &[4]), 6);
    assert_eq!(answer(&world.caller(C), handle, RELEASED, 2), 6);
    a.reclaim(handle, 0).unwrap();
    let next = shared(&world);
    assert_eq!(tell(&a, next, SHARED, 2, &[4]), 0, "another parcel, another tag");
}

#[test]
fn a_borrower_tells_its_owner_what_it_did() {
    let world = world();
    let (a, b) = (world.caller(A), world.caller(B));
    let handle = shared(&world);
    assert_eq!(tell(&a, handle, SHARED, TAG, &[5]), 0);
    b.accept_contiguous(handle, Transfer::Share, (WINDOW, 3)).unwrap();
    assert_eq!(answer(&b, handle, ACCEPTED, TAG), 0);
    assert_eq!(answer(&b, handle, ACCEPTED, TAG), 0, "twice, told twice");
    let accepted = (message::MEM_ACCEPTED, news(handle, 4, TAG));
    assert_eq!(heard(&world, A), [accepted.clone(), accepted]);
    assert_eq!(answer(&b, handle, RELEASED, TAG), 0xb, "it still holds it");
    assert_eq!(tell(&a, handle, RECALL, TAG, &[4, 5]), 0);
    assert_eq!(heard(&world, B), [(message::MEM_RECALL, recall(handle, TAG))]);
    b.release(handle, 0).unwrap();
    // A list where none belongs is ignored.
    assert_eq!(tell(&b, handle, RELEASED, TAG, &[4]), 0);
    let released = (message::MEM_RELEASED, news(handle, 4, TAG));
    assert_eq!(heard(&world, A), [released]);
    // The owner of a share is in its ACL, so it may tell itself; it never holds it.
    assert_eq!(answer(&a, handle, RELEASED, TAG), 0);
    assert_eq!(heard(&world, A), [(message::MEM_RELEASED, news(handle, 3, TAG))]);
    assert_eq!(answer(&a, handle, ACCEPTED, TAG), 0xc);
    let lent = a.offer(Transfer::Lend, &[(4, 6)], &[(PAGE + 0x10_0000, 1)]).unwrap();
    assert_eq!(answer(&a, lent, RELEASED, 0), 7, "the owner of a lend is not in its ACL");
}

#[test]
fn a_target_that_is_no_vm_of_this_system_is_refused_unless_it_is_the_manager() {
    let world = world();
    let a = world.caller(A);
    let acl = [(255, 4), (7, 4), (4, 6)];
    let handle = a.offer(Transfer::Lend, &acl, &[(PAGE, 1)]).unwrap();
    assert_eq!(tell(&a, handle, SHARED, TAG, &[255, 4]), 0);
    assert_eq!(heard(&world, B).len(), 1);
    assert_eq!(tell(&a, handle, SHARED, TAG, &[7]), 0xd);
    assert_eq!(tell(&a, handle, RECALL, TAG, &[255]), 0);
}

#[test]
fn an_owner_may_tell_of_a_parcel_that_still_grows_but_not_of_an_append_at_work() {
    let world = world();
    let a = world.caller(A);
    let request = offer(CreateFlags::APPEND, &[(4, 6)], &[(PAGE, 1)], &[]);
    let handle = a.words(message::MEM_LEND, &request).1;
    assert_eq!(tell(&a, handle, SHARED, TAG, &[4]), 0);
    let (told, payload) = heard(&world, B).remove(0);
    let (_, lists) = Offer::decode(&payload[..]).expect("an offer");
    assert_eq!((told, lists.sizes.len()), (message::MEM_SHARED, 1));
    assert_eq!(answer(&world.caller(B), handle, RELEASED, TAG), 7, "not B's yet");

    a.step.set(1);
    let more = append(handle, AppendFlags::END, &[(PAGE + 0x2000, 1), (PAGE + 0x4000, 1)]);
    let Turn::More(token) = a.send(message::MEM_APPEND, &more) else { panic!("not long") };
    let second = world.caller(A);
    assert_eq!(tell(&second, handle, SHARED, TAG, &[4]), 5);
    let mut turn = a.resume(token);
    while let Turn::More(_) = turn {
        turn = a.resume(token);
    }
    assert_eq!(tell(&second, handle, SHARED, TAG, &[4]), 0);
    let (_, payload) = heard(&world, B).remove(0);
    assert_eq!(Offer::decode(&payload[..]).expect("an offer").1.sizes.len(), 3);
}

#[test]
fn an_offer_that_waited_through_an_append_tells_of_decided_pages_only() {
    let world = world();
    let (a, b) = (world.caller(A), world.caller(B));
    let create = offer(CreateFlags::APPEND, &[(4, 6)], &[(PAGE, 1)], &[]);
    let handle = a.words(message::MEM_LEND, &create).1;
    // B's queue is full, so this offer has to wait.
    for _ in 0..9 {
        assert_eq!(tell(&a, handle, SHARED, TAG, &[4]), 0);
    }
    a.step.set(1);
    let pages = (0..300).map(|page| (PAGE + 0x10_0000 + page * 0x2000, 1));
    let ranges: Vec<_> = pages.chain([(WINDOW, 1)]).collect();
    let bad = append(handle, AppendFlags::END, &ranges);
    let Turn::More(token) = a.send(message::MEM_APPEND, &bad) else { panic!("not long") };
    for _ in 0..500 {
        assert_eq!(a.resume(token), Turn::More(token));
    }
    let told = heard(&world, B);
    assert_eq!(told.len(), 9);
    for (_, payload) in told {
        assert_eq!(Offer::decode(&payload[..]).expect("an offer").1.sizes.len(), 1);
    }
    let mut turn = a.resume(token);
    while let Turn::More(_) = turn {
        turn = a.resume(token);
    }
    assert_eq!(turn, Turn::Reply(vec![0xa, 0, 0, 0]));
    assert_eq!(b.packets(), [[0; 0]; 0]);
}

#[test]
fn targets_are_told_one_by_one_and_no_more_of_them_when_the_parcel_goes() {
    let world = world();
    let a = world.caller(A);
    a.step.set(1);
    let send = |handle| {
        let payload = request(handle, SHARED, TAG, &[5, 4, 6]);
        let Turn::More(token) = a.send(message::MEM_NOTIFY, &payload) else { panic!("not long") };
        token
    };
    let acl = [(4, 6), (5, 6), (6, 6)];
    let handle = world.caller(A).offer(Transfer::Lend, &acl, &[(PAGE, 1)]).unwrap();
    let token = send(handle);
    let told = |vm| heard(&world, VmIndex(vm)).len();
    assert_eq!((told(1), told(2), told(3)), (0, 1, 0));
    assert_eq!(a.resume(token), Turn::More(token));
    assert_eq!((told(1), told(2), told(3)), (1, 0, 0));
    world.caller(A).reclaim(handle, 0).unwrap();
    assert_eq!(a.resume(token), Turn::Reply(vec![7, 0, 0, 0]));
    assert_eq!((told(1), told(2), told(3)), (0, 0, 0));

    let handle = world.caller(A).offer(Transfer::Lend, &acl, &[(PAGE, 1)]).unwrap();
    let token = send(handle);
    while !matches!(a.resume(token), Turn::Reply(_)) {}
    assert_eq!((told(1), told(2), told(3)), (1, 1, 1));
}

#[test]
fn what_a_call_tells_its_caller_comes_before_its_reply() {
    let world = world();
    let a = world.caller(A);
    let handle = shared(&world);
    let mut packet = Header::request(message::MEM_NOTIFY, 9).encode().to_vec();
    packet.extend(request(handle, SHARED, TAG, &[3, 4]));
    assert_eq!(a.queue_send(&packet, true).0, 0);
    let kinds: Vec<_> =
        a.packets().iter().map(|packet| Header::decode(&packet[..]).unwrap().kind).collect();
    assert_eq!(kinds, [Kind::Notification, Kind::Reply]);
    assert_eq!(heard(&world, B).len(), 1);
}
