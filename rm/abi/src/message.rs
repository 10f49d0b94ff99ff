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
/// Starts a VM that is reset or ready.
pub const VM_START: u32 = 0x5600_0004;
/// Stops a VM, or asks it to stop.
pub const VM_STOP: u32 = 0x5600_0005;
/// Takes all that a VM that has ended still had a part in, so that it can start again.
pub const VM_RESET: u32 = 0x5600_0006;
/// What a VM is called.
pub const VM_GET_ID: u32 = 0x5600_0010;
/// Who manages the caller.
pub const VM_GET_OWNER: u32 = 0x5600_0015;
/// The state of a VM.
pub const VM_GET_STATE: u32 = 0x5600_0017;
/// The VMs that the caller has to do with.
pub const VM_GET_PEERS: u32 = 0x5600_0025;
/// The caller's own VMID.
pub const VM_GET_VMID: u32 = 0x5600_0024;
/// The caller ends.
pub const VM_EXIT: u32 = 0x5600_0085;

/// A VM has ended; to its owner.
pub const VM_EXITED: u32 = 0x5610_0001;
/// The receiver is asked to end.
pub const VM_SHUTDOWN: u32 = 0x5610_0002;
/// The state of a VM has changed; to its peers.
pub const VM_STATUS: u32 = 0x5610_0008;
