//! Single instructions that are put together while the program runs, for those that come by the
//! thousand: every immediate of a trap, every system register.

pub mod unusual;

use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::cpu;
use crate::probe::{Abort, catch};

/// `ret`.
const RETURN: u32 = 0xd65f_03c0;

/// Where a vCPU's instruction lies, and the way back behind it. A page of its own: what is written beside
/// instructions makes an emulator translate them anew.
#[repr(C, align(4096))]
struct Place([AtomicU32; 2]);

static PLACES: [Place; 2] = [const { Place([const { AtomicU32::new(0) }; 2]) }; 2];

/// `hvc` with an immediate.
pub const fn hvc(immediate: u16) -> u32 {
    0xd400_0002 | (immediate as u32) << 5
}

/// `smc` with an immediate.
pub const fn smc(immediate: u16) -> u32 {
    0xd400_0003 | (immediate as u32) << 5
}

/// A system register or instruction: op0, op1, CRn, CRm, op2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct System(pub [u8; 5]);

impl System {
    /// Reads the register into X0.
    pub const fn read(self) -> u32 {
        self.write() | 1 << 21
    }

    /// Writes X0 to the register, or executes the instruction with X0.
    pub const fn write(self) -> u32 {
        let [op0, op1, crn, crm, op2] = self.0;
        let (op0, op1, crn) = ((op0 as u32) << 19, (op1 as u32) << 16, (crn as u32) << 12);
        0xd500_0000 | op0 | op1 | crn | (crm as u32) << 8 | (op2 as u32) << 5
    }
}

/// Executes an instruction that goes on behind itself or is refused: X0 to X5 in, X0 to X3 out.
pub fn execute(instruction: u32, x: [u64; 6]) -> Result<[u64; 4], Abort> {
    let place = &PLACES[cpu::index()].0;
    place[0].store(instruction, Ordering::Relaxed);
    place[1].store(RETURN, Ordering::Relaxed);
    let at = place.as_ptr() as u64;
    // SAFETY: cache maintenance and barriers, so that what is fetched is what was written.
    unsafe {
        asm!("dc cvau, {at}", "dsb ish", "ic ivau, {at}", "dsb ish", "isb", at = in(reg) at);
    }
    catch(|| {
        let [x0, x1, x2, x3, x4, x5] = x;
        let (r0, r1, r2, r3): (u64, u64, u64, u64);
        // SAFETY: all registers that a trap by either calling convention may change are declared; callers
        // keep the instruction from memory that holds a Rust object, but for a buffer that is lent to it.
        // An exception skips it.
        unsafe {
            asm!(
                "blr {at}",
                at = in(reg) at,
                inout("x0") x0 => r0, inout("x1") x1 => r1,
                inout("x2") x2 => r2, inout("x3") x3 => r3,
                inout("x4") x4 => _, inout("x5") x5 => _,
                clobber_abi("C"),
            );
        }
        [r0, r1, r2, r3]
    })
}
