//! The error word that every reply starts with.

use core::fmt;

/// The error word of a call that succeeded.
pub const OK: u32 = 0;

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        /// Why the manager refused a call.
        ///
        /// The numbers are the wire's. Linux folds most of them into `EINVAL`, so whoever looks for a
        /// mistake looks at the number.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[cfg_attr(feature = "defmt", derive(defmt::Format))]
        #[repr(u32)]
        pub enum ErrorCode {
            $($(#[$doc])* $name = $value,)*
        }

        impl ErrorCode {
            /// The code that an error word other than [`OK`] stands for, if there is one.
            pub const fn from_word(word: u32) -> Option<Self> {
                match word {
                    $($value => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The error word of an answer.
            pub const fn word(answer: Result<(), Self>) -> u32 {
                match answer {
                    Ok(()) => OK,
                    Err(code) => code as u32,
                }
            }
        }

        impl fmt::Display for ErrorCode {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$name => $text,)*
                })
            }
        }
    };
}

error_codes! {
    /// No memory for tables or bookkeeping.
    NoMemory = 1, "out of memory";
    /// A list is too long, no address range is free, or a quota is used up.
    NoResource = 2, "out of a resource";
    /// The caller may not do this.
    Denied = 3, "not allowed";
    /// The message is too short, too long, or a list does not fit in it.
    MessageInvalid = 4, "malformed message";
    /// Something else is going on that excludes this for now.
    Busy = 5, "busy";
    /// The message is well-formed, but a value in it is not acceptable.
    ArgumentInvalid = 6, "argument not acceptable";
    /// No such parcel, as far as the caller is concerned.
    HandleInvalid = 7, "no such parcel";
    /// The parcel is not what the caller expects it to be.
    ValidateFailed = 8, "parcel differs from what was expected";
    /// A mapping could not be made or removed.
    MapFailed = 9, "mapping failed";
    /// A page is not mapped, not owned, or already in a parcel.
    MemoryInvalid = 0xa, "memory not the caller's to give";
    /// A VM still holds the parcel.
    MemoryInUse = 0xb, "still accepted by a VM";
    /// The caller does not hold the parcel.
    MemoryReleased = 0xc, "not accepted by the caller";
    /// No such VM, or it has no part in the parcel.
    VmidInvalid = 0xd, "VM unknown or not in the access list";
    /// No parcel matches the description.
    LookupFailed = 0xe, "no parcel matches";
    /// No such interrupt.
    IrqInvalid = 0xf, "no such interrupt";
    /// A VM still holds the interrupt.
    IrqInUse = 0x10, "interrupt in use";
    /// The caller does not hold the interrupt.
    IrqReleased = 0x11, "interrupt not accepted by the caller";
    /// What the call is about is in use.
    InUse = 0x12, "in use";
    /// The interrupt is not mapped.
    IrqNotMapped = 0x13, "interrupt not mapped";
    /// The VM's state does not allow the call.
    VmState = 0x14, "wrong state of the VM";
    /// No such call.
    Unimplemented = 0xffff_ffff, "no such call";
}

impl core::error::Error for ErrorCode {}
