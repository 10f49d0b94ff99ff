//! One VM's conversation with the manager.

use rm_abi::list::List;
use rm_abi::memparcel::accept::{Accept, Accepted};
use rm_abi::memparcel::handle::HandleRequest;
use rm_abi::vm::VmExitRequest;
use rm_abi::{
    Bytes, EncodeError, Handle, Header, MAX_PAYLOAD, Sanitize, SglEntry, Transfer, Vmid, message,
    reply,
};

use crate::error::Error;
use crate::parcel::{Acceptance, NewParcel};
use crate::transport::Transport;

/// Bytes of the largest message, header included: the `N` with which a session can send and receive
/// anything.
pub const LARGEST: usize = Header::SIZE + MAX_PAYLOAD;

/// Numbers requests, sends them over a transport and checks the replies.
///
/// `N` is the size of its two buffers. The default of 512 bytes is enough for lists of about 24
/// ranges; a parcel of 512 ranges takes [`LARGEST`], or 8,704 bytes.
#[derive(Debug)]
pub struct Session<T, const N: usize = 512> {
    transport: T,
    sequence: u16,
    request: [u8; N],
    reply: [u8; N],
}

impl<T: Transport> Session<T> {
    /// A session for short messages.
    pub const fn new(transport: T) -> Self {
        Self::with_capacity(transport)
    }
}

impl<T: Transport, const N: usize> Session<T, N> {
    /// A session whose messages have at most `N` bytes.
    pub const fn with_capacity(transport: T) -> Self {
        Self { transport, sequence: 0, request: [0; N], reply: [0; N] }
    }

    /// The transport, for what is not a call.
    pub const fn transport(&mut self) -> &mut T {
        &mut self.transport
    }

    /// Makes a call whose payload `encode` writes, and returns the data of its reply. The methods
    /// below are all that most programs need.
    pub fn call(
        &mut self,
        message: u32,
        encode: impl FnOnce(&mut [u8]) -> Result<usize, EncodeError>,
    ) -> Result<&[u8], Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let header = Header::request(message, self.sequence);
        let Some((head, payload)) = self.request.split_first_chunk_mut() else {
            return Err(EncodeError::BufferTooSmall.into());
        };
        *head = header.encode();
        let length = Header::SIZE + encode(payload)?;
        let received = self.transport.exchange(&self.request[..length], &mut self.reply)?;
        let reply = self.reply.get(..received).ok_or(Error::Malformed)?;
        if Header::decode(reply) != Some(header.reply()) {
            return Err(Error::Malformed);
        }
        Ok(reply::decode(&reply[Header::SIZE..])?)
    }

    /// A call whose reply has no data.
    fn order(
        &mut self,
        message: u32,
        encode: impl FnOnce(&mut [u8]) -> Result<usize, EncodeError>,
    ) -> Result<(), Error> {
        if self.call(message, encode)?.is_empty() { Ok(()) } else { Err(Error::Malformed) }
    }

    /// A call whose reply is one word.
    fn question(
        &mut self,
        message: u32,
        encode: impl FnOnce(&mut [u8]) -> Result<usize, EncodeError>,
    ) -> Result<u32, Error> {
        let data = self.call(message, encode)?;
        if data.len() == 4 { Ok(data.u32_at(0)) } else { Err(Error::Malformed) }
    }

    /// The caller's own VMID.
    pub fn vmid(&mut self) -> Result<Vmid, Error> {
        let vmid = self.question(message::VM_GET_VMID, |_| Ok(0))?;
        u16::try_from(vmid).map(Vmid).map_err(|_| Error::Malformed)
    }

    /// Lets others use pages, and goes on using them as the own entry in the access list says.
    pub fn share(&mut self, parcel: &NewParcel<'_>) -> Result<Handle, Error> {
        self.create(Transfer::Share, parcel)
    }

    /// Gives pages away until they are reclaimed.
    pub fn lend(&mut self, parcel: &NewParcel<'_>) -> Result<Handle, Error> {
        self.create(Transfer::Lend, parcel)
    }

    /// Gives pages to one other VM for good.
    pub fn donate(&mut self, parcel: &NewParcel<'_>) -> Result<Handle, Error> {
        self.create(Transfer::Donate, parcel)
    }

    fn create(&mut self, transfer: Transfer, parcel: &NewParcel<'_>) -> Result<Handle, Error> {
        self.question(transfer.message(), |into| parcel.request().encode(into)).map(Handle)
    }

    /// Maps a parcel where the manager finds room, and says where. The reply to a parcel of `n` runs
    /// takes 16 + 16 × `n` bytes, to a contiguous mapping 32.
    pub fn accept(&mut self, parcel: &Acceptance<'_>) -> Result<Places<'_>, Error> {
        let request: Accept<'_> = parcel.at(&[]);
        let data = self.call(message::MEM_ACCEPT, |into| request.encode(into))?;
        let accepted = Accepted::decode(data).ok_or(Error::Malformed)?;
        Ok(Places { data, sgl: accepted.sgl, next: 0 })
    }

    /// Maps a parcel at the given places: one per physically contiguous run and of its size, or one of
    /// the whole size for a contiguous mapping.
    pub fn accept_at(&mut self, parcel: &Acceptance<'_>, places: &[SglEntry]) -> Result<(), Error> {
        self.order(message::MEM_ACCEPT, |into| parcel.at(places).encode(into))
    }

    /// Unmaps an accepted parcel.
    pub fn release(&mut self, parcel: Handle, flags: Sanitize) -> Result<(), Error> {
        let request = HandleRequest { handle: parcel, flags };
        self.order(message::MEM_RELEASE, |into| request.encode(into))
    }

    /// Takes the pages of a parcel back, when all borrowers have released it.
    pub fn reclaim(&mut self, parcel: Handle, flags: Sanitize) -> Result<(), Error> {
        let request = HandleRequest { handle: parcel, flags };
        self.order(message::MEM_RECLAIM, |into| request.encode(into))
    }

    /// Ends this VM; 0 is a normal end. Under a hypervisor this does not return unless it is refused.
    pub fn exit(&mut self, code: u8) -> Result<(), Error> {
        self.order(message::VM_EXIT, |into| VmExitRequest { flags: 0, code }.encode(into))
    }
}

/// Where the manager mapped an accepted parcel: a range for each physically contiguous run, in the
/// parcel's order.
#[derive(Clone, Debug)]
pub struct Places<'a> {
    data: &'a [u8],
    sgl: List<SglEntry>,
    next: usize,
}

impl Iterator for Places<'_> {
    type Item = SglEntry;

    fn next(&mut self) -> Option<SglEntry> {
        let index = self.next;
        (index < self.sgl.len()).then(|| {
            self.next += 1;
            self.sgl.get(self.data, index)
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.sgl.len() - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Places<'_> {}
