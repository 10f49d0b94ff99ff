//! Named heaps: memory that the boot configuration sets aside, and VMs take in pieces.
//!
//! A piece is memory of this VM's own: to use, to lend and to share, but not to donate. It is zeroed, one
//! range of the machine's memory, and comes back zeroed to whoever takes it next. What a VM still has of
//! heaps when it is reset goes back by itself.
//!
//! ```
//! use rm_client::{AclEntry, Error, Handle, NewParcel, PAGE_SIZE, Session, Transport};
//!
//! /// Lends a peer a frame of the heap `video`.
//! fn lend_frame<T: Transport>(session: &mut Session<T>, acl: &[AclEntry]) -> Result<Handle, Error> {
//!     let heap = session.find_heap("video")?.ok_or(Error::Malformed)?;
//!     let frame = session.heap_alloc(heap.number, 300 * PAGE_SIZE, None)?;
//!     // ... fill the frame.size bytes at frame.ipa ...
//!     session.lend(&NewParcel::new(&[frame], acl))
//! }
//! ```

use rm_abi::extension::{
    self, HeapAllocRequest, HeapFreeRequest, HeapInfo, HeapRequest, MAX_HEAP_NAME,
};
use rm_abi::{Bytes, ErrorCode, SglEntry};

use crate::error::Error;
use crate::session::Session;
use crate::transport::Transport;

impl<T: Transport, const N: usize> Session<T, N> {
    /// The first heap that this VM may use whose number is not below `from`, and nothing behind the last.
    pub fn heap(&mut self, from: u32) -> Result<Option<HeapInfo>, Error> {
        match self.call(extension::HEAP, |into| HeapRequest { from }.encode(into)) {
            Ok(data) => HeapInfo::decode(data).map(Some).ok_or(Error::Malformed),
            Err(Error::Refused(ErrorCode::HandleInvalid)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The heap of this name, if this VM may use it. Its number stays the same until the machine boots
    /// again, so it need not be looked for twice.
    pub fn find_heap(&mut self, name: &str) -> Result<Option<HeapInfo>, Error> {
        if name.is_empty() || name.len() > MAX_HEAP_NAME {
            return Ok(None);
        }
        let mut from = 0;
        while let Some(heap) = self.heap(from)? {
            if heap.name() == name {
                return Ok(Some(heap));
            }
            // A number that does not rise would lead in a circle.
            if heap.number < from {
                return Err(Error::Malformed);
            }
            let Some(next) = heap.number.checked_add(1) else { break };
            from = next;
        }
        Ok(None)
    }

    /// Takes a zeroed piece of a heap: `size` bytes, rounded up to pages, and from 2 MiB on to blocks of
    /// 2 MiB. It is at `address`, or where the manager finds room. A VM whose addresses are the machine's
    /// has it at its machine address and nowhere else.
    pub fn heap_alloc(
        &mut self,
        heap: u32,
        size: u64,
        address: Option<u64>,
    ) -> Result<SglEntry, Error> {
        let address = address.unwrap_or(HeapAllocRequest::ANYWHERE);
        let request = HeapAllocRequest { heap, size, address };
        let data = self.call(extension::HEAP_ALLOC, |into| request.encode(into))?;
        if data.len() < HeapAllocRequest::REPLY {
            return Err(Error::Malformed);
        }
        Ok(SglEntry { ipa: data.u64_at(0), size: data.u64_at(8) })
    }

    /// Gives memory of heaps back: a piece, some of its pages, or several pieces side by side. None of it
    /// may be lent or shared. It is zeroed before anybody else has it.
    pub fn heap_free(&mut self, piece: SglEntry) -> Result<(), Error> {
        let request = HeapFreeRequest { address: piece.ipa, size: piece.size };
        self.order(extension::HEAP_FREE, |into| request.encode(into))
    }
}
