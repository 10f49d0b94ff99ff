//! MEM_NOTIFY and what becomes of news while its receiver does not read.

use rm::address::VmIndex;
use rm::config::{AfterEnd, Roles, VmConfig};
use rm::life::{ExitKind, VmState};
use rm::machine::Line;
use rm::machine::fake::world::{self, Guest, LABEL, RAM, World, by_handle, offer};
use rm::operation::budget::Budget;
use rm::quota::Quotas;
use rm_abi::memparcel::notice::{BorrowerNews, Offer, Recall};
use rm_abi::memparcel::notify::Notify;
use rm_abi::vm::{StopFlags, VmExitRequest, VmExited, VmStatus, VmStopRequest};
use rm_abi::{
    AclEntry, Bytes, CreateFlags, Handle, Header, Kind, MemoryKind, NotifyFlag, Rights, Transfer,
    Vmid, VmidEntry, message,
};

const A: VmIndex = VmIndex(0);
const B: VmIndex = VmIndex(1);
const PAGE: u64 = RAM.0 + 0x10_0000;
const WINDOW: u64 = 0x8000_0000;

fn world() -> World {
    World::new(&[world::vm(3), world::vm(4), world::vm(5)])
}

fn notify(handle: u32, flag: NotifyFlag, tag: u32, targets: &[u16]) -> Vec<u8> {
    let targets: Vec<_> = targets.iter().map(|&vmid| VmidEntry(Vmid(vmid))).collect();
    let request = Notify { handle: Handle(handle), flag, tag, targets: &targets };
    let mut payload = vec![0; 4096];
    let length = request.encode(&mut payload).unwrap();
    payload.truncate(length);
    payload
}

fn told(guest: &Guest<'_>, handle: u32, flag: NotifyFlag, tag: u32, targets: &[u16]) -> u32 {
    guest.call(message::MEM_NOTIFY, &notify(handle, flag, tag, targets)).u32_at(0)
}

/// Message id and payload of a packet.
fn news(packet: &[u8]) -> (u32, &[u8]) {
    let header = Header::decode(packet).unwrap();
    assert_eq!((header.kind, header.fragments), (Kind::Notification, 0));
    (header.message, &packet[Header::SIZE..])
}

fn get_vmid(sequence: u16) -> Vec<u8> {
    Header::request(message::VM_GET_VMID, sequence).encode().to_vec()
}

/// A share of `pages` scattered pages of VM 3 with VM 4.
fn shared(world: &World, place: u64, pages: u64) -> u32 {
    let ranges: Vec<_> = (0..pages).map(|n| (place + n * 0x2000, 1)).collect();
    world.caller(A).offer(Transfer::Share, &[(3, 6), (4, 6)], &ranges).unwrap()
}

#[test]
fn each_kind_of_news_arrives_with_its_bytes() {
    let world = world();
    let (owner, borrower) = (world.caller(A), world.caller(B));
    let handle = shared(&world, PAGE, 1);
    assert_eq!(told(&owner, handle, NotifyFlag::Shared, 0x55, &[4]), 0);
    assert_eq!(world.interrupts(B, Line::Receive), 1);
    let packets = borrower.packets();
    let (message, payload) = news(&packets[0]);
    assert_eq!(message, message::MEM_SHARED);
    let (offer, lists) = Offer::decode(payload).expect("an offer");
    assert_eq!((offer.handle.0, offer.owner.0, offer.label, offer.tag), (handle, 3, LABEL, 0x55));
    assert_eq!((offer.transfer, offer.memory), (Transfer::Share, MemoryKind::NORMAL));
    let entry = |vmid| AclEntry { vmid: Vmid(vmid), rights: Rights::RW };
    assert_eq!(lists.acl.iter(payload).collect::<Vec<_>>(), [entry(3), entry(4)]);
    assert_eq!(lists.sizes.iter(payload).map(|size| size.0).collect::<Vec<_>>(), [4096]);

    borrower.accept_contiguous(handle, Transfer::Share, (WINDOW, 1)).unwrap();
    assert_eq!(told(&borrower, handle, NotifyFlag::Accepted, 0x55, &[]), 0);
    let about = BorrowerNews { handle: Handle(handle), borrower: Vmid(4), tag: 0x55 };
    let packets = owner.packets();
    assert_eq!(news(&packets[0]).0, message::MEM_ACCEPTED);
    assert_eq!(BorrowerNews::decode(news(&packets[0]).1), Some(about));

    assert_eq!(told(&owner, handle, NotifyFlag::Recall, 0x55, &[4]), 0);
    let packets = borrower.packets();
    assert_eq!(news(&packets[0]).0, message::MEM_RECALL);
    assert_eq!(Recall::decode(news(&packets[0]).1).map(|recall| recall.tag), Some(0x55));

    borrower.release(handle, 0).unwrap();
    assert_eq!(told(&borrower, handle, NotifyFlag::Released, 0x55, &[]), 0);
    let packets = owner.packets();
    assert_eq!(news(&packets[0]).0, message::MEM_RELEASED);
    assert_eq!(BorrowerNews::decode(news(&packets[0]).1), Some(about));
}

#[test]
fn the_checks_have_an_order() {
    let world = world();
    let (owner, borrower, stranger) = (world.caller(A), world.caller(B), world.caller(VmIndex(2)));
    let handle = shared(&world, PAGE, 1);
    let raw =
        |guest: &Guest<'_>, payload: &[u8]| guest.call(message::MEM_NOTIFY, payload).u32_at(0);
    let good = notify(handle, NotifyFlag::Shared, 7, &[4]);
    assert_eq!(raw(&owner, &good[..11]), 4);
    assert_eq!(told(&owner, handle + 0x2000, NotifyFlag::Shared, 7, &[4]), 7);
    assert_eq!(told(&stranger, handle, NotifyFlag::Shared, 7, &[4]), 7, "no party");
    assert_eq!(told(&borrower, handle, NotifyFlag::Shared, 7, &[4]), 3, "not the owner");
    assert_eq!(raw(&owner, &good[..12]), 4, "no list");
    assert_eq!(told(&owner, handle, NotifyFlag::Shared, 7, &[]), 6, "an empty list");
    assert_eq!(raw(&owner, &good[..16]), 4, "a list that ends early");
    assert_eq!(told(&owner, handle, NotifyFlag::Shared, 7, &[4, 4, 4]), 6, "longer than the ACL");
    assert_eq!(told(&owner, handle, NotifyFlag::Shared, 7, &[4, 99]), 0xd, "no such VM");
    assert_eq!(told(&owner, handle, NotifyFlag::Shared, 7, &[255]), 6, "not in the ACL");
    assert_eq!(told(&owner, handle, NotifyFlag::Shared, 7, &[5]), 6, "not in the ACL");
    assert!(borrower.packets().is_empty(), "G4: nobody hears of what was refused");
    assert_eq!(told(&borrower, handle, NotifyFlag::Accepted, 7, &[]), 0xc);
    assert_eq!(told(&owner, handle, NotifyFlag::Shared, 7, &[4]), 0);
    assert_eq!(told(&owner, handle, NotifyFlag::Shared, 8, &[4]), 6, "another tag");
    assert_eq!(told(&borrower, handle, NotifyFlag::Released, 8, &[]), 6, "another tag");
    let mut two = notify(handle, NotifyFlag::Shared, 7, &[4]);
    for flags in [0, 3, 16, 255] {
        two[4] = flags;
        assert_eq!(raw(&owner, &two), 6, "flags {flags}");
    }
    borrower.accept_contiguous(handle, Transfer::Share, (WINDOW, 1)).unwrap();
    assert_eq!(told(&borrower, handle, NotifyFlag::Released, 7, &[]), 0xb);
    assert_eq!(told(&owner, handle, NotifyFlag::Released, 7, &[]), 0, "an owner may tell itself");
}

#[test]
fn news_that_a_request_causes_comes_before_its_reply() {
    let world = world();
    let owner = world.caller(A);
    let handle = shared(&world, PAGE, 1);
    let request = notify(handle, NotifyFlag::Shared, 1, &[3]);
    for packet in Guest::fragments(Header::request(message::MEM_NOTIFY, 1), &request) {
        owner.queue_send(&packet, true);
    }
    let kinds: Vec<_> =
        owner.packets().iter().map(|packet| Header::decode(&packet[..]).unwrap().kind).collect();
    assert_eq!(kinds, [Kind::Notification, Kind::Reply]);
    assert_eq!(world.interrupts(A, Line::Receive), 1);
}

#[test]
fn a_target_named_twice_hears_it_twice_while_there_is_room() {
    let world = world();
    let handle = shared(&world, PAGE, 1);
    assert_eq!(told(&world.caller(A), handle, NotifyFlag::Recall, 0, &[4, 4]), 0);
    assert_eq!(world.caller(B).packets().len(), 2);
}

#[test]
fn an_offer_of_many_sizes_comes_in_packets_and_whole() {
    let world = world();
    let (owner, borrower) = (world.caller(A), world.caller(B));
    let handle = shared(&world, PAGE, 500);
    assert_eq!(told(&owner, handle, NotifyFlag::Shared, 3, &[4]), 0);
    // News that comes meanwhile does not come in between.
    assert_eq!(told(&owner, handle, NotifyFlag::Recall, 3, &[4]), 0);
    let packets = borrower.packets();
    let first = Header::decode(&packets[0][..]).unwrap();
    assert_eq!(usize::from(first.fragments) + 2, packets.len());
    let mut payload = vec![];
    for (index, packet) in packets[..packets.len() - 1].iter().enumerate() {
        let header = Header::decode(&packet[..]).unwrap();
        let kind = if index == 0 { Kind::Notification } else { Kind::Continuation };
        assert_eq!(header, Header { kind, ..first });
        payload.extend_from_slice(&packet[Header::SIZE..]);
    }
    let (_, lists) = Offer::decode(&payload[..]).expect("a whole offer");
    assert_eq!(lists.sizes.iter(&payload[..]).map(|size| size.0).collect::<Vec<_>>(), [4096; 500]);
    assert_eq!(news(packets.last().unwrap()).0, message::MEM_RECALL);
}

#[test]
fn an_offer_whose_parcel_goes_is_ended_and_names_no_other_parcel() {
    let world = world();
    let (owner, borrower) = (world.caller(A), world.caller(B));
    let handle = shared(&world, PAGE, 500);
    assert_eq!(told(&owner, handle, NotifyFlag::Shared, 3, &[4]), 0);
    owner.reclaim(handle, 0).unwrap();
    // Its record is another parcel's now.
    shared(&world, PAGE, 300);
    let packets = borrower.packets();
    let first = Header::decode(&packets[0][..]).unwrap();
    assert_eq!(usize::from(first.fragments) + 1, packets.len());
    let payload: Vec<_> =
        packets.iter().flat_map(|packet| packet[Header::SIZE..].to_vec()).collect();
    let (offer, lists) = Offer::decode(&payload[..]).expect("still well-formed");
    assert_eq!(offer.handle.0, handle);
    let sizes: Vec<_> = lists.sizes.iter(&payload[..]).map(|size| size.0).collect();
    assert_eq!(sizes.len(), 500);
    assert!(sizes.iter().all(|size| matches!(size, 0 | 4096)));
    assert_eq!(sizes[499], 0, "what was left is not told");
}

/// Fills the receive queue of VM 4 with replies.
fn fill(world: &World) {
    (0..8).for_each(|sequence| {
        assert_eq!(world.caller(B).queue_send(&get_vmid(sequence), false).0, 0)
    });
}

#[test]
fn news_waits_in_order_and_the_same_news_is_told_once() {
    let world = world();
    let (owner, borrower) = (world.caller(A), world.caller(B));
    let handles: Vec<_> = (0..12).map(|n| shared(&world, PAGE + n * 0x1000, 1)).collect();
    fill(&world);
    for &handle in &handles {
        assert_eq!(told(&owner, handle, NotifyFlag::Shared, handle, &[4]), 0);
    }
    // Replaced where it waits: the recall is what is left to say of the first parcel.
    assert_eq!(told(&owner, handles[0], NotifyFlag::Recall, handles[0], &[4]), 0);
    let packets = borrower.packets();
    assert_eq!(packets.len(), 8 + 12);
    assert_eq!(news(&packets[8]).0, message::MEM_RECALL);
    for (packet, handle) in packets[8..].iter().zip(&handles) {
        assert_eq!(news(packet).1.u32_at(0), *handle);
    }
    assert_eq!(world.interrupts(B, Line::Receive), 1);
}

#[test]
fn a_reply_waits_behind_older_news_and_before_younger() {
    let world = world();
    let (owner, borrower) = (world.caller(A), world.caller(B));
    let (first, second) = (shared(&world, PAGE, 1), shared(&world, PAGE + 0x1000, 1));
    fill(&world);
    assert_eq!(told(&owner, first, NotifyFlag::Recall, 0, &[4]), 0);
    borrower.queue_send(&get_vmid(8), false);
    assert_eq!(told(&owner, second, NotifyFlag::Recall, 0, &[4]), 0);
    let packets = borrower.packets();
    let kinds: Vec<_> =
        packets[8..].iter().map(|packet| Header::decode(&packet[..]).unwrap().kind).collect();
    assert_eq!(kinds, [Kind::Notification, Kind::Reply, Kind::Notification]);
    assert_eq!(packets[8].u32_at(8), first);
}

#[test]
fn what_is_unread_of_a_parcel_that_went_is_told_except_its_offer() {
    let world = world();
    let (owner, borrower) = (world.caller(A), world.caller(B));
    let (offered, recalled) = (shared(&world, PAGE, 1), shared(&world, PAGE + 0x1000, 1));
    fill(&world);
    assert_eq!(told(&owner, offered, NotifyFlag::Shared, 0, &[4]), 0);
    assert_eq!(told(&owner, recalled, NotifyFlag::Recall, 0, &[4]), 0);
    owner.reclaim(offered, 0).unwrap();
    owner.reclaim(recalled, 0).unwrap();
    let packets = borrower.packets();
    assert_eq!(packets.len(), 9);
    let (message, payload) = news(&packets[8]);
    assert_eq!(message, message::MEM_RECALL);
    assert_eq!(Recall::decode(payload), Some(Recall { handle: Handle(recalled), tag: 0 }));
}

#[test]
fn who_does_not_read_is_named_in_no_new_parcel() {
    let world = world();
    let (owner, borrower) = (world.caller(A), world.caller(B));
    fill(&world);
    let mut gone = vec![];
    loop {
        let range = [(PAGE, 1)];
        match owner.offer(Transfer::Lend, &[(4, 6)], &range) {
            Ok(handle) => {
                assert_eq!(told(&owner, handle, NotifyFlag::Recall, 0, &[4]), 0);
                owner.reclaim(handle, 0).unwrap();
                gone.push(handle);
            }
            Err(code) => break assert_eq!(code, 2, "NORESOURCE"),
        }
    }
    assert_eq!(gone.len(), 32);
    owner.offer(Transfer::Lend, &[(5, 6)], &[(PAGE, 1)]).expect("others may be named");
    let packets = borrower.packets();
    let heard: Vec<_> = packets[8..].iter().map(|packet| news(packet).1.u32_at(0)).collect();
    assert_eq!(heard, gone);
    owner.offer(Transfer::Lend, &[(4, 6)], &[(PAGE + 0x1000, 1)]).expect("it has read");
    world.check();
}

#[test]
fn at_the_limit_the_oldest_unread_news_makes_way() {
    let quotas = Quotas { parcels: 40, ..world::vm(3).quotas };
    let world = World::new(&[VmConfig { quotas, ..world::vm(3) }, world::vm(4)]);
    let (owner, borrower) = (world.caller(A), world.caller(B));
    let handles: Vec<_> = (0..40).map(|n| shared(&world, PAGE + n * 0x1000, 1)).collect();
    fill(&world);
    for &handle in &handles {
        assert_eq!(told(&owner, handle, NotifyFlag::Recall, 0, &[4]), 0);
    }
    for &handle in &handles {
        owner.reclaim(handle, 0).unwrap();
    }
    let packets = borrower.packets();
    let heard: Vec<_> = packets[8..].iter().map(|packet| news(packet).1.u32_at(0)).collect();
    assert_eq!(heard, handles[8..]);
}

#[test]
fn many_targets_are_told_in_steps() {
    let world = World::new(&[world::vm(3), world::vm(4), world::vm(5), world::vm(6)]);
    let owner = world.caller(A);
    owner.step.set(1);
    let ranges: Vec<_> = (0..300).map(|n| (PAGE + n * 0x2000, 1)).collect();
    let acl = [(4, 6), (5, 6), (6, 6)];
    let payload = offer(CreateFlags::empty(), &acl, &ranges, &[]);
    let handle = owner.call(message::MEM_LEND, &payload).u32_at(4);
    assert_eq!(told(&owner, handle, NotifyFlag::Shared, 1, &[6, 4, 5]), 0);
    for vm in [1, 2, 3] {
        let guest = world.caller(VmIndex(vm));
        guest.step.set(1);
        let mut packets = guest.packets();
        while world.manager.pending(VmIndex(vm)) {
            world.manager.step(VmIndex(vm), &mut Budget::new(1));
            packets.extend(guest.packets());
        }
        let fragments = Header::decode(&packets[0][..]).unwrap().fragments;
        assert_eq!(packets.len(), usize::from(fragments) + 1);
    }
    assert_eq!(owner.call(message::MEM_RECLAIM, &by_handle(handle, 0)), [0; 4]);
}

#[test]
fn news_of_an_accept_and_of_vms_waits_while_the_queue_is_full() {
    let world = World::new(&[
        VmConfig { roles: Roles::MANAGE, ..world::vm(3) },
        VmConfig { after_end: AfterEnd::Wait, ..world::vm(4) },
    ]);
    let (a, b) = (world.caller(A), world.caller(B));
    let handle = shared(&world, PAGE, 1);
    b.accept_contiguous(handle, Transfer::Share, (WINDOW, 1)).unwrap();
    (0..8).for_each(|sequence| assert_eq!(a.queue_send(&get_vmid(sequence), true).0, 0));
    assert_eq!(told(&b, handle, NotifyFlag::Accepted, 0x55, &[]), 0);
    // It is asked to end itself, twice: one is enough.
    let stop = |reason| {
        let mut payload = vec![0; VmStopRequest::SIZE];
        let flags = StopFlags::empty();
        VmStopRequest { vmid: Vmid(3), flags, reason }.encode(&mut payload).unwrap();
        assert_eq!(a.words(message::VM_STOP, &payload).0, 0);
    };
    stop(8);
    stop(9);
    let mut exit = [0; VmExitRequest::SIZE];
    VmExitRequest { flags: 0x12, code: 2 }.encode(&mut exit).unwrap();
    assert_eq!(b.send(message::VM_EXIT, &exit), world::Turn::Exit(2));
    world.manager.ended(B, ExitKind::Call);
    let request = 4_u32.to_le_bytes();
    assert_eq!(a.words(message::VM_RESET, &request).0, 0);
    // Its own parcels are none, and what it had of A's it gives up: that replaces what it accepted.
    world.settle(B, 100);
    assert_eq!(world.manager.state(B), VmState::Reset);
    let packets = a.packets();
    let heard: Vec<_> = packets[8..].iter().map(|packet| news(packet)).collect();
    let ids: Vec<_> = heard.iter().map(|(message, _)| *message).collect();
    let (status, exited) = (message::VM_STATUS, message::VM_EXITED);
    assert_eq!(ids, [message::MEM_RELEASED, message::VM_SHUTDOWN, status, exited]);
    let about = BorrowerNews { handle: Handle(handle), borrower: Vmid(4), tag: 0 };
    assert_eq!(BorrowerNews::decode(heard[0].1), Some(about));
    assert_eq!(heard[1].1, 9_u32.to_le_bytes(), "the younger reason");
    let told = VmStatus::decode(heard[2].1).unwrap();
    assert_eq!((told.vmid, told.state), (Vmid(4), VmState::Reset), "the last of its states");
    let told = VmExited::decode(heard[3].1).unwrap();
    assert_eq!((told.vmid, told.kind), (Vmid(4), ExitKind::Call));
    assert_eq!((told.flags, told.code), (0x12, 2));
    world.check();
}

#[test]
fn an_accept_that_was_told_while_the_queue_was_full_is_told_when_there_is_room() {
    let world = world();
    let (owner, borrower) = (world.caller(A), world.caller(B));
    let handle = shared(&world, PAGE, 1);
    borrower.accept_contiguous(handle, Transfer::Share, (WINDOW, 1)).unwrap();
    (0..8).for_each(|sequence| assert_eq!(owner.queue_send(&get_vmid(sequence), true).0, 0));
    assert_eq!(told(&borrower, handle, NotifyFlag::Accepted, 0x55, &[]), 0);
    let packets = owner.packets();
    assert_eq!(packets.len(), 9);
    let (message, payload) = news(&packets[8]);
    let about = BorrowerNews { handle: Handle(handle), borrower: Vmid(4), tag: 0 };
    assert_eq!((message, BorrowerNews::decode(payload)), (message::MEM_ACCEPTED, Some(about)));
}
