//! What can go wrong between a consumer and its supplier: one test for each failure.

use rm::config::OwnedParcels;
use rm::machine::fake::effort::effort;
use rm_client::supplier::message::first;
use rm_client::supplier::{Acl, Counts, Desk, Generation, HeapName, Request, Step, Usage};
use rm_client::{Acceptance, ParcelPhase};

use super::*;

fn all(vms: [VmConfig; 3]) -> World {
    linked(&vms)
}

fn usual() -> World {
    all([vm(3), vm(4), vm(5)])
}

/// What the answer of a supplier says.
fn said(answer: &[u8]) -> Body {
    Message::decode(answer).unwrap().body
}

fn failed(step: &Step) -> Option<Refusal> {
    match step.event {
        Some(Event::Failed(_, refusal)) => Some(refusal),
        _ => None,
    }
}

#[test]
fn a_request_that_is_lost_times_out_at_the_limit_and_not_a_tick_before() {
    let world = usual();
    let before = world.check();
    let mut stage = Stage::new(&world);
    for begun in [0, 7, 1 << 40] {
        stage.now = begun;
        let (ticket, _lost) = stage.ask(1, Transfer::Lend, &LEND);
        assert_eq!(stage.consumer.tick(begun + PATIENCE - 1), Step::default());
        let late = stage.consumer.tick(begun + PATIENCE + 1);
        let timed_out = Event::Failed(ticket, Refusal::TimedOut);
        assert_eq!(late, Step { event: Some(timed_out), send: None });
        let (ticket, _lost) = stage.ask(1, Transfer::Lend, &LEND);
        let at_limit = stage.consumer.tick(begun + PATIENCE);
        assert_eq!(at_limit.event, Some(Event::Failed(ticket, Refusal::TimedOut)));
    }
    assert_eq!(stage.consumer.open(), 0, "the numbers are retired");
    stage.all_home();
    assert_eq!(world.check(), before);
}

#[test]
fn a_success_that_comes_too_late_is_given_back_and_never_accepted() {
    let world = usual();
    let mut stage = Stage::new(&world);
    let (ticket, late) = stage.asked(1);
    let handle = Stage::given(&late).handle;
    assert_eq!(failed(&stage.consumer.tick(PATIENCE)), Some(Refusal::TimedOut));
    let undo = stage.at_b(&late);
    assert_eq!((undo.event, stage.consumer.memory(ticket)), (None, None));
    assert!(!stage.a.info(handle).unwrap().flags.contains(rm_client::ParcelFlags::HELD));
    let confirmed = stage.at_a(&undo.send.unwrap()).unwrap();
    assert_eq!(said(&confirmed), Body::Relinquished(Ok(())));
    stage.all_home();
    // A refusal that comes too late needs nothing.
    let (_, ask) = stage.consumer.alloc(0, "other", 1, Transfer::Lend, &LEND).unwrap();
    let late = stage.at_a(&ask).unwrap();
    assert_eq!(failed(&stage.consumer.tick(PATIENCE)), Some(Refusal::TimedOut));
    assert_eq!(stage.at_b(&late), Step::default());
}

#[test]
fn a_reply_around_the_limit_is_accepted_or_given_back_never_both_and_never_neither() {
    let world = usual();
    let before = world.check();
    let mut stage = Stage::new(&world);
    let mut random = Random(0x5eed);
    let (mut accepted, mut given_back) = (0, 0);
    for run in 0..10_000 * effort::<u64>() {
        let begun = stage.now;
        let (ticket, answer) = stage.asked(random.below(3 * GRANULE) + 1);
        let arrives = begun + PATIENCE - 2 + random.below(5);
        let (mut memory, mut undone, mut timed_out) = (None, None, false);
        for now in begun + PATIENCE - 3..=begun + PATIENCE + 3 {
            stage.now = now;
            let timer_first = random.below(2) == 0;
            for turn in 0..2 {
                if (turn == 0) == timer_first {
                    timed_out |= failed(&stage.consumer.tick(now)) == Some(Refusal::TimedOut);
                } else if now == arrives {
                    let step = stage.at_b(&answer);
                    memory = stage.consumer.memory(ticket);
                    assert_eq!(step.event.is_some(), memory.is_some(), "run {run}");
                    undone = step.send;
                }
            }
        }
        assert!(memory.is_some() != undone.is_some(), "run {run}: one of them");
        assert_eq!(timed_out, undone.is_some(), "run {run}: and the program was told");
        if memory.is_some() {
            accepted += 1;
            stage.close(ticket);
        }
        if let Some(undo) = undone {
            given_back += 1;
            assert_eq!(said(&stage.at_a(&undo).unwrap()), Body::Relinquished(Ok(())));
        }
        assert_eq!((stage.supplier.objects(), stage.consumer.open()), (0, 0), "run {run}");
    }
    assert!(accepted > 1000 && given_back > 1000, "{accepted} {given_back}");
    stage.all_home();
    assert_eq!(world.check(), before);
}

#[test]
fn a_reply_that_is_repeated_is_dropped_and_counted() {
    let world = usual();
    let mut stage = Stage::new(&world);
    let (ticket, answer) = stage.asked(1);
    assert!(matches!(stage.at_b(&answer).event, Some(Event::Allocated(..))));
    let before = world.check();
    for repeated in 1..=3 {
        assert_eq!(stage.at_b(&answer), Step::default());
        assert_eq!(stage.consumer.counts().unexpected, repeated);
    }
    assert_eq!(world.check(), before, "no second accept");
    stage.close(ticket);
    // What is over is not begun again either.
    let again = stage.at_b(&answer);
    assert_eq!(again.event, None);
    assert_eq!(stage.refused(&again.send.unwrap()), Refusal::Unknown);
    stage.all_home();
}

#[test]
fn a_reply_with_another_vms_handle_maps_nothing() {
    let world = usual();
    let mut stage = Stage::new(&world);
    let range = [pages(RAM.0 + 0x1000, 2)];
    let of_c = [grant(VMID_C, Rights::RW)];
    let other = stage.a.lend(&NewParcel::new(&range, &of_c).label(1).sanitized()).unwrap();
    let before = world.check();
    let mut told = vec![];
    for handle in [other, Handle(other.0 + 1)] {
        let (_, ask) = stage.ask(1, Transfer::Lend, &LEND);
        let step = stage.at_b(&answer(transaction(&ask), Given { handle, object: 1 }));
        told.push(failed(&step));
        assert_eq!(world.check(), before);
    }
    assert_eq!(told, [Some(Refusal::Unknown); 2], "as if there were none");
}

#[test]
fn a_reply_with_the_right_handle_and_a_wrong_label_kind_or_list_is_given_back() {
    let world = usual();
    let mut stage = Stage::new(&world);
    let at = |n: u64| [pages(RAM.0 + 0x1000 + n * 2 * 4096, 2)];
    let (ranges, list) = ([at(0), at(1), at(2)], [SHARE[1], SHARE[0]]);
    let lent = stage.a.lend(&NewParcel::new(&ranges[0], &LEND).label(9).sanitized()).unwrap();
    let shared = stage.a.share(&NewParcel::new(&ranges[1], &SHARE).label(9).sanitized()).unwrap();
    let swapped = stage.a.share(&NewParcel::new(&ranges[2], &list).label(9).sanitized()).unwrap();
    let before = world.check();
    for (transfer, acl, handle, object) in [
        (Transfer::Lend, &LEND[..], lent, 8),
        (Transfer::Lend, &LEND[..], shared, 9),
        (Transfer::Share, &SHARE[..], lent, 9),
        (Transfer::Share, &SHARE[..], swapped, 9),
    ] {
        let (_, ask) = stage.ask(1, transfer, acl);
        let step = stage.at_b(&answer(transaction(&ask), Given { handle, object }));
        assert_eq!(failed(&step), Some(Refusal::Invalid));
        let undo = Message::decode(&step.send.expect("it is given back")).unwrap().body;
        assert_eq!(undo, Body::Relinquish(Given { handle, object }));
        assert_eq!(world.check(), before, "nothing was mapped");
    }
    assert_eq!(stage.consumer.counts().lies, 3, "the manager knew of the list alone");
}

#[test]
fn a_reply_that_cannot_be_sent_brings_the_memory_home_at_once() {
    let world = usual();
    let mut stage = Stage::new(&world);
    let (_, answer) = stage.asked(GRANULE);
    assert_eq!(stage.supplier.free_bytes("frames"), Some(HEAP_SIZE - GRANULE));
    stage.supplier.undelivered(&mut stage.a, VMID_C, &answer);
    assert_eq!(stage.supplier.objects(), 1, "another peer's is not");
    stage.supplier.undelivered(&mut stage.a, VMID_B, &answer);
    stage.all_home();
    // If it got through all the same and is in use, it stays.
    let (ticket, answer) = stage.asked(GRANULE);
    stage.at_b(&answer);
    stage.supplier.undelivered(&mut stage.a, VMID_B, &answer);
    assert_eq!(stage.supplier.objects(), 1);
    stage.close(ticket);
    stage.all_home();
}

#[test]
fn a_consumer_that_dies_before_it_accepts_costs_nothing() {
    let world = usual();
    let mut stage = Stage::new(&world);
    stage.asked(5 * GRANULE);
    world.end(B);
    assert!(stage.a_hears() > 0, "the manager says so");
    assert_eq!(stage.supplier.objects(), 0, "at once, before anything of B is taken apart");
    world.settle(B, 50);
    stage.all_home();
}

#[test]
fn what_a_consumer_that_dies_had_accepted_comes_home_zeroed() {
    let world = usual();
    let mut stage = Stage::new(&world);
    let (_, memory) = stage.lent(GRANULE);
    world.cpu(B).write(Ipa(memory.ipa), 0x5e).unwrap();
    world.end(B);
    stage.a_hears();
    assert_eq!(stage.supplier.objects(), 1, "the manager has not taken it from B yet");
    world.settle(B, 50);
    assert!(stage.a_hears() > 0, "it has, and says so");
    assert_eq!(world.cpu(A).read(Ipa(HEAP)), Ok(0));
    stage.all_home();
}

#[test]
fn a_supplier_that_dies_before_the_accept_leaves_nothing_to_accept() {
    let world = usual();
    let mut stage = Stage::new(&world);
    let (asked, answer) = stage.asked(1);
    let (waiting, _) = stage.ask(1, Transfer::Lend, &LEND);
    world.end(A);
    world.settle(A, 50);
    assert_eq!(stage.at_b(&answer).event, Some(Event::Failed(asked, Refusal::Unknown)));
    let events = stage.b_hears();
    assert_eq!(events, [Event::Failed(waiting, Refusal::Gone)], "the manager says so, once");
    assert_eq!(stage.consumer.open(), 0);
    world.check();
}

#[test]
fn a_supplier_that_dies_after_the_accept_takes_its_memory_or_leaves_it_as_configured() {
    for owned_parcels in [OwnedParcels::Revoke, OwnedParcels::Keep] {
        let world = all([VmConfig { owned_parcels, ..vm(3) }, vm(4), vm(5)]);
        let mut stage = Stage::new(&world);
        let (ticket, memory) = stage.lent(1);
        stage.consumer.begin_use(ticket).unwrap();
        world.cpu(B).write(Ipa(memory.ipa), 0x5e).unwrap();
        world.end(A);
        world.settle(A, 50);
        let kept = world.cpu(B).read(Ipa(memory.ipa));
        assert_eq!(kept.is_ok(), owned_parcels == OwnedParcels::Keep);
        assert_eq!(stage.b_hears(), [], "what is used is closed by who uses it");
        assert!(stage.consumer.memory(ticket).is_some());
        stage.consumer.end_use(ticket).unwrap();
        stage.consumer.close(0, &mut stage.b, ticket).expect("the manager agrees");
        assert!(world.cpu(B).read(Ipa(memory.ipa)).is_err());
        // The channel page is kept too, until its borrowers let it go.
        for vm in [B, C] {
            for packet in world.caller(vm).packets() {
                let _ = Notice::decode(&packet).expect("a notification");
            }
            world.end(vm);
            world.settle(vm, 50);
        }
        world.settle(A, 50);
        world.start(A);
        assert_eq!(world.cpu(A).read(Ipa(HEAP)), Ok(0), "its next life finds zeros");
        world.check();
    }
}

#[test]
fn memory_that_nobody_accepts_comes_home_after_the_suppliers_patience() {
    let world = usual();
    let mut stage = Stage::new(&world);
    stage.asked(1);
    stage.supplier.tick(2 * PATIENCE - 1, &mut stage.a);
    assert_eq!(stage.supplier.objects(), 1);
    stage.supplier.tick(2 * PATIENCE, &mut stage.a);
    stage.all_home();
}

#[test]
fn a_consumer_that_accepts_and_releases_for_ever_is_ended_by_a_recall() {
    let world = usual();
    let mut stage = Stage::new(&world);
    let (_, answer) = stage.asked(1);
    let Given { handle, object } = Stage::given(&answer);
    let wanted = Acceptance::new(handle, Transfer::Lend).contiguous().expect_label(object);
    for _ in 0..20 {
        stage.b.accept(&wanted).unwrap();
        // Whenever the supplier looks, B has it.
        stage.supplier.tick(u64::MAX, &mut stage.a);
        assert_eq!(stage.supplier.objects(), 1);
        stage.b.release(handle, Sanitize::empty()).unwrap();
    }
    stage.b.accept(&wanted).unwrap();
    stage.supplier.recall(&mut stage.a, VMID_B).unwrap();
    assert_eq!(stage.a.info(handle).unwrap().phase, ParcelPhase::Offered, "B still has it");
    stage.b.release(handle, Sanitize::empty()).unwrap();
    let denied = stage.b.accept(&wanted).map(drop);
    assert_eq!(denied, Err(Error::Refused(ErrorCode::Denied)), "and has it no more");
    stage.supplier.released(&mut stage.a, handle);
    stage.all_home();
}

#[test]
fn a_flood_of_requests_is_answered_busy_and_another_peer_is_served_in_its_turn() {
    let world = usual();
    let mut stage = Stage::new(&world);
    let mut desk: Desk<2, 4> = Desk::new([VMID_B, VMID_C].map(|peer| (peer, Generation::Second)));
    let request = |transaction, vmid| {
        let acl = Acl::new(&[grant(vmid, Rights::RW)]).unwrap();
        let heap = HeapName::new(b"frames").unwrap();
        let request = Request { size: 1, transfer: Transfer::Lend, acl, heap };
        Message { transaction, body: Body::Alloc(Ok(request)) }.encode().unwrap()
    };
    let mut busy = 0;
    for transaction in 0..100 {
        if let Some(told) = desk.put(VMID_B, &request(transaction, VMID_B)) {
            let told = Message::decode(&told).unwrap();
            assert_eq!(told.transaction, transaction);
            assert_eq!(told.body, Body::Allocated(Err(Refusal::Busy)));
            busy += 1;
        }
    }
    assert_eq!((busy, desk.waiting(VMID_B), desk.counts().surplus), (96, 4, 96));
    assert_eq!(stage.supplier.objects(), 0, "so far it cost nothing");
    assert_eq!(desk.put(VMID_C, &request(7, VMID_C)), None);
    assert_eq!(desk.put(Vmid(99), &request(7, Vmid(99))), None, "no peer");
    assert_eq!(desk.counts().strange, 1);
    let mut served = vec![];
    while let Some((peer, answer)) = desk.serve(0, &mut stage.a, &mut stage.supplier) {
        assert!(matches!(said(&answer.unwrap()), Body::Allocated(Ok(_))));
        served.push(peer);
    }
    assert_eq!(served, [VMID_B, VMID_C, VMID_B, VMID_B, VMID_B]);
    // A peer that ends takes its line with it.
    desk.put(VMID_B, &request(200, VMID_B));
    let status = Notice::Status(VmStatus { vmid: VMID_B, state: VmState::Exited });
    desk.hear(&status);
    assert_eq!(desk.waiting(VMID_B), 0);
    stage.supplier.revoke(&mut stage.a, VMID_B).unwrap();
    stage.supplier.revoke(&mut stage.a, VMID_C).unwrap();
    stage.all_home();
}

#[test]
fn what_a_peer_has_is_charged_to_it_and_a_second_peer_has_its_own_quota() {
    let world = usual();
    let mut stage = Stage::new(&world);
    let (ticket, memory) = stage.lent(GRANULE + 1);
    assert_eq!(stage.supplier.usage(VMID_B), Usage { bytes: memory.size, objects: 1 });
    assert_eq!(stage.supplier.usage(VMID_C), Usage::default());
    let (_, ask) = stage.ask(39 * GRANULE, Transfer::Lend, &LEND);
    assert_eq!(stage.refused(&ask), Refusal::NoSpace, "with what it has it would be too much");
    let (_, ask) = stage.ask(40 * GRANULE, Transfer::Lend, &[grant(VMID_C, Rights::RW)]);
    let answer = stage.supplier.receive(0, &mut stage.a, VMID_C, &ask).unwrap();
    assert!(matches!(said(&answer), Body::Allocated(Ok(_))), "another peer's quota is its own");
    assert_eq!(stage.supplier.usage(VMID_C).bytes, 40 * GRANULE);
    stage.close(ticket);
    assert_eq!(stage.supplier.usage(VMID_B), Usage::default());
}

#[test]
fn a_request_that_names_more_vms_than_it_has_bytes_for_is_refused() {
    let world = usual();
    let mut stage = Stage::new(&world);
    let (_, ask) = stage.ask(1, Transfer::Lend, &LEND);
    for count in [0_u32, 2, 16, 17, 0x4000_0000, u32::MAX] {
        let mut bytes = ask.to_vec();
        bytes[28..32].copy_from_slice(&count.to_le_bytes());
        // What lies behind the message would make it whole.
        bytes.extend([4, 0, 6, 0].repeat(32));
        assert_eq!(stage.refused(&bytes[..ask.len()]), Refusal::Invalid, "{count}");
    }
    stage.all_home();
}

#[test]
fn a_heap_name_without_an_end_and_sizes_of_zero_and_near_the_limit_are_refused() {
    let world = usual();
    let mut stage = Stage::new(&world);
    let (_, ask) = stage.ask(1, Transfer::Lend, &LEND);
    let with = |range: core::ops::Range<usize>, bytes: &[u8]| {
        let mut message = ask.to_vec();
        message[range].copy_from_slice(bytes);
        message
    };
    let sizes = [0, u64::MAX, u64::MAX - GRANULE, 1 << 63];
    let refused = sizes.map(|size| stage.refused(&with(12..20, &size.to_le_bytes())));
    assert_eq!(refused, [Refusal::Invalid, Refusal::Invalid, Refusal::NoSpace, Refusal::NoSpace]);
    assert_eq!(stage.refused(&with(36..164, &[b'x'; 128])), Refusal::Invalid, "no end");
    assert_eq!(stage.refused(&with(36..164, &[0; 128])), Refusal::Invalid, "no name");
    assert_eq!(
        stage.refused(&with(36..68, &[b'x'; 32])),
        Refusal::Invalid,
        "longer than any heap's"
    );
    stage.all_home();
}

#[test]
fn giving_back_an_unknown_object_or_another_vms_is_refused_and_reclaims_nothing() {
    let world = usual();
    let mut stage = Stage::new(&world);
    let (ticket, answer) = stage.asked(1);
    stage.at_b(&answer);
    let given = Stage::given(&answer);
    let give_back =
        |given| Message { transaction: 3, body: Body::Relinquish(given) }.encode().unwrap();
    let wrong = [
        (VMID_B, Given { object: given.object + 1, ..given }),
        (VMID_B, Given { handle: Handle(given.handle.0 + 1), ..given }),
        (VMID_C, given),
    ];
    for (peer, given) in wrong {
        let told = stage.supplier.receive(0, &mut stage.a, peer, &give_back(given)).unwrap();
        assert_eq!(said(&told), Body::Relinquished(Err(Refusal::Unknown)));
    }
    let memory = stage.consumer.memory(ticket).unwrap();
    world.cpu(B).write(Ipa(memory.ipa), 1).expect("B has it still");
    stage.close(ticket);
    stage.all_home();
}

#[test]
fn a_manager_that_is_out_of_something_is_told_of_and_the_block_goes_back_to_its_heap() {
    let mut a = vm(3);
    // Two are the channels.
    a.quotas.parcels = 3;
    let world = all([a, vm(4), vm(5)]);
    let mut stage = Stage::new(&world);
    let (ticket, _) = stage.lent(1);
    let (_, ask) = stage.ask(1, Transfer::Lend, &LEND);
    assert_eq!(stage.refused(&ask), Refusal::NoSpace);
    assert_eq!(stage.supplier.free_bytes("frames"), Some(HEAP_SIZE - GRANULE));
    stage.close(ticket);
    stage.all_home();
}

#[test]
fn a_close_while_the_memory_is_used_is_refused_and_tells_nobody() {
    let world = usual();
    let mut stage = Stage::new(&world);
    let (ticket, memory) = stage.lent(1);
    stage.consumer.begin_use(ticket).unwrap();
    let before = world.check();
    for _ in 0..3 {
        let closed = stage.consumer.close(stage.now, &mut stage.b, ticket);
        assert_eq!(closed, Err(Refusal::Busy));
    }
    assert_eq!(world.check(), before);
    let inside = stage.a.reclaim(memory.handle, Sanitize::empty());
    assert_eq!(inside, Err(Error::Refused(ErrorCode::MemoryInUse)));
    stage.consumer.end_use(ticket).unwrap();
    stage.close(ticket);
    stage.all_home();
}

#[test]
fn two_allocations_at_once_get_their_own_memory_also_if_the_replies_are_swapped() {
    let world = usual();
    let mut stage = Stage::new(&world);
    let (one, ask_one) = stage.ask(GRANULE, Transfer::Lend, &LEND);
    let (two, ask_two) = stage.ask(3 * GRANULE, Transfer::Lend, &LEND);
    assert_ne!(transaction(&ask_one), transaction(&ask_two));
    let (for_two, for_one) = (stage.at_a(&ask_two).unwrap(), stage.at_a(&ask_one).unwrap());
    for (ticket, answer, size) in [(two, for_two, 3 * GRANULE), (one, for_one, GRANULE)] {
        let Some(Event::Allocated(of, memory)) = stage.at_b(&answer).event else { panic!() };
        assert_eq!((of, memory.size), (ticket, size));
    }
    let (first, second) =
        (stage.consumer.memory(one).unwrap(), stage.consumer.memory(two).unwrap());
    world.cpu(B).write(Ipa(first.ipa), 1).unwrap();
    assert_eq!(world.cpu(B).read(Ipa(second.ipa)), Ok(0));
    stage.close(one);
    stage.close(two);
    stage.all_home();
}

#[test]
fn a_consumer_that_starts_again_is_not_taken_for_its_former_self() {
    let world = usual();
    let mut stage = Stage::new(&world);
    // Transaction 1 of its first life, with memory that it dies with.
    let (_, memory) = stage.lent(GRANULE);
    world.cpu(B).write(Ipa(memory.ipa), 0x5e).unwrap();
    world.end(B);
    assert!(stage.a_hears() > 0, "that it has ended, and not yet that it holds nothing");
    assert_eq!(stage.supplier.objects(), 1);
    world.settle(B, 50);
    world.start(B);
    stage.consumer = Consumer::new(agreement());
    // Transaction 1 of its second life: the very same request.
    let (ticket, memory) = stage.lent(GRANULE);
    assert_eq!(world.cpu(B).read(Ipa(memory.ipa)), Ok(0), "and not what it left");
    assert_eq!(stage.supplier.counts(), Counts::default(), "no repetition");
    stage.a_hears();
    assert_eq!(stage.supplier.objects(), 1, "what the former life had is home");
    stage.close(ticket);
    stage.all_home();
}

#[test]
fn a_former_life_of_which_nobody_has_told_yet_does_not_get_in_the_way_of_a_new_request() {
    let world = usual();
    let mut stage = Stage::new(&world);
    stage.lent(GRANULE);
    world.end(B);
    world.settle(B, 50);
    world.start(B);
    stage.consumer = Consumer::new(agreement());
    // The same number for something else, and the notice still waits.
    let (ticket, _) = stage.lent(2 * GRANULE);
    assert_eq!(stage.supplier.objects(), 1, "the old object is home");
    // When the notice comes at last, what the new life has stays with it.
    stage.a_hears();
    assert!(stage.consumer.memory(ticket).is_some());
    stage.close(ticket);
    stage.all_home();
}

#[test]
fn a_vm_that_may_not_supply_says_so_at_once_and_gives_nothing() {
    let world = all([VmConfig { may_supply: false, ..vm(3) }, vm(4), vm(5)]);
    let before = world.check();
    let mut stage = Stage::new(&world);
    let (_, ask) = stage.ask(1, Transfer::Lend, &LEND);
    assert_eq!(stage.refused(&ask), Refusal::NotSupported, "the manager does not let it");
    stage.supplier.set_role(false);
    assert_eq!(stage.refused(&ask), Refusal::NotSupported, "or it does not ask the manager");
    stage.all_home();
    assert_eq!(world.check(), before);
}

#[test]
fn a_vm_that_may_not_consume_gets_nothing_and_the_memory_goes_home() {
    let world = all([vm(3), VmConfig { may_consume: false, ..vm(4) }, vm(5)]);
    let before = world.check();
    let mut stage = Stage::new(&world);
    let (ticket, answer) = stage.asked(1);
    let step = stage.at_b(&answer);
    assert_eq!(step.event, Some(Event::Failed(ticket, Refusal::NotSupported)));
    stage.at_a(&step.send.expect("it is given back")).unwrap();
    stage.all_home();
    assert_eq!(world.check(), before);
}

#[test]
fn a_consumer_of_the_first_generation_is_served_in_its_own_words() {
    let world = usual();
    let mut stage = Stage::new(&world);
    let say = |stage: &mut Stage<'_>, transaction, body| {
        let packet = first::Message { transaction, body }.encode().unwrap();
        let answer = stage.supplier.receive_first(0, &mut stage.a, VMID_B, &packet)?;
        let answer = first::Message::decode(&answer).unwrap();
        assert_eq!(answer.transaction, transaction);
        let first::Body::Allocated(outcome) = answer.body else { panic!("{answer:?}") };
        Some(outcome)
    };
    let request = |acl: &[AclEntry], heap| {
        let acl = Acl::new(acl).unwrap();
        first::Body::Alloc(Ok(first::Request { size: GRANULE + 1, acl, heap }))
    };
    let handle = say(&mut stage, 5, request(&LEND, 0)).unwrap().unwrap();
    let wanted = Acceptance::new(handle, Transfer::Lend).contiguous().expect_acl(&LEND, &[]);
    let place = stage.b.accept(&wanted).unwrap().next().unwrap();
    assert_eq!(place.size, 2 * GRANULE);
    assert_eq!(say(&mut stage, 6, request(&LEND, 1)), Some(Err(Refusal::Invalid)), "no such heap");
    let shared = say(&mut stage, 7, request(&SHARE, 0)).unwrap().unwrap();
    assert_eq!(stage.b.info(shared).unwrap().transfer, Transfer::Share, "the list says so");
    // Giving back is not confirmed; what is still held stays.
    assert_eq!(say(&mut stage, 8, first::Body::Relinquish(handle)), None);
    assert_eq!(stage.supplier.objects(), 2);
    stage.b.release(handle, Sanitize::empty()).unwrap();
    for handle in [handle, shared, Handle(shared.0 + 1)] {
        assert_eq!(say(&mut stage, 9, first::Body::Relinquish(handle)), None);
    }
    stage.all_home();
    assert_eq!(stage.supplier.counts().refused, 3);
}

#[test]
fn memory_that_cannot_be_vouched_for_is_given_to_nobody_again() {
    let world = usual();
    let mut stage = Stage::new(&world);
    let (ticket, _) = stage.lent(GRANULE);
    world.manager.machine().spoil(rm::address::Pa(World::pa_of(A).0 + HEAP - RAM.0));
    let told = stage.consumer.close(0, &mut stage.b, ticket).unwrap();
    for _ in 0..2 {
        assert_eq!(stage.refused(&told), Refusal::Lost);
    }
    let answer = stage.at_a(&told).unwrap();
    assert_eq!(stage.at_b(&answer).event, Some(Event::Closed(ticket, Err(Refusal::Lost))));
    for now in [2 * PATIENCE, 9 * PATIENCE] {
        stage.supplier.tick(now, &mut stage.a);
    }
    assert_eq!((stage.supplier.objects(), stage.supplier.counts().poisoned), (1, 1));
    assert_eq!(stage.supplier.free_bytes("frames"), Some(HEAP_SIZE - GRANULE));
    let (ticket, _) = stage.lent(GRANULE);
    stage.close(ticket);
}
