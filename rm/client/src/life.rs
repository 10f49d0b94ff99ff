//! Calls about VMs: this one, those it has to do with, those it manages.

use rm_abi::vm::{StopFlags, VmRequest, VmState, VmStopRequest};
use rm_abi::{Bytes, Vmid, message};

use crate::error::Error;
use crate::session::Session;
use crate::transport::Transport;

/// The VMs that one has to do with, as they stand in a reply.
#[derive(Clone, Copy, Debug)]
pub struct Peers<'a>(&'a [u8]);

impl Peers<'_> {
    /// Their VMIDs, in ascending order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = Vmid> + '_ {
        self.0.chunks_exact(4).map(|entry| Vmid(entry.u16_at(0)))
    }
}

impl<T: Transport, const N: usize> Session<T, N> {
    /// The VM that manages this one; [`Vmid::RESOURCE_MANAGER`] if none does.
    pub fn vm_owner(&mut self) -> Result<Vmid, Error> {
        let vmid = self.question(message::VM_GET_OWNER, |_| Ok(0))?;
        u16::try_from(vmid).map(Vmid).map_err(|_| Error::Malformed)
    }

    /// The VMs that this one has to do with: at the other end of a channel, or as one manages the
    /// other. It hears [`Notice::Status`](crate::Notice::Status) of them.
    pub fn vm_peers(&mut self) -> Result<Peers<'_>, Error> {
        let data = self.call(message::VM_GET_PEERS, |_| Ok(0))?;
        let (count, entries) = data.split_at_checked(4).ok_or(Error::Malformed)?;
        let fits = entries.len() as u64 == u64::from(count.u32_at(0)) * 4;
        if fits { Ok(Peers(entries)) } else { Err(Error::Malformed) }
    }

    /// Where a VM is in its life: this one, a peer, or with the role `inspect` any.
    pub fn vm_state(&mut self, vmid: Vmid) -> Result<VmState, Error> {
        let word = self.question(message::VM_GET_STATE, |into| VmRequest { vmid }.encode(into))?;
        VmState::from_wire(word as u8).ok_or(Error::Malformed)
    }

    /// A VM's name for people, if it has one: of this one, a peer, or with the role `inspect` any.
    pub fn vm_name(&mut self, vmid: Vmid) -> Result<&[u8], Error> {
        let data = self.call(message::VM_GET_ID, |into| VmRequest { vmid }.encode(into))?;
        if data.len() < 8 || data.u32_at(0) == 0 {
            return Err(Error::Malformed);
        }
        data.get(8..8 + usize::from(data.u16_at(6))).ok_or(Error::Malformed)
    }

    /// Asks a VM to end, which hears [`Notice::Shutdown`](crate::Notice::Shutdown). Takes the role
    /// `manage`, as the calls below.
    pub fn ask_vm_to_stop(&mut self, vmid: Vmid, reason: u32) -> Result<(), Error> {
        let request = VmStopRequest { vmid, flags: StopFlags::empty(), reason };
        self.order(message::VM_STOP, |into| request.encode(into))
    }

    /// Stops a VM. That it has ended is told by [`Notice::Exited`](crate::Notice::Exited).
    pub fn stop_vm(&mut self, vmid: Vmid) -> Result<(), Error> {
        let request = VmStopRequest { vmid, flags: StopFlags::FORCE, reason: 0 };
        self.order(message::VM_STOP, |into| request.encode(into))
    }

    /// Takes from a VM that has ended all that it still had a part in. That this is done is told by
    /// [`Notice::Status`](crate::Notice::Status).
    pub fn reset_vm(&mut self, vmid: Vmid) -> Result<(), Error> {
        self.order(message::VM_RESET, |into| VmRequest { vmid }.encode(into))
    }

    /// Starts a VM that was reset, as it was at boot.
    pub fn start_vm(&mut self, vmid: Vmid) -> Result<(), Error> {
        self.order(message::VM_START, |into| VmRequest { vmid }.encode(into))
    }
}
