//! Policy of a memory-sharing resource manager: who owns, lends, borrows and maps which page.
//!
//! The crate is safe, needs no operating system and touches no hardware: an embedder implements
//! [`machine::Machine`], hands over [`manager::Storage`], and passes the VMs' calls to
//! [`manager::Manager`]. The resource manager of this repository is one such embedder, the tests'
//! strict fake another, and an example of this crate a third.
//!
//! # Embedding rm
//!
//! `rm/examples/embed.rs` is a whole embedder in under 160 lines: `cargo run -p rm --example embed`. From its
//! top to its end, with what another hypervisor would do in the same place:
//!
//! 1. `Software` is the machine: RAM, and frames that no VM can reach. On hardware these are a region that
//!    the boot code keeps from the VMs, mapped at EL2.
//! 2. `impl Machine for Software` has no TLB and no caches, so `publish` and `invalidate` only order
//!    memory. What hardware has to do there is said at each method of [`machine::Machine`].
//!    It has no SMMU either, which is what the methods say that it leaves out. A machine that has one says so
//!    in its [`Features`](machine::Features), points the SMMU to [`streams`](manager::Manager::streams),
//!    implements [`invalidate_stream`](machine::Machine::invalidate_stream), and passes what the SMMU refuses
//!    a device to [`device_fault`](manager::Manager::device_fault).
//! 3. `touch` is a VM's access: [`with_page`](manager::Manager::with_page) walks the VM's tables while
//!    nobody can change them. On hardware the MMU walks them, from
//!    [`context`](manager::Manager::context) in VTTBR_EL2; the abort handler asks
//!    [`allows`](manager::Manager::allows) before it blames the guest.
//! 4. `Storage` is all the memory of the manager: its lengths decide how much of everything there can be. On
//!    hardware it is statics.
//! 5. A `VmConfig` for each VM names it and limits it; [`Manager::new`](manager::Manager::new) checks
//!    that the storage suffices, [`give`](manager::Manager::give) hands out the RAM. Then VMs may run.
//! 6. `call` passes bytes that a VM sent to [`perform`](manager::Manager::perform), which does a short call
//!    to its end. Where VMs must not wait for each other, the exception handler passes registers to
//!    [`direct`](manager::Manager::direct) or [`hypercall`](manager::Manager::hypercall), which do one step,
//!    and calls [`step`](manager::Manager::step) for each VM that has something
//!    [`pending`](manager::Manager::pending).
//! 7. The story: lent, out of reach; accepted, readable only; a reclaim refused by name; released, reclaimed,
//!    zero. [`audit`](manager::Manager::audit) adds up all pages and frames, whenever nobody calls.
//!
//! The test `embed` runs the example, so it does what it says.
//!
//! # Guarantees
//!
//! A test that proves one cites its number.
//!
//! * **G1** Two VMs can write one page only while one live parcel names both with the write right
//!   (the owner counts, for a share).
//! * **G2** A lent page is out of its owner's reach until the owner has reclaimed it.
//! * **G3** A borrower never holds more than the ACL grants: neither rights, nor pages, nor memory
//!   type.
//! * **G4** A refused call changes nothing that any VM can observe.
//! * **G5** A page changes hands only when no CPU, TLB or device of a VM that loses it can still
//!   reach it. Before a VM that was never a party to the parcel can read it, it is zero, to the point
//!   of coherency. Between the parties its content is what is handed over, and is kept, unless
//!   sanitising was asked for by a call or by the configuration, or the borrower of a lend was revoked
//!   or died: then it is zeroed at the reclaim.
//! * **G6** A handle names one parcel as long as any VM that was a party to it lives; a VM that is no
//!   party cannot tell a parcel from no parcel.
//! * **G7** No guest input makes EL2 panic, loop without bound or run out of memory for another VM:
//!   every resource is charged to a VM's quota, every step has a budget.
//! * **G8** Conservation: the pages of all VMs and the frames of the pool always add up to what they
//!   were at boot.
//!
//! # Where ownership lives
//!
//! There is no database of pages beside the stage-2 tables. A leaf's software bits say what the page
//! is to its VM:
//!
//! | valid | state | this VM | others |
//! |---|---|---|---|
//! | yes | Owned | full use: read, write, execute, write-back | nobody |
//! | yes | Claimed | as Owned, while a call of this VM prepares | nobody |
//! | yes | Shared | owner, with the rights of its own ACL entry | borrowers by ACL |
//! | yes | Borrowed | rights by ACL, from a parcel | its owner if shared, other borrowers by ACL |
//! | yes | Device | passed-through registers | nobody |
//! | no | Lent | owner without reach (also a donation that is not accepted yet) | borrowers by ACL |
//! | no | Held | addresses that an accept of this VM is about to fill | – |
//! | no | Absent | nothing here | – |
//!
//! # Cache policy
//!
//! All who map a parcel, its owner too, map it with one memory type: write-back, or non-cacheable, which
//! stage 2 can force on every CPU; write-back it can force only with FEAT_S2FWB. So that nothing is lost
//! or seen that should not be:
//!
//! | edge | what is done to each page |
//! |---|---|
//! | it first reaches a VM: boot, start after a reset | zeroed or copied, to the point of coherency, by the embedder |
//! | create, append, non-cacheable | once no CPU has it write-back any more: cleaned and invalidated |
//! | accept, release, revoke | nothing: memory and caches agree where it matters |
//! | reclaim, non-cacheable | before it is write-back again: cleaned and invalidated |
//! | any zeroing | zeroed, to the point of coherency |
//! | change of policy | as a creation, or as a reclaim |
//! | a byte of it is copied or cleared for a VM, non-cacheable | cleaned and invalidated before, and after a write, by the embedder |
//! | a map for a device that does not look into the caches, its end, and each CPU access between | of a cached parcel: cleaned and invalidated |
//! | a request or reply of the VM lies in it | where the VM bypasses the caches: cleaned and invalidated before, and after a write, by the embedder |
//!
//! # Locking order
//!
//! Operation slot, parcel, VMs by ascending index, a device's tree, VM account, heaps, frame pool, message queues,
//! doorbells, last refusals ([`lock::Rank`]). A lock is
//! held for at most one step. A call is stepped under its VM's slot lock, takes the parcel it works
//! on, and then one VM at a time. Whoever comes from a handle looks it up without a lock, locks the
//! record and checks that it still has that handle.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "fake"))]
extern crate std;

pub mod address;
pub mod audit;
mod call;
pub mod config;
mod counters;
pub mod device;
pub mod direct;
pub mod doorbell;
pub mod frame_pool;
pub mod heap;
pub mod hypercall;
pub mod life;
pub mod link;
pub mod lock;
pub mod machine;
pub mod manager;
pub mod memparcel;
pub mod operation;
pub mod quota;
pub mod refusal;
pub mod stage2;
