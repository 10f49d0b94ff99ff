//! Named heaps: memory that the boot configuration sets aside for buffers.

use bitflags::bitflags;

use super::check_length;
use crate::bytes::{Bytes, EncodeError, Writer};
use crate::error::ErrorCode;

/// Most bytes of a heap's name.
pub const MAX_HEAP_NAME: usize = 16;

/// A question about the first heap that the caller may use whose number is not below this.
///
/// ```text
/// 0: u32 number    4: u32 0
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct HeapRequest {
    /// Where to look from.
    pub from: u32,
}

impl HeapRequest {
    /// Bytes of the payload.
    pub const SIZE: usize = 8;

    /// Reads a payload.
    pub fn decode<B: Bytes + ?Sized>(payload: &B) -> Result<Self, ErrorCode> {
        check_length(payload, Self::SIZE)?;
        if payload.u32_at(4) != 0 {
            return Err(ErrorCode::ArgumentInvalid);
        }
        Ok(Self { from: payload.u32_at(0) })
    }

    /// Writes the payload, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        Writer::new(into).u32(self.from).u32(0).finish()
    }
}

/// What holds of every piece of a heap. Bits that a client does not know mean nothing to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct HeapFeatures(pub u64);

bitflags! {
    impl HeapFeatures: u64 {
        /// A piece is one range of the machine's memory.
        const CONTIGUOUS = 1;
        const _ = !0;
    }
}

/// What there is to say about a heap. Sizes are in bytes.
///
/// ```text
/// 0: u32 number, u32 0    8: u64 features    16: u64 size    24: u64 free    32: u64 largest
/// 40: u64 used    48: u64 guaranteed    56: u64 limit    64: 16 bytes of name, padded with zeros
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct HeapInfo {
    /// Its number: its place in the boot configuration, the same for every VM.
    pub number: u32,
    /// What holds of every piece of it.
    pub features: HeapFeatures,
    /// Its size.
    pub size: u64,
    /// What nobody has.
    pub free: u64,
    /// The longest free range.
    pub largest: u64,
    /// What the caller has.
    pub used: u64,
    /// What the caller can have whatever others do, if not in one range.
    pub guaranteed: u64,
    /// The most that the caller may have.
    pub limit: u64,
    /// Its name, padded with zeros.
    pub name: [u8; MAX_HEAP_NAME],
}

impl HeapInfo {
    /// Bytes of the data.
    pub const SIZE: usize = 80;

    /// Writes the data, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        let mut writer = Writer::new(into);
        writer.u32(self.number).u32(0).u64(self.features.bits());
        writer.u64(self.size).u64(self.free).u64(self.largest);
        writer.u64(self.used).u64(self.guaranteed).u64(self.limit);
        let (low, high) = self.name.split_at(8);
        for half in [low, high] {
            writer.u64(half.u64_at(0));
        }
        writer.finish()
    }

    /// Reads the data of a reply, or nothing if it is too short.
    pub fn decode<B: Bytes + ?Sized>(data: &B) -> Option<Self> {
        (data.len() >= Self::SIZE).then(|| Self {
            number: data.u32_at(0),
            features: HeapFeatures::from_bits_retain(data.u64_at(8)),
            size: data.u64_at(16),
            free: data.u64_at(24),
            largest: data.u64_at(32),
            used: data.u64_at(40),
            guaranteed: data.u64_at(48),
            limit: data.u64_at(56),
            name: core::array::from_fn(|at| data.u8_at(64 + at)),
        })
    }

    /// Its name, of the bytes before the padding; empty if they are no text.
    pub fn name(&self) -> &str {
        let end = self.name.iter().position(|&byte| byte == 0).unwrap_or(MAX_HEAP_NAME);
        core::str::from_utf8(&self.name[..end]).unwrap_or("")
    }
}

/// A request for a piece of a heap.
///
/// ```text
/// 0: u32 number    4: u32 0    8: u64 size    16: u64 address, or all ones
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct HeapAllocRequest {
    /// Of which heap.
    pub heap: u32,
    /// How many bytes; rounded up to pages, and from 2 MiB on to blocks of 2 MiB.
    pub size: u64,
    /// Where the caller wants it, or [`HeapAllocRequest::ANYWHERE`].
    pub address: u64,
}

impl HeapAllocRequest {
    /// The manager finds an address.
    pub const ANYWHERE: u64 = u64::MAX;
    /// Bytes of the payload.
    pub const SIZE: usize = 24;
    /// Bytes of the reply's data: u64 address, u64 size.
    pub const REPLY: usize = 16;

    /// Reads a payload. A flag is a wish that cannot be granted.
    pub fn decode<B: Bytes + ?Sized>(payload: &B) -> Result<Self, ErrorCode> {
        check_length(payload, Self::SIZE)?;
        if payload.u32_at(4) != 0 {
            return Err(ErrorCode::ArgumentInvalid);
        }
        let (size, address) = (payload.u64_at(8), payload.u64_at(16));
        Ok(Self { heap: payload.u32_at(0), size, address })
    }

    /// Writes the payload, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        Writer::new(into).u32(self.heap).u32(0).u64(self.size).u64(self.address).finish()
    }
}

/// A request to give memory of a heap back.
///
/// ```text
/// 0: u64 address    8: u64 size
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct HeapFreeRequest {
    /// Where it begins.
    pub address: u64,
    /// How many bytes. Both are multiples of a page; a piece may be given back in parts.
    pub size: u64,
}

impl HeapFreeRequest {
    /// Bytes of the payload.
    pub const SIZE: usize = 16;

    /// Reads a payload.
    pub fn decode<B: Bytes + ?Sized>(payload: &B) -> Result<Self, ErrorCode> {
        check_length(payload, Self::SIZE)?;
        Ok(Self { address: payload.u64_at(0), size: payload.u64_at(8) })
    }

    /// Writes the payload, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        Writer::new(into).u64(self.address).u64(self.size).finish()
    }
}
