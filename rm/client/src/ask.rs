//! Questions about parcels and limits: what a program asks when it wants to know where it stands, or
//! why it was refused.
//!
//! ```
//! use rm_client::{Error, ErrorCode, Handle, Sanitize, Session, Transport};
//!
//! /// Reclaims a parcel, or asks those that still have it mapped to release it.
//! fn want_back<T: Transport>(session: &mut Session<T>, parcel: Handle) -> Result<(), Error> {
//!     match session.reclaim(parcel, Sanitize::empty()) {
//!         Err(Error::Refused(ErrorCode::MemoryInUse)) => {}
//!         outcome => return outcome,
//!     }
//!     for holder in session.holders(parcel)? {
//!         // ... say that VM holder.vmid has holder.pages pages of it ...
//!         # let _ = holder;
//!     }
//!     session.recall(parcel)
//! }
//! ```

use rm_abi::extension::{
    self, Holder, Limit, LimitsRequest, ListFlags, ListRequest, MAX_NAME, Name, NameRequest,
    ParcelEntry, ParcelInfo, ParcelRequest, Resource,
};
use rm_abi::{Bytes, EncodeError, Handle, Vmid, reply};

use crate::error::Error;
use crate::session::Session;
use crate::transport::Transport;

/// The entries of a reply.
#[derive(Clone, Debug)]
pub struct Entries<'a, E> {
    data: &'a [u8],
    at: usize,
    size: usize,
    left: usize,
    read: fn(&[u8], usize) -> Option<E>,
}

impl<'a, E> Entries<'a, E> {
    /// `left` entries of `size` bytes from `at` on, all of which are there and can be read.
    pub(crate) fn new(
        data: &'a [u8],
        (at, size): (usize, usize),
        left: usize,
        read: fn(&[u8], usize) -> Option<E>,
    ) -> Result<Self, Error> {
        let entries = Self { data, at, size, left, read };
        let whole = data.len().saturating_sub(at) / size >= left;
        let is_readable = whole && (0..left).all(|n| read(data, at + n * size).is_some());
        if is_readable { Ok(entries) } else { Err(Error::Malformed) }
    }
}

impl<E> Iterator for Entries<'_, E> {
    type Item = E;

    fn next(&mut self) -> Option<E> {
        self.left = self.left.checked_sub(1)?;
        let entry = (self.read)(self.data, self.at);
        self.at += self.size;
        entry
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<E> ExactSizeIterator for Entries<'_, E> {}

/// A part of a list of parcels.
#[derive(Clone, Debug)]
pub struct Part<'a> {
    /// The parcels.
    pub parcels: Entries<'a, ParcelEntry>,
    /// Where the next part begins; nothing behind the last one.
    pub next: Option<u32>,
}

/// How a VM stands with every resource.
#[derive(Clone, Debug)]
pub struct Limits<'a> {
    /// The resources.
    pub resources: Entries<'a, Limit>,
    /// How many parcels the VM can still make, one after the other, before its handle numbers are worn
    /// out for good.
    pub handles_left: u32,
}

impl Limits<'_> {
    /// How the VM stands with this resource, if the manager has it.
    pub fn of(&self, resource: Resource) -> Option<Limit> {
        self.resources.clone().find(|limit| limit.resource == resource as u16)
    }
}

impl<T: Transport, const N: usize> Session<T, N> {
    /// Parcels that a reply to this session can tell of.
    const MOST_LISTED: usize =
        N.saturating_sub(reply::SIZE + ParcelEntry::HEAD) / ParcelEntry::SIZE;

    /// What there is to say about a parcel that this VM owns, holds or may accept.
    pub fn info(&mut self, parcel: Handle) -> Result<ParcelInfo, Error> {
        let request = ParcelRequest { handle: parcel };
        let data = self.call(extension::INFO, |into| request.encode(into))?;
        ParcelInfo::decode(data).ok_or(Error::Malformed)
    }

    /// Gives a parcel of this VM's a name for people, of at most 32 bytes and without zeros among them.
    /// Every VM that may know of the parcel reads it.
    pub fn name_parcel(&mut self, parcel: Handle, name: &str) -> Result<(), Error> {
        if name.len() > MAX_NAME {
            return Err(EncodeError::TooLong.into());
        }
        let request = NameRequest { handle: parcel, name: Name::new(name) };
        self.order(extension::SET_NAME, |into| request.encode(into))
    }

    /// Tells `visit` of every parcel that this VM owns, holds or may accept; with [`ListFlags::ALL`] of
    /// those of all VMs, which takes the role `inspect`. Parcels that come or go meanwhile may be among
    /// them or not, all others are told once.
    pub fn list_parcels(
        &mut self,
        which: ListFlags,
        mut visit: impl FnMut(&ParcelEntry),
    ) -> Result<(), Error> {
        let mut cursor = 0;
        loop {
            let part = self.list_part(which, cursor)?;
            part.parcels.for_each(|entry| visit(&entry));
            match part.next {
                None => return Ok(()),
                // A cursor that does not rise would lead in a circle.
                Some(next) if next <= cursor => return Err(Error::Malformed),
                Some(next) => cursor = next,
            }
        }
    }

    /// One part of the list that [`Session::list_parcels`] tells, from a cursor on; 0 is its beginning. A
    /// part has as many parcels as fit the session's buffer, at least one.
    pub fn list_part(&mut self, which: ListFlags, cursor: u32) -> Result<Part<'_>, Error> {
        let most = u16::try_from(Self::MOST_LISTED).unwrap_or(u16::MAX);
        if most == 0 {
            return Err(EncodeError::BufferTooSmall.into());
        }
        let request = ListRequest { cursor, most, flags: which };
        let data = self.call(extension::LIST, |into| request.encode(into))?;
        if data.len() < ParcelEntry::HEAD {
            return Err(Error::Malformed);
        }
        let next = Some(data.u32_at(0)).filter(|&next| next != 0);
        let place = (ParcelEntry::HEAD, ParcelEntry::SIZE);
        let parcels = Entries::new(data, place, data.u16_at(4).into(), ParcelEntry::decode)?;
        Ok(Part { parcels, next })
    }

    /// Who holds a parcel of this VM's, and how; with the role `inspect` of any parcel. It is what to ask
    /// when a reclaim is refused with `MemoryInUse`.
    pub fn holders(&mut self, parcel: Handle) -> Result<Entries<'_, Holder>, Error> {
        let request = ParcelRequest { handle: parcel };
        let data = self.call(extension::HOLDERS, |into| request.encode(into))?;
        if data.len() < Holder::HEAD {
            return Err(Error::Malformed);
        }
        let place = (Holder::HEAD, Holder::SIZE);
        Entries::new(data, place, data.u32_at(0) as usize, Holder::decode)
    }

    /// How much of each resource a VM uses, and may use: this one by its VMID or 0, another one with the
    /// role `inspect`.
    pub fn limits(&mut self, vmid: Vmid) -> Result<Limits<'_>, Error> {
        let data = self.call(extension::LIMITS, |into| LimitsRequest { vmid }.encode(into))?;
        if data.len() < Limit::HEAD {
            return Err(Error::Malformed);
        }
        let place = (Limit::HEAD, Limit::SIZE);
        let resources = Entries::new(data, place, data.u32_at(0) as usize, Limit::decode)?;
        Ok(Limits { resources, handles_left: data.u32_at(4) })
    }
}
