//! What a driver gives the front end: a program's memory, and its descriptors.

use crate::front::Errno;

/// The memory of the program that has made a call. Only the driver can follow its pointers.
pub trait Program {
    /// Copies bytes of the program; `EFAULT` if they are not all there.
    fn read(&mut self, at: u64, into: &mut [u8]) -> Result<(), Errno>;

    /// Copies bytes to the program; `EFAULT` if it may not write all of them.
    fn write(&mut self, at: u64, from: &[u8]) -> Result<(), Errno>;

    /// The guest physical address of a byte of the program that it may read or, if `writes`, write. Until
    /// the call that asks has ended its page belongs to the program. `EFAULT` if there is none.
    fn address(&mut self, at: u64, writes: bool) -> Result<u64, Errno>;
}

/// The descriptors of the program's buffers.
pub trait Buffers {
    /// Guest physical addresses, side by side and unused, for a buffer of so many pages: the first.
    fn room(&mut self, pages: u32) -> Result<u64, Errno>;

    /// What [`Buffers::room`] gave is unused again.
    fn free(&mut self, at: u64, pages: u32);

    /// A new descriptor for the buffer that was mapped there.
    fn install(&mut self, at: u64, pages: u32) -> Result<u32, Errno>;

    /// The size in bytes of the buffer of a descriptor: `EBADF` if there is no such descriptor, `EINVAL` if
    /// it stands for no buffer.
    fn size(&mut self, fd: u32) -> Result<u64, Errno>;

    /// The guest physical address of a page of that buffer, by its number.
    fn page(&mut self, fd: u32, number: u32) -> Result<u64, Errno>;
}
