//! Mistakes that others have made (`tests/PITFALLS.md`), where no other test goes through all their forms.

use rm::address::{Ipa, VmIndex};
use rm::machine::fake::effort::some;
use rm::machine::fake::world::{RAM, World, accept, by_handle, vm};
use rm::stage2::Access;
use rm_abi::extension::{TRIM, TrimFlags, TrimRequest};
use rm_abi::{AcceptFlags, Handle, Transfer, message};

const OWNER: VmIndex = VmIndex(0);
const BORROWER: VmIndex = VmIndex(1);
/// Where the owner has a block of 2 MiB, and where a borrower has room for one.
const BLOCK: u64 = RAM.0 + 0x20_0000;
const WINDOW: u64 = 0x8000_0000;
/// MEMPARCEL_INVALID and others, as the wire has them.
const ARGUMENT: u32 = 6;
const MEMORY: u32 = 0xa;

fn page(number: u64) -> u64 {
    RAM.0 + 0x10_0000 + number * 4096
}

fn access(world: &World, vm: VmIndex, at: u64) -> [bool; 3] {
    [Access::Read, Access::Write, Access::Execute]
        .map(|access| world.manager.allows(vm, Ipa(at), access).is_some())
}

#[test]
fn sizes_and_addresses_that_would_wrap_are_refused() {
    let world = World::new(&[vm(3), vm(4)]);
    let (owner, borrower) = (world.caller(OWNER), world.caller(BORROWER));
    let before = world.check();
    let last = u64::MAX - 4095;
    // Each an address and pages. 2^20 pages are 2^32 bytes, 2^52 would be none.
    let ranges: [&[(u64, u64)]; 9] = [
        &[(last, 1)],
        &[(last, 2)],
        &[(page(0), 1 << 20)],
        &[(page(0), (1 << 20) + 1)],
        &[(page(0), 1 << 32)],
        &[(page(0), (1 << 52) - 1)],
        &[(1 << 44, 1)],
        &[(page(0), (1 << 32) - (page(0) >> 12) + 1)],
        &[(page(0), 1), (page(1), 1 << 31), (page(2), 1 << 31)],
    ];
    for list in ranges {
        for step in some([1, rm::operation::STEP], 3) {
            owner.step.set(step);
            let said = owner.offer(Transfer::Lend, &[(4, 6)], list);
            assert!(matches!(said, Err(ARGUMENT | MEMORY)), "{list:x?}: {said:?}");
            // What was cut for the check may stay cut for a while.
            while world.manager.idle(OWNER) {}
            assert_eq!(world.check(), before, "{list:x?}");
        }
    }
    let handle = owner.offer(Transfer::Lend, &[(4, 6)], &[(page(0), 2)]).unwrap();
    let offered = world.check();
    for range in [(last, 2), (last - 4096, 2), (1 << 44, 2), ((1 << 39) - 4096, 2)] {
        let flags = AcceptFlags::DONE;
        for flags in [flags, flags | AcceptFlags::MAP_CONTIGUOUS] {
            let request = accept(handle, Transfer::Lend, flags, &[range]);
            assert_ne!(borrower.words(message::MEM_ACCEPT, &request).0, 0, "{range:x?}");
            assert_eq!(world.check(), offered, "{range:x?}");
        }
    }
    for (offset, size) in [(last, 8192), (4096, last), (last, last), (8192, 4096), (0, 0)] {
        let mut payload = [0; TrimRequest::SIZE];
        let flags = TrimFlags::empty();
        TrimRequest { handle: Handle(handle), flags, offset, size }.encode(&mut payload).unwrap();
        assert_ne!(owner.words(TRIM, &payload).0, 0, "{offset:x} {size:x}");
        assert_eq!(world.check(), offered, "{offset:x} {size:x}");
    }
}

#[test]
fn a_page_is_in_one_parcel_once_whatever_the_list() {
    let world = World::new(&[vm(3), vm(4)]);
    let owner = world.caller(OWNER);
    let before = world.check();
    let list = |pages: &[(u64, u64)]| -> Vec<_> {
        pages.iter().map(|&(first, count)| (page(first), count)).collect()
    };
    let twice: [&[(u64, u64)]; 7] = [
        &[(0, 1), (0, 1)],
        &[(0, 2), (1, 1)],
        &[(1, 1), (0, 2)],
        &[(0, 1), (5, 1), (0, 1)],
        &[(4, 2), (2, 2), (0, 3)],
        // An empty range ends no comparison.
        &[(0, 1), (1, 0), (0, 1)],
        &[(0, 0)],
    ];
    let once: [&[(u64, u64)]; 5] = [
        &[(0, 1)],
        &[(0, 1), (1, 1)],
        &[(1, 1), (0, 1)],
        &[(0, 1), (9, 1)],
        &[(3, 2), (0, 3), (5, 4)],
    ];
    for transfer in [Transfer::Lend, Transfer::Share, Transfer::Donate] {
        let acl = [(4, 7), (3, 7)];
        let acl = if transfer == Transfer::Share { &acl[..] } else { &acl[..1] };
        for pages in twice {
            assert_eq!(owner.offer(transfer, acl, &list(pages)), Err(MEMORY), "{pages:?}");
        }
        for pages in once {
            let handle = owner.offer(transfer, acl, &list(pages)).unwrap();
            for &(first, count) in pages {
                for page in first..first + count {
                    let again = owner.offer(transfer, acl, &list(&[(page, 1)]));
                    assert_eq!(again, Err(MEMORY), "page {page} of {pages:?}");
                    let among = owner.offer(transfer, acl, &list(&[(20, 3), (page, 1)]));
                    assert_eq!(among, Err(MEMORY), "page {page} of {pages:?}");
                }
            }
            owner.reclaim(handle, 0).unwrap();
        }
    }
    while world.manager.idle(OWNER) {}
    assert_eq!(world.check(), before);
}

#[test]
fn each_borrower_has_its_own_rights_whatever_another_does() {
    let world = World::new(&[vm(3), vm(4), vm(5), vm(6)]);
    let owner = world.caller(OWNER);
    let acl = [(4, 4), (5, 6), (6, 5)];
    let handle = owner.offer(Transfer::Lend, &acl, &[(page(0), 2)]).unwrap();
    let expected = [[true, false, false], [true, true, false], [true, false, true]];
    let orders = [[1, 2, 3], [3, 2, 1], [2, 1, 3]];
    for order in orders {
        for vm in order {
            let guest = world.caller(VmIndex(vm));
            guest.accept(handle, Transfer::Lend, &[(WINDOW, 2)]).unwrap();
            // One goes and comes again while the others stay.
            guest.release(handle, 0).unwrap();
            guest.accept(handle, Transfer::Lend, &[(WINDOW, 2)]).unwrap();
        }
        for vm in 1..4 {
            let found = access(&world, VmIndex(vm), WINDOW + 4096);
            assert_eq!(found, expected[usize::from(vm) - 1], "VM {vm} of {order:?}");
        }
        for vm in order {
            world.caller(VmIndex(vm)).release(handle, 0).unwrap();
        }
    }
    owner.reclaim(handle, 0).unwrap();
    world.check();
}

#[test]
fn who_may_not_write_wipes_nothing() {
    let world = World::new(&[vm(3), vm(4)]);
    let (owner, borrower) = (world.caller(OWNER), world.caller(BORROWER));
    world.cpu(OWNER).write(Ipa(page(0)), 0x5a).unwrap();
    for (transfer, acl) in
        [(Transfer::Lend, &[(4, 4)][..]), (Transfer::Share, &[(4, 5), (3, 6)][..])]
    {
        let handle = owner.offer(transfer, acl, &[(page(0), 2)]).unwrap();
        let flags = AcceptFlags::DONE | AcceptFlags::SANITIZE;
        let request = accept(handle, transfer, flags, &[(WINDOW, 2)]);
        assert_ne!(borrower.words(message::MEM_ACCEPT, &request).0, 0, "{transfer:?}");
        borrower.accept(handle, transfer, &[(WINDOW, 2)]).unwrap();
        let wipe = by_handle(handle, 1);
        assert_ne!(borrower.words(message::MEM_RELEASE, &wipe).0, 0, "{transfer:?}");
        let mut payload = [0; TrimRequest::SIZE];
        let flags = TrimFlags::SANITIZE;
        let trim = TrimRequest { handle: Handle(handle), flags, offset: 0, size: 4096 };
        trim.encode(&mut payload).unwrap();
        assert_ne!(borrower.words(TRIM, &payload).0, 0, "{transfer:?}");
        borrower.release(handle, 0).unwrap();
        owner.reclaim(handle, 0).unwrap();
        assert_eq!(world.cpu(OWNER).read(Ipa(page(0))), Ok(0x5a), "{transfer:?}");
    }
    world.check();
}

#[test]
fn a_range_one_page_short_of_a_block_is_mapped_page_by_page() {
    let world = World::new(&[vm(3), vm(4)]);
    let (owner, borrower) = (world.caller(OWNER), world.caller(BORROWER));
    for pages in some([511, 512, 513], 3) {
        let handle = owner.offer(Transfer::Lend, &[(4, 6)], &[(BLOCK, pages)]).unwrap();
        borrower.accept(handle, Transfer::Lend, &[(WINDOW, pages)]).unwrap();
        for number in [0, 1, 510, 511, 512, 513] {
            let (here, there) = (number < pages, number >= pages);
            let (at, owned) = (WINDOW + number * 4096, BLOCK + number * 4096);
            assert_eq!(access(&world, BORROWER, at)[0], here, "page {number} of {pages}");
            assert_eq!(access(&world, OWNER, owned)[0], there, "page {number} of {pages}");
        }
        borrower.release(handle, 0).unwrap();
        owner.reclaim(handle, 0).unwrap();
    }
    world.check();
}
