//! The direct call: request and reply of one call to the resource manager in one trap.

use rm::direct::{Direct, DirectCall};

use crate::guest_memory::Loaded;
use crate::schedule;
use crate::trap::Next;
use crate::vcpu::Vcpu;
use crate::vcpu::context::Registers;
use crate::vm::End;

/// Serves the call whose first argument is in X`first`.
pub(crate) fn direct(vcpu: Vcpu, registers: &mut Registers, first: usize) -> Next {
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
