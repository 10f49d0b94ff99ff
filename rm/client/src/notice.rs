//! What the manager tells a VM unasked, and where it waits until the program asks for it.

use rm_abi::extension::{self, ParcelEvent};
use rm_abi::memparcel::notice::{BorrowerNews, Offer, OfferLists, Recall};
use rm_abi::vm::{VmExited, VmStatus};
use rm_abi::{AclEntry, AttributeEntry, Bytes, Header, message};

/// A notification.
#[derive(Clone, Copy, Debug)]
pub enum Notice<'a> {
    /// A parcel is offered to this VM.
    Shared(Offered<'a>),
    /// The owner wants a parcel back.
    Recall(Recall),
    /// A borrower of this VM's parcel has accepted it.
    Accepted(BorrowerNews),
    /// A borrower of this VM's parcel has released it.
    Released(BorrowerNews),
    /// Something happened to a parcel of this VM, which subscribed to such news.
    Event(ParcelEvent),
    /// A VM that this one has to do with has another state.
    Status(VmStatus),
    /// A VM that this one manages has ended.
    Exited(VmExited),
    /// This VM is asked to end, for this reason.
    Shutdown(u32),
    /// A notification that this crate does not know, or not in this form: message id and payload.
    Other(u32, &'a [u8]),
}

/// A parcel that is offered, with its lists.
#[derive(Clone, Copy, Debug)]
pub struct Offered<'a> {
    /// Handle, kind, owner, label, tag.
    pub offer: Offer,
    payload: &'a [u8],
    lists: OfferLists,
}

impl<'a> Offered<'a> {
    /// Who may accept it, in the owner's order.
    pub fn acl(&self) -> impl Iterator<Item = AclEntry> + '_ {
        self.lists.acl.iter(self.payload)
    }

    /// The sizes in bytes of its physically contiguous runs, at most 512 of them. They are 0 if the
    /// parcel went while it was being told.
    pub fn sizes(&self) -> impl Iterator<Item = u64> + '_ {
        self.lists.sizes.iter(self.payload).map(|size| size.0)
    }

    /// Memory types other than the default.
    pub fn attributes(&self) -> impl Iterator<Item = AttributeEntry> + '_ {
        self.lists.attributes.iter(self.payload)
    }
}

impl<'a> Notice<'a> {
    /// Reads a whole notification, whose packets' payloads are joined behind the first header.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let message = Header::decode(bytes)?.message;
        let payload = &bytes[Header::SIZE..];
        let known = match message {
            message::MEM_SHARED => Offer::decode(payload)
                .map(|(offer, lists)| Self::Shared(Offered { offer, payload, lists })),
            message::MEM_RECALL => Recall::decode(payload).map(Self::Recall),
            message::MEM_ACCEPTED => BorrowerNews::decode(payload).map(Self::Accepted),
            message::MEM_RELEASED => BorrowerNews::decode(payload).map(Self::Released),
            message::VM_STATUS => VmStatus::decode(payload).map(Self::Status),
            message::VM_EXITED => VmExited::decode(payload).map(Self::Exited),
            message::VM_SHUTDOWN if payload.len() >= 4 => Some(Self::Shutdown(payload.u32_at(0))),
            extension::PARCEL_EVENT => ParcelEvent::decode(payload).map(Self::Event),
            _ => None,
        };
        Some(known.unwrap_or(Self::Other(message, payload)))
    }
}

/// Notifications that came before they were asked for, oldest first, in `N` bytes. What does not fit is
/// counted and dropped: a program that must not miss any asks often enough.
#[derive(Debug)]
pub(crate) struct Inbox<const N: usize> {
    bytes: [u8; N],
    /// Bytes of whole notifications, each behind its length.
    whole: usize,
    /// Bytes of those and the one that is coming in.
    used: usize,
    /// What was handed out last, and goes when the next is asked for.
    read: usize,
    /// The one that is coming in does not fit.
    overflows: bool,
    lost: u32,
}

/// Bytes of the length in front of a notification.
const LENGTH: usize = 2;

impl<const N: usize> Inbox<N> {
    pub(crate) const fn new() -> Self {
        Self { bytes: [0; N], whole: 0, used: 0, read: 0, overflows: false, lost: 0 }
    }

    /// Begins a notification.
    pub(crate) fn begin(&mut self) {
        self.forget_read();
        self.used = self.whole + LENGTH;
        self.overflows = self.used > N;
    }

    /// Adds to the one that is coming in.
    pub(crate) fn add(&mut self, part: &[u8]) {
        match self.bytes.get_mut(self.used..).and_then(|rest| rest.get_mut(..part.len())) {
            Some(place) if !self.overflows => {
                place.copy_from_slice(part);
                self.used += part.len();
            }
            _ => self.overflows = true,
        }
    }

    /// Ends it.
    pub(crate) fn end(&mut self) {
        if self.overflows {
            self.lost = self.lost.saturating_add(1);
            return;
        }
        let length = (self.used - self.whole - LENGTH) as u16;
        self.bytes[self.whole..][..LENGTH].copy_from_slice(&length.to_le_bytes());
        self.whole = self.used;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.whole == self.read
    }

    /// The oldest, which goes when the next is asked for.
    pub(crate) fn next(&mut self) -> Option<&[u8]> {
        self.forget_read();
        let (length, rest) = self.bytes[..self.whole].split_first_chunk::<LENGTH>()?;
        let length = usize::from(u16::from_le_bytes(*length));
        self.read = LENGTH + length;
        Some(&rest[..length])
    }

    /// How many did not fit.
    pub(crate) const fn lost(&self) -> u32 {
        self.lost
    }

    fn forget_read(&mut self) {
        self.bytes.copy_within(self.read..self.whole, 0);
        self.whole -= self.read;
        self.read = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put<const N: usize>(inbox: &mut Inbox<N>, parts: &[&[u8]]) {
        inbox.begin();
        parts.iter().for_each(|part| inbox.add(part));
        inbox.end();
    }

    #[test]
    fn notifications_come_out_in_order_and_whole() {
        let mut inbox = Inbox::<32>::new();
        assert!(inbox.is_empty());
        put(&mut inbox, &[b"first"]);
        put(&mut inbox, &[b"sec", b"ond"]);
        assert_eq!(inbox.next(), Some(&b"first"[..]));
        put(&mut inbox, &[b"third"]);
        assert_eq!(inbox.next(), Some(&b"second"[..]));
        assert_eq!(inbox.next(), Some(&b"third"[..]));
        assert_eq!(inbox.next(), None);
        assert!(inbox.is_empty());
    }

    #[test]
    fn what_does_not_fit_is_counted_and_harms_nothing() {
        let mut inbox = Inbox::<16>::new();
        put(&mut inbox, &[b"0123456789"]);
        put(&mut inbox, &[b"01", b"234"]);
        assert_eq!(inbox.lost(), 1);
        put(&mut inbox, &[b"ab"]);
        assert_eq!(inbox.next(), Some(&b"0123456789"[..]));
        assert_eq!(inbox.next(), Some(&b"ab"[..]));
        assert_eq!(inbox.next(), None);
        put(&mut inbox, &[b"01234567890123456789"]);
        assert_eq!((inbox.lost(), inbox.next()), (2, None));
    }
}
