//! Questions about all VMs, for one whose configuration gives it the role `inspect`: a debugger's, a
//! monitor's. Everything is told as it is at the moment of the look, while the others go on.

use rm_abi::extension::{
    self, Count, Counter, CountersRequest, LeafInfo, LeafRequest, MapEntry, MapRequest, VmEntry,
    VmsRequest,
};
use rm_abi::{Bytes, EncodeError, Handle, Vmid, reply};

use crate::error::Error;
use crate::session::Session;
use crate::transport::Transport;

/// What was counted of a VM.
#[derive(Clone, Copy, Debug)]
pub struct Counts<'a>(&'a [u8]);

impl Counts<'_> {
    /// The value of a counter, if the manager has it.
    pub fn of(&self, counter: Counter) -> Option<u64> {
        self.iter().find(|count| count.counter == counter as u16).map(|count| count.value)
    }

    /// All of them, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = Count> + '_ {
        let count = self.0.u32_at(0) as usize;
        (0..count).map_while(|n| Count::decode(self.0, Count::HEAD + n * Count::SIZE))
    }
}

/// How many entries of `size` bytes behind `head` fit a reply to a session with a buffer of `room`.
fn most(room: usize, head: usize, size: usize) -> Result<u16, Error> {
    let most = room.saturating_sub(reply::SIZE + head) / size;
    match u16::try_from(most).unwrap_or(u16::MAX) {
        0 => Err(EncodeError::BufferTooSmall.into()),
        most => Ok(most),
    }
}

/// Visits the `count` entries of a reply's data.
fn visit_all<E>(
    data: &[u8],
    (head, size): (usize, usize),
    count: usize,
    read: fn(&[u8], usize) -> Option<E>,
    mut visit: impl FnMut(E),
) -> Result<(), Error> {
    (0..count).try_for_each(|n| {
        visit(read(data, head + n * size).ok_or(Error::Malformed)?);
        Ok(())
    })
}

impl<T: Transport, const N: usize> Session<T, N> {
    /// Tells `visit` of every VM, in the order of the configuration.
    pub fn list_vms(&mut self, mut visit: impl FnMut(VmEntry)) -> Result<(), Error> {
        let most = most(N, VmEntry::HEAD, VmEntry::SIZE)?;
        let mut cursor = 0;
        loop {
            let request = VmsRequest { cursor, most };
            let data = self.call(extension::VMS, |into| request.encode(into))?;
            if data.len() < VmEntry::HEAD {
                return Err(Error::Malformed);
            }
            let layout = (VmEntry::HEAD, VmEntry::SIZE);
            visit_all(data, layout, data.u16_at(4).into(), VmEntry::decode, &mut visit)?;
            match data.u32_at(0) {
                0 => return Ok(()),
                // A cursor that does not rise would lead in a circle.
                next if next <= cursor => return Err(Error::Malformed),
                next => cursor = next,
            }
        }
    }

    /// Tells `visit` of everything that a VM has, by address: runs of pages that are alike and
    /// contiguous, in the VM and in the machine. Where nothing is, nothing is told.
    pub fn map(&mut self, vmid: Vmid, visit: impl FnMut(MapEntry)) -> Result<(), Error> {
        self.map_parts(vmid, Handle(0), visit)
    }

    /// Tells `visit` where the pages of a parcel are, as its owner has them and in the order in which
    /// it named them: a run for each extent, or for what trimming has left of it.
    pub fn map_parcel(
        &mut self,
        owner: Vmid,
        parcel: Handle,
        visit: impl FnMut(MapEntry),
    ) -> Result<(), Error> {
        self.map_parts(owner, parcel, visit)
    }

    fn map_parts(
        &mut self,
        vmid: Vmid,
        parcel: Handle,
        mut visit: impl FnMut(MapEntry),
    ) -> Result<(), Error> {
        let most = most(N, MapEntry::HEAD, MapEntry::SIZE)?;
        let mut cursor = 0;
        loop {
            let request = MapRequest { vmid, most, parcel, cursor };
            let data = self.call(extension::MAP, |into| request.encode(into))?;
            if data.len() < MapEntry::HEAD {
                return Err(Error::Malformed);
            }
            let layout = (MapEntry::HEAD, MapEntry::SIZE);
            visit_all(data, layout, data.u16_at(8).into(), MapEntry::decode, &mut visit)?;
            match data.u64_at(0) {
                0 => return Ok(()),
                next if next <= cursor => return Err(Error::Malformed),
                next => cursor = next,
            }
        }
    }

    /// What was counted of a VM. This one's counters, by its VMID or 0, take no role.
    pub fn counters(&mut self, vmid: Vmid) -> Result<Counts<'_>, Error> {
        let data = self.call(extension::COUNTERS, |into| CountersRequest { vmid }.encode(into))?;
        if data.len() < Count::HEAD {
            return Err(Error::Malformed);
        }
        let whole = (data.len() - Count::HEAD) / Count::SIZE >= data.u32_at(0) as usize;
        if whole { Ok(Counts(data)) } else { Err(Error::Malformed) }
    }

    /// The stage-2 descriptor of the page at `ipa`, bit by bit.
    pub fn leaf(&mut self, vmid: Vmid, ipa: u64) -> Result<LeafInfo, Error> {
        let data = self.call(extension::LEAF, |into| LeafRequest { vmid, ipa }.encode(into))?;
        LeafInfo::decode(data).ok_or(Error::Malformed)
    }
}
