//! The numbers that boot configuration and programs agree on.
//!
//! A VM's memory starts at [`RAM`]: first the pages of its links, at [`ENTRY`] the program, and from
//! [`PAGES`] on the pages that programs make parcels of. Borrowers map what they accept from
//! [`WINDOW`] on, far above anybody's memory.

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// Bytes of a level-2 block.
pub const BLOCK: u64 = 0x20_0000;

/// Where a VM's memory starts.
pub const RAM: u64 = 0x4000_0000;
/// Where its program is loaded and entered.
pub const ENTRY: u64 = RAM + 0x8_0000;
/// The first page to make parcels of: the second block of the VM's memory.
pub const PAGES: u64 = RAM + BLOCK;
/// Where borrowers map parcels.
pub const WINDOW: u64 = 0x8000_0000;

/// Bytes of memory of a VM.
pub const MEMORY: u64 = 4 * BLOCK;
/// Bytes of memory of the VMs of the benchmark.
pub const BENCH_MEMORY: u64 = 8 * BLOCK;
/// Bytes of memory of the VM that asks for as much as the machine has room for.
pub const RESIDENCY_MEMORY: u64 = 256 * BLOCK;
/// Most pages of a parcel of that VM, each an extent: 480 MiB.
pub const RESIDENCY_EXTENTS: u64 = 240 * BLOCK / PAGE;
/// Most parcels that it has at once.
pub const RESIDENCY_PARCELS: u64 = 4096;
/// Bytes of memory of the VM that plays the captured system's primary: what its exchanges are about
/// ends below.
pub const REPLAY_MEMORY: u64 = 0x2400_0000;
/// Where the manager maps first in a VM with [`MEMORY`] bytes.
pub const REPLAY_MAILBOX: u64 = RAM + MEMORY;

/// Pages that the first VM fills with its canary: one of these for each parcel, of which every second
/// page is in the parcel.
pub const FIELD: u64 = 8;
/// Parcels of that VM, and what is left of them in the end.
pub const FIELDS: [Left; 10] = [
    Left::Borrowers,
    Left::Owners,
    Left::Zeros,
    Left::Zeros,
    Left::Zeros,
    Left::Zeros,
    Left::Zeros,
    Left::Borrowers,
    Left::Zeros,
    Left::Zeros,
];
/// A page that says which machine memory is a VM's: the first behind all fields.
pub const BEACON: u64 = PAGES + FIELDS.len() as u64 * FIELD * PAGE;

/// What the pages of a parcel hold when all is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// What their borrower wrote.
    Borrowers,
    /// What their owner wrote.
    Owners,
    /// Nothing.
    Zeros,
}

/// A VM's canary, from what it says of itself in its log.
pub const fn canary(seed: u64) -> u64 {
    (seed ^ 0x5eed_0f0a_11ca_9a21).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
}

/// What the page at [`BEACON`] is full of.
pub const fn beacon(seed: u64) -> u64 {
    !canary(seed)
}

/// The VM's own console.
pub const CONSOLE: u64 = 0x0900_0000;
/// The virtual GIC's distributor.
pub const DISTRIBUTOR: u64 = 0x0800_0000;
/// Where the scenario of a passed-through clock puts it, and its interrupt.
pub const CLOCK: u64 = 0x0b00_0000;
/// The clock's interrupt.
pub const CLOCK_INTERRUPT: u32 = 50;
/// A GICv2's CPU interface.
pub const CPU_INTERFACE: u64 = 0x0801_0000;
/// The redistributor of the first vCPU; that of the second follows at [`REDISTRIBUTOR_STRIDE`].
pub const REDISTRIBUTOR: u64 = 0x080a_0000;
/// Distance from one redistributor to the next.
pub const REDISTRIBUTOR_STRIDE: u64 = 0x2_0000;

/// VMID of the first VM of a scenario.
pub const VMID_A: u16 = 0x10;
/// VMID of the second VM of a scenario.
pub const VMID_B: u16 = 0x11;
/// VMID of the third VM of a scenario.
pub const VMID_C: u16 = 0x12;
/// VMID of the fourth VM of a scenario.
pub const VMID_D: u16 = 0x13;

/// A page that two VMs share from boot on, to tell each other handles and when to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Where its owner has it, in its own memory.
    pub owner: u64,
    /// Where the peer has it.
    pub peer: u64,
}

/// Links are one page long.
pub const LINK_PAGES: u64 = 1;
/// The link between the first VM, its owner, and the second.
pub const LINK_AB: Link = Link { owner: RAM + 0x1_0000, peer: 0x7000_0000 };
/// The link between the first VM, its owner, and the third.
pub const LINK_AC: Link = Link { owner: RAM + 0x1_1000, peer: 0x7000_1000 };
/// The link between the first VM, its owner, and the fourth.
pub const LINK_AD: Link = Link { owner: RAM + 0x1_2000, peer: 0x7000_2000 };

// The links lie between the start of memory and the program, the program below the parcels' pages, and
// what a peer maps lies behind everybody's memory.
const _: () = assert!(RAM <= LINK_AB.owner && LINK_AD.owner + LINK_PAGES * PAGE <= ENTRY);
const _: () = assert!(ENTRY < PAGES && PAGES < RAM + MEMORY);
const _: () = assert!(RAM + BENCH_MEMORY <= LINK_AB.peer && LINK_AD.peer < WINDOW);
const _: () =
    assert!((RESIDENCY_EXTENTS + RESIDENCY_PARCELS) * PAGE + 2 * BLOCK <= RESIDENCY_MEMORY);
