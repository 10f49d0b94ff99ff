//! dma-buf: calls on a buffer's descriptor.
//!
//! Source: Linux, `include/uapi/linux/dma-buf.h`; INFO: the patch "dma-buf: Add ioctl to query mmap info"
//! (29 July 2022), which was not merged. Its number 2 was later given to EXPORT_SYNC_FILE, whose struct
//! has another size, so the whole number tells which is meant.

mod buffer;

pub use buffer::{Buffer, SEEK_END, SEEK_SET};

use core::str;

use rm_abi::Handle;
use rm_abi::extension::{AccessFlags, Holder, Name, Policies};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Errno, layout, numbers};
use crate::parcel::PAGE_SIZE;
use crate::session::Session;
use crate::transport::Transport;

/// Brackets a CPU's use of a mapping. 8 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Sync {
    /// [`SYNC_READ`] or [`SYNC_WRITE`] or both, with [`SYNC_START`] or [`SYNC_END`].
    pub flags: u64,
}

/// [`Sync::flags`]: the CPU reads.
pub const SYNC_READ: u64 = 1;
/// [`Sync::flags`]: the CPU writes.
pub const SYNC_WRITE: u64 = 2;
/// [`Sync::flags`]: it is about to begin.
pub const SYNC_START: u64 = 0;
/// [`Sync::flags`]: it has ended.
pub const SYNC_END: u64 = 4;

impl Sync {
    /// Refuses flags that there are not, and a use that neither reads nor writes.
    pub const fn check(&self) -> Result<(), Errno> {
        let known = SYNC_READ | SYNC_WRITE | SYNC_END;
        if self.flags & !known != 0 || self.flags & (SYNC_READ | SYNC_WRITE) == 0 {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }
}

// The manager's bits are the header's.
const _: () = assert!(AccessFlags::READ.bits() as u64 == SYNC_READ);
const _: () = assert!(AccessFlags::WRITE.bits() as u64 == SYNC_WRITE);
const _: () = assert!(AccessFlags::END.bits() as u64 == SYNC_END);

/// SYNC on a buffer that is in a parcel of which this VM is a party.
///
/// `EINVAL` for other bits, for neither reading nor writing, and for an end without a beginning, which
/// Linux does not notice; `EPERM` for what the access list does not grant; `ENOENT` if there is no such
/// parcel, or this VM has not accepted it.
pub fn sync<T: Transport, const N: usize>(
    session: &mut Session<T, N>,
    arg: Sync,
    parcel: Handle,
) -> Result<(), Errno> {
    arg.check()?;
    let flags = AccessFlags::from_bits_truncate(arg.flags as u32);
    if flags.contains(AccessFlags::END) {
        session.end_access(parcel, flags)?;
    } else {
        session.begin_access(parcel, flags)?;
    }
    Ok(())
}

/// What Linux's `bufinfo` says of a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BufferInfo {
    /// Its bytes.
    pub size: u64,
    /// Its name.
    pub name: Name,
    /// VMs that have it.
    pub holders: u32,
    /// Devices that are attached to it.
    pub attachments: u32,
}

/// All that there is to say of a buffer of this VM's; `visit` is told of every device that is attached to
/// it. `EPERM` for who is not its owner and does not inspect, `ENOENT` if there is no such parcel.
pub fn buffer_info<T: Transport, const N: usize>(
    session: &mut Session<T, N>,
    parcel: Handle,
    mut visit: impl FnMut(&Holder),
) -> Result<BufferInfo, Errno> {
    let info = session.info(parcel)?;
    let (mut holders, mut attachments) = (0, 0);
    for holder in session.holders(parcel)? {
        if holder.is_device() {
            visit(&holder);
            attachments += 1;
        } else {
            holders += 1;
        }
    }
    Ok(BufferInfo { size: info.pages * PAGE_SIZE, name: info.name, holders, attachments })
}

/// A question about a buffer. 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Info {
    /// [`INFO_VM_PROT`].
    pub param: u32,
    /// Nothing.
    pub pad: u32,
    /// Out: the answer.
    pub value: u64,
}

/// [`Info::param`]: how a VM is to map the buffer.
pub const INFO_VM_PROT: u32 = 1;
/// [`Info::value`] of [`INFO_VM_PROT`]: so that writes are combined and nothing is cached.
pub const VM_PROT_WC: u64 = 0;
/// [`Info::value`] of [`INFO_VM_PROT`]: cached.
pub const VM_PROT_CACHED: u64 = 1;

/// Hands out the fences of a buffer, or takes one. 8 bytes. Only its number matters here: it is not
/// [`INFO`]'s.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SyncFile {
    /// [`SYNC_READ`] and [`SYNC_WRITE`].
    pub flags: u32,
    /// The sync file: out for the export, in for the import.
    pub fd: i32,
}

layout!(Sync, 8 / 8: flags 0);
layout!(Info, 16 / 8: param 0, pad 4, value 8);
layout!(SyncFile, 8 / 4: flags 0, fd 4);

numbers! {
    /// Takes a [`Sync`].
    SYNC = 0x4008_6200: Write b'b' 0 size_of::<Sync>();
    /// Takes a pointer to a name; the number of a header that had the wrong size.
    SET_NAME_A = 0x4004_6201: Write b'b' 1 size_of::<u32>();
    /// Takes a pointer to a name.
    SET_NAME_B = 0x4008_6201: Write b'b' 1 size_of::<u64>();
    /// Takes an [`Info`].
    INFO = 0xc010_6202: Both b'b' 2 size_of::<Info>();
    /// Takes a [`SyncFile`].
    EXPORT_SYNC_FILE = 0xc008_6202: Both b'b' 2 size_of::<SyncFile>();
    /// Takes a [`SyncFile`].
    IMPORT_SYNC_FILE = 0x4008_6203: Write b'b' 3 size_of::<SyncFile>();
}

/// Bytes that a name may have, with the zero at its end: `DMA_BUF_NAME_LEN`.
pub const NAME_LEN: usize = 32;

/// INFO on a buffer that is in a parcel of which this VM is a party.
///
/// `EINVAL` for another question, `EOPNOTSUPP` for registers of a device, which a program cannot map
/// either way, `ENOENT` if there is no such parcel any more.
pub fn info<T: Transport, const N: usize>(
    session: &mut Session<T, N>,
    arg: Info,
    parcel: Handle,
) -> Result<Info, Errno> {
    if arg.param != INFO_VM_PROT {
        return Err(Errno::EINVAL);
    }
    let value = match session.info(parcel)?.policy {
        Policies::CACHED => VM_PROT_CACHED,
        Policies::UNCACHED => VM_PROT_WC,
        _ => return Err(Errno::EOPNOTSUPP),
    };
    Ok(Info { value, ..arg })
}

/// SET_NAME on a buffer that is in a parcel of this VM's. `name` is what the driver copied from the
/// program: up to [`NAME_LEN`] bytes, of which those before the first zero count.
///
/// `EINVAL` if there is no zero among the first [`NAME_LEN`], as Linux has it, and if the name is not
/// UTF-8, which Linux does not ask for but people read.
pub fn set_name<T: Transport, const N: usize>(
    session: &mut Session<T, N>,
    parcel: Handle,
    name: &[u8],
) -> Result<(), Errno> {
    let name = &name[..name.len().min(NAME_LEN)];
    let end = name.iter().position(|&byte| byte == 0).ok_or(Errno::EINVAL)?;
    let name = str::from_utf8(&name[..end]).map_err(|_| Errno::EINVAL)?;
    Ok(session.name_parcel(parcel, name)?)
}
