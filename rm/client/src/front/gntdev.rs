//! Xen's grants as programs use them: `/dev/xen/gntdev` and `/dev/xen/gntalloc`.
//!
//! Source: Linux, `include/uapi/xen/gntdev.h` and `gntalloc.h`; flags of a copy: Xen,
//! `xen/include/public/grant_table.h`.
//!
//! All numbers have direction "none", so a driver must not take from the direction what to copy. A
//! struct with an array at its end is here without the array, since the number has the size of one
//! entry in it, whatever the count says; see [`read_array`](super::sized::read_array).
//!
//! [`GntDev`] serves them. A domain is a VM, by its VMID, and a grant is a parcel of one page, by its handle;
//! the manager knows the rest: who granted what to whom, what is mapped, and what is to be done when a
//! mapping ends, however it ends. So nothing of a program's or of a peer's is believed that matters to
//! others.
//!
//! | call | errors | note |
//! |---|---|---|
//! | MAP_GRANT_REF | `EINVAL`: no grants, or more than 65,536; `ENOSPC`: more than SET_MAX_GRANTS; `ENOMEM` | reserves only; grants are looked at by `mmap` |
//! | `mmap` | `EINVAL`: not exactly a reservation, mapped already, not such a grant; `EPERM`: to be read only | all or nothing |
//! | UNMAP_GRANT_REF | `ENOENT`; `EBUSY`: mapped | a count of 0 fits any |
//! | GET_OFFSET_FOR_VADDR | `EINVAL`: not where a mapping begins | |
//! | SET_MAX_GRANTS | `EBUSY`: not the first call; `E2BIG`: more than the VM may have | |
//! | SET_UNMAP_NOTIFY | `EINVAL`: actions, port, a byte in a mapping that is only read; `ENOENT`: not in a reservation | one for each page |
//! | GRANT_COPY | `EINVAL`: no grant on either side, or beyond its page; `EFAULT` | else a status for each segment |
//! | EXP_FROM_REFS | `EINVAL`: flags, count, a grant, its cache policy | maps at once |
//! | EXP_WAIT_RELEASED | `ENOENT`: no such buffer, or no more; `ETIMEDOUT` | the driver waits |
//! | IMP_TO_REFS | `EINVAL`: reserved, count, domain; `EBADF`; `ENOSPC` | |
//! | IMP_RELEASE | `EINVAL`: reserved; `ENOENT` | pages that are still mapped come home later |
//!
//! Where header and shipped code contradict each other the header is followed: UNMAP_GRANT_REF of what is
//! mapped is an error (shipped: unmapped later); GET_OFFSET_FOR_VADDR wants the start (not looked at); there
//! is one notification for each page (one for each mapping); SET_MAX_GRANTS exists, and comes first (dropped).
//! A byte is cleared and its bell rung once no CPU can use the mapping any more, while Linux clears it
//! before the page is unmapped: a peer that sees the zero may use the page.

mod buffers;
mod copies;
mod device;
mod program;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Errno, layout, numbers};

pub use buffers::ReleaseWait;
pub use device::{Done, GntDev, PORTS_PER_CHANNEL, Place};
pub use program::{Buffers, Program};

/// Most pages of one mapping: the limit of Linux's gntdev.
pub const MAX_PAGES: u32 = 64 * 1024;

/// A grant: one page of one domain. 8 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GrantRef {
    /// Who granted it. Each grant of a mapping may be another domain's.
    pub domid: u32,
    /// Its number there.
    pub grant: u32,
}

/// Reserves room for a mapping of grants; `mmap` maps them. The array of [`GrantRef`] follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MapGrantRef {
    /// How many.
    pub count: u32,
    /// Nothing.
    pub pad: u32,
    /// Out: the offset to give to `mmap`.
    pub index: u64,
}

/// Ends a reservation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct UnmapGrantRef {
    /// What [`MapGrantRef`] said.
    pub index: u64,
    /// How many it had.
    pub count: u32,
    /// Nothing.
    pub pad: u32,
}

/// Asks what is mapped at an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GetOffsetForVaddr {
    /// Where a mapping begins.
    pub vaddr: u64,
    /// Out: its index.
    pub offset: u64,
    /// Out: how many grants it has.
    pub count: u32,
    /// Nothing.
    pub pad: u32,
}

/// Limits how many grants a descriptor can map.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SetMaxGrants {
    /// The limit.
    pub count: u32,
}

/// Says what to do when a page is unmapped; also for gntalloc, by the same number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct UnmapNotify {
    /// The index of the mapping, plus the offset of the byte to clear.
    pub index: u64,
    /// [`NOTIFY_CLEAR_BYTE`] and [`NOTIFY_SEND_EVENT`]; 0 calls it off.
    pub action: u32,
    /// What to ring.
    pub event_channel_port: u32,
}

/// [`UnmapNotify::action`]: the byte becomes 0 before its page is unmapped.
pub const NOTIFY_CLEAR_BYTE: u32 = 1;
/// [`UnmapNotify::action`]: the port is rung.
pub const NOTIFY_SEND_EVENT: u32 = 2;

impl UnmapNotify {
    /// Refuses actions that there are not.
    pub const fn check(&self) -> Result<(), Errno> {
        match self.action & !(NOTIFY_CLEAR_BYTE | NOTIFY_SEND_EVENT) {
            0 => Ok(()),
            _ => Err(Errno::EINVAL),
        }
    }
}

/// One side of a copy: a union of an address and a grant, which of them the segment's flags say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct CopySide(pub u64);

/// A place in a grant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GrantPlace {
    /// The grant's number, at 0.
    pub grant: u32,
    /// The offset in its page, at 4.
    pub offset: u16,
    /// Whose it is, at 6.
    pub domid: u16,
}

impl CopySide {
    /// This side as a place in a grant, of a little-endian program.
    pub const fn grant(self) -> GrantPlace {
        GrantPlace {
            grant: self.0 as u32,
            offset: (self.0 >> 32) as u16,
            domid: (self.0 >> 48) as u16,
        }
    }

    /// A place in a grant as a side.
    pub const fn of_grant(place: GrantPlace) -> Self {
        Self(place.grant as u64 | (place.offset as u64) << 32 | (place.domid as u64) << 48)
    }

    /// This side as an address of the program.
    pub const fn address(self) -> u64 {
        self.0
    }
}

/// One copy of many. 24 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CopySegment {
    /// From where.
    pub source: CopySide,
    /// To where.
    pub dest: CopySide,
    /// Bytes.
    pub len: u16,
    /// [`COPY_SOURCE_GRANT`] and [`COPY_DEST_GRANT`].
    pub flags: u16,
    /// Out: 0, or a negative `GNTST_` number.
    pub status: i16,
    /// The hole behind it.
    pub pad: u16,
}

/// [`CopySegment::flags`]: the source is a grant.
pub const COPY_SOURCE_GRANT: u16 = 1;
/// [`CopySegment::flags`]: the destination is a grant.
pub const COPY_DEST_GRANT: u16 = 2;

/// [`CopySegment::status`]: done.
pub const GNTST_OKAY: i16 = 0;
/// [`CopySegment::status`]: for another reason.
pub const GNTST_GENERAL_ERROR: i16 = -1;
/// [`CopySegment::status`]: the grant is another domain's.
pub const GNTST_BAD_DOMAIN: i16 = -2;
/// [`CopySegment::status`]: no such grant.
pub const GNTST_BAD_GNTREF: i16 = -3;
/// [`CopySegment::status`]: the grant does not allow it.
pub const GNTST_PERMISSION_DENIED: i16 = -8;
/// [`CopySegment::status`]: a page that is not there.
pub const GNTST_BAD_PAGE: i16 = -9;
/// [`CopySegment::status`]: beyond what is granted of the page.
pub const GNTST_BAD_COPY_ARG: i16 = -10;
/// [`CopySegment::status`]: the grant is changing; try again.
pub const GNTST_EAGAIN: i16 = -12;

/// Copies without mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GrantCopy {
    /// How many segments.
    pub count: u32,
    /// The hole before the pointer.
    pub pad: u32,
    /// Address of the [`CopySegment`]s.
    pub segments: u64,
}

/// The same of a 32-bit program, where the pointer has four bytes and needs no hole.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GrantCopy32 {
    /// How many segments.
    pub count: u32,
    /// Address of the [`CopySegment`]s.
    pub segments: u32,
}

/// Makes a dma-buf of grants of one domain. The array of their numbers, `u32`, follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ExportFromRefs {
    /// [`DMA_WC`] or [`DMA_COHERENT`], or nothing.
    pub flags: u32,
    /// How many.
    pub count: u32,
    /// Out: the dma-buf.
    pub fd: u32,
    /// Who granted them.
    pub domid: u32,
}

/// [`ExportFromRefs::flags`]: memory that combines writes.
pub const DMA_WC: u32 = 1;
/// [`ExportFromRefs::flags`]: memory that devices see as CPUs do.
pub const DMA_COHERENT: u32 = 2;

impl ExportFromRefs {
    /// Refuses flags that there are not, and those that exclude each other.
    pub const fn check(&self) -> Result<(), Errno> {
        match self.flags {
            0 | DMA_WC | DMA_COHERENT => Ok(()),
            _ => Err(Errno::EINVAL),
        }
    }
}

/// Waits until nobody uses an exported dma-buf any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ExportWaitReleased {
    /// The dma-buf.
    pub fd: u32,
    /// For how many milliseconds.
    pub wait_to_ms: u32,
}

/// Grants the pages of a dma-buf to a domain. The array of their numbers, `u32` and out, follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ImportToRefs {
    /// The dma-buf.
    pub fd: u32,
    /// Its pages.
    pub count: u32,
    /// Who gets them.
    pub domid: u32,
    /// Must be zero.
    pub reserved: u32,
}

/// Takes the grants of a dma-buf back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ImportRelease {
    /// The dma-buf.
    pub fd: u32,
    /// Must be zero.
    pub reserved: u32,
}

impl ImportToRefs {
    /// Refuses a reserved field that is not zero.
    pub const fn check(&self) -> Result<(), Errno> {
        if self.reserved == 0 { Ok(()) } else { Err(Errno::EINVAL) }
    }
}

impl ImportRelease {
    /// Refuses a reserved field that is not zero.
    pub const fn check(&self) -> Result<(), Errno> {
        if self.reserved == 0 { Ok(()) } else { Err(Errno::EINVAL) }
    }
}

layout!(GrantRef, 8 / 4: domid 0, grant 4);
layout!(MapGrantRef, 16 / 8: count 0, pad 4, index 8);
layout!(UnmapGrantRef, 16 / 8: index 0, count 8, pad 12);
layout!(GetOffsetForVaddr, 24 / 8: vaddr 0, offset 8, count 16, pad 20);
layout!(SetMaxGrants, 4 / 4: count 0);
layout!(UnmapNotify, 16 / 8: index 0, action 8, event_channel_port 12);
layout!(CopySegment, 24 / 8: source 0, dest 8, len 16, flags 18, status 20, pad 22);
layout!(GrantCopy, 16 / 8: count 0, pad 4, segments 8);
layout!(GrantCopy32, 8 / 4: count 0, segments 4);
layout!(ExportFromRefs, 16 / 4: flags 0, count 4, fd 8, domid 12);
layout!(ExportWaitReleased, 8 / 4: fd 0, wait_to_ms 4);
layout!(ImportToRefs, 16 / 4: fd 0, count 4, domid 8, reserved 12);
layout!(ImportRelease, 8 / 4: fd 0, reserved 4);

numbers! {
    /// Takes a [`MapGrantRef`].
    MAP_GRANT_REF = 0x0018_4700: None b'G' 0 size_of::<MapGrantRef>() + size_of::<GrantRef>();
    /// Takes an [`UnmapGrantRef`].
    UNMAP_GRANT_REF = 0x0010_4701: None b'G' 1 size_of::<UnmapGrantRef>();
    /// Takes a [`GetOffsetForVaddr`].
    GET_OFFSET_FOR_VADDR = 0x0018_4702: None b'G' 2 size_of::<GetOffsetForVaddr>();
    /// Takes a [`SetMaxGrants`]. Linux has dropped it.
    SET_MAX_GRANTS = 0x0004_4703: None b'G' 3 size_of::<SetMaxGrants>();
    /// Takes an [`UnmapNotify`].
    SET_UNMAP_NOTIFY = 0x0010_4707: None b'G' 7 size_of::<UnmapNotify>();
    /// Takes a [`GrantCopy`].
    GRANT_COPY = 0x0010_4708: None b'G' 8 size_of::<GrantCopy>();
    /// Takes a [`GrantCopy32`].
    GRANT_COPY_32 = 0x0008_4708: None b'G' 8 size_of::<GrantCopy32>();
    /// Takes an [`ExportFromRefs`].
    EXP_FROM_REFS = 0x0014_4709: None b'G' 9 size_of::<ExportFromRefs>() + size_of::<u32>();
    /// Takes an [`ExportWaitReleased`].
    EXP_WAIT_RELEASED = 0x0008_470a: None b'G' 10 size_of::<ExportWaitReleased>();
    /// Takes an [`ImportToRefs`].
    IMP_TO_REFS = 0x0014_470b: None b'G' 11 size_of::<ImportToRefs>() + size_of::<u32>();
    /// Takes an [`ImportRelease`].
    IMP_RELEASE = 0x0008_470c: None b'G' 12 size_of::<ImportRelease>();
    /// gntalloc: makes grants. A domain, flags, count, index and an array: 24 bytes with one number.
    GNTALLOC_ALLOC = 0x0018_4705: None b'G' 5 24;
    /// gntalloc: takes them back by index and count, laid out as [`UnmapGrantRef`].
    GNTALLOC_DEALLOC = 0x0010_4706: None b'G' 6 size_of::<UnmapGrantRef>();
    /// gntalloc: as [`SET_UNMAP_NOTIFY`], and the same number: only the device tells them apart.
    GNTALLOC_SET_UNMAP_NOTIFY = 0x0010_4707: None b'G' 7 size_of::<UnmapNotify>();
}
