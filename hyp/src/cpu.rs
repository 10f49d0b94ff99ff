//! The CPUs: what each has for itself, reached through TPIDR_EL2.

use core::cell::UnsafeCell;
use core::mem::offset_of;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64};

use aarch64_cpu::registers::{Readable, TPIDR_EL2};
use rm::address::PAGE_SIZE;

/// Most CPUs of a board.
pub const MAX_CPUS: usize = 4;

const PAGE: usize = PAGE_SIZE as usize;
const STACK: usize = 16 * PAGE;
const EMERGENCY_STACK: usize = 4 * PAGE;

/// A CPU's stacks. They grow down, so each lies above a page that is taken out of the map.
#[repr(C, align(4096))]
pub(crate) struct Stacks {
    guard: UnsafeCell<[u8; PAGE]>,
    stack: UnsafeCell<[u8; STACK]>,
    emergency_guard: UnsafeCell<[u8; PAGE]>,
    emergency: UnsafeCell<[u8; EMERGENCY_STACK]>,
}

// SAFETY: Rust code never reads or writes through this type; each CPU's stack pointer stays within
// its own element.
unsafe impl Sync for Stacks {}

impl Stacks {
    /// Offset of the first stack pointer.
    pub(crate) const TOP: usize = offset_of!(Self, emergency_guard);

    /// Addresses of the two guard pages.
    pub(crate) fn guards(&self) -> [u64; 2] {
        [self.guard.get() as u64, self.emergency_guard.get() as u64]
    }

    /// Whether both ends of a frame record at `address` lie in one of the stacks.
    pub(crate) fn hold_record(&self, address: u64) -> bool {
        let holds = |start: u64, size: usize| {
            (start..start + size as u64 - 15).contains(&address) && address.is_multiple_of(16)
        };
        holds(self.stack.get() as u64, STACK) || holds(self.emergency.get() as u64, EMERGENCY_STACK)
    }
}

pub(crate) static STACKS: [Stacks; MAX_CPUS] = [const {
    Stacks {
        guard: UnsafeCell::new([0; _]),
        stack: UnsafeCell::new([0; _]),
        emergency_guard: UnsafeCell::new([0; _]),
        emergency: UnsafeCell::new([0; _]),
    }
}; MAX_CPUS];

/// One CPU. The others may look at it, so all that changes is atomic.
#[derive(Debug)]
#[repr(C)]
pub struct Cpu {
    /// Where the stack pointer starts in the exceptions of EL2 itself. Read by `vectors.s`.
    pub(crate) emergency_stack: AtomicPtr<u8>,
    /// Its place in [`Board::cpus`](crate::board::Board::cpus).
    pub index: usize,
    /// The ranks of the resource manager's locks that this CPU holds.
    pub held_ranks: AtomicU64,
    /// Set by the CPU once it runs EL2's code.
    pub(crate) running: AtomicBool,
    /// Set when it runs the fatal path, which must not start again.
    pub(crate) dying: AtomicBool,
}

impl Cpu {
    const fn new(index: usize) -> Self {
        let stacks = (&raw const STACKS).cast::<Stacks>().cast_mut();
        Self {
            emergency_stack: AtomicPtr::new(stacks.wrapping_add(index + 1).cast()),
            index,
            held_ranks: AtomicU64::new(0),
            running: AtomicBool::new(false),
            dying: AtomicBool::new(false),
        }
    }

    /// This CPU's stacks.
    pub(crate) fn stacks(&self) -> &'static Stacks {
        &STACKS[self.index]
    }
}

pub(crate) static CPUS: [Cpu; MAX_CPUS] = [Cpu::new(0), Cpu::new(1), Cpu::new(2), Cpu::new(3)];

/// The CPU that runs this code.
#[inline]
pub fn current() -> &'static Cpu {
    let cpu = TPIDR_EL2.get() as *const Cpu;
    // SAFETY: `boot.s` points TPIDR_EL2 at this CPU's element of `CPUS` before it calls Rust, and
    // nothing writes the register after that.
    unsafe { &*cpu }
}

/// The CPU of this index.
pub fn get(index: usize) -> &'static Cpu {
    &CPUS[index]
}
