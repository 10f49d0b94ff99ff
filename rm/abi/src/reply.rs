//! Replies: the request's header turned round, an error word, and on success the call's data.
//!
//! Clients read the data of a success without looking at its length, so every reply has exactly the
//! length that its call promises. The one of accept with ranges is in
//! [`memparcel::accept`](crate::memparcel::accept).

use crate::bytes::Bytes;
use crate::error::{ErrorCode, OK};
use crate::header::Header;

/// Bytes of a reply without data, header included.
pub const SIZE: usize = Header::SIZE + 4;
/// Bytes of a reply with one word of data, header included.
pub const SIZE_WITH_WORD: usize = SIZE + 4;

/// The reply without data: what every refusal looks like, and the success of most calls.
pub fn status(request: &Header, answer: Result<(), ErrorCode>) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    bytes[..Header::SIZE].copy_from_slice(&request.reply().encode());
    bytes[Header::SIZE..].copy_from_slice(&ErrorCode::word(answer).to_le_bytes());
    bytes
}

/// The success of a call whose data is one word: a handle, a VMID.
pub fn word(request: &Header, data: u32) -> [u8; SIZE_WITH_WORD] {
    let mut bytes = [0; SIZE_WITH_WORD];
    bytes[..SIZE].copy_from_slice(&status(request, Ok(())));
    bytes[SIZE..].copy_from_slice(&data.to_le_bytes());
    bytes
}

/// Why a reply brings no data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum ReplyError {
    /// The manager refused.
    Refused(ErrorCode),
    /// The manager refused with a code that this crate does not know.
    Unknown(u32),
    /// The payload is too short to hold an error word.
    Malformed,
}

/// The data of a reply, from its payload.
pub fn decode(payload: &[u8]) -> Result<&[u8], ReplyError> {
    let Some((_, data)) = payload.split_at_checked(4) else {
        return Err(ReplyError::Malformed);
    };
    match payload.u32_at(0) {
        OK => Ok(data),
        word => {
            Err(ErrorCode::from_word(word).map_or(ReplyError::Unknown(word), ReplyError::Refused))
        }
    }
}
