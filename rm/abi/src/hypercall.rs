//! How a VM traps into EL2: numbers, both encodings, and the errors in X0.
//!
//! A call has a number below 0x200 and two encodings. *Native*: `hvc #0x6000 + number`, arguments
//! from X0 on. *SMCCC*: `hvc #0` with W0 = 0xC600_8000 | number, arguments from X1 on. Results start
//! in X0 in both.

/// What the hypervisor is: version and features.
pub const IDENTIFY: u16 = 0x00;
/// Sets flags of a doorbell.
pub const DOORBELL_SEND: u16 = 0x12;
/// Reads and clears flags of a doorbell.
pub const DOORBELL_RECEIVE: u16 = 0x13;
/// Clears a doorbell's flags and masks.
pub const DOORBELL_RESET: u16 = 0x14;
/// Sets which flags of a doorbell interrupt, and which clear themselves then.
pub const DOORBELL_MASK: u16 = 0x15;
/// Puts one packet into a message queue.
pub const MSGQUEUE_SEND: u16 = 0x1b;
/// Takes one packet out of a message queue.
pub const MSGQUEUE_RECEIVE: u16 = 0x1c;
/// Empties a message queue.
pub const MSGQUEUE_FLUSH: u16 = 0x1d;
/// Sets the threshold of a queue's "not full" interrupt.
pub const MSGQUEUE_CONFIGURE_SEND: u16 = 0x1f;
/// Sets the threshold of a queue's "not empty" interrupt.
pub const MSGQUEUE_CONFIGURE_RECEIVE: u16 = 0x20;
/// Gives the CPU to whoever else is due.
pub const VCPU_YIELD: u16 = 0x3b;
/// The direct call: request and reply in one trap. In: address and length of the request, address
/// and capacity of the reply, 0 or a continuation token. Out: an error, the reply's length, a token.
///
/// The number is the last but 15 of those that an `hvc` of this family can carry, far from the ones
/// that Gunyah assigns.
pub const DIRECT_CALL: u16 = 0x1f0;

/// Numbers are below this in both encodings.
const NUMBERS: u16 = 0x200;
/// What a native call's immediate is counted from.
const NATIVE_BASE: u16 = 0x6000;
/// Fast, 64-bit, owner 6 (vendor hypervisor), class "hypercall".
const SMCCC_BASE: u32 = 0xc600_8000;
/// The caller's promise about SVE state, which carries no meaning here.
const SMCCC_SVE_HINT: u32 = 1 << 16;

/// The immediate of the native `hvc` of call `number`.
pub const fn native(number: u16) -> u16 {
    NATIVE_BASE + number
}

/// The function id of call `number`.
pub const fn smccc(number: u16) -> u32 {
    SMCCC_BASE | number as u32
}

/// The call that the immediate of an `hvc` names, or nothing if it is not one of this family.
pub const fn number_of_native(immediate: u16) -> Option<u16> {
    match immediate.checked_sub(NATIVE_BASE) {
        Some(number) if number < NUMBERS => Some(number),
        _ => None,
    }
}

/// The call that an SMCCC function id names, or nothing if it is not one of this family.
pub const fn number_of_smccc(id: u32) -> Option<u16> {
    let number = (id & !SMCCC_SVE_HINT).wrapping_sub(SMCCC_BASE);
    if number < NUMBERS as u32 { Some(number as u16) } else { None }
}

/// SMCCC discovery: the version of the calling convention.
pub const SMCCC_VERSION: u32 = 0x8000_0000;
/// SMCCC discovery: whose hypervisor calls these are.
pub const VENDOR_UID: u32 = 0x8600_ff01;
/// SMCCC discovery: the word that [`IDENTIFY`] answers in X0.
pub const VENDOR_REVISION: u32 = 0x8600_ff03;
/// The answer to [`VENDOR_UID`], W0 to W3, by which Linux recognises the interface
/// (c1d58fcd-a453-5fdb-9265-ce36673d5f14).
pub const UID: [u32; 4] = [0xcd8f_d5c1, 0xdb5f_53a4, 0x36ce_6592, 0x145f_3d67];

/// X0 of a hypercall.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HypercallError {}

impl HypercallError {
    /// It was done.
    pub const OK: i64 = 0;
    /// No such call.
    pub const UNIMPLEMENTED: i64 = -1;
    /// More work is left: call again with the token.
    pub const RETRY: i64 = -2;
    /// An argument is not acceptable.
    pub const ARGUMENT_INVALID: i64 = 1;
    /// A length is 0 or too large, or a buffer too small.
    pub const ARGUMENT_SIZE: i64 = 2;
    /// An address or length is not aligned.
    pub const ARGUMENT_ALIGNMENT: i64 = 3;
    /// No memory.
    pub const NOMEM: i64 = 10;
    /// No resource.
    pub const NORESOURCES: i64 = 11;
    /// An address range wraps, or the message is larger than the buffer.
    pub const ADDR_OVERFLOW: i64 = 20;
    /// An address is below its range.
    pub const ADDR_UNDERFLOW: i64 = 21;
    /// An address is not memory that the caller may use so.
    pub const ADDR_INVALID: i64 = 22;
    /// Not allowed.
    pub const DENIED: i64 = 30;
    /// Another call of this VM is under way.
    pub const BUSY: i64 = 31;
    /// Nothing to do.
    pub const IDLE: i64 = 32;
    /// No such object.
    pub const CSPACE_CAP_NULL: i64 = 50;
    /// The object is of another type.
    pub const CSPACE_WRONG_OBJECT_TYPE: i64 = 52;
    /// The caller lacks a right on the object.
    pub const CSPACE_INSUFFICIENT_RIGHTS: i64 = 53;
    /// The queue holds no packet.
    pub const MSGQUEUE_EMPTY: i64 = 60;
    /// The queue has no room.
    pub const MSGQUEUE_FULL: i64 = 61;
}
