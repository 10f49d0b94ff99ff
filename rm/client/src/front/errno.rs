//! Linux's numbers for what went wrong.

use core::fmt;

use rm_abi::{EncodeError, ErrorCode};

use crate::error::Error;
use crate::supplier::Refusal;

/// Why an ioctl failed, as a program reads it from `errno`.
///
/// Source: Linux, `include/uapi/asm-generic/errno-base.h` up to 34, `errno.h` beside it above, and for
/// 524, which only kernels should see, `include/linux/errno.h`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Errno(pub i32);

macro_rules! errnos {
    ($($(#[$doc:meta])* $name:ident = $number:literal;)+) => {
        impl Errno {
            $($(#[$doc])* pub const $name: Self = Self($number);)+

            /// Its name, if it is one of those here.
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some(stringify!($name)),)+
                    _ => None,
                }
            }
        }
    };
}

errnos! {
    /// The caller has not the right.
    EPERM = 1;
    /// No such thing.
    ENOENT = 2;
    /// The manager could not be reached, or its reply makes no sense.
    EIO = 5;
    /// A struct's unknown end asks for something.
    E2BIG = 7;
    /// No such descriptor.
    EBADF = 9;
    /// No memory, here or for the manager's tables.
    ENOMEM = 12;
    /// The descriptor does not allow that.
    EACCES = 13;
    /// The program's memory is not there.
    EFAULT = 14;
    /// Somebody still has it.
    EBUSY = 16;
    /// An argument makes no sense, or the other side's view differs.
    EINVAL = 22;
    /// Not an ioctl of this device.
    ENOTTY = 25;
    /// A quota, the handles or the addresses are used up.
    ENOSPC = 28;
    /// This object cannot do that.
    ENOSYS = 38;
    /// A sum of offset and length does not fit.
    EOVERFLOW = 75;
    /// This object cannot do that.
    EOPNOTSUPP = 95;
    /// It is not known what became of the memory: nobody gets it again.
    EADDRNOTAVAIL = 99;
    /// It took too long.
    ETIMEDOUT = 110;
    /// The other side has ended.
    ESTALE = 116;
    /// What the first mem-buf says for [`Errno::EOPNOTSUPP`].
    ENOTSUPP = 524;
}

impl From<ErrorCode> for Errno {
    fn from(code: ErrorCode) -> Self {
        match code {
            ErrorCode::NoMemory | ErrorCode::MapFailed => Self::ENOMEM,
            ErrorCode::NoResource => Self::ENOSPC,
            ErrorCode::Denied => Self::EPERM,
            ErrorCode::Busy | ErrorCode::MemoryInUse | ErrorCode::InUse | ErrorCode::IrqInUse => {
                Self::EBUSY
            }
            ErrorCode::HandleInvalid | ErrorCode::MemoryReleased | ErrorCode::LookupFailed => {
                Self::ENOENT
            }
            ErrorCode::Unimplemented => Self::EOPNOTSUPP,
            ErrorCode::MessageInvalid
            | ErrorCode::ArgumentInvalid
            | ErrorCode::ValidateFailed
            | ErrorCode::MemoryInvalid
            | ErrorCode::VmidInvalid
            | ErrorCode::VmState
            | ErrorCode::IrqInvalid
            | ErrorCode::IrqReleased
            | ErrorCode::IrqNotMapped => Self::EINVAL,
        }
    }
}

impl From<Refusal> for Errno {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotPermitted => Self::EPERM,
            Refusal::Unknown => Self::ENOENT,
            Refusal::Broken => Self::EIO,
            Refusal::NoMemory => Self::ENOMEM,
            Refusal::Busy => Self::EBUSY,
            Refusal::Invalid => Self::EINVAL,
            Refusal::NoSpace => Self::ENOSPC,
            Refusal::NotSupported => Self::EOPNOTSUPP,
            Refusal::Lost => Self::EADDRNOTAVAIL,
            Refusal::TimedOut => Self::ETIMEDOUT,
            Refusal::Gone => Self::ESTALE,
        }
    }
}

impl From<Error> for Errno {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(code) => code.into(),
            Error::Encode(EncodeError::BufferTooSmall) => Self::ENOMEM,
            Error::RefusedUnknown(_) | Error::Encode(EncodeError::TooLong) => Self::EINVAL,
            Error::Transport(_) | Error::Malformed => Self::EIO,
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl core::error::Error for Errno {}
