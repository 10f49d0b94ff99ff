//! Registers of devices, where EL2 sees them.

use rm::address::Pa;

use crate::stage1::direct;

/// The registers at a machine address.
///
/// # Safety
///
/// The board names a device there whose registers `T` describes (a type of `tock_registers`), so the
/// address is mapped as a device for good. Who may use it when is the caller's business.
pub(crate) unsafe fn registers<T>(at: Pa) -> &'static T {
    let registers = direct(at).cast::<T>();
    // SAFETY: passed on to the caller.
    unsafe { &*registers }
}
