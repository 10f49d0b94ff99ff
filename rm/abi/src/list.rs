//! Lists inside payloads: a 16-bit count, 16 auxiliary bits, then the entries.
//!
//! A decoded [`List`] is only where the entries are. The bytes stay where they were copied to, and an
//! entry is decoded when it is asked for.

use core::marker::PhantomData;

use crate::bytes::{Bytes, EncodeError, Writer};
use crate::error::ErrorCode;
use crate::memparcel::Rights;
use crate::names::Vmid;

/// Most entries that a list may have.
pub const MAX_ENTRIES: usize = 512;
/// Bytes before a list's entries.
const HEAD: usize = 4;

/// An entry of a list.
pub trait Entry: Copy {
    /// Bytes on the wire, a multiple of 4.
    const SIZE: usize;
    /// Reads the entry whose `SIZE` bytes start at `at`.
    fn decode<B: Bytes + ?Sized>(bytes: &B, at: usize) -> Self;
    /// Appends the entry.
    fn encode(&self, writer: &mut Writer<'_>);
}

/// Where a list's entries are in a payload.
#[derive(Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct List<E> {
    /// Offset of the first entry.
    pub at: usize,
    /// Number of entries, at most [`MAX_ENTRIES`].
    pub count: u16,
    /// The half-word beside the count: zero, or the VMID to map for in an accept.
    pub auxiliary: u16,
    entry: PhantomData<E>,
}

// Derived they would ask the same of `E`.
impl<E> Clone for List<E> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<E> Copy for List<E> {}
impl<E> PartialEq for List<E> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.count, self.auxiliary) == (other.at, other.count, other.auxiliary)
    }
}
impl<E> Eq for List<E> {}

impl<E: Entry> List<E> {
    /// The list that starts at `*at`, which moves behind it. A payload that ends there has an empty
    /// list.
    pub(crate) fn decode<B: Bytes + ?Sized>(bytes: &B, at: &mut usize) -> Result<Self, ErrorCode> {
        let left = bytes.len().saturating_sub(*at);
        if left == 0 {
            return Ok(Self { at: *at, count: 0, auxiliary: 0, entry: PhantomData });
        }
        if left < HEAD {
            return Err(ErrorCode::MessageInvalid);
        }
        let (count, auxiliary) = (bytes.u16_at(*at), bytes.u16_at(*at + 2));
        if usize::from(count) > MAX_ENTRIES {
            return Err(ErrorCode::NoResource);
        }
        Self::entries(bytes, at, count, auxiliary)
    }

    /// The list at `*at`, whose head is known to be there, without a limit of its own on the count.
    pub(crate) fn entries<B: Bytes + ?Sized>(
        bytes: &B,
        at: &mut usize,
        count: u16,
        auxiliary: u16,
    ) -> Result<Self, ErrorCode> {
        let first = *at + HEAD;
        let end = first + usize::from(count) * E::SIZE;
        if end > bytes.len() {
            return Err(ErrorCode::MessageInvalid);
        }
        *at = end;
        Ok(Self { at: first, count, auxiliary, entry: PhantomData })
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Entry `index`, below [`List::len`], read from the payload that the list was decoded from.
    pub fn get<B: Bytes + ?Sized>(&self, bytes: &B, index: usize) -> E {
        E::decode(bytes, self.at + index * E::SIZE)
    }

    /// All entries in order.
    pub fn iter<'a, B: Bytes + ?Sized>(&self, bytes: &'a B) -> impl Iterator<Item = E> + 'a
    where
        E: 'a,
    {
        let list = *self;
        (0..list.len()).map(move |index| list.get(bytes, index))
    }
}

/// A payload ends with its last list.
pub(crate) fn end<B: Bytes + ?Sized>(bytes: &B, at: usize) -> Result<(), ErrorCode> {
    if at == bytes.len() { Ok(()) } else { Err(ErrorCode::MessageInvalid) }
}

impl Writer<'_> {
    /// Appends a list.
    pub fn list<E: Entry>(&mut self, entries: &[E], auxiliary: u16) -> &mut Self {
        if entries.len() > MAX_ENTRIES {
            self.fail(EncodeError::TooLong);
        }
        self.u16(entries.len() as u16).u16(auxiliary);
        entries.iter().for_each(|entry| entry.encode(self));
        self
    }
}

/// A VM that may accept a parcel, and how it may use it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct AclEntry {
    /// Which VM.
    pub vmid: Vmid,
    /// What it may do.
    pub rights: Rights,
}

impl Entry for AclEntry {
    const SIZE: usize = 4;
    fn decode<B: Bytes + ?Sized>(bytes: &B, at: usize) -> Self {
        Self { vmid: Vmid(bytes.u16_at(at)), rights: Rights(bytes.u8_at(at + 2)) }
    }
    fn encode(&self, writer: &mut Writer<'_>) {
        writer.u16(self.vmid.0).u8(self.rights.0).u8(0);
    }
}

/// A range of guest addresses (one element of a scatter-gather list).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SglEntry {
    /// First guest physical address.
    pub ipa: u64,
    /// Length in bytes.
    pub size: u64,
}

impl Entry for SglEntry {
    const SIZE: usize = 16;
    fn decode<B: Bytes + ?Sized>(bytes: &B, at: usize) -> Self {
        Self { ipa: bytes.u64_at(at), size: bytes.u64_at(at + 8) }
    }
    fn encode(&self, writer: &mut Writer<'_>) {
        writer.u64(self.ipa).u64(self.size);
    }
}

/// The memory type with which a VM maps a parcel. The wire has the type before the VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct AttributeEntry {
    /// An [`Attribute`](crate::Attribute), or a number that is none.
    pub attribute: u16,
    /// Which VM.
    pub vmid: Vmid,
}

impl Entry for AttributeEntry {
    const SIZE: usize = 4;
    fn decode<B: Bytes + ?Sized>(bytes: &B, at: usize) -> Self {
        Self { attribute: bytes.u16_at(at), vmid: Vmid(bytes.u16_at(at + 2)) }
    }
    fn encode(&self, writer: &mut Writer<'_>) {
        writer.u16(self.attribute).u16(self.vmid.0);
    }
}

/// A VM to notify.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct VmidEntry(pub Vmid);

impl Entry for VmidEntry {
    const SIZE: usize = 4;
    fn decode<B: Bytes + ?Sized>(bytes: &B, at: usize) -> Self {
        Self(Vmid(bytes.u16_at(at)))
    }
    fn encode(&self, writer: &mut Writer<'_>) {
        writer.u16(self.0.0).u16(0);
    }
}
