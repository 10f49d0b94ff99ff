//! Reading and writing little-endian fields at byte offsets.
//!
//! Fields of 64 bits are only four-byte aligned on the wire, so nothing here overlays a structure on
//! a buffer.

/// A message of known length, wherever it lies: in one slice, or in frames that a long message was
/// copied to.
///
/// Offsets handed to the readers lie within [`Bytes::len`]; the decoders of this crate check that
/// before they read.
pub trait Bytes {
    /// Length in bytes.
    fn len(&self) -> usize;

    /// The byte at `at`.
    fn u8_at(&self, at: usize) -> u8;

    /// Whether there is no byte.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The 16-bit field at `at`.
    fn u16_at(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.u8_at(at), self.u8_at(at + 1)])
    }

    /// The 32-bit field at `at`.
    fn u32_at(&self, at: usize) -> u32 {
        u32::from(self.u16_at(at)) | u32::from(self.u16_at(at + 2)) << 16
    }

    /// The 64-bit field at `at`.
    fn u64_at(&self, at: usize) -> u64 {
        u64::from(self.u32_at(at)) | u64::from(self.u32_at(at + 4)) << 32
    }
}

/// The `N` bytes at `at`, with one bounds check.
fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

impl Bytes for [u8] {
    fn len(&self) -> usize {
        self.len()
    }

    fn u8_at(&self, at: usize) -> u8 {
        self[at]
    }

    fn u16_at(&self, at: usize) -> u16 {
        u16::from_le_bytes(array_at(self, at))
    }

    fn u32_at(&self, at: usize) -> u32 {
        u32::from_le_bytes(array_at(self, at))
    }

    fn u64_at(&self, at: usize) -> u64 {
        u64::from_le_bytes(array_at(self, at))
    }
}

/// Why a message could not be encoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum EncodeError {
    /// The buffer ends before the message does.
    BufferTooSmall,
    /// A list has more than [`MAX_ENTRIES`](crate::MAX_ENTRIES) entries, or the message more than
    /// [`MAX_PAYLOAD`](crate::MAX_PAYLOAD) bytes.
    TooLong,
}

/// Writes fields one after the other into a caller's buffer.
///
/// A field that does not fit is left out together with all that follow; [`Writer::finish`] says so,
/// so that callers check once.
#[derive(Debug)]
pub struct Writer<'a> {
    buffer: &'a mut [u8],
    at: usize,
    failed: Option<EncodeError>,
}

impl<'a> Writer<'a> {
    /// Starts at the buffer's first byte.
    pub fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, at: 0, failed: None }
    }

    /// Appends raw bytes.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        if self.failed.is_none() {
            match self.buffer.get_mut(self.at..).and_then(|rest| rest.get_mut(..bytes.len())) {
                Some(place) => {
                    place.copy_from_slice(bytes);
                    self.at += bytes.len();
                }
                None => self.fail(EncodeError::BufferTooSmall),
            }
        }
        self
    }

    /// Appends one byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes(&[value])
    }

    /// Appends a 16-bit field.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Appends a 32-bit field.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Appends a 64-bit field.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Notes a failure; the first one counts.
    pub(crate) fn fail(&mut self, error: EncodeError) {
        self.failed.get_or_insert(error);
    }

    /// The number of bytes written, if everything fitted.
    pub fn finish(&self) -> Result<usize, EncodeError> {
        self.failed.map_or(Ok(self.at), Err)
    }
}
