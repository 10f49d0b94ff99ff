//! Stage-2 aborts: an emulated device, a table in the middle of a change, or a guest's fault.

use crate::errata::{Core, stage2_fault_may_be_of_stage1};
use crate::tlb;
use crate::trap::Next;
use crate::vcpu::Vcpu;
use crate::vcpu::context::{Registers, mrs, msr};
use crate::vcpu::inject::{self, Cause};
use crate::vm::End;
use aarch64_cpu::asm::barrier::{SY, isb};
use package::OnFault;
use rm::address::Ipa;
use rm::stage2::Access;

/// An abort as ESR_EL2.ISS describes it (EC 0x20 and 0x24).
#[derive(Clone, Copy)]
pub(crate) struct Syndrome {
    iss: u64,
    fetch: bool,
}

impl Syndrome {
    /// An instruction abort.
    pub(crate) const fn fetch(iss: u64) -> Self {
        Self { iss, fetch: true }
    }

    /// A data abort.
    pub(crate) const fn data(iss: u64) -> Self {
        Self { iss, fetch: false }
    }

    const fn bit(self, at: u32) -> bool {
        self.iss >> at & 1 == 1
    }

    const fn status(self) -> u64 {
        self.iss & 0x3F
    }

    /// The access was made by a walk of the guest's own tables.
    const fn on_walk(self) -> bool {
        self.bit(7)
    }

    const fn is_write(self) -> bool {
        !self.fetch && self.bit(6)
    }

    /// DFSC 0b0001LL, 0b0010LL, 0b0011LL: translation, access flag, permission. What our tables say.
    const fn by_our_tables(self) -> bool {
        matches!(self.status() >> 2, 1..=3)
    }

    const fn is_permission(self) -> bool {
        self.status() >> 2 == 3
    }

    /// What the guest wanted.
    fn access(self) -> Access {
        // Cache maintenance is reported as a write, but only a permission fault means it as one.
        let maintenance = !self.fetch && self.bit(8) && !self.is_permission();
        match () {
            () if self.fetch && !self.on_walk() => Access::Execute,
            () if self.is_write() && !maintenance => Access::Write,
            () => Access::Read,
        }
    }

    /// The load or store, if the CPU describes it (ISV) and it goes to the address itself.
    fn transfer(self) -> Option<Transfer> {
        let described = !self.fetch && self.bit(24) && !self.on_walk();
        described.then_some(Transfer {
            size: 1 << (self.iss >> 22 & 3),
            sign_extend: self.bit(21),
            register: (self.iss >> 16 & 31) as usize,
            wide: self.bit(15),
            write: self.is_write(),
        })
    }
}

/// A load or store of one general register.
struct Transfer {
    size: u8,
    sign_extend: bool,
    register: usize,
    wide: bool,
    write: bool,
}

impl Transfer {
    fn mask(&self) -> u64 {
        u64::MAX >> (64 - 8 * u32::from(self.size))
    }

    /// What the register holds after a load of `value`.
    fn loaded(&self, value: u64) -> u64 {
        let value = value & self.mask();
        let sign = value >> (8 * u32::from(self.size) - 1) & 1 == 1;
        let extended = if self.sign_extend && sign { value | !self.mask() } else { value };
        if self.wide { extended } else { extended & 0xFFFF_FFFF }
    }
}

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
    if vm.on_fault() == OnFault::Stop {
        vm.end(End::Fault);
        return Next::Leave;
    }
    inject::inject(match syndrome.fetch {
        true => Cause::InstructionAbort(virtual_address),
        false => Cause::DataAbort(virtual_address),
    });
    Next::Resume
}

fn access_name(access: Access) -> &'static str {
    match access {
        Access::Read => "read",
        Access::Write => "write",
        Access::Execute => "execution",
    }
}
