//! Devices that reach memory by themselves, each confined by an SMMU to the parcels it is given.
//!
//! A device never walks its VM's tables. Its stream has a tree of its own, of pages only, which is empty
//! until a parcel is mapped for it; the device finds the parcel at the addresses at which its VM has it. So
//! what a VM owns but has in no parcel no device of it reaches, and a VM that wants to give its own device
//! memory shares it with nobody but itself.
//!
//! An attachment is a part of a VM's part in a parcel: it begins behind the accept, and whatever ends the
//! VM's part (release, revocation, death) takes it away first. It is in the parcel's record ([`attachment`]);
//! tables are paid by the VM, like those of its own tree.
//!
//! A device that tries what it may not is refused by the SMMU, whose driver tells
//! [`Manager::device_fault`]. It is counted, and the last one is kept, for the VM to ask (DEVICES) and for
//! who inspects (COUNTERS). It is no notice: a device can fault millions of times a second.
//!
//! [`attachment`]: crate::memparcel

use core::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use crate::address::{Ipa, VmIndex};
use crate::config::{BootError, StreamConfig, VmConfig};
use crate::lock::{Lock, Rank};
use crate::machine::{DeviceFault, Direction, Machine, Stream, StreamContext};
use crate::manager::{Manager, Vm};
use crate::stage2::{Stage2, State};

/// A device of a VM.
pub(crate) struct Device<R> {
    pub(crate) config: StreamConfig,
    pub(crate) tree: Lock<Stage2, R>,
    context: StreamContext,
    attachments: AtomicI32,
    faults: AtomicU64,
    /// Address and direction of the last one; 0 while there is none. One word, so that they belong together.
    last_fault: AtomicU64,
}

impl<R> Device<R> {
    /// Notes that the device is attached to so many more parcels.
    pub(crate) fn count_attachment(&self, more: i32) {
        self.attachments.fetch_add(more, Ordering::Relaxed);
    }

    /// How many parcels it is attached to.
    pub(crate) fn attachments(&self) -> u32 {
        self.attachments.load(Ordering::Relaxed) as u32
    }

    /// How often it was refused an access, and the last one: where, and which way.
    pub(crate) fn faults(&self) -> (u64, Option<(u64, Direction)>) {
        let word = self.last_fault.load(Ordering::Relaxed);
        let last = Direction::from_wire(word as u32 & 3).map(|direction| (word & !3, direction));
        (self.faults.load(Ordering::Relaxed), last)
    }
}

impl<M: Machine> Manager<'_, M> {
    /// Makes the tree of a VM's device, at boot.
    pub(crate) fn new_device(
        &self,
        vm: VmIndex,
        ipa_pages: u64,
        config: StreamConfig,
    ) -> Result<Device<M::Relax>, BootError> {
        let tree = Stage2::of_stream(self.mem(), vm, config.stream, ipa_pages)
            .map_err(|_| BootError::Frames)?;
        Ok(Device {
            config,
            context: tree.stream_context(),
            tree: Lock::new(Rank::Stream, tree),
            attachments: AtomicI32::new(0),
            faults: AtomicU64::new(0),
            last_fault: AtomicU64::new(0),
        })
    }

    /// The trees of all devices: what an embedder programs its SMMU with before any device runs. They stay
    /// what they are. There are none on a machine without an SMMU.
    pub fn streams(&self) -> impl Iterator<Item = (VmIndex, StreamContext)> {
        self.all()
            .flat_map(move |vm| self.vm(vm).devices.iter().map(move |device| (vm, device.context)))
    }

    /// What the configuration says of a VM's device; nothing if it has none with this stream.
    pub fn device_config(&self, vm: VmIndex, stream: Stream) -> Option<StreamConfig> {
        self.vm(vm).device(stream).map(|(_, device)| device.config)
    }

    /// The SMMU has refused an access of a device. Gives the VM whose device it is, for the log; nothing if
    /// it is nobody's.
    pub fn device_fault(&self, fault: &DeviceFault) -> Option<VmIndex> {
        let of = |vm: &VmIndex| self.vm(*vm).device(fault.stream).is_some();
        let vm = self.all().find(of)?;
        let (_, device) = self.vm(vm).device(fault.stream)?;
        device.last_fault.store(fault.at.0 & !3 | fault.direction as u64, Ordering::Relaxed);
        device.faults.fetch_add(1, Ordering::Relaxed);
        Some(vm)
    }

    /// Whether a device of the VM has the page mapped, or is about to. Nothing of rank Stream or behind it
    /// is locked.
    pub(crate) fn is_device_mapped(&self, vm: VmIndex, at: Ipa) -> bool {
        self.vm(vm).devices.iter().any(|device| {
            let tree = device.tree.lock(self.machine());
            tree.leaf(self.mem(), at).state != State::Absent
        })
    }
}

impl<R> Vm<R> {
    /// The VM's device with this stream, and its place among the VM's.
    pub(crate) fn device(&self, stream: Stream) -> Option<(u8, &Device<R>)> {
        (0..).zip(&self.devices).find(|(_, device)| device.config.stream == stream)
    }
}

/// Whether the devices of `vms` make sense together.
pub(crate) fn check(vms: &[VmConfig]) -> Result<(), BootError> {
    let all = || vms.iter().flat_map(|vm| vm.streams.iter().flatten());
    let is_named_twice =
        |one: &StreamConfig| all().filter(|other| other.stream == one.stream).count() > 1;
    let is_impossible = |one: &StreamConfig| !(13..=64).contains(&one.address_bits);
    if all().any(|one| is_named_twice(one) || is_impossible(one)) {
        return Err(BootError::Streams);
    }
    Ok(())
}
