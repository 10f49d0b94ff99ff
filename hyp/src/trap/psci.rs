//! PSCI as a guest sees it: version, power off, reset, and its vCPUs' own switches.

use rm_abi::hypercall::SMCCC_VERSION;

use crate::trap::Next;
use crate::trap::hypercall;
use crate::vcpu::Vcpu;
use crate::vcpu::context::Registers;
use crate::vm::End;

/// Which version there is.
pub(super) const VERSION: u32 = 0x8400_0000;
const CPU_OFF: u32 = 0x8400_0002;
/// The 32-bit and the 64-bit call.
const CPU_ON: [u32; 2] = [0x8400_0003, 0xC400_0003];
const AFFINITY_INFO: [u32; 2] = [0x8400_0004, 0xC400_0004];
/// Which kind of trusted OS there is.
const MIGRATE_INFO_TYPE: u32 = 0x8400_0006;
/// "There is none to migrate" (DEN 0022F, 5.9).
const NOTHING_TO_MIGRATE: u64 = 2;
const SYSTEM_OFF: u32 = 0x8400_0008;
const SYSTEM_RESET: u32 = 0x8400_0009;
/// Whether there is a call.
pub(super) const FEATURES: u32 = 0x8400_000A;

/// Error codes (DEN 0022F, 5.2.2).
const SUCCESS: i64 = 0;
const INVALID_PARAMETERS: i64 = -2;
const ALREADY_ON: i64 = -4;
/// States of a CPU (DEN 0022F, 5.7).
const ON: i64 = 0;
const OFF: i64 = 1;

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
        _ if CPU_ON.contains(&id) => {
            let result = cpu_on(vcpu, [1, 2, 3].map(|n| argument(registers, id, n)));
            registers.set(0, result as u64);
        }
        _ if AFFINITY_INFO.contains(&id) => {
            let named = target(vcpu, argument(registers, id, 1));
            // Only affinity level 0, a CPU, has a state.
            let named = named.filter(|_| argument(registers, id, 2) == 0);
            let state = |vcpu: Vcpu| if vcpu.is_off() { OFF } else { ON };
            registers.set(0, named.map_or(INVALID_PARAMETERS, state) as u64);
        }
        MIGRATE_INFO_TYPE => registers.set(0, NOTHING_TO_MIGRATE),
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

/// Switches another vCPU on, or the caller's own once more: target, entry point, context.
fn cpu_on(vcpu: Vcpu, [affinity, entry, context]: [u64; 3]) -> i64 {
    match target(vcpu, affinity) {
        None => INVALID_PARAMETERS,
        Some(target) if target.power_on(entry, context) => SUCCESS,
        Some(_) => ALREADY_ON,
    }
}

/// The vCPU of the caller's VM with this affinity (VMPIDR_EL2 holds the index in Aff0).
fn target(vcpu: Vcpu, affinity: u64) -> Option<Vcpu> {
    vcpu.vm().vcpus().nth(usize::try_from(affinity).ok()?)
}

/// An argument: the 32-bit calls have none beyond 32 bits.
fn argument(registers: &Registers, id: u32, index: usize) -> u64 {
    let is_64_bit = id >> 30 & 1 == 1;
    let value = registers.get(index);
    if is_64_bit { value } else { u64::from(value as u32) }
}

fn is_offered(id: u32) -> bool {
    let known =
        [VERSION, CPU_OFF, MIGRATE_INFO_TYPE, SYSTEM_OFF, SYSTEM_RESET, FEATURES, SMCCC_VERSION];
    [&known[..], &CPU_ON, &AFFINITY_INFO].iter().any(|ids| ids.contains(&id))
}
