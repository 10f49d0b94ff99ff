//! PSCI as a guest sees it: version, power off, reset, and the end of one vCPU.

use rm_abi::hypercall::SMCCC_VERSION;

use crate::trap::Next;
use crate::trap::hypercall;
use crate::vcpu::Vcpu;
use crate::vcpu::context::Registers;
use crate::vm::End;

/// Which version there is.
pub(super) const VERSION: u32 = 0x8400_0000;
const CPU_OFF: u32 = 0x8400_0002;
const SYSTEM_OFF: u32 = 0x8400_0008;
const SYSTEM_RESET: u32 = 0x8400_0009;
/// Whether there is a call.
pub(super) const FEATURES: u32 = 0x8400_000A;

/// PSCI 1.1.
const PSCI_1_1: u64 = 0x1_0001;

/// Serves function `id`, if it is one of PSCI's that guests have.
pub(super) fn call(vcpu: Vcpu, registers: &mut Registers, id: u32) -> Next {
    match id {
        VERSION => registers.set(0, PSCI_1_1),
        FEATURES if is_offered(registers.get(1) as u32) => registers.set(0, 0),
        CPU_OFF => {
            vcpu.power_off();
            return Next::Leave;
        }
        SYSTEM_OFF => {
            vcpu.vm().end(End::PowerOff);
            return Next::Leave;
        }
        SYSTEM_RESET => {
            vcpu.vm().end(End::Reset);
            return Next::Leave;
        }
        // NOT_SUPPORTED is the same value.
        _ => return hypercall::unknown(registers),
    }
    Next::Resume
}

fn is_offered(id: u32) -> bool {
    matches!(id, VERSION | CPU_OFF | SYSTEM_OFF | SYSTEM_RESET | FEATURES | SMCCC_VERSION)
}
