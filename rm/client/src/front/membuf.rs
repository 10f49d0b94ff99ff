//! mem-buf: buffers of one VM in another, `/dev/membuf`.
//!
//! Source: Qualcomm's `include/uapi/linux/mem-buf.h`, the header of 12 June 2020 (kernel 5.4) and, marked
//! *later*, the one of kernels 5.10 to 6.x. The later one uses numbers of the first for other calls, and
//! one number of its own twice; the sizes differ, so the whole number tells which is meant.
//!
//! [`MemBuf`] serves the calls that the manager has: export, import, lend, share, retrieve, reclaim and
//! the question who else has a buffer. An [`AllocArg`] asks another VM for memory of its heaps, which is
//! a conversation between VMs ([`supplier`](crate::supplier)): [`Allocator`] has it, and closes what came
//! of it in the right order.

mod alloc;
mod calls;

use rm_abi::Rights;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Errno, layout, numbers};

pub use alloc::{AllocCall, AllocEvent, AllocStep, Allocator, Local};
pub use calls::{Buffer, Imported, MemBuf};

/// Most entries of an access list: `MEM_BUF_MAX_NR_ACL_ENTS`.
pub const MAX_ACL: usize = 16;
/// [`AllocArg::src_mem_type`] and [`AllocArg::dst_mem_type`]: a heap of ION, by its number.
pub const ION_MEM_TYPE: u32 = 0;
/// The first memory type that there is not: `MEM_BUF_MAX_MEM_TYPE`.
pub const MAX_MEM_TYPE: u32 = 1;
/// [`AclEntry::vmid`]: the primary VM.
pub const VMID_PRIMARY: u32 = 0;
/// [`AclEntry::vmid`]: the trusted VM.
pub const VMID_TRUSTED: u32 = 1;
/// [`AclEntry::perms`]: read. The manager's [`Rights`] have the bits in another order.
pub const PERM_READ: u32 = 1;
/// [`AclEntry::perms`]: write.
pub const PERM_WRITE: u32 = 2;
/// [`AclEntry::perms`]: execute.
pub const PERM_EXEC: u32 = 4;
/// All bits of [`AclEntry::perms`].
pub const PERM_VALID: u32 = PERM_READ | PERM_WRITE | PERM_EXEC;
/// Bytes of a heap's name with the zero at its end (later): `MEM_BUF_MAX_DMAHEAP_NAME_LEN`.
pub const HEAP_NAME_LEN: usize = 128;

/// Who may have a buffer, and for what. 8 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AclEntry {
    /// Which VM: [`VMID_PRIMARY`] or [`VMID_TRUSTED`]; later a descriptor that stands for a VM.
    pub vmid: u32,
    /// [`PERM_READ`], [`PERM_WRITE`], [`PERM_EXEC`].
    pub perms: u32,
}

/// A heap of ION. 4 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct IonData {
    /// Its number.
    pub heap_id: u32,
}

/// Later: a dma-buf heap. 8 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DmaHeapData {
    /// Address of its name.
    pub heap_name: u64,
}

/// Asks another VM for memory. 72 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AllocArg {
    /// How many bytes.
    pub size: u64,
    /// Address of the [`AclEntry`]s.
    pub acl_list: u64,
    /// How many.
    pub nr_acl_entries: u32,
    /// What `src_data` points at.
    pub src_mem_type: u32,
    /// Address of the [`IonData`] of the heap over there.
    pub src_data: u64,
    /// What `dst_data` points at.
    pub dst_mem_type: u32,
    /// Out: stands for the memory.
    pub mem_buf_fd: i32,
    /// Address of the [`IonData`] of the heap here that gets the memory.
    pub dst_data: u64,
    /// Zero.
    pub reserved: [u64; 3],
}

/// Lends or shares a dma-buf. 48 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ExportArg {
    /// Which.
    pub dma_buf_fd: u32,
    /// How many entries.
    pub nr_acl_entries: u32,
    /// Address of the [`AclEntry`]s.
    pub acl_list: u64,
    /// Out: stands for the loan; to close it takes the buffer back.
    pub export_fd: u32,
    /// Out: what the others call it by.
    pub memparcel_hdl: u32,
    /// Zero.
    pub reserved: [u64; 3],
}

/// Makes a dma-buf of what another VM has lent or shared. 48 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ImportArg {
    /// Which.
    pub memparcel_hdl: u32,
    /// How many entries.
    pub nr_acl_entries: u32,
    /// Address of the [`AclEntry`]s, which must be those of the export.
    pub acl_list: u64,
    /// Out: the dma-buf.
    pub dma_buf_import_fd: u32,
    /// Zero.
    pub reserved0: u32,
    /// Zero.
    pub reserved: [u64; 3],
}

/// Later: lends a dma-buf, or shares it. 48 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LendArg {
    /// Which.
    pub dma_buf_fd: u32,
    /// How many entries.
    pub nr_acl_entries: u32,
    /// Address of the [`AclEntry`]s.
    pub acl_list: u64,
    /// Out: what the others call it by.
    pub memparcel_hdl: u64,
    /// Zero.
    pub reserved: [u64; 3],
}

/// Later: makes a dma-buf of what another VM has lent or shared. 56 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RetrieveArg {
    /// Stands for the other VM.
    pub sender_vm_fd: u32,
    /// How many entries.
    pub nr_acl_entries: u32,
    /// Address of the [`AclEntry`]s, which must be those of the loan.
    pub acl_list: u64,
    /// What the other VM calls it by.
    pub memparcel_hdl: u64,
    /// Out: the dma-buf.
    pub dma_buf_import_fd: u32,
    /// As for [`dmaheap`](super::dmaheap::FD_FLAGS).
    pub fd_flags: u32,
    /// Zero.
    pub reserved: [u64; 3],
}

/// Later: takes a dma-buf back. 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ReclaimArg {
    /// What [`LendArg`] said.
    pub memparcel_hdl: u64,
    /// Which.
    pub dma_buf_fd: u32,
    /// Zero.
    pub reserved0: u32,
    /// Zero.
    pub reserved: [u64; 2],
}

/// Later: asks whether anybody else has a dma-buf. 8 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ExclusiveOwnerArg {
    /// Which.
    pub dma_buf_fd: u32,
    /// Out: 1 if nobody has, else 0.
    pub is_exclusive_owner: u32,
}

layout!(AclEntry, 8 / 4: vmid 0, perms 4);
layout!(IonData, 4 / 4: heap_id 0);
layout!(DmaHeapData, 8 / 8: heap_name 0);
layout!(AllocArg, 72 / 8: size 0, acl_list 8, nr_acl_entries 16, src_mem_type 20, src_data 24,
    dst_mem_type 32, mem_buf_fd 36, dst_data 40, reserved 48);
layout!(ExportArg, 48 / 8: dma_buf_fd 0, nr_acl_entries 4, acl_list 8, export_fd 16, memparcel_hdl 20,
    reserved 24);
layout!(ImportArg, 48 / 8: memparcel_hdl 0, nr_acl_entries 4, acl_list 8, dma_buf_import_fd 16,
    reserved0 20, reserved 24);
layout!(LendArg, 48 / 8: dma_buf_fd 0, nr_acl_entries 4, acl_list 8, memparcel_hdl 16, reserved 24);
layout!(RetrieveArg, 56 / 8: sender_vm_fd 0, nr_acl_entries 4, acl_list 8, memparcel_hdl 16,
    dma_buf_import_fd 24, fd_flags 28, reserved 32);
layout!(ReclaimArg, 32 / 8: memparcel_hdl 0, dma_buf_fd 8, reserved0 12, reserved 16);
layout!(ExclusiveOwnerArg, 8 / 4: dma_buf_fd 0, is_exclusive_owner 4);

numbers! {
    /// Takes an [`AllocArg`].
    ALLOC = 0xc048_4d00: Both b'M' 0 size_of::<AllocArg>();
    /// Takes an [`ExportArg`].
    EXPORT = 0xc030_4d01: Both b'M' 1 size_of::<ExportArg>();
    /// Takes an [`ImportArg`].
    IMPORT = 0xc030_4d02: Both b'M' 2 size_of::<ImportArg>();
    /// Later: takes an [`ExclusiveOwnerArg`]. Only the size differs from [`IMPORT`].
    EXCLUSIVE_OWNER = 0xc008_4d02: Both b'M' 2 size_of::<ExclusiveOwnerArg>();
    /// Later: takes a [`LendArg`].
    LEND = 0xc030_4d03: Both b'M' 3 size_of::<LendArg>();
    /// Later: takes a [`ReclaimArg`]. Only the size differs from [`LEND`].
    RECLAIM = 0xc020_4d03: Both b'M' 3 size_of::<ReclaimArg>();
    /// Later: takes a [`RetrieveArg`].
    RETRIEVE = 0xc038_4d04: Both b'M' 4 size_of::<RetrieveArg>();
    /// Later: takes a [`LendArg`].
    SHARE = 0xc030_4d06: Both b'M' 6 size_of::<LendArg>();
}

impl AllocArg {
    /// Refuses a size of zero, memory types that there are not, an access list without entries, with
    /// too many or nowhere, and reserved fields that are not zero.
    pub const fn check(&self) -> Result<(), Errno> {
        let [a, b, c] = self.reserved;
        let is_valid = self.size != 0
            && self.src_mem_type < MAX_MEM_TYPE
            && self.dst_mem_type < MAX_MEM_TYPE
            && self.acl_list != 0
            && self.nr_acl_entries != 0
            && self.nr_acl_entries as usize <= MAX_ACL
            && a | b | c == 0;
        if is_valid { Ok(()) } else { Err(Errno::EINVAL) }
    }
}

/// The manager's rights for mem-buf's: the one place where the order of the bits changes. `EINVAL` for
/// bits that there are not. Which combinations can be granted is the manager's to say.
pub const fn rights(perms: u32) -> Result<Rights, Errno> {
    if perms & !PERM_VALID != 0 {
        return Err(Errno::EINVAL);
    }
    let mut rights = Rights::empty();
    if perms & PERM_READ != 0 {
        rights = rights.union(Rights::R);
    }
    if perms & PERM_WRITE != 0 {
        rights = rights.union(Rights::W);
    }
    if perms & PERM_EXEC != 0 {
        rights = rights.union(Rights::X);
    }
    Ok(rights)
}
