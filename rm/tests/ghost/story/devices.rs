//! Devices, and CPUs that take turns with them.

use rm::address::{Pa, VmIndex};
use rm::config::{StreamConfig, VmConfig};
use rm::machine::Stream;
use rm_abi::extension::{
    ATTACH, AccessFlags, AttachFlags, AttachRequest, CPU_ACCESS, CpuAccessRequest, DETACH,
    DEVICES as DEVICES_OF, DMA_MAP, DMA_UNMAP, DetachRequest, DeviceInfo, DmaRequest,
};
use rm_abi::{Bytes, Handle};

use super::{Dice, Story, answer, encoded};
use crate::ghost::model::devices::{DEVICES, Device, rights};
use crate::ghost::model::{Answer, Parcel, VMS};

/// Gives VMs their devices.
pub(super) fn describe(vms: &mut [VmConfig]) {
    for Device { stream, vm, bits, coherent } in DEVICES {
        let config =
            StreamConfig { stream: Stream(stream), address_bits: bits, is_coherent: coherent };
        let streams = &mut vms[usize::from(vm)].streams;
        let place = streams.iter_mut().find(|place| place.is_none());
        *place.expect("a VM may have so many") = Some(config);
    }
}

impl Story {
    /// A VM, a parcel and a device, mostly such that `fits`.
    fn pick_device(
        &self,
        dice: &mut Dice,
        fits: impl Fn(&Parcel, Device) -> bool,
    ) -> (u8, u32, u32) {
        let pairs = self.model.parcels.iter().flat_map(|one| DEVICES.map(|device| (one, device)));
        let likely: Vec<_> = pairs.filter(|(parcel, device)| fits(parcel, *device)).collect();
        if likely.is_empty() || dice.once_in(8) {
            let stream = DEVICES[dice.roll(4) as usize].stream;
            return (dice.vm(), self.any_handle(dice), stream);
        }
        let (parcel, device) = likely[dice.roll(likely.len() as u64) as usize];
        (device.vm, parcel.handle, device.stream)
    }

    pub(super) fn attach(&mut self, dice: &mut Dice) -> (Answer, Answer) {
        let (vm, handle, stream) = self.pick_device(dice, |parcel, device| {
            let has = parcel.owner == device.vm && parcel.rights(device.vm).is_some();
            (has && !parcel.open && !parcel.revoked || parcel.held.contains_key(&device.vm))
                && !parcel.attached.contains_key(&device.stream)
        });
        let coherent = dice.once_in(4);
        self.tell(format_args!("VM {vm}: attach {stream:#x} to {handle:#x}, coherent {coherent}"));
        let flags = if coherent { AttachFlags::COHERENT } else { AttachFlags::empty() };
        let request = AttachRequest { handle: Handle(handle), stream: Stream(stream), flags };
        let payload = encoded(|into| request.encode(into));
        let said = self.caller(vm, dice).words(ATTACH, &payload).0;
        (answer(said), self.model.attach(vm, handle, stream, coherent))
    }

    pub(super) fn detach(&mut self, dice: &mut Dice) -> (Answer, Answer) {
        let (vm, handle, stream) = self
            .pick_device(dice, |parcel, device| parcel.attached.get(&device.stream) == Some(&None));
        self.tell(format_args!("VM {vm}: detach {stream:#x} from {handle:#x}"));
        let request = DetachRequest { handle: Handle(handle), stream: Stream(stream) };
        let payload = encoded(|into| request.encode(into));
        let said = self.caller(vm, dice).words(DETACH, &payload).0;
        (answer(said), self.model.detach(vm, handle, stream))
    }

    pub(super) fn map(&mut self, dice: &mut Dice) -> (Answer, Answer) {
        let (vm, handle, stream) = self
            .pick_device(dice, |parcel, device| parcel.attached.get(&device.stream) == Some(&None));
        let direction = dice.roll(13) as u32 % 5;
        self.tell(format_args!("VM {vm}: map {handle:#x} for {stream:#x}, way {direction}"));
        let request = DmaRequest { handle: Handle(handle), stream: Stream(stream), direction };
        let payload = encoded(|into| request.encode(into));
        let said = self.caller(vm, dice).words(DMA_MAP, &payload).0;
        let expected = self.model.map(vm, handle, stream, direction);
        (answer(said), self.agreed(expected))
    }

    pub(super) fn unmap(&mut self, dice: &mut Dice) -> (Answer, Answer) {
        let (vm, handle, stream) = self.pick_device(dice, |parcel, device| {
            parcel.attached.get(&device.stream).is_some_and(Option::is_some)
        });
        let known = self.model.parcels.iter().find(|parcel| parcel.handle == handle);
        let mapped = known.and_then(|parcel| *parcel.attached.get(&stream)?);
        let way = (1..4).find(|direction| rights(*direction) == mapped);
        let direction = way.filter(|_| !dice.once_in(6)).unwrap_or(dice.roll(5) as u32);
        self.tell(format_args!("VM {vm}: unmap {handle:#x} from {stream:#x}, way {direction}"));
        let request = DmaRequest { handle: Handle(handle), stream: Stream(stream), direction };
        let payload = encoded(|into| request.encode(into));
        let said = self.caller(vm, dice).words(DMA_UNMAP, &payload).0;
        let expected = self.model.unmap_device(vm, handle, stream, direction);
        (answer(said), self.agreed(expected))
    }

    pub(super) fn access(&mut self, dice: &mut Dice) -> (Answer, Answer) {
        let (vm, handle) = self.pick(dice, |parcel, vm| {
            parcel.owner == vm && parcel.rights(vm).is_some() || parcel.held.contains_key(&vm)
        });
        let flags = AccessFlags::from_bits_truncate(dice.roll(8) as u32);
        self.tell(format_args!("VM {vm}: uses {handle:#x}, {flags:?}"));
        let mut wanted = 0;
        wanted |= if flags.contains(AccessFlags::READ) { 4 } else { 0 };
        wanted |= if flags.contains(AccessFlags::WRITE) { 2 } else { 0 };
        let request = CpuAccessRequest { handle: Handle(handle), flags };
        let payload = encoded(|into| request.encode(into));
        let said = self.caller(vm, dice).words(CPU_ACCESS, &payload).0;
        let ends = flags.contains(AccessFlags::END);
        let expected = self.model.access(vm, handle, wanted, ends);
        (answer(said), self.agreed(expected))
    }

    /// Who bypasses the caches finds in these pages what the VMs have written.
    fn agreed(&self, pages: Result<Vec<u64>, u32>) -> Answer {
        for pa in pages? {
            let memory = self.world.manager.machine().memory(Pa(pa));
            assert!(memory == self.model.bytes(pa), "{pa:#x} is not in memory what it is to VMs");
        }
        Ok(())
    }

    /// How many parcels each device is attached to, as its VM is told.
    pub(super) fn compare_attachments(&self) {
        for vm in 0..VMS {
            let reply = self.world.caller(VmIndex(vm)).call(DEVICES_OF, &[]);
            let told = (0..reply.u32_at(4) as usize).map(|number| {
                let at = DeviceInfo::HEAD + number * DeviceInfo::SIZE;
                let info = DeviceInfo::decode(&reply[4..], at).expect("as many as it says");
                (info.stream.0, info.attachments as usize)
            });
            let own = DEVICES.into_iter().filter(|device| device.vm == vm);
            let expected = own.map(|Device { stream, .. }| {
                let has = |parcel: &&Parcel| parcel.attached.contains_key(&stream);
                (stream, self.model.parcels.iter().filter(has).count())
            });
            assert_eq!(told.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        }
    }
}
