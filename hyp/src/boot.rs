//! From `boot.s` to the board's main function, on the CPU that boots.

use core::arch::global_asm;
use core::mem::{offset_of, size_of};
use core::slice;
use core::sync::atomic::Ordering;

use aarch64_cpu::registers::{MPIDR_EL1, Readable};
use defmt::Display2Format;
use package::{Digest, Package, PackageError, Part};
use rm::address::{PAGE_SIZE, Pa};
use spin::Once;

use crate::board::{Board, Region};
use crate::cpu::{self, CPUS, Cpu, STACKS, Stacks};
use crate::errata::Core;
use crate::exit::{self, Exit};
use crate::firmware::{self, Memory};
use crate::frames::BootMemory;
use crate::{gic, log, power, smp, stage1};

/// Where the image is linked; `linker/image.ld` says the same and `boot.s` relies on it.
const LINK_BASE: u64 = 0x4020_0000;
/// The first page's second address in `boot.s`: level-1 entry 127, between link range and direct map.
const BRIDGE_ENTRY: u64 = 127;
const LEVEL_3_TABLES: u64 = 5;

/// Bytes of the header in front of the code (Linux, `Documentation/arch/arm64/booting.rst`).
const ARM64_HEADER: usize = 64;

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
    /// RAM that is EL2's, image and package included.
    pub ram: &'static [Region],
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
///
/// `tree` is what firmware left in X0: the address of its device tree, or anything.
extern "C" fn primary(image: u64, tree: u64) -> ! {
    let Entry { board, main } = hyp_entry();
    let image = Pa(image);
    stage1::complete(board, image);
    power::open(board);
    log::open_uart(board.uart);
    cpu::current().running.store(true, Ordering::Relaxed);
    assert_eq!(affinity(), board.cpus[0], "the board's first CPU is the one that firmware starts");
    let told = firmware_memory(board, image, Pa(tree));
    let ram = find_ram(board, told.as_ref().ok());
    stage1::map_ram(ram, image);
    let (package, memory) = match find_package(board, ram, image) {
        Ok(found) => found,
        Err(error) => refuse(&error),
    };
    log::open(&package);
    let core = Core::current();
    let (name, errata) = (Display2Format(&core), Display2Format(&core.errata()));
    defmt::info!("{=str}: EL2 at {=u64:#x}, CPU 0 is a {}", board.name(), image.0, name);
    defmt::info!("{}", errata);
    report_ram(ram, told);
    main(Boot { board, image, ram, package, memory })
}

/// What firmware's device tree says of the memory.
fn firmware_memory(board: &Board, image: Pa, tree: Pa) -> Result<Memory, firmware::Error> {
    let here = tree.0 != 0 && tree.is_aligned(8) && firmware::may_be_ram(board, tree);
    if !here {
        return Err(firmware::Error::NotATree);
    }
    let head = stage1::look(image, tree, firmware::HEAD);
    let length = firmware::length(head.try_into().expect("it is as long as was asked for"))?;
    firmware::read(stage1::look(image, tree, length))
}

/// RAM that is EL2's.
fn find_ram(board: &Board, told: Option<&Memory>) -> &'static [Region] {
    static RAM: Once<firmware::Regions> = Once::new();
    RAM.call_once(|| match firmware::layout(board, told) {
        Ok(ram) => ram,
        Err(error) => panic!("the memory that firmware's device tree describes: {error}"),
    })
}

fn report_ram(ram: &[Region], told: Result<Memory, firmware::Error>) {
    match told {
        Ok(_) => defmt::info!("size and reservations of RAM are from firmware's device tree"),
        Err(firmware::Error::NotATree) => {
            defmt::info!("firmware has left no device tree: RAM is what every such board has");
        }
        Err(error) => defmt::warn!(
            "firmware's device tree is not used: {}; RAM is what every such board has",
            Display2Format(&error)
        ),
    }
    for bank in ram {
        defmt::info!("RAM {=u64:#x} to {=u64:#x}", bank.start.0, bank.end().0);
    }
}

/// Says in plain text why the image does not run, and ends.
fn refuse(error: &PackageError) -> ! {
    log::text(format_args!("\nREFUSED this image does not run: {error}\n"));
    log::text(format_args!(
        "REFUSED write it anew, all of it, as the tool made it for this board\n"
    ));
    exit::end(Exit::Fail, "the image was refused")
}

/// The affinity fields of this CPU's MPIDR_EL1.
pub(crate) fn affinity() -> u64 {
    MPIDR_EL1.get() & 0xff_00ff_ffff
}

/// Reads the package behind the image; the RAM behind the package is free.
fn find_package(
    board: &Board,
    ram: &'static [Region],
    image: Pa,
) -> Result<(Package<'static>, BootMemory), PackageError> {
    let start = Pa(image.0 + stage1::image_size());
    let home = ram.iter().find(|ram| ram.contains(image)).expect("the image lies in RAM");
    let length = (home.end().0 - start.0) as usize;
    // SAFETY: `complete` has mapped all RAM, and RAM behind the image is written only through
    // `BootMemory`, which starts behind the package.
    let bytes = unsafe { slice::from_raw_parts(stage1::direct(start), length) };
    let package = Package::parse(bytes)?;
    if !package.is_for(board.id) {
        return Err(PackageError::OtherBoard(package.board_name()));
    }
    check_hypervisor(&package)?;
    let version = gic::version();
    if let Some(other) = package.gic().filter(|&described| described != version) {
        return Err(PackageError::Gic(other));
    }
    let end = (start.0 + package.length() as u64).next_multiple_of(PAGE_SIZE);
    let used = Region { start: image, size: end - image.0 };
    Ok((package, BootMemory::new(ram, used)))
}

/// Whether the package was made for the very code that runs.
fn check_hypervisor(package: &Package<'_>) -> Result<(), PackageError> {
    let Some((digest, length)) = package.hypervisor() else { return Ok(()) };
    let code = stage1::constants();
    // The tool writes into the header after it has counted the package.
    let covered = code.get(ARM64_HEADER..).and_then(|code| code.get(..length));
    match covered {
        Some(covered) if Digest::of(covered) == digest => Ok(()),
        _ => Err(PackageError::Digest(Part::Hypervisor)),
    }
}
