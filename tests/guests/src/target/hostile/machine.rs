//! The CPU, the devices and the hypercall numbers, used as no sane guest would.
//!
//! What each attempt gives is the hypervisor's choice among a value, an undefined instruction and an
//! abort. What counts is that the VM goes on, and everybody else.

use core::arch::asm;

use crate::instruction::{execute, unusual};
use crate::layout::{CONSOLE, DISTRIBUTOR, PAGE, RAM, REDISTRIBUTOR, WINDOW};
use crate::probe::{self, Abort, catch};
use crate::{cpu, gic, memory, raw, timer};

/// X0 of a call that does not exist.
const UNKNOWN: u64 = !0;
/// PSCI calls about a VM's CPUs.
const CPU_ON: u64 = 0xc400_0003;
const AFFINITY_INFO: u64 = 0xc400_0004;
/// Waits in a row.
const STORM: u32 = 1_000;

pub(super) fn attack() {
    unknown_hypercalls();
    system_registers();
    instructions();
    addresses();
    devices();
    waiting();
    println!("EL2 took the unknown calls, registers, instructions and addresses");
}

fn unknown_hypercalls() {
    let ids = [
        0,
        1,
        0x8400_00ff,
        0xc400_0005,
        0x8600_ff07,
        0xc600_8001,
        0xc600_81ff,
        0xc602_8000,
        0xc600_c000,
        0xffff_ffff,
    ];
    for id in ids {
        assert!(raw::hvc([id, 1, 2, 3, 4, 5])[0] == UNKNOWN, "hvc {id:#x}");
        assert!(raw::smc([id, 1, 2, 3, 4, 5])[0] == UNKNOWN, "smc {id:#x}");
    }
    let (parameters, already_on) = (-2_i64 as u64, -4_i64 as u64);
    for affinity in [1, 0x100, 1 << 32, u64::MAX] {
        let answer = raw::hvc([CPU_ON, affinity, 0, 0, 0, 0])[0];
        assert!(answer == parameters, "CPU_ON {affinity:#x}: {answer:#x}");
        let answer = raw::hvc([AFFINITY_INFO, affinity, 0, 0, 0, 0])[0];
        assert!(answer == parameters, "AFFINITY_INFO {affinity:#x}: {answer:#x}");
    }
    assert!(raw::hvc([CPU_ON, 0, 0, 0, 0, 0])[0] == already_on, "CPU_ON of the caller");
    assert!(raw::hvc([AFFINITY_INFO, 0, 0, 0, 0, 0])[0] == 0, "AFFINITY_INFO of the caller");
    assert!(raw::hvc([AFFINITY_INFO, 0, 1, 0, 0, 0])[0] == parameters, "AFFINITY_INFO, level 1");
    let native = [
        crate::hvc_immediate!("0x6001", [0; 6])[0],
        crate::hvc_immediate!("0x602b", [0; 6])[0],
        crate::hvc_immediate!("0x61ff", [0; 6])[0],
    ];
    assert!(native == [UNKNOWN; 3], "{native:x?}");
    // Immediates of nobody's.
    for outcome in [
        catch(|| crate::hvc_immediate!("1", [0; 6])[0]),
        catch(|| crate::hvc_immediate!("0x6200", [0; 6])[0]),
        catch(|| crate::hvc_immediate!("0xffff", [0; 6])[0]),
        catch(|| raw::call!("smc #1", [0; 6])[0]),
    ] {
        assert!(matches!(outcome, Ok(UNKNOWN) | Err(_)), "{outcome:x?}");
    }
}

/// A register may answer or be undefined, nothing else. Those of SVE and SME may also trap to EL1
/// itself, by CPACR_EL1, before EL2 is asked.
fn answers_or_undefined(name: &str, outcome: Result<u64, Abort>) {
    if let Err(abort) = outcome {
        let own_trap = matches!(abort.esr >> 26, 0x19 | 0x1d);
        assert!(own_trap || abort.esr == probe::UNDEFINED, "{name}: ESR {:#x}", abort.esr);
    }
}

fn system_registers() {
    for (name, register) in unusual::REGISTERS {
        let read = execute(register.read(), [0; 6]).map(|[value, ..]| value);
        answers_or_undefined(name, read);
        let written = execute(register.write(), [read.unwrap_or(0), 0, 0, 0, 0, 0]);
        answers_or_undefined(name, written.map(|_| 0));
    }
    for (name, register) in unusual::TO_READ {
        answers_or_undefined(name, execute(register.read(), [0; 6]).map(|[value, ..]| value));
    }
}

/// Executes one instruction, given as a number where the assembler may not know it.
macro_rules! attempt {
    ($instruction:literal) => {
        catch(|| {
            // SAFETY: changes X0 at most, or is skipped as an exception.
            unsafe { asm!($instruction, inout("x0") 0u64 => _) };
        })
    };
}

fn instructions() {
    let outcomes = [
        ("rdvl x0, #1", attempt!(".inst 0x04bf5020")),
        ("ptrue p0.b", attempt!(".inst 0x2518e3e0")),
        ("rdsvl x0, #1", attempt!(".inst 0x04bf5820")),
        ("smstart", attempt!(".inst 0xd503477f")),
        ("irg x0, x0", attempt!(".inst 0x9adf1000")),
        ("pacga x0, x0, x0", attempt!(".inst 0x9ac03000")),
        ("udf #0", attempt!(".inst 0x00000000")),
        ("dcps1", attempt!(".inst 0xd4a00001")),
        ("dcps2", attempt!(".inst 0xd4a00002")),
        ("brk #0", attempt!("brk #0")),
        ("svc #0", attempt!("svc #0")),
        ("tlbi alle1", attempt!(".inst 0xd50c879f")),
        ("tlbi vmalls12e1", attempt!(".inst 0xd50c87df")),
        ("at s12e1r", attempt!(".inst 0xd50c7880")),
        ("dc isw", attempt!("dc isw, x0")),
        ("dc cisw", attempt!("dc cisw, x0")),
        ("ic ialluis", attempt!("ic ialluis")),
        ("tlbi vmalle1is", attempt!("tlbi vmalle1is")),
        ("sev", attempt!("sev")),
    ];
    let refused = outcomes.iter().filter(|(_, outcome)| outcome.is_err()).count();
    println!("of {} strange instructions {refused} are refused", outcomes.len());
}

fn addresses() {
    let nowhere = [
        0,
        0x1000,
        DISTRIBUTOR - 8,
        0x0a00_0000,
        RAM - 8,
        0x6000_0000,
        0x7100_0000,
        WINDOW,
        0x7f_ffff_f000,
    ];
    for at in nowhere {
        assert!(probe::read(at).is_err(), "{at:#x} can be read");
        assert!(probe::write(at, 1).is_err(), "{at:#x} can be written");
        assert!(probe::execute(at).is_err(), "{at:#x} can be executed");
    }
    probe::expect_no_access(WINDOW);
    for at in [DISTRIBUTOR, CONSOLE] {
        assert!(probe::execute(at).is_err(), "{at:#x} can be executed");
    }
}

/// Loads that EL2 is told nothing about, and of sizes that no register has.
fn odd_accesses(at: u64) {
    let outcomes = [
        catch(|| {
            // SAFETY: reads a device register, or is skipped as an exception.
            unsafe { asm!("ldp {0}, {1}, [{2}]", out(reg) _, out(reg) _, in(reg) at) };
        }),
        catch(|| {
            // SAFETY: as above; the address register is the asm's own.
            unsafe { asm!("ldr {0}, [{1}], #8", out(reg) _, inout(reg) at => _) };
        }),
        catch(|| {
            // SAFETY: as above.
            unsafe { asm!("ldxr {0}, [{1}]", out(reg) _, in(reg) at) };
        }),
        catch(|| {
            // SAFETY: as above.
            unsafe { asm!("dc zva, {0}", in(reg) at) };
        }),
        catch(|| {
            // SAFETY: as above.
            unsafe { asm!("ldrb {0:w}, [{1}]", out(reg) _, in(reg) at) };
        }),
        catch(|| {
            // SAFETY: as above.
            unsafe { asm!("ldrsh {0}, [{1}]", out(reg) _, in(reg) at) };
        }),
        probe::read(at).map(drop),
    ];
    assert!(outcomes.len() == 7, "every attempt came back");
}

/// Reads every register of the devices and writes back ones, then zeros.
fn devices() {
    for at in [DISTRIBUTOR, DISTRIBUTOR + 0x400, REDISTRIBUTOR, CONSOLE + 0xfe0] {
        odd_accesses(at);
    }
    let distributor = DISTRIBUTOR..DISTRIBUTOR + 16 * PAGE;
    let redistributor = REDISTRIBUTOR..REDISTRIBUTOR + 32 * PAGE;
    for value in [!0, 0] {
        for at in distributor.clone().chain(redistributor.clone()).step_by(0x14) {
            let _ = catch(|| memory::write32(at, memory::read32(at) ^ value));
            let _ = catch(|| memory::write32(at, value));
        }
    }
    // Everything but the data register, which would print.
    for at in (CONSOLE + 4..CONSOLE + PAGE).step_by(4) {
        let _ = catch(|| memory::write32(at, memory::read32(at)));
    }
    crate::write_register!("S3_0_C12_C12_1", 0x3ff); // ICC_EOIR1_EL1
    crate::write_register!("S3_0_C12_C12_1", 27);
    let _ = catch(|| crate::write_register!("S3_0_C12_C11_1", 27)); // ICC_DIR_EL1
    crate::write_register!("S3_0_C12_C11_5", !0 >> 8); // ICC_SGI1R_EL1
    for interrupt in 0..gic::INTERRUPTS as u32 {
        gic::mask(interrupt);
        gic::unpend(interrupt);
    }
}

/// Waits that end at once, because an interrupt is pending and masked.
fn waiting() {
    gic::enable();
    gic::unmask(timer::INTERRUPT);
    timer::after(0);
    for _ in 0..STORM {
        cpu::wait_for_interrupt();
        cpu::wait_for_event();
    }
    timer::stop();
}
