//! The main function of an image: builds the VMs and gives every CPU to them.

use core::sync::atomic::{AtomicUsize, Ordering};

use spin::Once;

use crate::board::Board;
use crate::boot::Boot;
use crate::{cpu, gic, machine, schedule, smp, vcpu, vm};

static BOARD: Once<&'static Board> = Once::new();
/// CPUs that the package counts on.
static CPUS: AtomicUsize = AtomicUsize::new(0);

/// Runs the package's VMs until all have ended. The board's first CPU calls it.
pub fn run(boot: Boot) -> ! {
    let Boot { board, image, package, memory, .. } = boot;
    BOARD.call_once(|| board);
    CPUS.store(package.cpus(), Ordering::Relaxed);
    // SAFETY: the one call, and only `gic` uses the controller.
    unsafe { gic::start(board) };
    gic::enable_shared(board.uart.intid, board.cpus[0], false);
    vm::build(&package, memory);
    vm::connect_interrupts(&package, board.cpus);
    #[cfg(feature = "lock-times")]
    crate::lock_times::start();
    smp::start(board, image, package.cpus(), enter);
    enter()
}

/// Makes a CPU ask who of its vCPUs is due.
pub(crate) fn kick(cpu: usize) {
    if cpu == cpu::current().index {
        schedule::look_around();
    } else {
        gic::kick(board().cpus[cpu]);
    }
}

/// How many CPUs run guests.
pub(crate) fn cpus() -> usize {
    CPUS.load(Ordering::Relaxed)
}

/// INTID of EL2's UART, on which the user types.
pub(crate) fn keyboard() -> u32 {
    board().uart.intid
}

fn board() -> &'static Board {
    BOARD.get().expect("`run` has noted the board before anything else")
}

/// What each CPU does once the VMs are there.
fn enter() -> ! {
    // SAFETY: each CPU comes here once, and only `gic` uses the controller.
    unsafe { gic::start_cpu() };
    vcpu::configure(machine::features());
    schedule::start()
}
