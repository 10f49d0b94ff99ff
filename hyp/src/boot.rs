//! From `boot.s` to the board's main function, on the CPU that boots.

use core::arch::global_asm;
use core::mem::{offset_of, size_of};
use core::slice;
use core::sync::atomic::Ordering;

use aarch64_cpu::registers::{MPIDR_EL1, Readable};
use defmt::Display2Format;
use package::Package;
use rm::address::{PAGE_SIZE, Pa};

use crate::board::{Board, Region};
use crate::cpu::{self, CPUS, Cpu, STACKS, Stacks};
use crate::errata::Core;
use crate::frames::BootMemory;
use crate::{log, smp, stage1};

/// Where the image is linked; the board's linker script says the same and `boot.s` relies on it.
const LINK_BASE: u64 = 0x4020_0000;
/// The first page's second address in `boot.s`: level-1 entry 127, between link range and direct map.
const BRIDGE_ENTRY: u64 = 127;
const LEVEL_3_TABLES: u64 = 5;

/// HCR_EL2 while no guest runs: EL1 is AArch64, E2H and TGE are clear. The guest half sets the rest.
const HCR: u64 = 1 << 31;
/// SCTLR_EL2's RES1 bits.
const SCTLR_OFF: u64 = 0x30c5_0830;
/// MMU, caches, stack alignment check, and no execution of writable memory.
const SCTLR_ON: u64 = SCTLR_OFF | 1 | 1 << 2 | 1 << 3 | 1 << 12 | 1 << 19;
/// CPTR_EL2's RES1 bits, which trap SVE where it exists. FP and SIMD are not trapped.
const CPTR: u64 = 0x33ff;

global_asm!(
    include_str!("boot.s"),
    hcr = const HCR,
    sctlr_off = const SCTLR_OFF,
    sctlr_on = const SCTLR_ON,
    cptr = const CPTR,
    mair = const stage1::MAIR,
    tcr = const stage1::TCR,
    table = const stage1::TABLE,
    page_code = const stage1::CODE_PAGE,
    page_read_only = const stage1::READ_ONLY_PAGE,
    page_data = const stage1::DATA_PAGE,
    link_root_offset = const (LINK_BASE >> 30) * 8,
    link_level2_skip = const ((LINK_BASE >> 21) % 512) * 8,
    link_level3_skip = const ((LINK_BASE >> 12) % 512) * 8,
    link_level3_tables = const LEVEL_3_TABLES,
    bridge = const BRIDGE_ENTRY << 30,
    bridge_root_offset = const BRIDGE_ENTRY * 8,
    stacks = sym STACKS,
    stacks_size = const size_of::<Stacks>(),
    stack_top = const Stacks::TOP,
    cpus = sym CPUS,
    cpu_size = const size_of::<Cpu>(),
    primary = sym primary,
    secondary = sym smp::secondary,
);

global_asm!(
    include_str!("vectors.s"),
    emergency_offset = const offset_of!(Cpu, emergency_stack),
    frame_size = const size_of::<crate::fatal::Frame>(),
    fatal_exception = sym crate::fatal::exception,
);

/// What the board's main function is given.
#[derive(Debug)]
pub struct Boot {
    /// The board.
    pub board: &'static Board,
    /// The image's physical address.
    pub image: Pa,
    /// What the host tool packed behind the image.
    pub package: Package<'static>,
    /// The RAM that is left.
    pub memory: BootMemory,
}

impl Boot {
    /// Starts the other CPUs that the package counts on; each calls `main`. Returns when all run.
    pub fn start_cpus(&self, main: fn() -> !) {
        smp::start(self.board, self.image, self.package.cpus(), main);
    }
}

/// A board and its program; [`entry!`](crate::entry) makes one.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The board.
    pub board: &'static Board,
    /// Called once, on the first CPU, with the MMU on and the log open.
    pub main: fn(Boot) -> !,
}

/// Names the board and the main function of an image: `hyp::entry!(BOARD, main);`.
#[macro_export]
macro_rules! entry {
    ($board:expr, $main:path) => {
        // SAFETY: `hyp` declares this very function, and one image has one entry.
        #[unsafe(no_mangle)]
        extern "Rust" fn hyp_entry() -> $crate::boot::Entry {
            $crate::boot::Entry { board: &$board, main: $main }
        }
    };
}

unsafe extern "Rust" {
    // SAFETY: `entry!` defines it with this signature.
    safe fn hyp_entry() -> Entry;
}

/// The first Rust code, with the image mapped and nothing else.
extern "C" fn primary(image: u64) -> ! {
    let Entry { board, main } = hyp_entry();
    let image = Pa(image);
    stage1::complete(board, image);
    log::open_uart(board.uart);
    cpu::current().running.store(true, Ordering::Relaxed);
    assert_eq!(affinity(), board.cpus[0], "the board's first CPU is the one that firmware starts");
    let (package, memory) = find_package(board, image);
    log::open(&package);
    let core = Core::current();
    let (name, errata) = (Display2Format(&core), Display2Format(&core.errata()));
    defmt::info!("{=str}: EL2 at {=u64:#x}, CPU 0 is a {}", board.name, image.0, name);
    defmt::info!("{}", errata);
    main(Boot { board, image, package, memory })
}

/// The affinity fields of this CPU's MPIDR_EL1.
pub(crate) fn affinity() -> u64 {
    MPIDR_EL1.get() & 0xff_00ff_ffff
}

/// Reads the package behind the image; the RAM behind the package is free.
fn find_package(board: &'static Board, image: Pa) -> (Package<'static>, BootMemory) {
    let start = Pa(image.0 + stage1::image_size());
    let ram = board.ram.iter().find(|ram| ram.contains(image)).expect("the image lies in RAM");
    let length = (ram.end().0 - start.0) as usize;
    // SAFETY: `complete` has mapped all RAM, and RAM behind the image is written only through
    // `BootMemory`, which starts behind the package.
    let bytes = unsafe { slice::from_raw_parts(stage1::direct(start), length) };
    let package = match Package::parse(bytes) {
        Ok(package) => package,
        Err(error) => panic!("the package behind the image: {error:?}"),
    };
    assert!(package.board() == board.id, "the package is for another board");
    let end = (start.0 + package.length() as u64).next_multiple_of(PAGE_SIZE);
    let used = Region { start: image, size: end - image.0 };
    (package, BootMemory::new(board, used))
}
