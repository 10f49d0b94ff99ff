//! Calls of different VMs on different CPUs at once.
//!
//! Threads stand for CPUs; the fake lets another one run whenever a lock is taken. The schedule is
//! the host's, so this finds deadlocks and lost updates, not every interleaving. Ranks are asserted
//! by the locks themselves.

use std::sync::atomic::{AtomicUsize, Ordering};

use rm::address::{Ipa, VmIndex};
use rm::machine::fake::effort::{effort, few};
use rm::machine::fake::world::{RAM, World, offer, vm};
use rm::stage2::Access;
use rm_abi::extension::{Policy, SET_POLICY};
use rm_abi::memparcel::notify::Notify;
use rm_abi::{CreateFlags, Handle, Header, Kind, NotifyFlag, Transfer, Vmid, VmidEntry, message};

/// A page of its own for each thread.
const fn page(thread: u64) -> u64 {
    RAM.0 + 0x10_0000 + thread * 0x4000
}

#[test]
fn vms_lend_to_each_other_all_at_once() {
    let world = World::new(&[vm(3), vm(4), vm(5), vm(6)]);
    let before = world.check();
    std::thread::scope(|scope| {
        for own in 0..4u8 {
            let world = &world;
            scope.spawn(move || {
                let (peer, vmid) = (VmIndex((own + 1) % 4), u16::from((own + 1) % 4) + 3);
                let (owner, borrower) = (world.caller(VmIndex(own)), world.caller(peer));
                for round in 0..few(200, 3) * effort::<u64>() {
                    let step = [1, 30, rm::operation::STEP][round as usize % 3];
                    owner.step.set(step);
                    // Two vCPUs of the borrower's VM call at once: a long call would be busy.
                    let ranges = [(page(own.into()), 1 + round % 3)];
                    let handle = loop {
                        match owner.offer_or_busy(Transfer::Lend, &[(vmid, 6)], &ranges) {
                            Some(said) => break said.expect("the owner has the pages"),
                            None => std::thread::yield_now(),
                        }
                    };
                    let window = 0x9000_0000 + u64::from(own) * 0x10_0000;
                    borrower.accept(handle, Transfer::Lend, &[(window, 1 + round % 3)]).unwrap();
                    assert_eq!(owner.reclaim(handle, 0), Err(0xb));
                    borrower.release(handle, 0).unwrap();
                    owner.step.set(rm::operation::STEP);
                    owner.reclaim(handle, 0).unwrap();
                }
            });
        }
    });
    for vm in world.vms() {
        while world.manager.idle(vm) {}
    }
    assert_eq!(world.check(), before);
}

#[test]
fn two_borrowers_take_and_leave_one_parcel_at_once() {
    let world = World::new(&[vm(3), vm(4), vm(5)]);
    let owner = world.caller(VmIndex(0));
    let handle = owner.offer(Transfer::Lend, &[(4, 6), (5, 6)], &[(page(0), 3)]).unwrap();
    std::thread::scope(|scope| {
        for borrower in 1..3 {
            let world = &world;
            scope.spawn(move || {
                let guest = world.caller(VmIndex(borrower));
                for round in 0..few(300, 4) * effort::<u64>() {
                    guest.step.set([1, rm::operation::STEP][round as usize % 2]);
                    guest.accept(handle, Transfer::Lend, &[(0x9000_0000, 3)]).unwrap();
                    guest.release(handle, 0).unwrap();
                }
            });
        }
    });
    owner.reclaim(handle, 0).unwrap();
    world.check();
}

#[test]
fn a_borrower_that_keeps_asking_gets_a_growing_parcel_when_it_is_whole() {
    let world = World::new(&[vm(3), vm(4)]);
    let owner = world.caller(VmIndex(0));
    owner.step.set(1);
    for round in 0..few(20, 1) * effort::<u64>() {
        let request = offer(CreateFlags::APPEND, &[(4, 6)], &[(page(0), 1)], &[]);
        let (error, handle) = owner.words(message::MEM_LEND, &request);
        assert_eq!(error, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let borrower = world.caller(VmIndex(1));
                loop {
                    let all = (0x9000_0000, 9);
                    match borrower.accept_contiguous(handle, Transfer::Lend, all) {
                        Ok(_) => break,
                        Err(error) => assert_eq!(error, 7, "it is not the borrower's yet"),
                    }
                    std::thread::yield_now();
                }
                borrower.release(handle, 0).unwrap();
            });
            for append in 1..5 {
                let run = (page(append), 2);
                // A page that is lent already spoils every other try.
                if round % 2 == 0 {
                    assert_eq!(owner.append(handle, true, &[run, (page(0), 1)]), Err(0xa));
                }
                owner.append(handle, append == 4, &[run]).unwrap();
            }
        });
        owner.reclaim(handle, 0).unwrap();
    }
    world.check();
}

#[test]
fn g3_a_policy_changes_only_while_neither_of_two_busy_borrowers_has_the_parcel() {
    let world = World::new(&[vm(3), vm(4), vm(5)]);
    let owner = world.caller(VmIndex(0));
    let (at, pages) = (page(0), 3);
    let acl = [(3, 6), (4, 6), (5, 6)];
    let handle = owner.offer(Transfer::Share, &acl, &[(at, pages)]).unwrap();
    let memory = |vm, at| {
        let page = world.manager.with_page(vm, |page| page(Ipa(at), Access::Read));
        page.expect("it is mapped").memory
    };
    let left = AtomicUsize::new(2);
    let mut changes = 0_u32;
    std::thread::scope(|scope| {
        for borrower in [1, 2].map(VmIndex) {
            let (world, left) = (&world, &left);
            scope.spawn(move || {
                let (guest, window) = (world.caller(borrower), 0x9000_0000);
                for round in 0..few(200, 3) * effort::<u64>() {
                    guest.step.set([1, rm::operation::STEP][round as usize % 2]);
                    match guest.accept_contiguous(handle, Transfer::Share, (window, pages)) {
                        Err(error) => assert_eq!(error, 5, "its policy changes"),
                        Ok(_) => {
                            // Two VMs that have it with different types are a panic of the machine.
                            assert_eq!(memory(VmIndex(0), at), memory(borrower, window));
                            world.cpu(borrower).write(Ipa(window), borrower.0).unwrap();
                            guest.release(handle, 0).unwrap();
                        }
                    }
                    std::thread::yield_now();
                }
                left.fetch_sub(1, Ordering::SeqCst);
            });
        }
        while left.load(Ordering::SeqCst) > 0 || changes < 2 {
            owner.step.set([1, rm::operation::STEP][changes as usize / 2 % 2]);
            let policy = if changes.is_multiple_of(2) { Policy::Uncached } else { Policy::Cached };
            match owner.words(SET_POLICY, &[handle, policy as u32].map(u32::to_le_bytes).concat()).0
            {
                0 => changes += 1,
                error => assert_eq!(error, 0xb, "somebody has it"),
            }
        }
    });
    owner.reclaim(handle, 0).unwrap();
    world.check();
    assert!([1, 2].contains(&world.cpu(VmIndex(0)).read(Ipa(at)).unwrap()), "no write was lost");
}

/// The payload of a recall of `handle` from VM 6.
fn recall(handle: u32, tag: u32) -> Vec<u8> {
    let targets = &[VmidEntry(Vmid(6))];
    let request = Notify { handle: Handle(handle), flag: NotifyFlag::Recall, tag, targets };
    let mut payload = vec![0; 64];
    let length = request.encode(&mut payload).expect("one target fits");
    payload.truncate(length);
    payload
}

#[test]
fn news_of_many_vms_and_replies_share_a_queue_and_nothing_is_lost() {
    let world = World::new(&[vm(3), vm(4), vm(5), vm(6)]);
    let rounds = few(300, 4) * effort::<u64>();
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for own in 0..3u8 {
            let (world, done) = (&world, &done);
            scope.spawn(move || {
                let owner = world.caller(VmIndex(own));
                for round in 0..rounds {
                    let range = [(page(own.into()), 1)];
                    // Refused while VM 6 has left too much unread.
                    let Ok(handle) = owner.offer(Transfer::Lend, &[(6, 6)], &range) else {
                        std::thread::yield_now();
                        continue;
                    };
                    let told = owner.call(message::MEM_NOTIFY, &recall(handle, round as u32));
                    assert_eq!(told, [0; 4]);
                    owner.reclaim(handle, 0).unwrap();
                }
                done.fetch_add(1, Ordering::SeqCst);
            });
        }
        let (world, done) = (&world, &done);
        scope.spawn(move || {
            let reader = world.caller(VmIndex(3));
            let (mut sent, mut heard, mut last) = (0, 0, 0);
            while done.load(Ordering::SeqCst) < 3 || heard < sent {
                let request = Header::request(message::VM_GET_VMID, sent + 1);
                if sent < few(2000, 6) && reader.queue_send(&request.encode(), false).0 == 0 {
                    sent += 1;
                }
                while let Ok((packet, _)) = reader.queue_receive() {
                    let header = Header::decode(&packet[..]).expect("a whole packet");
                    if header.kind == Kind::Reply {
                        heard += 1;
                        assert_eq!(header.sequence, last + 1, "replies come in order");
                        last = header.sequence;
                    }
                }
            }
            assert_eq!(heard, sent);
        });
    });
    world.check();
}
