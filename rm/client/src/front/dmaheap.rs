//! dma-buf heaps: memory from a named heap, as a dma-buf.
//!
//! Source: version 14 of the series that brought them to Linux (3 November 2019), and
//! `include/uapi/linux/dma-heap.h` of Linux since.
//!
//! The series and what was merged use number 0 for different calls, and both let structs grow by the
//! number's size. [`Command::of`] serves programs of either.
//!
//! A driver makes one device of each heap that [`Session::heap`] tells of, `/dev/dma_heap/<name>`, and a
//! [`DmaHeap`] for each. A heap that this VM may not use has none.
//!
//! ```
//! use rm_client::front::Errno;
//! use rm_client::front::dmaheap::DmaHeap;
//! use rm_client::{Session, Transport};
//!
//! /// What the device's `ioctl` does. `arg` is a copy of the program's struct, of the length that the
//! /// number says, and goes back to the program if this succeeds.
//! fn ioctl<T: Transport>(
//!     session: &mut Session<T>,
//!     device: &str,
//!     number: u32,
//!     arg: &mut [u8],
//! ) -> Result<(), Errno> {
//!     DmaHeap::open(session, device)?.ioctl(session, number, arg, |buffer| {
//!         // ... a dma-buf of the buffer.place.size bytes at buffer.place.ipa ...
//!         # let _ = buffer;
//!         Ok(3)
//!     })
//! }
//! ```

use rm_abi::extension::HeapFeatures;
use rm_abi::{ErrorCode, Rights, SglEntry};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::sized::{self, Tail};
use super::{Errno, layout, numbers, size_of_number};
use crate::error::Error;
use crate::parcel::PAGE_SIZE;
use crate::session::Session;
use crate::transport::Transport;

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
/// `O_RDONLY`: the descriptor's memory may be read; as above.
pub const O_RDONLY: u32 = 0;
/// `O_RDWR`: it may be read and written; as above.
pub const O_RDWR: u32 = 2;
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

/// A heap's device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DmaHeap {
    /// The heap's number.
    number: u32,
    features: HeapFeatures,
}

/// What a driver has to make a dma-buf of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Allocated {
    /// Where it is: one range of zeros, in this VM's addresses and in the machine's.
    pub place: SglEntry,
    /// What its descriptor lets a program do with it.
    pub rights: Rights,
}

impl DmaHeap {
    /// The heap of this name: `ENOENT` if there is none, or this VM may not use it.
    pub fn open<T: Transport, const N: usize>(
        session: &mut Session<T, N>,
        name: &str,
    ) -> Result<Self, Errno> {
        let heap = session.find_heap(name)?.ok_or(Errno::ENOENT)?;
        Ok(Self { number: heap.number, features: heap.features })
    }

    /// GET_FEATURES. No header defines a bit; those of [`HeapFeatures`] are told, and what a program does
    /// not know it ignores.
    pub const fn features(&self) -> FeaturesData {
        FeaturesData { features: self.features.0 }
    }

    /// ALLOC: takes a piece of the heap and calls `install` to make a dma-buf of it, whose last close is
    /// [`close`]. If that fails, the piece goes back.
    ///
    /// `EINVAL` for a length of zero or near 2^64, a descriptor that is set, and flags that there are not;
    /// `ENOMEM` if the heap, this VM's part of it or its addresses are used up.
    pub fn alloc<T: Transport, const N: usize>(
        &self,
        session: &mut Session<T, N>,
        arg: AllocationData,
        install: impl FnOnce(Allocated) -> Result<u32, Errno>,
    ) -> Result<AllocationData, Errno> {
        let place = session.heap_alloc(self.number, arg.bytes()?, None).map_err(|error| {
            // A program of any heap expects to hear that there is no memory; that it is too much for any
            // heap is no other news.
            match error {
                Error::Refused(ErrorCode::NoResource | ErrorCode::ArgumentInvalid) => Errno::ENOMEM,
                error => error.into(),
            }
        })?;
        let fd = install(Allocated { place, rights: arg.rights() }).inspect_err(|_| {
            // Nobody was told of it, so nothing keeps it from going back.
            let _ = session.heap_free(place);
        })?;
        Ok(AllocationData { fd, ..arg })
    }

    /// Any of the device's calls, by its number, as a program of any age makes it: a shorter struct goes on
    /// with zeros, and the end of a longer one is not looked at.
    ///
    /// `ENOTTY` and `EINVAL` for a number that is no call, `EFAULT` for a copy that is not as long as the
    /// number says, and what [`DmaHeap::alloc`] says.
    pub fn ioctl<T: Transport, const N: usize>(
        &self,
        session: &mut Session<T, N>,
        number: u32,
        arg: &mut [u8],
        install: impl FnOnce(Allocated) -> Result<u32, Errno>,
    ) -> Result<(), Errno> {
        let command = Command::of(number)?;
        if arg.len() != size_of_number(number) {
            return Err(Errno::EFAULT);
        }
        match command {
            Command::Features => sized::write(&self.features(), arg),
            Command::Alloc => {
                let done = self.alloc(session, sized::read(arg, Tail::Ignored)?, install)?;
                sized::write(&done, arg);
            }
        }
        Ok(())
    }
}

/// The last close of a buffer: its memory goes back to the heap. `EBUSY` while some of it is lent or
/// shared; nothing has changed then.
pub fn close<T: Transport, const N: usize>(
    session: &mut Session<T, N>,
    buffer: Allocated,
) -> Result<(), Errno> {
    session.heap_free(buffer.place).map_err(|error| match error {
        Error::Refused(ErrorCode::MemoryInvalid) => Errno::EBUSY,
        error => error.into(),
    })
}

impl AllocationData {
    /// What the descriptor lets a program do. A mapping needs a descriptor that can be read, so one that
    /// can only be written is good for nothing but to be closed.
    const fn rights(&self) -> Rights {
        match self.fd_flags & O_ACCMODE {
            O_RDONLY => Rights::RX,
            O_RDWR => Rights::RWX,
            _ => Rights::empty(),
        }
    }
}

impl Allocated {
    /// Whether a program that has the descriptor may map the buffer so, or grant another VM so much of
    /// it: `EACCES` if not, as `mmap` says it.
    pub fn check(&self, wanted: Rights) -> Result<(), Errno> {
        if self.rights.contains(wanted) { Ok(()) } else { Err(Errno::EACCES) }
    }
}
