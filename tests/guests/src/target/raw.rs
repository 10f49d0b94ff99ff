//! Hypercalls as registers, for what a well-behaved client would never send.

/// `hvc #0` with X0 to X5; returns X0 to X3.
pub fn hvc(x: [u64; 6]) -> [u64; 4] {
    call!("hvc #0", x)
}

/// `smc #0` with X0 to X5; returns X0 to X3.
pub fn smc(x: [u64; 6]) -> [u64; 4] {
    call!("smc #0", x)
}

/// `hvc` with an immediate; see [`hvc`].
#[macro_export]
macro_rules! hvc_immediate {
    ($immediate:literal, $x:expr) => {
        $crate::raw::call!(concat!("hvc #", $immediate), $x)
    };
}

/// One trapping instruction with X0 to X5 in and X0 to X3 out.
#[macro_export]
macro_rules! trap_with_registers {
    ($instruction:expr, $x:expr) => {{
        let [x0, x1, x2, x3, x4, x5]: [u64; 6] = $x;
        let (r0, r1, r2, r3): (u64, u64, u64, u64);
        // SAFETY: all registers that either calling convention may change are declared; callers name
        // only memory that holds no Rust object, or a buffer that they lend to the call.
        unsafe {
            core::arch::asm!(
                $instruction,
                inout("x0") x0 => r0, inout("x1") x1 => r1,
                inout("x2") x2 => r2, inout("x3") x3 => r3,
                inout("x4") x4 => _, inout("x5") x5 => _,
                clobber_abi("C"),
            );
        }
        [r0, r1, r2, r3]
    }};
}
pub use trap_with_registers as call;

/// A direct call with any arguments: request, length, reply, capacity, token.
pub fn direct(request: u64, length: u64, reply: u64, capacity: u64, token: u64) -> [u64; 3] {
    let [error, length, token, _] =
        crate::hvc_immediate!("0x61f0", [request, length, reply, capacity, token, 0]);
    [error, length, token]
}
