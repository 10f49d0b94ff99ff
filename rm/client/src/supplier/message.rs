//! What consumer and supplier write to each other, byte by byte: mem-buf's second generation.
//!
//! All fields are little endian, and nothing is padded. Every message begins with a header of 12 bytes:
//! transaction, type, length of the whole. Rights are in the order of the manager (X 1, W 2, R 4).
//!
//! | message | length | behind the header |
//! |---|---|---|
//! | ALLOC_REQ 0 | 160 + 4n | size u64, memory type u32, transfer u32, n u32, n × (vmid u16, rights u8, 0 u8), heap name of 128 |
//! | ALLOC_RESP 1 | 24 | result i32, handle u32, object u32 |
//! | RELINQUISH 2 | 20 | handle u32, object u32 |
//! | RELINQUISH_RESP 3 | 16 | result i32 |
//! | OFFER 4 | 36 + 4n | handle u32, label u32, size u64, transfer u32, n u32, n × (vmid u16, rights u8, 0 u8) |
//!
//! The system that shipped ends RELINQUISH_RESP behind the header, so that a refusal cannot be told; here
//! it can. It has no OFFER either: a handle went from VM to VM by the programs' own means. A result is 0
//! or a negated Linux errno. The first generation is [`first`].

pub mod first;

use rm_abi::{AclEntry, Bytes, EncodeError, Handle, Rights, Transfer, Vmid, Writer};

/// Bytes of the longest message: a packet of the message queues.
pub const MAX_MESSAGE: usize = 240;
/// VMs that a request can name.
pub const MAX_ACL: usize = 16;
/// Bytes of a heap's name on the wire, the zero behind it included.
pub const NAME_FIELD: usize = 128;
/// Bytes of a header.
pub const HEADER: usize = 12;

const ALLOC_HEAD: usize = 32;
const ALLOC_RESP: usize = 24;
const RELINQUISH: usize = 20;
const RELINQUISH_RESP: usize = 16;
const OFFER_HEAD: usize = 36;
/// The type of memory that has a heap with a name.
const NAMED_HEAP: u32 = 1;

/// Why something was not done, as it is told to a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub enum Refusal {
    /// EPERM: the peer, or a VM that it names, may not.
    NotPermitted = 1,
    /// ENOENT: nothing of this name is the peer's.
    Unknown = 2,
    /// EIO: the manager could not be asked, or its answer not be understood.
    Broken = 5,
    /// ENOMEM: the manager or the heap has no memory.
    NoMemory = 12,
    /// EBUSY: somebody still uses it, or the table is full.
    Busy = 16,
    /// EINVAL: not a request that makes sense.
    Invalid = 22,
    /// ENOSPC: more than the peer may have.
    NoSpace = 28,
    /// EOPNOTSUPP: not a role of this VM.
    NotSupported = 95,
    /// EADDRNOTAVAIL: it is not known what became of the memory, and nobody gets it again.
    Lost = 99,
    /// ETIMEDOUT: no answer came in time.
    TimedOut = 110,
    /// ESTALE: the peer ended.
    Gone = 116,
}

impl Refusal {
    /// The refusal that a result stands for; 0 is none, and what is unknown counts as a broken peer.
    pub const fn from_result(result: i32) -> Result<(), Self> {
        Err(match result {
            0 => return Ok(()),
            -1 => Self::NotPermitted,
            -2 => Self::Unknown,
            -12 => Self::NoMemory,
            -16 => Self::Busy,
            -22 => Self::Invalid,
            -28 => Self::NoSpace,
            -95 => Self::NotSupported,
            -99 => Self::Lost,
            -110 => Self::TimedOut,
            -116 => Self::Gone,
            _ => Self::Broken,
        })
    }

    /// The result of an answer.
    pub const fn result(answer: Result<(), Self>) -> i32 {
        match answer {
            Ok(()) => 0,
            Err(refusal) => -(refusal as i32),
        }
    }
}

/// The VMs that are to have memory, in order, each with its rights.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Acl {
    entries: [AclEntry; MAX_ACL],
    count: usize,
}

impl Acl {
    /// A list of 1 to 16 VMs, each of them once and with rights that can be granted.
    pub fn new(entries: &[AclEntry]) -> Result<Self, Refusal> {
        let mut acl =
            Self { entries: [AclEntry { vmid: Vmid(0), rights: Rights(0) }; MAX_ACL], count: 0 };
        for entry in entries {
            let twice = acl.entries().iter().any(|other| other.vmid == entry.vmid);
            let place = acl.entries.get_mut(acl.count).ok_or(Refusal::Invalid)?;
            if twice || !entry.rights.is_valid() {
                return Err(Refusal::Invalid);
            }
            *place = *entry;
            acl.count += 1;
        }
        if acl.count == 0 { Err(Refusal::Invalid) } else { Ok(acl) }
    }

    /// Reads the entries of a message, of which there are at most [`MAX_ACL`].
    fn read(list: &[u8]) -> Result<Self, Refusal> {
        let mut entries = [AclEntry { vmid: Vmid(0), rights: Rights(0) }; MAX_ACL];
        let count = list.len() / 4;
        for (entry, raw) in entries.iter_mut().zip(list.chunks_exact(4)) {
            if raw[3] != 0 {
                return Err(Refusal::Invalid);
            }
            *entry = AclEntry { vmid: Vmid(raw.u16_at(0)), rights: Rights(raw[2]) };
        }
        Self::new(entries.get(..count).ok_or(Refusal::Invalid)?)
    }

    fn write(&self, writer: &mut Writer<'_>) {
        for entry in self.entries() {
            writer.u16(entry.vmid.0).u8(entry.rights.0).u8(0);
        }
    }

    /// Its entries.
    pub fn entries(&self) -> &[AclEntry] {
        &self.entries[..self.count]
    }

    /// Whether a VM is in it.
    pub fn names(&self, vmid: Vmid) -> bool {
        self.entries().iter().any(|entry| entry.vmid == vmid)
    }
}

/// A heap's name: 1 to 31 bytes without a zero among them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeapName {
    bytes: [u8; Self::MAX],
    length: usize,
}

impl HeapName {
    /// Bytes of the longest.
    pub const MAX: usize = 31;

    /// The name, if it can be one.
    pub fn new(name: &[u8]) -> Result<Self, Refusal> {
        let mut bytes = [0; Self::MAX];
        if name.is_empty() || name.contains(&0) {
            return Err(Refusal::Invalid);
        }
        bytes.get_mut(..name.len()).ok_or(Refusal::Invalid)?.copy_from_slice(name);
        Ok(Self { bytes, length: name.len() })
    }

    /// Reads the field of a message: it must end with a zero.
    fn from_field(field: &[u8]) -> Result<Self, Refusal> {
        let end = field.iter().position(|byte| *byte == 0).ok_or(Refusal::Invalid)?;
        Self::new(&field[..end])
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// What memory is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// Bytes; the supplier rounds up.
    pub size: u64,
    /// Lend or share.
    pub transfer: Transfer,
    /// Who gets it; with a share the supplier is in it too.
    pub acl: Acl,
    /// From which of the supplier's heaps.
    pub heap: HeapName,
}

/// What a message says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Body {
    /// A consumer asks for memory. What is wrong with the request is to be answered.
    Alloc(Result<Request, Refusal>),
    /// The supplier's answer.
    Allocated(Result<Given, Refusal>),
    /// A consumer has released an object.
    Relinquish(Given),
    /// The supplier's answer.
    Relinquished(Result<(), Refusal>),
    /// Memory that was not asked for. There is no answer: the manager tells its owner who has accepted it.
    Offer(Offer),
}

/// A parcel that a VM has lent or shared by its own wish, as it tells its peer of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offer {
    /// The manager's name for it.
    pub handle: Handle,
    /// Its owner's name for it.
    pub label: u32,
    /// Its bytes: whole pages.
    pub size: u64,
    /// Lend or share.
    pub transfer: Transfer,
    /// Its access list, in its order.
    pub acl: Acl,
}

/// An object of the supplier's, as both sides name it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Given {
    /// The manager's name for the parcel.
    pub handle: Handle,
    /// The supplier's name for it, which is the parcel's label too.
    pub object: u32,
}

/// A message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message {
    /// The consumer's number for what it wants; the answer has the same.
    pub transaction: u32,
    /// What it says.
    pub body: Body,
}

impl Message {
    /// Reads a message as it was received. `None` is what cannot even be answered: shorter than a header,
    /// of an unknown type, or anything but a request that is not of its form. A request of the wrong length
    /// is one to be refused. No count in it leads beyond its end.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let header = bytes.get(..HEADER)?;
        let (transaction, kind) = (header.u32_at(0), header.u32_at(4));
        let whole = header.u32_at(8) as usize == bytes.len() && bytes.len() <= MAX_MESSAGE;
        let given = |at| Given { handle: Handle(bytes.u32_at(at)), object: bytes.u32_at(at + 4) };
        let body = match (kind, bytes.len()) {
            (0, _) if !whole => Body::Alloc(Err(Refusal::Invalid)),
            (0, _) => Body::Alloc(decode_request(bytes)),
            _ if !whole => return None,
            (1, ALLOC_RESP) => {
                Body::Allocated(Refusal::from_result(bytes.u32_at(12) as i32).map(|()| given(16)))
            }
            (2, RELINQUISH) => Body::Relinquish(given(12)),
            (3, RELINQUISH_RESP) => {
                Body::Relinquished(Refusal::from_result(bytes.u32_at(12) as i32))
            }
            (4, _) => Body::Offer(decode_offer(bytes)?),
            _ => return None,
        };
        Some(Self { transaction, body })
    }

    /// The message as it is sent. A request that could not be read cannot be written either.
    pub fn encode(&self) -> Result<Packet, EncodeError> {
        let mut bytes = [0; MAX_MESSAGE];
        let mut writer = Writer::new(&mut bytes);
        let mut head = |kind: u32, length: usize| {
            writer.u32(self.transaction).u32(kind).u32(length as u32);
        };
        match &self.body {
            Body::Alloc(request) => {
                let request = request.map_err(|_| EncodeError::TooLong)?;
                let entries = request.acl.entries();
                head(0, ALLOC_HEAD + 4 * entries.len() + NAME_FIELD);
                writer.u64(request.size);
                writer.u32(NAMED_HEAP).u32(request.transfer as u32).u32(entries.len() as u32);
                request.acl.write(&mut writer);
                let mut name = [0; NAME_FIELD];
                name[..request.heap.length].copy_from_slice(request.heap.as_bytes());
                writer.bytes(&name);
            }
            Body::Allocated(answer) => {
                head(1, ALLOC_RESP);
                let given = answer.unwrap_or(Given { handle: Handle(0), object: 0 });
                writer.u32(Refusal::result(answer.map(|_| ())) as u32);
                writer.u32(given.handle.0).u32(given.object);
            }
            Body::Relinquish(given) => {
                head(2, RELINQUISH);
                writer.u32(given.handle.0).u32(given.object);
            }
            Body::Relinquished(answer) => {
                head(3, RELINQUISH_RESP);
                writer.u32(Refusal::result(*answer) as u32);
            }
            Body::Offer(Offer { handle, label, size, transfer, acl }) => {
                let count = acl.entries().len();
                head(4, OFFER_HEAD + 4 * count);
                writer.u32(handle.0).u32(*label).u64(*size);
                writer.u32(*transfer as u32).u32(count as u32);
                acl.write(&mut writer);
            }
        }
        let length = writer.finish()?;
        Ok(Packet { bytes, length })
    }
}

fn decode_request(bytes: &[u8]) -> Result<Request, Refusal> {
    let head = bytes.get(..ALLOC_HEAD).ok_or(Refusal::Invalid)?;
    let (size, count) = (head.u64_at(12), head.u32_at(28) as usize);
    let transfer = transfer(head.u32_at(24)).filter(|_| head.u32_at(20) == NAMED_HEAP);
    let transfer = transfer.ok_or(Refusal::Invalid)?;
    // The bound comes first: a count is the peer's word.
    if size == 0 || count > MAX_ACL || bytes.len() != ALLOC_HEAD + 4 * count + NAME_FIELD {
        return Err(Refusal::Invalid);
    }
    let (list, name) = bytes[ALLOC_HEAD..].split_at(4 * count);
    let (acl, heap) = (Acl::read(list)?, HeapName::from_field(name)?);
    Ok(Request { size, transfer, acl, heap })
}

fn decode_offer(bytes: &[u8]) -> Option<Offer> {
    let (head, list) = bytes.split_at_checked(OFFER_HEAD)?;
    let count = head.u32_at(32) as usize;
    if count > MAX_ACL || list.len() != 4 * count {
        return None;
    }
    Some(Offer {
        handle: Handle(head.u32_at(12)),
        label: head.u32_at(16),
        size: head.u64_at(20),
        transfer: transfer(head.u32_at(28))?,
        acl: Acl::read(list).ok()?,
    })
}

fn transfer(number: u32) -> Option<Transfer> {
    u8::try_from(number).ok().and_then(Transfer::from_wire)
}

/// The bytes of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    bytes: [u8; MAX_MESSAGE],
    length: usize,
}

impl Packet {
    /// No message.
    pub(super) const EMPTY: Self = Self { bytes: [0; MAX_MESSAGE], length: 0 };

    /// A copy of a message as it was received, unless it is longer than any can be.
    pub(super) fn copy(message: &[u8]) -> Option<Self> {
        let mut packet = Self { length: message.len(), ..Self::EMPTY };
        packet.bytes.get_mut(..message.len())?.copy_from_slice(message);
        Some(packet)
    }
}

impl core::ops::Deref for Packet {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn request(count: usize) -> Message {
        let entry = |index| AclEntry { vmid: Vmid(index as u16), rights: Rights::RW };
        let entries: [_; MAX_ACL] = core::array::from_fn(entry);
        let acl = Acl::new(&entries[..count]).unwrap();
        let heap = HeapName::new(b"frames").unwrap();
        let request = Request { size: 0x1_0000_5000, transfer: Transfer::Lend, acl, heap };
        Message { transaction: 9, body: Body::Alloc(Ok(request)) }
    }

    #[test]
    fn every_message_is_read_as_it_was_written() {
        let given = Given { handle: Handle(0x1234_5678), object: 7 };
        for body in [
            request(2).body,
            Body::Allocated(Ok(given)),
            Body::Allocated(Err(Refusal::NoSpace)),
            Body::Relinquish(given),
            Body::Relinquished(Err(Refusal::Unknown)),
            offer(2).body,
        ] {
            let message = Message { transaction: 0xffff_ffff, body };
            assert_eq!(Message::decode(&message.encode().unwrap()), Some(message));
        }
    }

    #[test]
    fn lengths_are_those_of_the_second_generation() {
        assert_eq!(request(16).encode().unwrap().len(), 224);
        assert_eq!(request(1).encode().unwrap()[8], 164);
        let answer = Message { transaction: 1, body: Body::Allocated(Err(Refusal::Invalid)) };
        let packet = answer.encode().unwrap();
        assert_eq!((packet.len(), packet.u32_at(12) as i32), (24, -22));
    }

    fn offer(count: u16) -> Message {
        let entry = |vmid| AclEntry { vmid: Vmid(vmid), rights: Rights::RX };
        let entries: Vec<_> = (3..3 + count).map(entry).collect();
        let acl = Acl::new(&entries).unwrap();
        let (handle, transfer) = (Handle(0x2_8001), Transfer::Share);
        let offer = Offer { handle, label: 0xabc, size: 0x1_0000_3000, transfer, acl };
        Message { transaction: 5, body: Body::Offer(offer) }
    }

    #[test]
    fn the_bytes_are_those_of_the_table() {
        let bytes = |body| Message { transaction: 0x0807_0605, body }.encode().unwrap().to_vec();
        let given = Given { handle: Handle(0x1234_5678), object: 0x21 };
        let mut asked = Vec::from([9, 0, 0, 0, 0, 0, 0, 0, 168, 0, 0, 0]);
        asked.extend([0x00, 0x50, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0]);
        asked.extend([0, 0, 6, 0, 1, 0, 6, 0]);
        asked.extend(b"frames");
        asked.resize(168, 0);
        assert_eq!(request(2).encode().unwrap()[..], asked);
        let head = [5, 6, 7, 8];
        for (body, rest) in [
            (
                Body::Allocated(Ok(given)),
                &[1, 0, 0, 0, 24, 0, 0, 0, 0, 0, 0, 0, 0x78, 0x56, 0x34, 0x12, 0x21, 0, 0, 0][..],
            ),
            (
                Body::Allocated(Err(Refusal::NoSpace)),
                &[1, 0, 0, 0, 24, 0, 0, 0, 0xe4, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0],
            ),
            (
                Body::Relinquish(given),
                &[2, 0, 0, 0, 20, 0, 0, 0, 0x78, 0x56, 0x34, 0x12, 0x21, 0, 0, 0],
            ),
            (
                Body::Relinquished(Err(Refusal::Unknown)),
                &[3, 0, 0, 0, 16, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff],
            ),
            (
                offer(2).body,
                &[
                    4, 0, 0, 0, 44, 0, 0, 0, 1, 0x80, 2, 0, 0xbc, 0xa, 0, 0, 0, 0x30, 0, 0, 1, 0,
                    0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 3, 0, 5, 0, 4, 0, 5, 0,
                ],
            ),
        ] {
            assert_eq!(bytes(body), [&head, rest].concat(), "{body:?}");
        }
    }

    #[test]
    fn an_offer_that_lies_about_itself_is_none() {
        let whole = offer(2).encode().unwrap();
        for (at, byte) in [(8, 40), (28, 3), (32, 1), (32, 3), (32, 17), (38, 2), (39, 1), (36, 4)]
        {
            let mut bytes = whole.to_vec();
            bytes[at] = byte;
            assert_eq!(Message::decode(&bytes), None, "byte {at} is {byte}");
        }
        let mut empty = whole[..36].to_vec();
        empty[8] = 36;
        empty[32] = 0;
        assert_eq!(Message::decode(&empty), None, "for nobody");
        assert_eq!(offer(16).encode().unwrap().len(), 100);
    }

    /// The refusal that a changed request gets.
    fn refusal(change: impl FnOnce(&mut [u8])) -> Option<Refusal> {
        let mut packet = request(2).encode().unwrap();
        change(&mut packet.bytes);
        match Message::decode(&packet)?.body {
            Body::Alloc(request) => request.err(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_request_that_lies_about_itself_is_refused() {
        assert_eq!(refusal(|_| ()), None);
        let invalid = Some(Refusal::Invalid);
        for count in [0, 1, 3, 16, 17, 0xff] {
            assert_eq!(refusal(|bytes| bytes[28] = count), invalid, "{count} entries");
        }
        assert_eq!(refusal(|bytes| bytes[28..32].fill(0xff)), invalid, "2^32 - 1 entries");
        assert_eq!(refusal(|bytes| bytes[8] += 1), invalid, "another length");
        assert_eq!(refusal(|bytes| bytes[12..20].fill(0)), invalid, "nothing");
        assert_eq!(refusal(|bytes| bytes[20] = 0), invalid, "another type of memory");
        assert_eq!(refusal(|bytes| bytes[24] = 3), invalid, "another transfer");
        assert_eq!(refusal(|bytes| bytes[34] = 2), invalid, "write without read");
        assert_eq!(refusal(|bytes| bytes[35] = 1), invalid, "a reserved byte");
        assert_eq!(refusal(|bytes| bytes[36] = 0), invalid, "the same VM twice");
        assert_eq!(refusal(|bytes| bytes[40] = 0), invalid, "no name");
        assert_eq!(refusal(|bytes| bytes[40..168].fill(b'x')), invalid, "a name without an end");
    }

    #[test]
    fn no_bytes_are_read_beyond_what_was_received() {
        let packet = request(2).encode().unwrap();
        for length in 0..packet.len() {
            match Message::decode(&packet[..length]) {
                None => assert!(length < HEADER),
                Some(message) => assert_eq!(message.body, Body::Alloc(Err(Refusal::Invalid))),
            }
        }
        for kind in 0..=255 {
            for length in HEADER..=MAX_MESSAGE + 1 {
                let mut bytes = [0xff; MAX_MESSAGE + 1];
                bytes[4..8].copy_from_slice(&u32::from(kind as u8).to_le_bytes());
                bytes[8..12].copy_from_slice(&(length as u32).to_le_bytes());
                assert!(
                    Message::decode(&bytes[..length]).is_none() == (kind != 0)
                        || matches!(
                            (kind, length),
                            (1, ALLOC_RESP) | (2, RELINQUISH) | (3, RELINQUISH_RESP)
                        )
                );
            }
        }
    }
}
