//! One VM's conversation with the manager.

use rm_abi::extension::{
    self, CopyRequest, CopySegment, Discovery, Events, LastRefusal, NotifyActions,
    NotifySetRequest, Policy, RevokeFlags, RevokeRequest, SetPolicyRequest, SubscribeRequest,
    TrimFlags, TrimRequest, WindowFlags, WindowRequest,
};
use rm_abi::list::List;
use rm_abi::memparcel::accept::{Accept, Accepted};
use rm_abi::memparcel::append::Append;
use rm_abi::memparcel::create::Create;
use rm_abi::memparcel::handle::HandleRequest;
use rm_abi::memparcel::lookup::Lookup;
use rm_abi::memparcel::notify::Notify;
use rm_abi::vm::VmExitRequest;
use rm_abi::{
    AppendFlags, Bytes, EncodeError, Entry, ErrorCode, Handle, Header, MAX_ENTRIES, MAX_PAYLOAD,
    NotifyFlag, Sanitize, SglEntry, Transfer, Vmid, VmidEntry, message, reply,
};

use crate::error::Error;
use crate::notice::Notice;
use crate::parcel::{Acceptance, NewParcel};
use crate::queue::{QueueTrap, Queues, Wait};
use crate::transport::Transport;

/// Bytes of the largest message, header included: the `N` with which a session can send and receive
/// anything.
pub const LARGEST: usize = Header::SIZE + MAX_PAYLOAD;

/// What became of each segment of a copy.
#[derive(Clone, Debug)]
#[must_use = "a copy of which no segment was done succeeds as a call"]
pub struct Copied<'a>(core::slice::ChunksExact<'a, u8>);

impl Iterator for Copied<'_> {
    type Item = Result<(), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(match self.0.next()?.u32_at(0) {
            0 => Ok(()),
            word => {
                Err(ErrorCode::from_word(word).map_or(Error::RefusedUnknown(word), Error::Refused))
            }
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for Copied<'_> {}

/// VMs that an access list can name.
const MAX_TARGETS: usize = 16;

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
    /// Bytes of a creation beside its ranges, if its lists are as long as a parcel's may be.
    const CREATE_HEAD: usize = Header::SIZE + 20 + 2 * 4 * MAX_TARGETS;

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
    pub(crate) fn order(
        &mut self,
        message: u32,
        encode: impl FnOnce(&mut [u8]) -> Result<usize, EncodeError>,
    ) -> Result<(), Error> {
        if self.call(message, encode)?.is_empty() { Ok(()) } else { Err(Error::Malformed) }
    }

    /// A call whose reply is one word.
    pub(crate) fn question(
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

    /// Maps a parcel of any number of runs where the manager finds room: it names at most 512 places in
    /// a reply, which `place` is told one by one, until it has named them all. Then all is mapped at
    /// once. If a call is refused, nothing is mapped and no place is taken.
    pub fn accept_all(
        &mut self,
        parcel: &Acceptance<'_>,
        mut place: impl FnMut(SglEntry),
    ) -> Result<(), Error> {
        let outcome = self.accept_places(parcel, &mut place);
        if outcome.is_err() {
            // What was assigned before counts as held; if nothing was, this is refused too.
            let _ = self.release(parcel.handle(), Sanitize::empty());
        }
        outcome
    }

    fn accept_places(
        &mut self,
        parcel: &Acceptance<'_>,
        place: &mut impl FnMut(SglEntry),
    ) -> Result<(), Error> {
        let more = parcel.unmapped();
        loop {
            let data = self.call(message::MEM_ACCEPT, |into| more.at(&[]).encode(into))?;
            let accepted = Accepted::decode(data).ok_or(Error::Malformed)?;
            Places { data, sgl: accepted.sgl, next: 0 }.for_each(&mut *place);
            if !accepted.incomplete {
                break;
            }
        }
        self.accept(parcel).map(drop)
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

    /// Adds pages to a parcel that was made [unfinished](NewParcel::unfinished). `last` completes it,
    /// so that its borrowers can accept it. A refused call adds nothing.
    pub fn append(&mut self, parcel: Handle, sgl: &[SglEntry], last: bool) -> Result<(), Error> {
        let flags = if last { AppendFlags::END } else { AppendFlags::empty() };
        let request = Append { handle: parcel, flags, sgl };
        self.order(message::MEM_APPEND, |into| request.encode(into))
    }

    /// Makes a parcel of any number of ranges, in as many calls as the session's buffer asks for. If
    /// one of them is refused, what was made is taken back.
    pub fn create_all(
        &mut self,
        transfer: Transfer,
        parcel: &NewParcel<'_>,
    ) -> Result<Handle, Error> {
        let ranges = parcel.request().sgl;
        // Header, fixed fields and lists of a full access list, and 16 bytes for each range.
        let most = (N.saturating_sub(Self::CREATE_HEAD) / SglEntry::SIZE).clamp(1, MAX_ENTRIES);
        let Some((first, rest)) =
            ranges.split_at_checked(most).filter(|(_, rest)| !rest.is_empty())
        else {
            return self.create(transfer, parcel);
        };
        let handle = self.create(transfer, &parcel.with_ranges(first).unfinished())?;
        let mut chunks = rest.chunks(most).peekable();
        while let Some(chunk) = chunks.next() {
            let last = chunks.peek().is_none();
            if let Err(error) = self.append(handle, chunk, last) {
                self.reclaim(handle, Sanitize::empty())?;
                return Err(error);
            }
        }
        Ok(handle)
    }

    /// Tells borrowers that a parcel is theirs to accept. `tag` is the owner's name for it, which must
    /// not change.
    pub fn notify_shared(
        &mut self,
        parcel: Handle,
        tag: u32,
        borrowers: &[Vmid],
    ) -> Result<(), Error> {
        self.notify(parcel, NotifyFlag::Shared, tag, borrowers)
    }

    /// Asks borrowers to release a parcel.
    pub fn notify_recall(
        &mut self,
        parcel: Handle,
        tag: u32,
        borrowers: &[Vmid],
    ) -> Result<(), Error> {
        self.notify(parcel, NotifyFlag::Recall, tag, borrowers)
    }

    /// Tells the owner that this VM has accepted the parcel.
    pub fn notify_accepted(&mut self, parcel: Handle, tag: u32) -> Result<(), Error> {
        self.notify(parcel, NotifyFlag::Accepted, tag, &[])
    }

    /// Tells the owner that this VM has released the parcel.
    pub fn notify_released(&mut self, parcel: Handle, tag: u32) -> Result<(), Error> {
        self.notify(parcel, NotifyFlag::Released, tag, &[])
    }

    fn notify(
        &mut self,
        handle: Handle,
        flag: NotifyFlag,
        tag: u32,
        borrowers: &[Vmid],
    ) -> Result<(), Error> {
        let mut targets = [VmidEntry(Vmid(0)); MAX_TARGETS];
        let targets = targets.get_mut(..borrowers.len()).ok_or(EncodeError::TooLong)?;
        for (target, borrower) in targets.iter_mut().zip(borrowers) {
            *target = VmidEntry(*borrower);
        }
        let request = Notify { handle, flag, tag, targets };
        self.order(message::MEM_NOTIFY, |into| request.encode(into))
    }

    /// The handle of a parcel of this VM that nobody holds, by its description: access list, pages and
    /// attributes in the order of its creation.
    pub fn lookup(&mut self, parcel: &NewParcel<'_>) -> Result<Handle, Error> {
        let Create { memory, label, acl, sgl, attributes, .. } = *parcel.request();
        let request = Lookup { memory, label, acl, sgl, attributes };
        self.question(message::MEM_LOOKUP, |into| request.encode(into)).map(Handle)
    }

    /// What the manager offers beyond the calls above. A manager without extensions refuses with
    /// UNIMPLEMENTED.
    pub fn discover(&mut self) -> Result<Discovery, Error> {
        let data = self.call(extension::DISCOVER, |_| Ok(0))?;
        Discovery::decode(data).ok_or(Error::Malformed)
    }

    /// Why this VM's last refused call by this transport was refused: the rule behind the error word,
    /// what ran out and how much of it there is, or which VMs are in the way.
    pub fn last_refusal(&mut self) -> Result<LastRefusal, Error> {
        let data = self.call(extension::LAST_REFUSAL, |_| Ok(0))?;
        LastRefusal::decode(data).ok_or(Error::Malformed)
    }

    /// Takes a parcel away from all its borrowers, which need not do anything and cannot stop it; they
    /// hear [`Notice::Recall`], and their accesses fault. Then it can be reclaimed; the pages of a lend
    /// are zeros by then. To ask politely before is [`Session::recall`].
    ///
    /// [`Notice::Recall`]: crate::Notice::Recall
    pub fn revoke(&mut self, parcel: Handle) -> Result<(), Error> {
        let request = RevokeRequest { handle: parcel, flags: RevokeFlags::empty() };
        self.order(extension::REVOKE, |into| request.encode(into))
    }

    /// Asks all borrowers of a parcel to release it, and lets nobody begin to use it any more; there is
    /// no way back. [`Session::notify_recall`] only asks.
    pub fn recall(&mut self, parcel: Handle) -> Result<(), Error> {
        let request = RevokeRequest { handle: parcel, flags: RevokeFlags::RECALL };
        self.order(extension::REVOKE, |into| request.encode(into))
    }

    /// Takes `size` bytes from byte `offset` on out of a parcel, which stays as it is for the rest. A
    /// borrower that has accepted it gives them up; its owner, when no borrower has them any more (else
    /// [`MemoryInUse`](rm_abi::ErrorCode::MemoryInUse), and [`Session::last_refusal`] says who), has them back
    /// where they always were. Offsets count through all ranges of the parcel as its owner named them, and
    /// like sizes are multiples of a page; they do not shift by what was trimmed before. With
    /// [`TrimFlags::SANITIZE`] these pages are zeroed.
    pub fn trim(
        &mut self,
        parcel: Handle,
        offset: u64,
        size: u64,
        flags: TrimFlags,
    ) -> Result<(), Error> {
        let request = TrimRequest { handle: parcel, flags, offset, size };
        self.order(extension::TRIM, |into| request.encode(into))
    }

    /// Gives a parcel that nobody has accepted another cache policy. A share's own mapping changes too,
    /// and its content is kept; what this VM writes there during the call may be lost. Who accepts later
    /// and checks the attributes finds those of a parcel made with this policy: see
    /// [`SET_POLICY`](extension::SET_POLICY).
    pub fn set_policy(&mut self, parcel: Handle, policy: Policy) -> Result<(), Error> {
        let request = SetPolicyRequest { handle: parcel, policy };
        self.order(extension::SET_POLICY, |into| request.encode(into))
    }

    /// Has something done when this VM's part in the page of byte `offset` of a parcel ends: when it has
    /// released the parcel, was revoked or has died, or, if it is the owner, when it takes the parcel away.
    /// The byte is cleared, and then flag `bell.1` is set at the other end of channel `bell.0`. It takes the
    /// place of what was asked for this page before.
    pub fn notify_set(
        &mut self,
        parcel: Handle,
        offset: u64,
        actions: NotifyActions,
        bell: (u32, u32),
    ) -> Result<(), Error> {
        let (doorbell, flag) = bell;
        let request = NotifySetRequest { handle: parcel, actions, offset, doorbell, flag };
        self.order(extension::NOTIFY_SET, |into| request.encode(into))
    }

    /// Copies bytes between parcels that this VM may use, accepted or not, and its own memory. The result
    /// has an outcome for each segment, in their order.
    pub fn copy(&mut self, segments: &[CopySegment]) -> Result<Copied<'_>, Error> {
        let request = |into: &mut [u8]| CopyRequest::encode(segments, into);
        let data = self.call(extension::COPY, request)?;
        let words = data.get(CopyRequest::REPLY_HEAD..).ok_or(Error::Malformed)?;
        let count = segments.len();
        if data.u32_at(0) as usize != count || words.len() != count * CopyRequest::STATUS {
            return Err(Error::Malformed);
        }
        Ok(Copied(words.chunks_exact(CopyRequest::STATUS)))
    }

    /// Lets a VM of a parcel's access list copy `size` bytes from `offset` on, and map nothing. With
    /// [`WindowFlags::END`] that also completes an [unfinished](NewParcel::unfinished) parcel, so that the
    /// VM never had a moment to map it.
    pub fn set_window(
        &mut self,
        parcel: Handle,
        vmid: Vmid,
        (offset, size): (u64, u64),
        flags: WindowFlags,
    ) -> Result<(), Error> {
        let request = WindowRequest { handle: parcel, vmid, flags, offset, size };
        self.order(extension::SET_WINDOW, |into| request.encode(into))
    }

    /// Asks to be told of such events of this VM's own parcels by [`Notice::Event`], instead of those
    /// it asked for before. Borrowers need not notify then.
    ///
    /// [`Notice::Event`]: crate::Notice::Event
    pub fn subscribe(&mut self, events: Events) -> Result<(), Error> {
        self.order(extension::SUBSCRIBE, |into| SubscribeRequest { events }.encode(into))
    }

    /// Ends this VM; 0 is a normal end. Under a hypervisor this does not return unless it is refused.
    pub fn exit(&mut self, code: u8) -> Result<(), Error> {
        self.order(message::VM_EXIT, |into| VmExitRequest { flags: 0, code }.encode(into))
    }
}

impl<T: QueueTrap, W: Wait, const INBOX: usize, const N: usize> Session<Queues<T, W, INBOX>, N> {
    /// The oldest notification that has come, without waiting. It is told once.
    pub fn poll_notice(&mut self) -> Result<Option<Notice<'_>>, Error> {
        Ok(self.transport.poll_notice()?)
    }

    /// The oldest notification, as soon as there is one.
    pub fn wait_notice(&mut self) -> Result<Notice<'_>, Error> {
        Ok(self.transport.wait_notice()?)
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
