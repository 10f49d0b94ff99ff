//! Stage-2 aborts: an emulated device, a table in the middle of a change, or a guest's fault.

use crate::abort::Syndrome;
use crate::errata::{Core, stage2_fault_may_be_of_stage1};
use crate::tlb;
use crate::trap::Next;
use crate::vcpu::Vcpu;
use crate::vcpu::context::{Registers, mrs, msr};
use crate::vcpu::inject;
use crate::vm::End;
use aarch64_cpu::asm::barrier::{SY, isb};
use package::OnFault;
use rm::address::Ipa;
use rm::stage2::Access;

/// Serves an abort of the guest that runs.
pub(crate) fn serve(vcpu: Vcpu, registers: &mut Registers, syndrome: Syndrome) -> Next {
    if !syndrome.by_our_tables() {
        return fault(vcpu, syndrome, None);
    }
    let Some(at) = address(syndrome) else { return Next::Resume };
    if let Some(next) = device(vcpu, registers, syndrome, at) {
        return next;
    }
    // Another CPU may have been in the middle of break-before-make: ask the tables, under the lock.
    if vcpu.vm().allows(at, syndrome.access()) {
        // A right that was relaxed may still be cached as it was.
        tlb::forget_page(at);
        return Next::Resume;
    }
    fault(vcpu, syndrome, Some(at))
}

/// Emulates the access if a device of the VM is there.
fn device(vcpu: Vcpu, registers: &mut Registers, syndrome: Syndrome, at: Ipa) -> Option<Next> {
    let transfer = syndrome.transfer()?;
    let write = transfer.write.then(|| registers.get(transfer.register) & transfer.mask());
    let value = vcpu.mmio(at, transfer.size, write)?;
    if !transfer.write {
        registers.set(transfer.register, transfer.loaded(value));
    }
    inject::skip_instruction();
    Some(Next::Resume)
}

/// The guest physical address of the access; `None` if the guest changed its tables meanwhile, so
/// that the access must be made again.
fn address(syndrome: Syndrome) -> Option<Ipa> {
    let virtual_address = mrs!("far_el2");
    // HPFAR_EL2 is not valid for permission faults (DDI 0487 L.b, HPFAR_EL2).
    let ask = syndrome.is_permission() || stage2_fault_may_be_of_stage1(Core::current());
    if ask && !syndrome.on_walk() {
        return translate(virtual_address);
    }
    let page = (mrs!("hpfar_el2") & 0x0000_0FFF_FFFF_FFF0) << 8;
    let offset = if syndrome.on_walk() { 0 } else { virtual_address & 0xFFF };
    Some(Ipa(page | offset))
}

/// The guest's stage 1 alone, for a read by EL1.
fn translate(virtual_address: u64) -> Option<Ipa> {
    let saved = mrs!("par_el1");
    // SAFETY: walks the tables of the guest that is loaded, and writes PAR_EL1 only.
    unsafe {
        core::arch::asm!("at s1e1r, {}", in(reg) virtual_address, options(nostack, preserves_flags));
    }
    isb(SY);
    let result = mrs!("par_el1");
    msr!("par_el1", saved);
    let failed = result & 1 == 1;
    (!failed).then_some(Ipa(result & 0x000F_FFFF_FFFF_F000 | virtual_address & 0xFFF))
}

/// An access that nothing explains: what the configuration says happens to the VM.
fn fault(vcpu: Vcpu, syndrome: Syndrome, at: Option<Ipa>) -> Next {
    let (program_counter, virtual_address) = (mrs!("elr_el2"), mrs!("far_el2"));
    let vm = vcpu.vm();
    vm.note(|name| {
        defmt::warn!(
            "{=str}: fault: {} of ipa {=u64:#x} (va {=u64:#x}, pc {=u64:#x}, status {=u64:#x})",
            name,
            access_name(syndrome.access()),
            at.map_or(u64::MAX, |at| at.0),
            virtual_address,
            program_counter,
            syndrome.status()
        );
    });
    let end = match vm.on_fault() {
        OnFault::Inject => {
            inject::inject(syndrome.cause(virtual_address));
            return Next::Resume;
        }
        OnFault::Stop => End::Fault,
        OnFault::Restart => End::FaultAndRestart,
    };
    vm.end(end);
    Next::Leave
}
fn access_name(access: Access) -> &'static str {
    match access {
        Access::Read => "read",
        Access::Write => "write",
        Access::Execute => "execution",
    }
}
