//! What comes of a manifest: the boot configuration, and what a person wants to see of it.

use std::ops::Range;

use package::{Amounts, Board, Load, Placement, Vm, Writer};

use crate::board;
use crate::check::{manager, marks, short};
use crate::draft::{self, Draft};
use crate::map::Map;
use crate::program::Program;

/// A checked manifest, with everything that it names.
#[derive(Clone, Debug)]
pub struct Manifest {
    pub(crate) writer: Writer,
    pub(crate) vms: Vec<PlannedVm>,
    pub(crate) machine: Map,
    pub(crate) hypervisor: u64,
    pub(crate) ram: Vec<Range<u64>>,
    pub(crate) more_ram: Vec<Range<u64>>,
}

/// What a person may want to know of a VM beyond its boot configuration.
#[derive(Clone, Debug)]
pub struct PlannedVm {
    /// Its name.
    pub name: String,
    /// The program, as the manifest names it.
    pub program: String,
    /// Its device tree, if it has one.
    pub device_tree: Option<Vec<u8>>,
    /// Its devices, in the order of the package.
    pub devices: Vec<PlannedDevice>,
    /// Its addresses.
    pub space: Map,
    /// What is where in its memory.
    pub contents: Map,
}

/// A device of a VM.
#[derive(Clone, Debug)]
pub struct PlannedDevice {
    /// Its name.
    pub name: String,
    /// Its interrupts, as the machine numbers them.
    pub interrupts: Vec<u32>,
}

impl Manifest {
    /// The board that it is for.
    pub fn board(&self) -> Board {
        self.writer.board
    }

    /// The version of the interrupt controller that it is for: 2 or 3.
    pub fn gic(&self) -> u8 {
        self.writer.gic
    }

    /// How many CPUs its VMs run on.
    pub fn cpus(&self) -> u8 {
        self.writer.cpus
    }

    /// The VMs, in the order of the boot configuration.
    pub fn vms(&self) -> &[PlannedVm] {
        &self.vms
    }

    /// The machine's addresses: what EL2 keeps, devices that VMs drive, memory at fixed places.
    pub fn machine(&self) -> &Map {
        &self.machine
    }

    /// RAM that every such board has.
    pub fn ram(&self) -> &[Range<u64>] {
        &self.ram
    }

    /// RAM that some such boards have beyond that.
    pub fn more_ram(&self) -> &[Range<u64>] {
        &self.more_ram
    }

    /// How much RAM a board must have: EL2, its package, VMs and heaps.
    pub fn needs(&self) -> u64 {
        let vms: u64 = self.writer.vms.iter().map(|vm| vm.memory).sum();
        let heaps: u64 = self.writer.heaps.iter().map(|heap| heap.size).sum();
        let frames = self.writer.vms.iter().map(|vm| u64::from(vm.quotas.limit.frames));
        let bits: u64 = self.writer.heaps.iter().map(|heap| marks(heap.size)).sum();
        let manager = (manager(frames) + bits).next_multiple_of(package::MEMORY_GRANULE);
        self.hypervisor + manager + vms + heaps
    }

    /// The boot configuration; its nonce is zero.
    pub fn configuration(&self) -> &Writer {
        &self.writer
    }

    /// The package, ready to be written behind the hypervisor. The nonce must be one that nobody can guess.
    pub fn into_writer(self, nonce: [u8; 16]) -> Writer {
        Writer { nonce, ..self.writer }
    }
}

/// The manifest of a draft without problems. `None` if something is missing after all.
pub(crate) fn finish(draft: Draft<'_>) -> Option<Manifest> {
    let facts = draft.facts.as_ref()?;
    let cpus = draft.vms.iter().flat_map(|vm| &vm.cpus).max()? + 1;
    let mut writer = Writer::new(draft.board.as_ref()?.value, cpus, [0; 16]);
    writer.gic = draft.gic;
    let mut vms = Vec::new();
    for (index, vm) in (0..).zip(draft.vms) {
        devices(&mut writer, index, &vm);
        let planned = PlannedVm {
            name: vm.said.called().to_owned(),
            program: vm.said.program.as_ref()?.1.value.to_owned(),
            device_tree: vm.tree.as_ref().map(|tree| tree.bytes.clone()),
            devices: vm.devices.iter().filter_map(planned).collect(),
            space: vm.space.clone(),
            contents: vm.contents.clone(),
        };
        vms.push(planned);
        let vm = configuration(&mut writer.images, vm)?;
        writer.vms.push(vm);
    }
    writer.shared = Amounts::enough_for(&writer.vms);
    (writer.channels, writer.heaps) = (draft.channels, draft.heaps);
    let packed: usize = writer.images.iter().map(Vec::len).sum();
    Some(Manifest {
        writer,
        vms,
        machine: draft.machine,
        hypervisor: facts.hypervisor(packed as u64),
        ram: facts.sure.clone(),
        more_ram: board::without(facts.ram.clone(), &facts.sure),
    })
}

fn planned(device: &draft::Device<'_>) -> Option<PlannedDevice> {
    let name = device.said.name.as_ref()?.value.to_owned();
    let interrupts = device.interrupts.iter().map(|interrupt| interrupt.physical).collect();
    Some(PlannedDevice { name, interrupts })
}

fn devices(writer: &mut Writer, vm: u16, of: &draft::Vm<'_>) {
    for device in &of.devices {
        let draft::Device { pa, ipa, size, .. } = *device;
        writer.devices.push(package::Device { vm, pa, ipa, pages: (size / 4096) as u32 });
        let interrupts = device.interrupts.iter().map(|interrupt| {
            let draft::Interrupt { physical, virtual_, edge } = *interrupt;
            package::Interrupt { vm, physical, virtual_, edge }
        });
        writer.interrupts.extend(interrupts);
    }
}

fn configuration(images: &mut Vec<Vec<u8>>, vm: draft::Vm<'_>) -> Option<Vm> {
    let mut add = |bytes: Vec<u8>| {
        let known = images.iter().position(|image| *image == bytes);
        known.unwrap_or_else(|| {
            images.push(bytes);
            images.len() - 1
        }) as u32
    };
    let (said, memory) = (vm.said, vm.memory.clone()?);
    let (start, ipa_bits) = (vm.start(), vm.ipa_bits());
    let mut cpus = [0; package::MAX_VCPUS];
    cpus.get_mut(..vm.cpus.len())?.copy_from_slice(&vm.cpus);
    let Program { bytes, .. } = vm.program?;
    let image = add(bytes);
    let mut load = |blob: draft::Blob| Load { at: blob.at, image: add(blob.bytes) };
    Some(Vm {
        name: short(said.name.as_ref()?.value)?,
        vmid: said.vmid.as_ref()?.value,
        vcpus: vm.cpus.len() as u8,
        cpus,
        memory: memory.end - memory.start,
        memory_at: memory.start,
        placement: if said.is_direct() { Placement::Identity } else { Placement::Anywhere },
        image,
        load: vm.load,
        entry: vm.entry,
        start,
        device_tree: vm.tree.map(&mut load),
        initrd: vm.initrd.map(&mut load),
        ipa_bits,
        roles: said.roles,
        may_supply: said.may_supply,
        may_consume: said.may_consume,
        sanitize: said.sanitize,
        end_of_life: said.end_of_life,
        owned_parcels: said.owned_parcels,
        on_fault: said.on_fault,
        trusted_dma: said.trusted_dma.as_ref().is_some_and(|trusted| trusted.value),
        quotas: said.quotas.value,
    })
}
