//! Devices that reach memory by themselves: which parcels they are given, and what brackets a CPU's use.
//!
//! ```
//! use rm_client::{AccessFlags, AttachFlags, Direction, Error, Handle, Session, Stream, Transport};
//!
//! /// Lets a device fill a parcel that this VM has mapped, or shares with nobody but itself.
//! fn fill<T: Transport>(
//!     session: &mut Session<T>,
//!     parcel: Handle,
//!     device: Stream,
//! ) -> Result<(), Error> {
//!     session.attach(parcel, device, AttachFlags::empty())?;
//!     session.dma_map(parcel, device, Direction::FromDevice)?;
//!     // ... tell the device the address at which this VM has the parcel, and wait until it is done ...
//!     session.begin_access(parcel, AccessFlags::READ)?;
//!     // ... read what it wrote, while it is still mapped ...
//!     session.end_access(parcel, AccessFlags::READ)?;
//!     session.dma_unmap(parcel, device, Direction::FromDevice)?;
//!     session.detach(parcel, device)
//! }
//! ```
//!
//! On a machine without an SMMU a device cannot be kept to a parcel, so none is attached: the refusal is
//! `UNIMPLEMENTED`, and [`Session::last_refusal`] has the rule [`NoSmmu`](crate::Rule::NoSmmu).

use rm_abi::extension::{
    self, AccessFlags, AttachFlags, AttachRequest, CpuAccessRequest, DetachRequest, DeviceInfo,
    Direction, DmaRequest, Stream,
};
use rm_abi::{Bytes, Handle};

use crate::ask::Entries;
use crate::error::Error;
use crate::session::Session;
use crate::transport::Transport;

impl<T: Transport, const N: usize> Session<T, N> {
    /// This VM's devices that an SMMU confines: what each can reach, what it is attached to, and what the
    /// SMMU has refused it. None on a machine without one.
    pub fn devices(&mut self) -> Result<Entries<'_, DeviceInfo>, Error> {
        let data = self.call(extension::DEVICES, |_| Ok(0))?;
        if data.len() < DeviceInfo::HEAD {
            return Err(Error::Malformed);
        }
        let place = (DeviceInfo::HEAD, DeviceInfo::SIZE);
        Entries::new(data, place, data.u32_at(0) as usize, DeviceInfo::decode)
    }

    /// Lets a device of this VM be given a parcel: one that this VM has accepted, or a share of its own. The
    /// device reaches nothing before [`Session::dma_map`]. While it is attached the owner cannot reclaim;
    /// releasing the parcel ends the attachment too.
    pub fn attach(
        &mut self,
        parcel: Handle,
        stream: Stream,
        flags: AttachFlags,
    ) -> Result<(), Error> {
        let request = AttachRequest { handle: parcel, stream, flags };
        self.order(extension::ATTACH, |into| request.encode(into))
    }

    /// Ends an attachment that has nothing mapped.
    pub fn detach(&mut self, parcel: Handle, stream: Stream) -> Result<(), Error> {
        let request = DetachRequest { handle: parcel, stream };
        self.order(extension::DETACH, |into| request.encode(into))
    }

    /// Maps a parcel for an attached device, at the addresses at which this VM has it. The access list must
    /// grant this VM what the direction takes. One direction at a time.
    pub fn dma_map(
        &mut self,
        parcel: Handle,
        stream: Stream,
        direction: Direction,
    ) -> Result<(), Error> {
        let request = DmaRequest { handle: parcel, stream, direction: direction as u32 };
        self.order(extension::DMA_MAP, |into| request.encode(into))
    }

    /// Ends the mapping, which was made in this direction. When this returns, no access of the device to
    /// the parcel is under way, and none will be let through.
    pub fn dma_unmap(
        &mut self,
        parcel: Handle,
        stream: Stream,
        direction: Direction,
    ) -> Result<(), Error> {
        let request = DmaRequest { handle: parcel, stream, direction: direction as u32 };
        self.order(extension::DMA_UNMAP, |into| request.encode(into))
    }

    /// A CPU of this VM is about to use the parcel: to read what a device wrote, or to write. Where caches
    /// are in the way they are cleaned and invalidated. May be nested; `flags` say what the CPU will do.
    pub fn begin_access(&mut self, parcel: Handle, flags: AccessFlags) -> Result<(), Error> {
        self.access(parcel, flags.difference(AccessFlags::END))
    }

    /// The CPU has done what it began to do: what it wrote is there for devices when this returns.
    pub fn end_access(&mut self, parcel: Handle, flags: AccessFlags) -> Result<(), Error> {
        self.access(parcel, flags.union(AccessFlags::END))
    }

    fn access(&mut self, parcel: Handle, flags: AccessFlags) -> Result<(), Error> {
        let request = CpuAccessRequest { handle: parcel, flags };
        self.order(extension::CPU_ACCESS, |into| request.encode(into))
    }
}
