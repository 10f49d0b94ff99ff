//! EL2's own map, as its MMU sees it: code and constants are written nowhere, guard pages and what
//! the board does not name are not there.
#![no_std]
#![no_main]

use core::arch::asm;

use aarch64_cpu::registers::{PAR_EL1, Readable};
use boards::QEMU_VIRT;
use hyp::boot::Boot;
use hyp::stage1::{direct, image_size};
use hyp::{Exit, cpu, exit};
use rm::address::{PAGE_SIZE, Pa};

hyp::entry!(QEMU_VIRT, main);

static CONSTANT: [u64; 4] = [1, 2, 3, 4];

/// What may be done at an address.
#[derive(Clone, Copy, PartialEq, Eq, defmt::Format)]
enum Reach {
    None,
    Read,
    Write,
}

fn main(boot: Boot) -> ! {
    let code = main as fn(Boot) -> ! as usize as u64;
    let constant = CONSTANT.as_ptr() as u64;
    let data = &raw const *cpu::current() as u64;
    let link_base = code & !(2 * 1024 * 1024 - 1);
    let alias = |link: u64| direct(Pa(boot.image.0 + (link - link_base))) as u64;
    let end = link_base + image_size();
    let ram_end = boot.ram[boot.ram.len() - 1].end();
    let uart = QEMU_VIRT.uart.base;
    let table = [
        ("code", code, Reach::Read),
        ("code in the direct map", alias(code), Reach::Read),
        ("constants", constant, Reach::Read),
        ("constants in the direct map", alias(constant), Reach::Read),
        ("data", data, Reach::Write),
        ("behind the image", end, Reach::None),
        ("before the image", link_base - PAGE_SIZE, Reach::None),
        ("the null page", 0, Reach::None),
        ("the last byte of RAM", direct(ram_end) as u64 - 1, Reach::Write),
        ("behind RAM", direct(ram_end) as u64, Reach::None),
        ("the UART", direct(uart) as u64, Reach::Write),
        ("behind the UART", direct(uart.add_pages(1)) as u64, Reach::None),
    ];
    let wrong = table.iter().filter(|row| !holds(row)).count();
    match wrong {
        0 => exit(Exit::Pass, "EL2 reaches what it should and no more"),
        _ => exit(Exit::Fail, "EL2's own map is wrong"),
    }
}

fn holds(&(name, address, expected): &(&str, u64, Reach)) -> bool {
    let found = reach(address);
    defmt::info!("{=str} at {=u64:#x}: {}", name, address, found);
    found == expected
}

fn reach(address: u64) -> Reach {
    // SAFETY: an address translation changes PAR_EL1 only.
    unsafe { asm!("at s1e2w, {}", "isb", in(reg) address, options(nostack, preserves_flags)) };
    if !PAR_EL1.matches_all(PAR_EL1::F::TranslationAborted) {
        return Reach::Write;
    }
    // SAFETY: as above.
    unsafe { asm!("at s1e2r, {}", "isb", in(reg) address, options(nostack, preserves_flags)) };
    if PAR_EL1.matches_all(PAR_EL1::F::TranslationAborted) { Reach::None } else { Reach::Read }
}
