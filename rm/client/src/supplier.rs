//! Memory from another VM: mem-buf's protocol between a supplier with named heaps and its consumers.
//!
//! [`Supplier`] and [`Consumer`] are state machines that take a message, or the time, and return what to
//! send. They carry no bytes: whatever brings messages of at most [`MAX_MESSAGE`] bytes from one VM to the
//! other does, and it may lose, repeat and reorder them: a [`Ring`] in a shared page and a doorbell, for
//! one. `cargo run -- run example-membuf` shows it all between two VMs. The memory goes by the manager, and so does the
//! right to it; nothing that a peer says opens or closes an access.
//!
//! | step | who | does |
//! |---|---|---|
//! | 1 | consumer | [`Consumer::alloc`]: ALLOC_REQ |
//! | 2 | supplier | takes a block of the heap, lends or shares it wiped, its number as the label: ALLOC_RESP |
//! | 3 | consumer | asks the manager about the parcel, accepts it exactly as asked for, uses it |
//! | 4 | consumer | [`Consumer::close`]: releases it, then RELINQUISH, until it is confirmed |
//! | 5 | supplier | reclaims it, wiped: RELINQUISH_RESP |
//!
//! A reply that comes after its consumer has given up is answered with RELINQUISH. An object that nobody
//! accepted comes home after [`Terms::patience`]; one whose answer could not be sent, at once; one whose
//! peer has ended, when the manager has taken it from that peer. Both sides take the manager's notices for
//! that: [`Supplier::hear`], [`Consumer::hear`].
//!
//! A service of several peers lets their messages wait at a [`Desk`], where nobody who floods it is in
//! another's way. A peer of the [first generation](message::first) is served too. Memory that a VM gives by
//! its own wish it tells its peer of with an [`Offer`].
//!
//! For programs that call mem-buf's ALLOC, the consumer stands behind
//! [`Allocator`](crate::front::membuf::Allocator).
//!
//! Where the system that shipped differs from its documentation or leaves a hole, this does:
//!
//! * a request to a VM that is no supplier, or is malformed, gets an error, and is not dropped;
//! * RELINQUISH_RESP carries a result, because one can be refused;
//! * peer, object and handle must agree in RELINQUISH; shipped code looks at one of them;
//! * a failed accept is a failed allocation: an early version returned success;
//! * lends and shares only: what was donated could not come back to its heap against its taker's will.

pub mod consumer;
pub mod desk;
pub mod heap;
pub mod message;
pub mod ring;
pub mod service;

pub use consumer::{Agreement, Consumer, ConsumerCounts, Event, Memory, Step, Ticket};
pub use desk::{Desk, DeskCounts, Generation};
pub use heap::{Block, Heap};
pub use message::{
    Acl, Body, Given, HeapName, MAX_MESSAGE, Message, Offer, Packet, Refusal, Request,
};
pub use ring::{Receiver, Ring, Sender};
pub use service::{Counts, Supplier, Terms, Usage};
