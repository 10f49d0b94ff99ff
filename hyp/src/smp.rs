//! The other CPUs, from CPU_ON to the function they run.

use core::sync::atomic::Ordering;

use aarch64_cpu::asm::barrier;
use defmt::Display2Format;
use rm::address::Pa;
use spin::Once;

use crate::board::{Board, Power};
use crate::errata::Core;
use crate::{cpu, log, power, relax};

/// How many microseconds a CPU may take from CPU_ON to Rust. An emulator on a busy host is slow.
const PATIENCE: u64 = 30_000_000;

static MAIN: Once<fn() -> !> = Once::new();

unsafe extern "C" {
    // SAFETY: code of `boot.s` in the image's first page, used for its address only.
    safe static secondary_entry: u8;
    // SAFETY: as above.
    safe static spin_table_entry: u8;
    // SAFETY: a symbol of the linker script, used for its address only.
    safe static __image_start: u8;
}

/// Starts the CPUs that the package counts on, one after the other.
pub(crate) fn start(board: &Board, image: Pa, wanted: usize, main: fn() -> !) {
    MAIN.call_once(|| main);
    let entry = match board.power {
        Power::Psci => &raw const secondary_entry,
        Power::SpinTable { .. } => &raw const spin_table_entry,
    };
    let offset = entry as u64 - &raw const __image_start as u64;
    let entry = Pa(image.0 + offset);
    assert!(wanted <= board.cpus.len(), "the package counts on CPUs that the board lacks");
    // What the new CPU reads with its MMU on must have left this CPU's write buffer.
    barrier::dsb(barrier::SY);
    for index in 1..wanted {
        if let Err(error) = power::start_cpu(board, index, entry) {
            panic!("CPU {index} does not start: {error:?}");
        }
        wait_for(index);
    }
}

/// Waits until a CPU that firmware has started runs EL2's code.
fn wait_for(index: usize) {
    let start = log::microseconds();
    while !cpu::get(index).running.load(Ordering::Acquire) {
        assert!(log::microseconds() - start < PATIENCE, "CPU {index} was started and did not come");
        relax();
    }
}

/// The first Rust code of another CPU.
pub(crate) extern "C" fn secondary() -> ! {
    let cpu = cpu::current();
    let core = Display2Format(&Core::current());
    defmt::info!("CPU {=usize} runs, a {}", cpu.index, core);
    let main = MAIN.get().expect("a CPU starts only after `start` has said what it runs");
    cpu.running.store(true, Ordering::Release);
    main()
}
