//! A buffer as a driver has it: what dma-buf's core counts and checks before anybody is asked.
//!
//! Its size never changes. References are counted, and the last one that goes gives the parcel back, once.
//! Maps are checked against the size, for overflow, and against what the descriptor and the access list
//! allow; the driver makes them, since only it has the program's page tables. Whatever is checked here is
//! enforced by stage 2 all the same.

use rm_abi::{Handle, Rights, Sanitize, SglEntry};

use crate::front::Errno;
use crate::parcel::PAGE_SIZE;
use crate::session::Session;
use crate::transport::Transport;

/// From where a program seeks: the beginning. Source: POSIX, `unistd.h`; the numbers are Linux's.
pub const SEEK_SET: u32 = 0;
/// From where a program seeks: the end.
pub const SEEK_END: u32 = 2;

/// How a buffer came to this VM, and so goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Origin {
    /// Accepted from another VM.
    Imported,
    /// Made here.
    Exported,
}

/// One buffer, which all descriptors for it have in common.
#[derive(Debug)]
pub struct Buffer {
    parcel: Handle,
    place: SglEntry,
    rights: Rights,
    origin: Origin,
    references: u32,
    views: u32,
}

impl Buffer {
    /// A parcel that this VM has accepted at `place`, with what the access list grants it. It has one
    /// reference.
    pub const fn imported(parcel: Handle, place: SglEntry, rights: Rights) -> Self {
        Self { parcel, place, rights, origin: Origin::Imported, references: 1, views: 0 }
    }

    /// A parcel of this VM's own pages at `place`, with what it keeps of them. It has one reference.
    pub const fn exported(parcel: Handle, place: SglEntry, rights: Rights) -> Self {
        Self { parcel, place, rights, origin: Origin::Exported, references: 1, views: 0 }
    }

    /// The parcel that it is in.
    pub const fn parcel(&self) -> Handle {
        self.parcel
    }

    /// Its bytes, as many as ever.
    pub const fn size(&self) -> u64 {
        self.place.size
    }

    /// `lseek`, which programs ask for the size: to the end or to the beginning, and `EINVAL` anywhere else,
    /// as in Linux's `dma_buf_llseek`.
    pub const fn seek(&self, offset: i64, whence: u32) -> Result<u64, Errno> {
        match (whence, offset) {
            (SEEK_END, 0) => Ok(self.size()),
            (SEEK_SET, 0) => Ok(0),
            _ => Err(Errno::EINVAL),
        }
    }

    /// What `mmap` of `length` bytes from byte `offset` on is to map, to write too if `writable`.
    /// `descriptor` is what the program may do by the way in which its descriptor was opened.
    ///
    /// `EOVERFLOW` if offset and length do not add up, `EINVAL` beyond the size, for no bytes and for an
    /// offset inside a page, `EACCES` if the descriptor is not for this, `EPERM` if the parcel is not.
    pub fn map(
        &self,
        offset: u64,
        length: u64,
        writable: bool,
        descriptor: Rights,
    ) -> Result<SglEntry, Errno> {
        let end = offset.checked_add(length).ok_or(Errno::EOVERFLOW)?;
        if length == 0 || !offset.is_multiple_of(PAGE_SIZE) || end > self.size() {
            return Err(Errno::EINVAL);
        }
        let wanted = if writable { Rights::RW } else { Rights::R };
        if !descriptor.contains(wanted) {
            return Err(Errno::EACCES);
        }
        if !self.rights.contains(wanted) {
            return Err(Errno::EPERM);
        }
        Ok(SglEntry { ipa: self.place.ipa + offset, size: length })
    }

    /// The address of one page, as the older `kmap` gives it; `EINVAL` if there is no such page.
    pub fn page(&self, index: u64) -> Result<u64, Errno> {
        let offset = index.checked_mul(PAGE_SIZE).filter(|&offset| offset < self.size());
        Ok(self.place.ipa + offset.ok_or(Errno::EINVAL)?)
    }

    /// The driver's own mapping of all of it: the same address for everybody, counted. `EPERM` unless it may
    /// be read and written.
    pub fn vmap(&mut self) -> Result<u64, Errno> {
        if !self.rights.contains(Rights::RW) {
            return Err(Errno::EPERM);
        }
        self.views = self.views.checked_add(1).ok_or(Errno::EOVERFLOW)?;
        Ok(self.place.ipa)
    }

    /// Ends one [`Buffer::vmap`]. `EINVAL` for another address, and if there is none to end.
    pub fn vunmap(&mut self, address: u64) -> Result<(), Errno> {
        let views = self.views.checked_sub(1).filter(|_| address == self.place.ipa);
        self.views = views.ok_or(Errno::EINVAL)?;
        Ok(())
    }

    /// One reference more. `EBADF` if the last one has gone.
    pub fn get(&mut self) -> Result<(), Errno> {
        if self.references == 0 {
            return Err(Errno::EBADF);
        }
        self.references = self.references.checked_add(1).ok_or(Errno::EOVERFLOW)?;
        Ok(())
    }

    /// One reference less; tells how many are left. With the last one the parcel is released, or reclaimed
    /// if it is this VM's own. If that is refused, the reference stays, and so does all else: `EBUSY` while
    /// the buffer is mapped by [`Buffer::vmap`], or another VM or a device has it. `EBADF` if none is left.
    pub fn put<T: Transport, const N: usize>(
        &mut self,
        session: &mut Session<T, N>,
    ) -> Result<u32, Errno> {
        let left = self.references.checked_sub(1).ok_or(Errno::EBADF)?;
        if left == 0 {
            if self.views > 0 {
                return Err(Errno::EBUSY);
            }
            match self.origin {
                Origin::Imported => session.release(self.parcel, Sanitize::empty())?,
                Origin::Exported => session.reclaim(self.parcel, Sanitize::empty())?,
            }
        }
        self.references = left;
        Ok(left)
    }
}
