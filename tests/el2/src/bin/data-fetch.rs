//! EL2 never executes data: a jump into the direct map is an exception, not code.
#![no_std]
#![no_main]

use core::mem;

use boards::QEMU_VIRT;
use hyp::boot::Boot;
use hyp::stage1::direct;
use hyp::{Exit, exit};

hyp::entry!(QEMU_VIRT, main);

/// `ret`
const RETURN: u32 = 0xd65f_03c0;

fn main(mut boot: Boot) -> ! {
    let program = boot.memory.slice_of(1, |_| RETURN);
    hyp::cache::sync_code(hyp::stage1::physical(program.as_ptr()), 4);
    let address = direct(hyp::stage1::physical(program.as_ptr()));
    // SAFETY: the address holds a whole function; the point is that calling it fails.
    let function = unsafe { mem::transmute::<*mut u8, fn()>(address) };
    function();
    exit(Exit::Fail, "data was executed")
}
