//! Registers of devices, where EL2 sees them.
//!
//! Every load from a device is a load-acquire. On Cortex-A57 up to r1p2 an ordinary one among exclusive
//! accesses, of which locks are made, can stop the core for good (erratum 832075); elsewhere the
//! difference is not worth a question. The crates that drive PL011 and GICv3 load by the same functions.

use core::arch::asm;
use core::cell::UnsafeCell;

use rm::address::Pa;
use safe_mmio::{MmioOps, set_mmio_ops};
use tock_registers::UIntLike;
use tock_registers::interfaces::{Readable, Writeable};

use crate::stage1::direct;

/// The registers at a machine address.
///
/// # Safety
///
/// The board names a device there whose registers `T` describes (of the types below), so the address is
/// mapped as a device for good. Who may use it when is the caller's business.
pub(crate) unsafe fn registers<T>(at: Pa) -> &'static T {
    let registers = direct(at).cast::<T>();
    // SAFETY: passed on to the caller.
    unsafe { &*registers }
}

/// A number as wide as a register.
pub(crate) trait Width: UIntLike {
    /// Loads it from a device.
    ///
    /// # Safety
    ///
    /// The address is aligned and that of a device's register.
    unsafe fn load(at: *const Self) -> Self;
}

macro_rules! widths {
    ($($width:ident $load:literal $name:ident)+) => {
        $(
            impl Width for $width {
                #[inline]
                unsafe fn load(at: *const Self) -> Self {
                    // SAFETY: passed on to the caller.
                    unsafe { $name(at) }
                }
            }

            /// Loads a register. See [`Width::load`].
            #[inline]
            unsafe fn $name(at: *const $width) -> $width {
                let value: u64;
                // NOP: the compiler cannot keep a multiply-add away from a load that it does not see
                // (Cortex-A53 erratum 835769).
                // SAFETY: the caller's address is that of a device's register.
                unsafe {
                    asm!($load, "nop", at = in(reg) at, value = out(reg) value,
                        options(nostack, preserves_flags))
                };
                value as $width
            }
        )+
    };
}

widths! {
    u8 "ldarb {value:w}, [{at}]" load_8
    u16 "ldarh {value:w}, [{at}]" load_16
    u32 "ldar {value:w}, [{at}]" load_32
    u64 "ldar {value}, [{at}]" load_64
}

/// A register to be read.
#[repr(transparent)]
pub(crate) struct ReadOnly<T>(UnsafeCell<T>);

/// A register to be read and written.
#[repr(transparent)]
pub(crate) struct ReadWrite<T>(UnsafeCell<T>);

/// A register to be written.
#[repr(transparent)]
pub(crate) struct WriteOnly<T>(UnsafeCell<T>);

macro_rules! readable {
    ($($register:ident)+) => {
        $(impl<T: Width> Readable for $register<T> {
            type T = T;
            type R = ();

            #[inline]
            fn get(&self) -> T {
                // SAFETY: `registers` says that a register is there.
                unsafe { T::load(self.0.get()) }
            }
        })+
    };
}

macro_rules! writeable {
    ($($register:ident)+) => {
        $(impl<T: Width> Writeable for $register<T> {
            type T = T;
            type R = ();

            #[inline]
            fn set(&self, value: T) {
                // SAFETY: as for reading.
                unsafe { self.0.get().write_volatile(value) }
            }
        })+
    };
}

readable! { ReadOnly ReadWrite }
writeable! { ReadWrite WriteOnly }

/// What other crates' drivers load and store by.
struct Acquiring;

// Each function makes one access of the width that its name says.
impl MmioOps for Acquiring {
    unsafe fn read_u8(src: *const u8) -> u8 {
        // SAFETY: passed on to the caller, here and below.
        unsafe { load_8(src) }
    }

    unsafe fn read_u16(src: *const u16) -> u16 {
        // SAFETY: as above.
        unsafe { load_16(src) }
    }

    unsafe fn read_u32(src: *const u32) -> u32 {
        // SAFETY: as above.
        unsafe { load_32(src) }
    }

    unsafe fn read_u64(src: *const u64) -> u64 {
        // SAFETY: as above.
        unsafe { load_64(src) }
    }

    unsafe fn write_u8(dst: *mut u8, value: u8) {
        // SAFETY: as above.
        unsafe { dst.write_volatile(value) }
    }

    unsafe fn write_u16(dst: *mut u16, value: u16) {
        // SAFETY: as above.
        unsafe { dst.write_volatile(value) }
    }

    unsafe fn write_u32(dst: *mut u32, value: u32) {
        // SAFETY: as above.
        unsafe { dst.write_volatile(value) }
    }

    unsafe fn write_u64(dst: *mut u64, value: u64) {
        // SAFETY: as above.
        unsafe { dst.write_volatile(value) }
    }
}

set_mmio_ops!(Acquiring);
