//! Devices: what each has of the parcels that its VM has, and what the VM's own use of those takes.

use super::{ARGUMENT, Answer, BUSY, DENIED, Model, READ, RELEASED, WRITE};

/// A device of a VM. Its addresses have so many bits, and it may look into the caches.
#[derive(Clone, Copy)]
pub(crate) struct Device {
    pub(crate) stream: u32,
    pub(crate) vm: u8,
    pub(crate) bits: u8,
    pub(crate) coherent: bool,
}

/// One of them does not look into the caches, and two do not reach where borrowers map.
pub(crate) const DEVICES: [Device; 4] = [
    Device { stream: 0x10, vm: 0, bits: 40, coherent: true },
    Device { stream: 0x20, vm: 1, bits: 48, coherent: false },
    Device { stream: 0x21, vm: 1, bits: 31, coherent: true },
    Device { stream: 0x30, vm: 2, bits: 40, coherent: true },
];

/// What a device reaches: where, which machine page, and with which rights.
pub(crate) type Reached = (u64, u64, u8);

/// The rights that a direction takes.
pub(crate) const fn rights(direction: u32) -> Option<u8> {
    match direction {
        1 => Some(READ),
        2 => Some(WRITE),
        3 => Some(READ | WRITE),
        _ => None,
    }
}

impl Device {
    fn of(vm: u8, stream: u32) -> Result<Self, u32> {
        let is_it = |device: &Self| (device.vm, device.stream) == (vm, stream);
        DEVICES.into_iter().find(is_it).ok_or(DENIED)
    }
}

impl Model {
    /// What the access list grants who has the parcel: its owner, or a VM that has mapped it.
    fn part(&self, index: usize, vm: u8) -> Result<u8, u32> {
        let parcel = &self.parcels[index];
        let rights = parcel.rights(vm).unwrap_or(0);
        if parcel.windows.contains_key(&vm) {
            return Err(DENIED);
        }
        if parcel.owner == vm || parcel.held.contains_key(&vm) { Ok(rights) } else { Err(RELEASED) }
    }

    /// Whether devices may begin to use a parcel.
    fn is_offered(&self, index: usize) -> Answer {
        match &self.parcels[index] {
            parcel if parcel.revoked => Err(DENIED),
            parcel if parcel.open => Err(BUSY),
            _ => Ok(()),
        }
    }

    /// What the device may do with the parcel that it is attached to, if it is mapped.
    fn attached(&self, vm: u8, handle: u32, stream: u32) -> Result<(usize, Option<u8>), u32> {
        let index = self.find(vm, handle)?;
        Device::of(vm, stream)?;
        let mapped = self.parcels[index].attached.get(&stream).ok_or(RELEASED)?;
        Ok((index, *mapped))
    }

    pub(crate) fn attach(&mut self, vm: u8, handle: u32, stream: u32, coherent: bool) -> Answer {
        let index = self.find(vm, handle)?;
        let device = Device::of(vm, stream)?;
        self.is_offered(index)?;
        if self.parcels[index].recalled || self.part(index, vm)? == 0 {
            return Err(DENIED);
        }
        let parcel = &mut self.parcels[index];
        let is_far = parcel.part_of(vm).iter().any(|(at, _)| at >> device.bits != 0);
        let is_blind = coherent && !parcel.uncached && !device.coherent;
        if parcel.attached.contains_key(&stream) || is_blind || is_far {
            return Err(BUSY);
        }
        parcel.attached.insert(stream, None);
        Ok(())
    }

    pub(crate) fn detach(&mut self, vm: u8, handle: u32, stream: u32) -> Answer {
        let (index, mapped) = self.attached(vm, handle, stream)?;
        if mapped.is_some() {
            return Err(BUSY);
        }
        self.parcels[index].attached.remove(&stream);
        Ok(())
    }

    /// The answer is as that of [`Model::access`].
    pub(crate) fn map(
        &mut self,
        vm: u8,
        handle: u32,
        stream: u32,
        direction: u32,
    ) -> Result<Vec<u64>, u32> {
        let (index, mapped) = self.attached(vm, handle, stream)?;
        let wanted = rights(direction).ok_or(ARGUMENT)?;
        self.is_offered(index)?;
        if self.part(index, vm)? & wanted != wanted {
            return Err(DENIED);
        }
        if mapped.is_some() {
            return Err(BUSY);
        }
        self.parcels[index].attached.insert(stream, Some(wanted));
        Ok(self.brought_together(index, vm, stream))
    }

    /// Likewise.
    pub(crate) fn unmap_device(
        &mut self,
        vm: u8,
        handle: u32,
        stream: u32,
        direction: u32,
    ) -> Result<Vec<u64>, u32> {
        let (index, mapped) = self.attached(vm, handle, stream)?;
        if mapped.ok_or(RELEASED)? != rights(direction).unwrap_or(0) {
            return Err(ARGUMENT);
        }
        self.parcels[index].attached.insert(stream, None);
        Ok(self.brought_together(index, vm, stream))
    }

    /// The pages that a device which does not look into the caches begins or ends to use.
    fn brought_together(&self, index: usize, vm: u8, stream: u32) -> Vec<u64> {
        let parcel = &self.parcels[index];
        let is_blind = Device::of(vm, stream).is_ok_and(|device| !device.coherent);
        let pages = parcel.part_of(vm).into_iter().map(|(_, pa)| pa);
        pages.filter(|_| is_blind && !parcel.uncached).collect()
    }

    /// A VM begins or ends a use of a parcel by its CPUs. The answer is the machine pages whose content
    /// caches and memory agree on then.
    pub(crate) fn access(
        &mut self,
        vm: u8,
        handle: u32,
        wanted: u8,
        ends: bool,
    ) -> Result<Vec<u64>, u32> {
        if wanted == 0 {
            return Err(ARGUMENT);
        }
        let index = self.find(vm, handle)?;
        if self.part(index, vm)? & wanted != wanted {
            return Err(DENIED);
        }
        let parcel = &mut self.parcels[index];
        let begun = parcel.accesses.entry(vm).or_default();
        if ends && *begun == 0 {
            return Err(ARGUMENT);
        }
        *begun = if ends { *begun - 1 } else { *begun + 1 };
        let is_blind = |device: &Device| !device.coherent;
        let is_due = !ends || wanted & WRITE != 0;
        let is_in_the_way =
            parcel.uncached || self.devices_of(index).any(|device| is_blind(&device));
        let pages = self.parcels[index].part_of(vm).into_iter().map(|(_, pa)| pa);
        Ok(if is_due && is_in_the_way { pages.collect() } else { vec![] })
    }

    fn devices_of(&self, index: usize) -> impl Iterator<Item = Device> {
        let attached = &self.parcels[index].attached;
        DEVICES.into_iter().filter(|device| attached.contains_key(&device.stream))
    }

    /// Whether a device of the VM is mapped.
    pub(super) fn maps_device(&self, index: usize, vm: u8) -> bool {
        let attached = &self.parcels[index].attached;
        self.devices_of(index).any(|one| one.vm == vm && attached[&one.stream].is_some())
    }

    pub(super) fn withdraw_devices(&mut self, index: usize, vm: u8) {
        for device in DEVICES.into_iter().filter(|device| device.vm == vm) {
            self.parcels[index].attached.remove(&device.stream);
        }
    }

    /// What a device reaches, lowest first.
    pub(crate) fn reached_by(&self, device: Device) -> Vec<Reached> {
        let mut all = vec![];
        for parcel in &self.parcels {
            if let Some(&Some(rights)) = parcel.attached.get(&device.stream) {
                let part = parcel.part_of(device.vm).into_iter();
                all.extend(part.map(|(at, pa)| (at, pa, rights)));
            }
        }
        all.sort_unstable();
        all
    }

    /// Whether a device of the VM reaches the page.
    pub(super) fn has_for_device(&self, vm: u8, at: u64) -> bool {
        let own = DEVICES.into_iter().filter(|device| device.vm == vm);
        own.flat_map(|device| self.reached_by(device)).any(|(there, ..)| there == at)
    }
}
