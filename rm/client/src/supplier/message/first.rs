//! mem-buf's first generation, of kernel 5.4: what a consumer of that time sends, and is answered.
//!
//! A header has no length, heaps have numbers, an object is known by its handle alone, and giving it back
//! is not confirmed. Whether memory is lent or shared follows from the access list. The two generations
//! cannot be told apart by their bytes, so a supplier has to know which one a peer speaks.
//!
//! | message | length | behind the header of transaction u32, type u32 |
//! |---|---|---|
//! | ALLOC_REQ 0 | 28 + 4n | size u64, memory type u32, n u32, n × (vmid u16, rights u8, 0 u8), heap u32 |
//! | ALLOC_RESP 1 | 16 | result i32, handle u32 |
//! | RELINQUISH 2 | 12 | handle u32 |

use rm_abi::{Bytes, EncodeError, Handle, Writer};

use super::{Acl, MAX_ACL, MAX_MESSAGE, Packet, Refusal};

const HEADER: usize = 8;
const ALLOC_HEAD: usize = 24;
const ALLOC_RESP: usize = 16;
const RELINQUISH: usize = 12;
/// The type of memory that has heaps with numbers.
const NUMBERED_HEAP: u32 = 0;

/// What memory is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// Bytes; the supplier rounds up.
    pub size: u64,
    /// Who gets it; if the supplier is in it, it is a share.
    pub acl: Acl,
    /// From which of the supplier's heaps.
    pub heap: u32,
}

/// What a message says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Body {
    /// A consumer asks for memory. What is wrong with the request is to be answered.
    Alloc(Result<Request, Refusal>),
    /// The supplier's answer.
    Allocated(Result<Handle, Refusal>),
    /// A consumer has released a parcel.
    Relinquish(Handle),
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
    /// Reads a message as it was received. `None` is what cannot even be answered. No count in it leads
    /// beyond its end.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let header = bytes.get(..HEADER)?;
        let body = match (header.u32_at(4), bytes.len()) {
            (0, _) => Body::Alloc(decode_request(bytes)),
            (1, ALLOC_RESP) => {
                let result = Refusal::from_result(bytes.u32_at(8) as i32);
                Body::Allocated(result.map(|()| Handle(bytes.u32_at(12))))
            }
            (2, RELINQUISH) => Body::Relinquish(Handle(bytes.u32_at(8))),
            _ => return None,
        };
        Some(Self { transaction: header.u32_at(0), body })
    }

    /// The message as it is sent. A request that could not be read cannot be written either.
    pub fn encode(&self) -> Result<Packet, EncodeError> {
        let mut bytes = [0; MAX_MESSAGE];
        let mut writer = Writer::new(&mut bytes);
        writer.u32(self.transaction);
        match &self.body {
            Body::Alloc(request) => {
                let Request { size, acl, heap } = request.map_err(|_| EncodeError::TooLong)?;
                let count = acl.entries().len() as u32;
                writer.u32(0).u64(size).u32(NUMBERED_HEAP).u32(count);
                acl.write(&mut writer);
                writer.u32(heap);
            }
            Body::Allocated(answer) => {
                let result = Refusal::result(answer.map(|_| ())) as u32;
                writer.u32(1).u32(result).u32(answer.unwrap_or(Handle(0)).0);
            }
            Body::Relinquish(handle) => {
                writer.u32(2).u32(handle.0);
            }
        }
        let length = writer.finish()?;
        Ok(Packet { bytes, length })
    }
}

fn decode_request(bytes: &[u8]) -> Result<Request, Refusal> {
    let head = bytes.get(..ALLOC_HEAD).ok_or(Refusal::Invalid)?;
    let (size, count) = (head.u64_at(8), head.u32_at(20) as usize);
    let is_whole = count <= MAX_ACL && bytes.len() == ALLOC_HEAD + 4 * count + 4;
    if size == 0 || head.u32_at(16) != NUMBERED_HEAP || !is_whole {
        return Err(Refusal::Invalid);
    }
    let (list, heap) = bytes[ALLOC_HEAD..].split_at(4 * count);
    Ok(Request { size, acl: Acl::read(list)?, heap: heap.u32_at(0) })
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;
    use rm_abi::{AclEntry, Rights, Vmid};

    fn request(count: u16) -> Message {
        let entry = |index| AclEntry { vmid: Vmid(index + 3), rights: Rights::RWX };
        let entries: Vec<_> = (0..count).map(entry).collect();
        let acl = Acl::new(&entries).unwrap();
        let request = Request { size: 0x20_0000, acl, heap: 27 };
        Message { transaction: 0xffff, body: Body::Alloc(Ok(request)) }
    }

    #[test]
    fn the_bytes_are_those_of_the_table() {
        let asked = [
            0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 3, 0,
            7, 0, 4, 0, 7, 0, 27, 0, 0, 0,
        ];
        let handle = Handle(0x1234_5678);
        let message = |body| Message { transaction: 0x0201, body };
        for (message, bytes) in [
            (request(2), &asked[..]),
            (
                message(Body::Allocated(Ok(handle))),
                &[1, 2, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0x78, 0x56, 0x34, 0x12],
            ),
            (
                message(Body::Allocated(Err(Refusal::NoMemory))),
                &[1, 2, 0, 0, 1, 0, 0, 0, 0xf4, 0xff, 0xff, 0xff, 0, 0, 0, 0],
            ),
            (message(Body::Relinquish(handle)), &[1, 2, 0, 0, 2, 0, 0, 0, 0x78, 0x56, 0x34, 0x12]),
        ] {
            assert_eq!(message.encode().unwrap()[..], *bytes);
            assert_eq!(Message::decode(bytes), Some(message));
        }
        assert_eq!(request(16).encode().unwrap().len(), 92);
    }

    #[test]
    fn a_request_that_lies_about_itself_is_refused() {
        let whole = request(2).encode().unwrap();
        let refused = |bytes: &[u8]| match Message::decode(bytes) {
            Some(Message { body: Body::Alloc(request), .. }) => request.err(),
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(&whole), None);
        let changes: [(usize, &[u8]); 8] = [
            (8, &[0; 8]),
            (16, &[1]),
            (20, &[1]),
            (20, &[3]),
            (20, &[0xff; 4]),
            (26, &[2]),
            (27, &[1]),
            (28, &[3]),
        ];
        for (at, change) in changes {
            let mut bytes = whole.to_vec();
            bytes[at..at + change.len()].copy_from_slice(change);
            assert_eq!(refused(&bytes), Some(Refusal::Invalid), "{change:?} at {at}");
        }
        for length in HEADER..whole.len() {
            assert_eq!(refused(&whole[..length]), Some(Refusal::Invalid), "{length} bytes");
        }
        assert_eq!(Message::decode(&whole[..HEADER - 1]), None);
    }
}
