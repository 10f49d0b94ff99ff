//! From a guest's exception to what serves it.
//!
//! `guest.s` calls the four functions here with the guest's registers on the stack, and does what
//! they answer: back into the guest, or on to the next one. A hypercall comes by a way of its own,
//! which saves less.

pub(crate) mod abort;
pub(crate) mod hypercall;
mod psci;
mod smc;
mod sysreg;

use core::arch::global_asm;

use crate::abort::Syndrome;
use crate::exception::Cause;
use crate::schedule;
use crate::vcpu::Vcpu;
use crate::vcpu::context::{Registers, mrs};
use crate::vcpu::inject;
use crate::vm::End;

global_asm!(include_str!("guest.s"));

/// What a CPU does after a trap. `guest.s` tests for zero.
#[repr(u64)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Return to the guest.
    Resume = 0,
    /// Give the CPU to whoever is due.
    Leave = 1,
}

/// Exception classes (ESR_EL2.EC) that a guest brings about.
mod class {
    pub(super) const WAIT: u64 = 0x01;
    pub(super) const SMC: u64 = 0x17;
    pub(super) const SYSTEM_REGISTER: u64 = 0x18;
    pub(super) const INSTRUCTION_ABORT: u64 = 0x20;
    pub(super) const DATA_ABORT: u64 = 0x24;
}

/// HVC from AArch64.
#[unsafe(no_mangle)]
extern "C" fn guest_hypercall(registers: &mut Registers, esr: u64) -> Next {
    hypercall::call(registers, esr as u16)
}

/// Every other synchronous exception of a guest.
#[unsafe(no_mangle)]
extern "C" fn guest_trap(registers: &mut Registers) -> Next {
    let entry = schedule::Entry::new();
    let vcpu = schedule::current();
    let esr = mrs!("esr_el2");
    let iss = esr & 0x1FF_FFFF;
    let next = match esr >> 26 {
        class::WAIT => wait(vcpu, iss),
        class::SMC => smc::call(registers, iss as u16),
        class::SYSTEM_REGISTER => system_register(vcpu, registers, sysreg::Access::new(iss)),
        class::INSTRUCTION_ABORT => abort::serve(vcpu, registers, Syndrome::fetch(iss)),
        class::DATA_ABORT => abort::serve(vcpu, registers, Syndrome::data(iss)),
        class => refuse(vcpu, class),
    };
    entry.leave(vcpu, next)
}

/// A physical interrupt while a guest ran.
#[unsafe(no_mangle)]
extern "C" fn guest_interrupted() -> Next {
    let entry = schedule::Entry::new();
    let next = schedule::interrupts();
    entry.leave(schedule::current(), next)
}

/// An SError that a guest brought about: its VM ends, EL2 goes on.
#[unsafe(no_mangle)]
extern "C" fn guest_serror_taken() {
    let vm = schedule::current().vm();
    defmt::error!("{=str}: system error, syndrome {=u64:#x}", vm.name(), mrs!("esr_el2"));
    vm.end(End::SystemError);
}

/// WFI gives the CPU away until an interrupt is due; WFE only for this round.
fn wait(vcpu: Vcpu, iss: u64) -> Next {
    inject::skip_instruction();
    if iss & 1 == 0 {
        vcpu.wait_for_interrupt();
    }
    Next::Leave
}

fn system_register(vcpu: Vcpu, registers: &mut Registers, access: sysreg::Access) -> Next {
    if sysreg::emulate(vcpu, registers, access) {
        inject::skip_instruction();
        return Next::Resume;
    }
    let (op0, op1, crn, crm, op2) = access.encoding();
    vcpu.vm().note(|name| {
        defmt::warn!(
            "{=str}: unknown system register s{=u64}_{=u64}_c{=u64}_c{=u64}_{=u64} at {=u64:#x}",
            name,
            op0,
            op1,
            crn,
            crm,
            op2,
            mrs!("elr_el2")
        );
    });
    inject::inject(Cause::Undefined);
    Next::Resume
}

/// An instruction that EL2 hides: for the guest it does not exist.
fn refuse(vcpu: Vcpu, class: u64) -> Next {
    vcpu.vm().note(|name| {
        defmt::warn!(
            "{=str}: {=str} at {=u64:#x} (class {=u64:#x})",
            name,
            class_name(class),
            mrs!("elr_el2"),
            class
        );
    });
    inject::inject(Cause::Undefined);
    Next::Resume
}

fn class_name(class: u64) -> &'static str {
    match class {
        0x03..=0x06 | 0x08 | 0x0C => "AArch32 system register",
        0x07 => "FP or SIMD instruction",
        0x09 => "pointer authentication instruction",
        0x0E => "illegal execution state",
        0x11..=0x13 => "AArch32 call",
        0x19 => "SVE instruction",
        0x1D => "SME instruction",
        _ => "instruction that EL2 does not serve",
    }
}
