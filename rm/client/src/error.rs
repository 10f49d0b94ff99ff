//! Why a call did not do what it was asked to.

use core::fmt;

use rm_abi::reply::ReplyError;
use rm_abi::{EncodeError, ErrorCode};

use crate::transport::TransportError;

/// Why a call failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// The manager refused it, and nothing changed.
    Refused(ErrorCode),
    /// The manager refused it with a code that this crate does not know.
    RefusedUnknown(u32),
    /// The request does not fit the session's buffer or the wire; nothing was sent.
    Encode(EncodeError),
    /// The bytes were not exchanged, or not wholly.
    Transport(TransportError),
    /// The reply is not one to this request, or not of the form that its call has.
    Malformed,
}

impl From<TransportError> for Error {
    fn from(error: TransportError) -> Self {
        Self::Transport(error)
    }
}

impl From<EncodeError> for Error {
    fn from(error: EncodeError) -> Self {
        Self::Encode(error)
    }
}

impl From<ReplyError> for Error {
    fn from(error: ReplyError) -> Self {
        match error {
            ReplyError::Refused(code) => Self::Refused(code),
            ReplyError::Unknown(word) => Self::RefusedUnknown(word),
            ReplyError::Malformed => Self::Malformed,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(code) => write!(f, "refused: {code} ({:#x})", *code as u32),
            Self::RefusedUnknown(word) => write!(f, "refused with unknown code {word:#x}"),
            Self::Encode(EncodeError::BufferTooSmall) => {
                f.write_str("the request does not fit the session's buffer")
            }
            Self::Encode(EncodeError::TooLong) => f.write_str("the request is too long to be sent"),
            Self::Transport(error) => error.fmt(f),
            Self::Malformed => f.write_str("the reply does not fit the request"),
        }
    }
}

impl core::error::Error for Error {}
