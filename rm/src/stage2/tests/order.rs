//! What the hardware is told, and what it need not be told.

use super::*;
use crate::machine::fake::{Counters, Fault};

/// What `act` asks of the machine.
fn cost(vm: &mut Vm, act: impl FnOnce(&mut Vm)) -> Counters {
    let before = vm.mem.machine.counters();
    act(vm);
    let after = vm.mem.machine.counters();
    Counters {
        invalidations: after.invalidations - before.invalidations,
        invalidations_of_all: after.invalidations_of_all - before.invalidations_of_all,
        publishes: after.publishes - before.publishes,
        table_writes: after.table_writes - before.table_writes,
        ..Counters::default()
    }
}

fn share(rights: Rights, memory: MemoryType) -> Change {
    Change::Share { rights, memory }
}

fn small() -> Vm {
    let mut vm = Vm::new(PAGES_PER_2M, 8);
    vm.stage2.cut(vm.mem, RAM, 1).unwrap();
    vm
}

#[test]
fn sharing_with_all_rights_changes_software_bits_only() {
    let mut vm = small();
    let all = share(Rights::RWX, MemoryType::WriteBack);
    let shared = cost(&mut vm, |vm| vm.change(RAM, 16, all));
    assert_eq!((shared.invalidations, shared.publishes, shared.table_writes), (0, 0, 16));
    let restored = cost(&mut vm, |vm| vm.change(RAM, 16, Change::Restore));
    assert_eq!((restored.invalidations, restored.publishes), (0, 0));
}

#[test]
fn keeping_fewer_rights_invalidates_once_and_getting_them_back_heals() {
    let mut vm = small();
    let read = share(Rights::R, MemoryType::WriteBack);
    let shared = cost(&mut vm, |vm| vm.change(RAM, 16, read));
    assert_eq!(shared.invalidations, 1);
    assert_eq!(vm.cpu().write(RAM, 1), Err(Fault::Permission));
    assert!(vm.cpu().read(RAM).is_ok());
    let restored = cost(&mut vm, |vm| vm.change(RAM, 16, Change::Restore));
    assert_eq!(restored.invalidations, 0);
    assert_eq!(vm.cpu().write(RAM, 1), Err(Fault::Permission), "the old translation is cached");
    let allows = |at, access| vm.stage2.allows(vm.mem, at, access);
    assert_eq!(vm.cpu().retrying(RAM, Access::Write, allows), Ok(RAM_AT));
}

#[test]
fn another_memory_type_is_broken_before_it_is_made() {
    let mut vm = small();
    let uncached = share(Rights::RWX, MemoryType::NonCacheable);
    let shared = cost(&mut vm, |vm| vm.change(RAM, 16, uncached));
    assert_eq!((shared.invalidations, shared.table_writes), (1, 32));
    assert_eq!(vm.leaf(RAM).memory, MemoryType::NonCacheable);
    vm.change(RAM, 16, Change::Restore);
    assert_eq!(vm.leaf(RAM).memory, MemoryType::WriteBack);
    assert_eq!(vm.stage2.mergeable(), 1);
}

#[test]
fn lending_many_pages_invalidates_once() {
    let mut vm = Vm::new(4 * PAGES_PER_2M, 8);
    let range = (RAM.add_pages(500), 1000);
    vm.stage2.cut(vm.mem, range.0, range.1).unwrap();
    let lent = cost(&mut vm, |vm| vm.change(range.0, range.1, Change::Lend { parcel: 2 }));
    assert_eq!(lent.invalidations, 1);
    let back = cost(&mut vm, |vm| vm.change(range.0, range.1, Change::Restore));
    assert_eq!((back.invalidations, back.publishes), (0, 1));
}

#[test]
fn one_batch_covers_any_number_of_scattered_pages() {
    for (count, all) in [(16, 0), (17, 1), (40, 1)] {
        let mut vm = small();
        let lent = cost(&mut vm, |vm| {
            let mut batch = Batch::new();
            for page in 0..count {
                let (at, to) = (RAM.add_pages(2 * page), Change::Lend { parcel: 1 });
                vm.stage2.change(vm.mem, &mut batch, at, 1, to, &mut plenty());
            }
            vm.stage2.finish(vm.mem, batch);
            vm.check();
        });
        assert_eq!((lent.invalidations, lent.invalidations_of_all), (1, all));
    }
}

#[test]
fn a_claim_of_whole_leaves_is_invisible_to_the_hardware() {
    let mut vm = small();
    let claimed = cost(&mut vm, |vm| {
        assert_eq!(vm.stage2.claim(vm.mem, RAM, 16, &mut plenty()), Ok(16));
    });
    assert_eq!((claimed.invalidations, claimed.publishes, claimed.table_writes), (0, 0, 16));
    assert!(vm.cpu().write(RAM, 1).is_ok());
    assert_eq!(vm.stage2.claim(vm.mem, RAM, 1, &mut plenty()), Err(ClaimError::Claimed));
    let undone = cost(&mut vm, |vm| vm.change(RAM, 16, Change::Unclaim));
    assert_eq!(undone.invalidations, 0);
    assert_eq!(vm.stage2.mergeable(), 1);
}

#[test]
fn a_step_may_not_end_before_its_invalidation() {
    let mut vm = small();
    let mut batch = Batch::new();
    vm.stage2.change(vm.mem, &mut batch, RAM, 1, Change::Lend { parcel: 1 }, &mut plenty());
    assert!(vm.cpu().read(RAM).is_ok(), "a CPU may still have the page");
    let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(batch)));
    assert!(dropped.is_err());
}

#[test]
fn a_machine_that_forces_write_back_gets_its_own_spelling() {
    let mem = machine(8, Features { forced_write_back: true, smmu: false });
    mem.pool.set_quota(mem.machine, VM, 0, 8).unwrap();
    let mut vm = Vm::on(mem, PAGES_PER_2M);
    for memory in [MemoryType::WriteBack, MemoryType::NonCacheable, MemoryType::Device] {
        vm.cut_and_change(RAM, 1, share(Rights::RW, memory));
        assert_eq!(vm.leaf(RAM).memory, memory);
        assert!(vm.cpu().write(RAM, 1).is_ok());
        vm.change(RAM, 1, Change::Restore);
    }
    vm.merge_all();
    assert_eq!(vm.leaf(RAM).pages, PAGES_PER_2M);
}
