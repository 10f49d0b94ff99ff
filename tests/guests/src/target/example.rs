//! What a program that uses `rm-client` looks like: an owner for each way to call, and one borrower.
//!
//! The story is always the same. The owner writes a question into a page and offers it to its partner;
//! the partner accepts it and writes the answer beside; the owner asks for the page and takes it back.
//! No memory is shared but the parcel: all else is said by notices.
//!
//! Supplier and consumer tell another one, of mem-buf: a VM asks its peer for memory and is offered some.
//! Granter and grantee do what Xen's grants do.
//! And two VMs allocate from the heaps of the boot configuration, as programs that use dma-heaps do.
//! One VM alone has buffers, as dma-buf has them.

pub mod blocking;
pub mod consumer;
pub mod direct;
pub mod dmabuf;
pub mod dmaheap;
pub mod grantee;
pub mod granter;
pub mod partner;
pub mod polling;
pub mod supplier;
pub mod wire;

use rm_client::Vmid;
use rm_client::front::membuf::{VMID_PRIMARY, VMID_TRUSTED};

use crate::layout::{PAGES, VMID_A, VMID_B};

pub(crate) const OWNER: Vmid = Vmid(VMID_A);
pub(crate) const PARTNER: Vmid = Vmid(VMID_B);

/// Which VM mem-buf's names for VMs are.
pub(crate) const fn named(name: u32) -> Option<Vmid> {
    match name {
        VMID_PRIMARY => Some(OWNER),
        VMID_TRUSTED => Some(PARTNER),
        _ => None,
    }
}

/// What the owner calls its parcel in notices.
pub(crate) const TAG: u32 = 7;

/// What the owner writes, and where.
pub(crate) const QUESTION: u64 = 41;
/// What the partner makes of it.
pub(crate) const ANSWER: u64 = QUESTION + 1;
/// Where in the page the answer goes.
pub(crate) const ANSWER_OFFSET: u64 = 8;
/// Where the owner finds it.
pub(crate) const ANSWER_AT: u64 = PAGES + ANSWER_OFFSET;
