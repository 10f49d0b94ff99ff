//! What a driver in a guest needs to serve programs written for mem-buf, gntdev, dma-buf or dma-heaps.
//!
//! One module for each family has its UAPI: the structs that a program hands to `ioctl`, byte for byte,
//! and the numbers that it calls them by. Sizes, offsets and numbers are checked when this is compiled.
//! Where the manager has the call already, a front end takes the struct and answers with the same
//! struct, filled in, or with the [`Errno`] that the family documents.
//!
//! * **Guest pointers stay in the guest.** A struct has them as `u64`; nothing here follows them. The
//!   driver copies what they point at, once, and hands over the copy beside the struct; where there are
//!   many, it is asked for each through a trait of its own ([`gntdev::Program`]).
//! * **What a descriptor stands for is the driver's.** A front end is told the pages or the parcel of a
//!   descriptor, and is given a closure where it needs a new one.
//! * **Holes are fields.** All types are [`IntoBytes`](zerocopy::IntoBytes), which no type with hidden
//!   padding can be: what goes back to a program never has bytes of a driver's stack in it.
//!
//! # Where the sources contradict each other
//!
//! Some headers say one thing and the code that shipped behind them did another. The header is followed:
//!
//! | what | header | shipped code | here |
//! |---|---|---|---|
//! | reserved fields of a mem-buf import, and of IMP_TO_REFS | must be zero | some are not looked at | `EINVAL` |
//! | flags of EXP_FROM_REFS | see `FLAG_XXX`, which does not exist | unknown bits are ignored | only WC or COHERENT, not both; else `EINVAL` |
//! | number of dma-heap's ALLOC | 1, and 0 is GET_FEATURES | 0; there is no GET_FEATURES | both, by the full number ([`dmaheap::Command`]) |
//! | the unknown end of a longer struct | "works" | ignored | ignored for dma-heap, must be zero elsewhere ([`sized`]) |
//! | dma-buf's number 2 | INFO | EXPORT_SYNC_FILE | told apart by the size in the full number |
//! | UNMAP_GRANT_REF of what is mapped | an error | done later | `EBUSY` |
//! | GET_OFFSET_FOR_VADDR in the middle | an error | not looked at | `EINVAL` |
//! | SET_UNMAP_NOTIFY | one for each page | one for each mapping | one for each page |
//! | SET_MAX_GRANTS | comes first | dropped: `ENOTTY` | `EBUSY` if it comes late |
//! | a failed dma-buf INFO | – | the error becomes the value | an error |
//! | lending a buffer that the owner has mapped | locking it fails | `EINVAL` in later code | `EBUSY` |
//!
//! The structs of Xen's hypercalls are not here: a program sees those of gntdev alone.

pub mod dmabuf;
pub mod dmaheap;
mod errno;
pub mod gntdev;
pub mod membuf;
pub mod sized;

pub use errno::Errno;

/// Which way a struct goes, as an ioctl number says it. Xen's numbers all say [`Direction::None`] though
/// their structs go both ways.
///
/// Source: Linux, `include/uapi/asm-generic/ioctl.h`, the same on arm64 and x86.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Not said.
    None = 0,
    /// From the program.
    Write = 1,
    /// To the program.
    Read = 2,
    /// Both.
    Both = 3,
}

/// The number of an ioctl: direction in bits 31 and 30, size in 29 to 16, type in 15 to 8, and the
/// number among those of its type in 7 to 0.
///
/// Source: `_IOC` of Linux, `include/uapi/asm-generic/ioctl.h`.
pub const fn ioctl_number(direction: Direction, kind: u8, nr: u8, size: usize) -> u32 {
    assert!(size < 1 << 14, "the number has 14 bits for the size");
    (direction as u32) << 30 | (size as u32) << 16 | (kind as u32) << 8 | nr as u32
}

/// The size that an ioctl number says.
pub const fn size_of_number(number: u32) -> usize {
    (number >> 16 & 0x3fff) as usize
}

/// Refuses to compile if a struct is not laid out as its header says. That a field is as long as it
/// should be follows from the offset behind it, since `IntoBytes` allows no padding.
macro_rules! layout {
    ($type:ty, $size:literal / $align:literal: $($field:ident $offset:literal),+ $(,)?) => {
        const _: () = {
            assert!(size_of::<$type>() == $size);
            assert!(align_of::<$type>() == $align);
            $(assert!(core::mem::offset_of!($type, $field) == $offset);)+
        };
    };
}

/// Declares ioctl numbers by their parts, and refuses to compile if one is not the literal given.
macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident = $literal:literal: $direction:ident $kind:literal $nr:literal $size:expr;)+) => { $(
        $(#[$doc])*
        pub const $name: u32 =
            $crate::front::ioctl_number($crate::front::Direction::$direction, $kind, $nr, $size);
        const _: () = assert!($name == $literal);
    )+ };
}

use {layout, numbers};
