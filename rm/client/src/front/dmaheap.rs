//! dma-buf heaps: memory from a named heap, as a dma-buf.
//!
//! Source: version 14 of the series that brought them to Linux (3 November 2019), and
//! `include/uapi/linux/dma-heap.h` of Linux since.
//!
//! The series and what was merged use number 0 for different calls, and both let structs grow by the
//! number's size. [`Command::of`] serves programs of either.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Errno, layout, numbers};
use crate::parcel::PAGE_SIZE;

/// What the heaps of a system can do beyond allocating; no bit is defined. 8 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FeaturesData {
    /// Out. Programs ignore bits that they do not know.
    pub features: u64,
}

/// A wish for memory. 24 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AllocationData {
    /// How many bytes.
    pub len: u64,
    /// Out: the dma-buf. Zero on the way in.
    pub fd: u32,
    /// `O_CLOEXEC` and what the descriptor may be mapped for.
    pub fd_flags: u32,
    /// No flag is defined: zero.
    pub heap_flags: u64,
}

layout!(FeaturesData, 8 / 8: features 0);
layout!(AllocationData, 24 / 8: len 0, fd 8, fd_flags 12, heap_flags 16);

numbers! {
    /// Version 14: takes a [`FeaturesData`].
    GET_FEATURES_V14 = 0x8008_4800: Read b'H' 0 size_of::<FeaturesData>();
    /// Version 14: takes an [`AllocationData`].
    ALLOC_V14 = 0xc018_4801: Both b'H' 1 size_of::<AllocationData>();
    /// As merged: takes an [`AllocationData`].
    ALLOC = 0xc018_4800: Both b'H' 0 size_of::<AllocationData>();
}

/// `O_ACCMODE`, the bits for read only (0), write only (1) and both (2); Linux,
/// `include/uapi/asm-generic/fcntl.h`.
pub const O_ACCMODE: u32 = 3;
/// `O_CLOEXEC`: the descriptor does not survive `exec`; as above.
pub const O_CLOEXEC: u32 = 0o2_000_000;
/// All that [`AllocationData::fd_flags`] may say.
pub const FD_FLAGS: u32 = O_ACCMODE | O_CLOEXEC;

/// What a number asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// A [`FeaturesData`] is to be filled in. What it held does not matter.
    Features,
    /// An [`AllocationData`].
    Alloc,
}

impl Command {
    /// What a number asks for, `EINVAL` if nothing, `ENOTTY` if it is not of this type.
    ///
    /// The known numbers come first. A struct of another length is told by the number within the type:
    /// 1 is version 14's ALLOC; 0 is ALLOC as merged if the program has something to say, and
    /// GET_FEATURES if it only wants to hear.
    pub const fn of(number: u32) -> Result<Self, Errno> {
        const NOT_SIZE: u32 = !(0x3fff << 16);
        match number {
            GET_FEATURES_V14 => return Ok(Self::Features),
            ALLOC_V14 | ALLOC => return Ok(Self::Alloc),
            _ => {}
        }
        if number >> 8 & 0xff != b'H' as u32 {
            return Err(Errno::ENOTTY);
        }
        const FEATURES: u32 = GET_FEATURES_V14 & NOT_SIZE;
        const V14: u32 = ALLOC_V14 & NOT_SIZE;
        const MERGED: u32 = ALLOC & NOT_SIZE;
        match number & NOT_SIZE {
            FEATURES => Ok(Self::Features),
            V14 | MERGED => Ok(Self::Alloc),
            _ => Err(Errno::EINVAL),
        }
    }
}

impl AllocationData {
    /// How many bytes to allocate: the length in whole pages. `EINVAL` for a length of zero or near
    /// 2^64, a descriptor that is set, and flags that there are not.
    pub const fn bytes(&self) -> Result<u64, Errno> {
        if self.fd != 0 || self.fd_flags & !FD_FLAGS != 0 || self.heap_flags != 0 {
            return Err(Errno::EINVAL);
        }
        match self.len.checked_next_multiple_of(PAGE_SIZE) {
            None | Some(0) => Err(Errno::EINVAL),
            Some(bytes) => Ok(bytes),
        }
    }
}
