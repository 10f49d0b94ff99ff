//! What an embedder does before VMs run, and when they end by themselves: what it can ask for and what it is told.

use rm::address::{Ipa, Pa, VmIndex};
use rm::config::{AfterEnd, BootError, VmConfig};
use rm::direct::{Direct, DirectCall, DirectResult};
use rm::life::{ExitKind, VmState};
use rm::machine::Features;
use rm::machine::fake::Wish;
use rm::machine::fake::effort::few;
use rm::machine::fake::world::{RAM, RAM_PAGES, World, accept, vm};
use rm::operation::Reply;
use rm::quota::{Amounts, Quotas};
use rm::refusal::Refusal;
use rm::stage2::Access;
use rm_abi::extension::{HEAP_ALLOC, HeapAllocRequest};
use rm_abi::{AcceptFlags, Bytes, Transfer, message};

const A: VmIndex = VmIndex(0);
const B: VmIndex = VmIndex(1);
const REGISTERS: Ipa = Ipa(0x900_0000);
const WINDOW: u64 = 0x9000_0000;

#[test]
fn vms_that_cannot_be_told_apart_or_are_none_are_refused() {
    let made = |vms: &[VmConfig]| {
        World::with_storage(vms, Amounts::NONE, few(5000, 200), few(4000, 300)).map(|_| ())
    };
    assert_eq!(made(&[]), Err(BootError::VmCount));
    let many: Vec<_> = (3..20).map(vm).collect();
    assert_eq!(made(&many), Err(BootError::VmCount), "17 VMs");
    assert_eq!(made(&[vm(3), vm(4), vm(3)]), Err(BootError::Ambiguous));
    assert_eq!(made(&[vm(3), VmConfig { vmid: vm(4).vmid, ..vm(3) }]), Err(BootError::Ambiguous));
    assert_eq!(made(&[vm(3), VmConfig { tag: vm(3).tag, ..vm(4) }]), Err(BootError::Ambiguous));
}

#[test]
fn memory_that_does_not_fit_is_given_to_nobody() {
    let quotas = Quotas { frames: 10, frames_reserved: 10, ..vm(3).quotas };
    let world = World::without_memory(&[VmConfig { quotas, ..vm(3) }], Features::default());
    let pa = World::pa_of(A);
    world.manager.give(A, RAM, pa, 600).unwrap();
    let before = world.check();
    for (at, pages) in [(RAM, 1), (Ipa(RAM.0 + 599 * 4096), 2), (Ipa((1 << 36) - 4096), 2)] {
        let other = Pa(pa.0 + 0x1000_0000);
        assert_eq!(world.manager.give(A, at, other, pages), Err(BootError::Memory), "{at:?}");
        assert_eq!(world.manager.give_device(A, at, other, pages), Err(BootError::Memory));
        assert_eq!(world.manager.give_emulated(A, at, pages), Err(BootError::Memory));
        assert_eq!(world.check(), before, "{at:?}");
    }
    // Pages that lie far apart take tables each.
    let given =
        (1..9).map(|n| world.manager.give(A, Ipa(RAM.0 + (n << 30)), Pa(pa.0 + (n << 30)), 1));
    let given: Vec<_> = given.collect();
    assert_eq!(given.last(), Some(&Err(BootError::Frames)));
    let pages = given.iter().filter(|given| given.is_ok()).count() as u64;
    assert_eq!(world.check().owned, 600 + pages, "what was refused is no page of its");
}

#[test]
fn g2_registers_that_a_vm_drives_are_nobodys_to_give_and_no_room_for_memory() {
    // Room for accepts and pieces of heaps begins where the registers are.
    let world = World::new(&[VmConfig { accept_from: REGISTERS, ..vm(3) }, vm(4)]);
    world.add_heap("all", 0b1, 1);
    let emulated = Ipa(REGISTERS.0 + 2 * 4096);
    let pa = Pa(0xa_0000_0000);
    world.manager.give_device(A, REGISTERS, pa, 2).unwrap();
    world.manager.give_emulated(A, emulated, 3).unwrap();
    let cpu = world.cpu(A);
    let reaches =
        |at: Ipa| (cpu.read(at).is_ok(), cpu.write(at, 7).is_ok(), cpu.execute(at).is_ok());
    for page in 0..2 {
        assert_eq!(reaches(Ipa(REGISTERS.0 + page * 4096)), (true, true, false));
    }
    assert_eq!(world.manager.machine().memory(pa.add_pages(1))[0], 7, "there, and nowhere else");
    assert_eq!(reaches(emulated), (false, false, false), "EL2 answers what faults there");
    let (a, b) = (world.caller(A), world.caller(B));
    let lent = b.offer(Transfer::Lend, &[(3, 6)], &[(RAM.0, 1)]).unwrap();
    let before = world.check();
    for page in 0..5 {
        let at = REGISTERS.0 + page * 4096;
        for transfer in [Transfer::Lend, Transfer::Share, Transfer::Donate] {
            let acl: &[_] = match transfer {
                Transfer::Lend => &[(4, 6)],
                Transfer::Share => &[(3, 6), (4, 6)],
                Transfer::Donate => &[(4, 7)],
            };
            assert_eq!(a.offer(transfer, acl, &[(at, 1)]), Err(0xa), "{transfer:?} of {at:#x}");
            assert_eq!(a.offer(transfer, acl, &[(RAM.0, 1), (at, 1)]), Err(0xa));
        }
        assert_eq!(a.accept(lent, Transfer::Lend, &[(at, 1)]), Err(2), "{at:#x} is taken");
        while world.manager.idle(A) {}
        assert_eq!(world.check(), before, "{at:#x}");
    }
    let payload = accept(lent, Transfer::Lend, AcceptFlags::DONE, &[]);
    let reply = a.call(message::MEM_ACCEPT, &payload);
    assert_eq!(reply[8..].u64_at(0), REGISTERS.0 + 5 * 4096, "behind them is room");
    let mut request = [0; HeapAllocRequest::SIZE];
    let alloc = HeapAllocRequest { heap: 0, size: 4096, address: HeapAllocRequest::ANYWHERE };
    alloc.encode(&mut request).unwrap();
    assert_eq!(a.call(HEAP_ALLOC, &request)[4..].u64_at(0), REGISTERS.0 + 6 * 4096);
    // The next life has them too.
    world.end(A);
    world.settle(A, 100);
    assert_eq!(reaches(REGISTERS), (true, true, false));
    world.check();
}

#[test]
fn what_boot_asks_for_a_vm_is_answered_at_once() {
    let world = World::new(&[vm(3), vm(4)]);
    let perform = |vm, message, payload: &[u8]| world.manager.perform(vm, message, payload);
    assert_eq!(perform(B, message::VM_GET_VMID, &[]), Ok(Reply::Word(4)));
    let pages: Vec<_> = (0..15).map(|n| (RAM.0 + n * 0x2000, 1)).collect();
    let handle = world.caller(A).offer(Transfer::Share, &[(3, 6), (4, 6)], &pages).unwrap();
    let payload = accept(handle, Transfer::Share, AcceptFlags::DONE, &[]);
    let before = world.check();
    // As many ranges as a packet has no room for.
    assert_eq!(perform(B, message::MEM_ACCEPT, &payload), Err(Refusal::NoRange));
    assert_eq!(world.check(), before);
    let fewer = world.caller(A).offer(Transfer::Lend, &[(4, 6)], &[(RAM.0 + 0x1000, 1)]).unwrap();
    let payload = accept(fewer, Transfer::Lend, AcceptFlags::DONE, &[]);
    let ranges = Reply::Ranges { count: 1, incomplete: false };
    assert_eq!(perform(B, message::MEM_ACCEPT, &payload), Ok(ranges));
    world.check();
}

#[test]
fn a_direct_call_is_served_as_far_as_a_step_goes() {
    let world = World::new(&[vm(3), vm(4)]);
    let a = world.caller(A);
    let request = rm_abi::Header::request(message::VM_GET_VMID, 1).encode();
    a.put_request(&request);
    let call =
        DirectCall { request: 0x10_0000, length: 8, reply: 0x20_0000, capacity: 16, token: 0 };
    let done = DirectResult { error: 0, length: 16, token: 0 };
    assert_eq!(world.manager.direct(A, &call, &a), Direct::Return(done));
    assert_eq!(a.reply(12, 4), [3, 0, 0, 0]);
}

#[test]
fn only_a_vm_that_did_not_end_well_is_restarted() {
    let restarts = VmConfig { after_end: AfterEnd::Restart, ..vm(4) };
    for (kind, state) in [
        (ExitKind::PowerOff, VmState::Reset),
        (ExitKind::Stopped, VmState::Reset),
        (ExitKind::Fault, VmState::Init),
        (ExitKind::PowerReset, VmState::Init),
    ] {
        let world = World::new(&[vm(3), restarts]);
        world.manager.ended(B, kind);
        // Only the first end of a life counts.
        world.manager.ended(B, ExitKind::Fault);
        world.settle(B, 100);
        assert_eq!(world.manager.state(B), state, "{kind:?}");
        let wishes = world.manager.machine().wishes();
        assert_eq!(wishes.contains(&(B, Wish::Start)), state == VmState::Init, "{kind:?}");
        assert_eq!(world.check().owned, 2 * RAM_PAGES);
        assert!(world.manager.allows(B, Ipa(WINDOW), Access::Read).is_none());
    }
}
