//! Message ids: which call, which notification.

/// Gives pages to another VM for good.
pub const MEM_DONATE: u32 = 0x5100_0010;
/// Maps a parcel that the caller is in the access list of.
pub const MEM_ACCEPT: u32 = 0x5100_0011;
/// Gives pages away until they are reclaimed.
pub const MEM_LEND: u32 = 0x5100_0012;
/// Lets others use pages that the caller keeps using.
pub const MEM_SHARE: u32 = 0x5100_0013;
/// Unmaps an accepted parcel.
pub const MEM_RELEASE: u32 = 0x5100_0014;
/// Takes the pages of a parcel back.
pub const MEM_RECLAIM: u32 = 0x5100_0015;
/// Tells the other side about a parcel.
pub const MEM_NOTIFY: u32 = 0x5100_0017;
/// Adds pages to a parcel that was created with more to come.
pub const MEM_APPEND: u32 = 0x5100_0018;
/// Finds a parcel by its description.
pub const MEM_LOOKUP: u32 = 0x5100_001a;

/// A parcel was offered to the receiver.
pub const MEM_SHARED: u32 = 0x5110_0011;
/// A borrower released a parcel.
pub const MEM_RELEASED: u32 = 0x5110_0012;
/// A borrower accepted a parcel.
pub const MEM_ACCEPTED: u32 = 0x5110_0013;
/// The owner of a parcel wants it back.
pub const MEM_RECALL: u32 = 0x5110_0014;

/// Makes a VM. The primary VM's call.
pub const VM_ALLOCATE: u32 = 0x5600_0001;
/// The caller's own VMID.
pub const VM_GET_VMID: u32 = 0x5600_0024;
/// The caller ends.
pub const VM_EXIT: u32 = 0x5600_0085;
