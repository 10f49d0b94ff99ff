//! The bytes that guests and the resource manager exchange.
//!
//! They are those of Gunyah's resource manager: an eight-byte [`Header`], then a little-endian
//! payload whose layout the [message id](message) decides. Every request has a type that decodes it
//! from any [`Bytes`], checking lengths and lists and nothing else, and one that encodes it into a
//! caller's buffer. Decoding never panics, whatever the bytes are: what is wrong with the *meaning*
//! of a request is for the manager to say.
//!
//! ```
//! use rm_abi::{Header, Kind, Vmid, message, reply};
//!
//! let request = Header::request(message::VM_GET_VMID, 1);
//! assert_eq!(request.encode(), [0x21, 1, 1, 0, 0x24, 0, 0, 0x56]);
//!
//! let answer = reply::word(&request, Vmid::PRIMARY.0.into());
//! let header = Header::decode(&answer[..]).unwrap();
//! assert_eq!(header.kind, Kind::Reply);
//! assert_eq!(reply::decode(&answer[Header::SIZE..]), Ok(&[3, 0, 0, 0][..]));
//! ```
#![no_std]
#![forbid(unsafe_code)]

pub mod bytes;
pub mod capability;
pub mod error;
pub mod extension;
pub mod header;
pub mod hypercall;
pub mod list;
pub mod memparcel;
pub mod message;
pub mod names;
pub mod reply;
pub mod vm;

pub use bytes::{Bytes, EncodeError, Writer};
pub use capability::{Capability, Object};
pub use error::ErrorCode;
pub use header::{Header, Kind, MAX_PAYLOAD, PACKET, PACKET_PAYLOAD};
pub use hypercall::HypercallError;
pub use list::{AclEntry, AttributeEntry, Entry, List, MAX_ENTRIES, SglEntry, VmidEntry};
pub use memparcel::{
    AcceptFlags, AppendFlags, Attribute, CreateFlags, MemoryKind, NotifyFlag, Rights, Sanitize,
    Transfer,
};
pub use names::{Handle, Vmid};
