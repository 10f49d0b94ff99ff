//! What tests of the client share.

use rm::machine::fake::world::{Guest, Turn};
use rm_client::{Transport, TransportError};

/// A vCPU of the world as a transport: it follows tokens as [`rm_client::Direct`] does.
pub(crate) struct Vcpu<'a>(pub(crate) Guest<'a>);

impl Transport for Vcpu<'_> {
    fn exchange(&mut self, request: &[u8], reply: &mut [u8]) -> Result<usize, TransportError> {
        let mut turn = self.0.send_bytes(request);
        loop {
            match turn {
                Turn::More(token) => turn = self.0.resume(token),
                Turn::Error(error, _) => return Err(TransportError::Hypercall(error)),
                Turn::Exit(_) => return Err(TransportError::Hypercall(0)),
                Turn::Reply(payload) => {
                    reply[..8].copy_from_slice(&request[..8]);
                    // The world has checked the header and cut it off; the type byte says reply.
                    reply[1] = 2;
                    let length = 8 + payload.len();
                    reply[8..length].copy_from_slice(&payload);
                    return Ok(length);
                }
            }
        }
    }
}
