//! The calls to the resource manager: the direct call, and those on message queues and doorbells.
//!
//! Registers become arguments here and results become registers; what they mean is the manager's.

use rm::direct::{Direct, DirectCall};
use rm::hypercall::Hypercall;

use crate::guest_memory::Loaded;
use crate::schedule;
use crate::trap::Next;
use crate::trap::hypercall::unknown;
use crate::vcpu::context::Registers;
use crate::vm::End;

/// Serves the call whose first argument is in X`first`.
#[inline(never)]
pub(crate) fn direct(registers: &mut Registers, first: usize) -> Next {
    let vcpu = schedule::current();
    let entry = schedule::Entry::new();
    let call = DirectCall {
        request: registers.get(first),
        length: registers.get(first + 1),
        reply: registers.get(first + 2),
        capacity: registers.get(first + 3),
        token: registers.get(first + 4),
    };
    let vm = vcpu.vm();
    let memory = Loaded { manager: vm.manager(), vm: vm.index() };
    let next = match vm.manager().direct(vm.index(), &call, &memory) {
        Direct::Return(result) => {
            registers.set(0, result.error as u64);
            registers.set(1, result.length);
            registers.set(2, result.token);
            Next::Resume
        }
        Direct::Exit { code } => {
            vm.end(End::Exit(code));
            Next::Leave
        }
    };
    // The call has done its own step of whatever is left.
    entry.end(vcpu, next)
}

/// Serves call `number` on a queue or doorbell, whose first argument is in X`first`. Only the results are
/// written; every other register stays as it was.
#[inline(never)]
pub(crate) fn object(registers: &mut Registers, number: u16, first: usize) -> Next {
    let vcpu = schedule::current();
    let entry = schedule::Entry::new();
    let args = core::array::from_fn(|index| registers.get(first + index));
    let call = Hypercall { number, args, native: first == 0 };
    let vm = vcpu.vm();
    let memory = Loaded { manager: vm.manager(), vm: vm.index() };
    let Some(results) = vm.manager().hypercall(vm.index(), &call, &memory) else {
        return unknown(registers);
    };
    for (index, &value) in results.x[..results.count].iter().enumerate() {
        registers.set(index, value);
    }
    let next = match results.exit {
        None => Next::Resume,
        Some(code) => {
            vm.end(End::Exit(code));
            Next::Leave
        }
    };
    entry.end(vcpu, next)
}
