//! What a VM links to call the resource manager.
//!
//! A [`Session`] numbers requests, encodes them, and checks that a reply belongs to its request. A
//! [`Transport`] carries the bytes: `hvc::Hvc` (on the target) by one trap into EL2, anything else by what you
//! implement. Nothing here allocates; a session's buffers lie inside it.
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
#![no_std]
#![deny(unsafe_code)]

pub mod error;
pub mod notice;
pub mod parcel;
pub mod queue;
pub mod session;
pub mod transport;

#[cfg(all(target_arch = "aarch64", target_os = "none"))]
pub mod hvc;

pub use error::Error;
pub use notice::{Notice, Offered};
pub use parcel::{Acceptance, NewParcel, PAGE_SIZE, grant, pages};
pub use queue::{Poll, QueueTrap, Queues, Received, Sent, Wait};
pub use session::{LARGEST, Places, Session};
pub use transport::{Direct, DirectCall, DirectResult, Transport, TransportError, Trap};

pub use rm_abi::{
    AclEntry, Attribute, AttributeEntry, ErrorCode, Handle, MemoryKind, Rights, Sanitize, SglEntry,
    Transfer, Vmid,
};
