//! What a VM links to call the resource manager.
//!
//! A [`Session`] numbers requests, encodes them, and checks that a reply belongs to its request. A
//! [`Transport`] carries the bytes. Nothing here allocates; a session's buffers lie inside it.
//!
//! | you have | take | it costs |
//! |---|---|---|
//! | calls to make, and nothing to hear | `Session<hvc::Hvc>`: request and reply in one trap | one trap a call |
//! | a program without interrupts, or one that also wants to hear of parcels | `Session<hvc::HvcQueues<Poll>>` | two traps a call, and the vCPU never rests |
//! | a program that sleeps until the manager has something to say | `Session<hvc::HvcQueues<hvc::Sleep>>` | two traps a call, an interrupt when it waits |
//! | a client of Gunyah's | its own code: the queues are the same | |
//! | another way into the manager, or a test | your own [`Transport`], [`Trap`] or [`QueueTrap`] | |
//!
//! `hvc` exists on the target only; `hvc::Smccc` and `hvc::SmcccQueues` do the same by function id. The
//! examples of this repository (`tests/guests/src/target/example/`) are one program for each of the
//! first three rows; `cargo run -- run example-blocking` boots the third.
//!
//! A driver that serves programs written for mem-buf, gntdev, dma-buf or dma-heaps finds their structs,
//! numbers and answers in [`front`].
//!
//! Lending two pages to VM 7, and taking them back when it has released them:
//!
//! ```
//! use rm_client::{Error, NewParcel, Rights, Sanitize, Session, Transport, Vmid, grant, pages};
//!
//! fn lend_and_reclaim<T: Transport>(session: &mut Session<T>) -> Result<(), Error> {
//!     let parcel = session.lend(
//!         &NewParcel::new(&[pages(0x4100_0000, 2)], &[grant(Vmid(7), Rights::RW)]).label(0x11),
//!     )?;
//!     // ... tell VM 7 the handle, and wait until it has released the parcel ...
//!     session.reclaim(parcel, Sanitize::SANITIZE)
//! }
//! ```
//!
//! And on the other side:
//!
//! ```
//! use rm_client::{Acceptance, Error, Handle, Sanitize, Session, Transfer, Transport};
//!
//! fn use_what_was_lent<T: Transport>(
//!     session: &mut Session<T>,
//!     parcel: Handle,
//! ) -> Result<(), Error> {
//!     let wanted = Acceptance::new(parcel, Transfer::Lend).contiguous().expect_label(0x11);
//!     let place = session.accept(&wanted)?.next().ok_or(Error::Malformed)?;
//!     // ... use the place.size bytes at place.ipa ...
//!     # let _ = place;
//!     session.release(parcel, Sanitize::empty())
//! }
//! ```
//!
//! With the queues the owner tells the borrower itself, which sleeps until then:
//!
//! ```
//! use rm_client::{Acceptance, Error, Notice, QueueTrap, Queues, Sanitize, Session, Wait};
//!
//! fn use_what_is_offered<T: QueueTrap, W: Wait>(
//!     session: &mut Session<Queues<T, W>>,
//! ) -> Result<(), Error> {
//!     let offer = loop {
//!         if let Notice::Shared(offered) = session.wait_notice()? {
//!             break offered.offer;
//!         }
//!     };
//!     let wanted = Acceptance::new(offer.handle, offer.transfer).contiguous();
//!     let place = session.accept(&wanted)?.next().ok_or(Error::Malformed)?;
//!     session.notify_accepted(offer.handle, offer.tag)?;
//!     // ... use the place.size bytes at place.ipa until the owner asks for them ...
//!     # let _ = place;
//!     while !matches!(session.wait_notice()?, Notice::Recall(_)) {}
//!     session.release(offer.handle, Sanitize::empty())?;
//!     session.notify_released(offer.handle, offer.tag)
//! }
//! ```
#![no_std]
#![deny(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod ask;
pub mod device;
pub mod error;
pub mod front;
pub mod heap;
pub mod inspect;
pub mod life;
pub mod notice;
pub mod parcel;
pub mod queue;
pub mod session;
pub mod supplier;
pub mod transport;

#[cfg(all(target_arch = "aarch64", target_os = "none"))]
pub mod hvc;

pub use ask::{Entries, Limits, Part};
pub use error::Error;
pub use notice::{Notice, Offered};
pub use parcel::{Acceptance, NewParcel, PAGE_SIZE, grant, pages};
pub use queue::{Poll, QueueTrap, Queues, Received, Sent, Wait};
pub use session::{Copied, LARGEST, Places, Session};
pub use transport::{Direct, DirectCall, DirectResult, Transport, TransportError, Trap};

pub use rm_abi::extension::{AccessFlags, AttachFlags, DeviceInfo, Direction, Stream};
pub use rm_abi::extension::{
    CopySegment, CopySide, Discovery, EventKind, EventReason, Events, HeapFeatures, HeapInfo,
    Holder, HolderStage, LastRefusal, Limit, ListFlags, NotifyActions, ParcelEntry, ParcelEvent,
    ParcelFlags, ParcelInfo, ParcelPhase, Policies, Policy, Resource, Rule, TrimFlags, WindowFlags,
};
pub use rm_abi::extension::{Counter, LeafInfo, MapEntry, PageState, VmEntry, VmRoles};
pub use rm_abi::vm::{ExitKind, VmExited, VmState, VmStatus};
pub use rm_abi::{
    AclEntry, Attribute, AttributeEntry, ErrorCode, Handle, MemoryKind, Rights, Sanitize, SglEntry,
    Transfer, Vmid,
};
