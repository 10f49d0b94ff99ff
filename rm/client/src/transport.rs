//! How a request's bytes get to the manager, and the reply's back.

use core::fmt;

use rm_abi::HypercallError;

/// Carries one request and brings its reply.
pub trait Transport {
    /// Sends `request`, waits for its reply, and puts it at the start of `reply`. Both are whole
    /// messages, header included. Returns the reply's length.
    fn exchange(&mut self, request: &[u8], reply: &mut [u8]) -> Result<usize, TransportError>;
}

impl<T: Transport + ?Sized> Transport for &mut T {
    fn exchange(&mut self, request: &[u8], reply: &mut [u8]) -> Result<usize, TransportError> {
        (**self).exchange(request, reply)
    }
}

/// Why the bytes were not exchanged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TransportError {
    /// The hypercall failed with this error ([`HypercallError`]); the request was not carried out.
    Hypercall(i64),
    /// The request was carried out, but its reply could not be written: the buffer is too small, or
    /// not the caller's to write any more. The reply waits until [`Direct::fetch`] brings it, or until
    /// another long call takes its place.
    ReplyKept {
        /// Why it could not be written.
        error: i64,
        /// What to fetch it by.
        token: u64,
    },
    /// The request was carried out, and its reply of so many bytes did not fit the buffer. It is gone.
    TooLong(usize),
    /// What came is not a message, or what was to be sent is not.
    Malformed,
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hypercall(error) => write!(f, "hypercall error {error}"),
            Self::ReplyKept { error, .. } => write!(f, "reply not written, error {error}"),
            Self::TooLong(size) => write!(f, "reply of {size} bytes does not fit"),
            Self::Malformed => f.write_str("not a message"),
        }
    }
}

impl core::error::Error for TransportError {}

/// The arguments of a direct call, in the order of its registers.
///
/// Only [`Direct`] makes one, and it cannot be kept: so the addresses are those of buffers that are
/// lent to the call for as long as it is there to be looked at.
#[derive(Debug)]
pub struct DirectCall {
    request: u64,
    length: u64,
    reply: u64,
    capacity: u64,
    token: u64,
}

impl DirectCall {
    /// Virtual address of the request.
    pub const fn request(&self) -> u64 {
        self.request
    }

    /// Its length in bytes.
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// Virtual address of the buffer for the reply.
    pub const fn reply(&self) -> u64 {
        self.reply
    }

    /// Its length in bytes.
    pub const fn capacity(&self) -> u64 {
        self.capacity
    }

    /// 0, or the token of the call to go on with.
    pub const fn token(&self) -> u64 {
        self.token
    }
}

/// The results of a direct call, in the order of its registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DirectResult {
    /// One of [`HypercallError`]'s values.
    pub error: i64,
    /// Bytes of the reply.
    pub length: u64,
    /// 0, or what to go on with.
    pub token: u64,
}

/// One trap into whoever serves direct calls.
pub trait Trap {
    /// Makes the call.
    fn trap(&mut self, call: &DirectCall) -> DirectResult;
}

impl<F: FnMut(&DirectCall) -> DirectResult> Trap for F {
    fn trap(&mut self, call: &DirectCall) -> DirectResult {
        self(call)
    }
}

/// The direct call as a transport: request and reply in one trap, and in more of them for a call that
/// takes longer than EL2 stays away from its VM.
///
/// ```
/// use rm_client::{Direct, DirectCall, DirectResult, Transport};
///
/// let mut traps = 0;
/// let mut direct = Direct(|call: &DirectCall| {
///     traps += 1;
///     // The manager asks twice for more time, then has a reply of 12 bytes.
///     match call.token() {
///         2 => DirectResult { error: 0, length: 12, token: 0 },
///         token => DirectResult { error: -2, length: 0, token: token + 1 },
///     }
/// });
/// assert_eq!(direct.exchange(&[0; 8], &mut [0; 16]), Ok(12));
/// assert_eq!(traps, 3);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Direct<T>(pub T);

impl<T: Trap> Direct<T> {
    /// Fetches the reply of a call that could not be written then, see
    /// [`TransportError::ReplyKept`].
    pub fn fetch(&mut self, token: u64, reply: &mut [u8]) -> Result<usize, TransportError> {
        self.run(&[], reply, token)
    }

    /// Traps until the call has ended.
    fn run(
        &mut self,
        request: &[u8],
        reply: &mut [u8],
        token: u64,
    ) -> Result<usize, TransportError> {
        let mut call = DirectCall {
            request: request.as_ptr() as u64,
            length: request.len() as u64,
            reply: reply.as_mut_ptr() as u64,
            capacity: reply.len() as u64,
            token,
        };
        let mut fetched_again = false;
        loop {
            let result = self.0.trap(&call);
            let not_written = matches!(
                result.error,
                HypercallError::ADDR_INVALID | HypercallError::ARGUMENT_SIZE
            );
            match result.error {
                HypercallError::OK => return Ok((result.length as usize).min(reply.len())),
                HypercallError::RETRY => call.token = result.token,
                // Another vCPU may have been changing this mapping: once more, then the caller decides.
                _ if not_written && result.token != 0 && !fetched_again => {
                    fetched_again = true;
                    call.token = result.token;
                }
                error if not_written && result.token != 0 => {
                    return Err(TransportError::ReplyKept { error, token: result.token });
                }
                error => return Err(TransportError::Hypercall(error)),
            }
        }
    }
}

impl<T: Trap> Transport for Direct<T> {
    fn exchange(&mut self, request: &[u8], reply: &mut [u8]) -> Result<usize, TransportError> {
        self.run(request, reply, 0)
    }
}
