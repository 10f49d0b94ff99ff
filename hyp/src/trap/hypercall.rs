//! HVC: the calls of a guest, in both encodings.
//!
//! The number is in the instruction (native) or in W0 (SMCCC). Both forms keep every register that
//! carries no result, although the native one may change X1 to X17: a caller of the stricter form
//! is served by the same code.

use rm_abi::HypercallError;
use rm_abi::hypercall as numbers;

use crate::mailbox;
use crate::schedule::{self, Entry};
use crate::trap::{Next, psci};
use crate::vcpu::Vcpu;
use crate::vcpu::context::Registers;

/// Version 1 of the interface, 64 bits, variant `Q`, as Gunyah's clients know it.
const API_INFO: u64 = 0x5100_0000_0000_8001;
/// Doorbells, message queues, virtual interrupts.
const FEATURES: u64 = 0b1110;

/// SMCCC_ARCH_FEATURES.
const ARCH_FEATURES: u32 = 0x8000_0001;
/// SMCCC 1.3.
const SMCCC_1_3: u64 = 0x1_0003;

/// Serves `hvc #immediate`. The program counter is already past the instruction.
#[inline]
pub(crate) fn call(registers: &mut Registers, immediate: u16) -> Next {
    if let Some(number) = numbers::number_of_native(immediate) {
        return numbered(registers, number, 0);
    }
    match immediate {
        0 => smccc(registers),
        _ => unknown(registers),
    }
}

/// Serves a call whose function id is in W0.
pub(crate) fn smccc(registers: &mut Registers) -> Next {
    let id = registers.get(0) as u32;
    if let Some(number) = numbers::number_of_smccc(id) {
        return numbered(registers, number, 1);
    }
    let vcpu = schedule::current();
    let entry = Entry::new();
    let next = standard(vcpu, registers, id);
    if has_32_bit_results(id) {
        for index in 0..=3 {
            registers.set(index, registers.get(index) & 0xFFFF_FFFF);
        }
    }
    entry.leave(vcpu, next)
}

/// Whether the results of a call have 32 bits, as the original has it: those of the calls of the
/// architecture and of PSCI, but neither the vendor's own nor of a call that does not exist.
const fn has_32_bit_results(id: u32) -> bool {
    matches!(id, numbers::SMCCC_VERSION | ARCH_FEATURES | psci::VERSION | psci::FEATURES)
}

/// Serves call `number`, whose first argument is in X`first`.
#[inline]
fn numbered(registers: &mut Registers, number: u16, first: usize) -> Next {
    match number {
        numbers::IDENTIFY => {
            results(registers, [API_INFO, FEATURES, 0, 0]);
            Next::Resume
        }
        numbers::DIRECT_CALL => mailbox::direct(registers, first),
        // Doorbells and message queues, with numbers between that nobody serves.
        numbers::DOORBELL_SEND..=numbers::MSGQUEUE_CONFIGURE_RECEIVE => {
            mailbox::object(registers, number, first)
        }
        numbers::VCPU_YIELD => give_way(registers),
        _ => unknown(registers),
    }
}

/// Gives the CPU to whoever else is due. Apart from [`numbered`], whose other calls are short.
#[inline(never)]
fn give_way(registers: &mut Registers) -> Next {
    registers.set(0, HypercallError::OK as u64);
    Entry::new().leave(schedule::current(), Next::Leave)
}

/// The calls of the SMCCC and PSCI standards.
fn standard(vcpu: Vcpu, registers: &mut Registers, id: u32) -> Next {
    match id {
        numbers::SMCCC_VERSION => registers.set(0, SMCCC_1_3),
        ARCH_FEATURES => registers.set(0, architecture_feature(registers.get(1) as u32)),
        numbers::VENDOR_UID => results(registers, numbers::UID.map(u64::from)),
        numbers::VENDOR_REVISION => registers.set(0, API_INFO),
        _ => return psci::call(vcpu, registers, id),
    }
    Next::Resume
}

fn architecture_feature(id: u32) -> u64 {
    match id {
        numbers::SMCCC_VERSION | ARCH_FEATURES => 0,
        _ => UNIMPLEMENTED,
    }
}

/// The result of a call that does not exist, all 64 bits; NOT_SUPPORTED of SMCCC and PSCI.
const UNIMPLEMENTED: u64 = HypercallError::UNIMPLEMENTED as u64;

/// Answers a call that does not exist.
pub(crate) fn unknown(registers: &mut Registers) -> Next {
    registers.set(0, UNIMPLEMENTED);
    Next::Resume
}

#[inline]
fn results(registers: &mut Registers, values: [u64; 4]) {
    for (index, value) in values.into_iter().enumerate() {
        registers.set(index, value);
    }
}
