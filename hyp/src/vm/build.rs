//! The VMs of the boot configuration: memory, programs, channels, vCPUs.

use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};

use heapless::Vec;
use package::{EndOfLife, Package, Placement, Start};
use rm::address::{Ipa, PAGE_SIZE, Pa, VmIndex};
use rm::config::MAX_VMS;
use rm::frame_pool::FrameRecord;
use rm::heap::{HeapSlot, MAX_RANGES};
use rm::link::LinkRecord;
use rm::manager::{Storage, VmSlot};
use rm::memparcel::{HandleSlot, MAX_HANDLES, ParcelRecord};
use spin::Once;

use super::console::Terminal;
use super::life::Life;
use super::{Manager, VMS, Vm, channels};
use crate::board::Region;
use crate::console::{CONSOLE, CONSOLE_SIZE};
use crate::frames::{Blocks, BootMemory};
use crate::machine::El2;
use crate::rate::Notes;
use crate::vcpu::{Begin, State};
use crate::vgic::{self, Vgic, Wires};
use crate::{board, cache, configuration, gic, stage1, tlb};

static MANAGER: Once<Manager> = Once::new();

/// Makes everything that the package describes. Panics when the machine is too small for it.
pub(crate) fn build(package: &Package<'static>, mut memory: BootMemory) {
    let manager = MANAGER.call_once(|| new_manager(package, &mut memory));
    let placed = package.vms().filter(|vm| vm.placement == Placement::Identity);
    let placed: Vec<Region, MAX_VMS> =
        placed.map(|vm| Region::new(vm.memory_at, vm.memory)).collect();
    let mut blocks = memory.into_blocks(&placed);
    for (index, config) in (0..).zip(package.vms()) {
        let vm = VmIndex(index);
        give_memory(manager, &mut blocks, package, vm, &config);
        give_devices(manager, package, vm, &config);
        keep_devices(manager, vm, &config);
        VMS[usize::from(index)].call_once(|| new(manager, vm, &config, package));
        defmt::info!(
            "{=str}: VMID {=u16}, {=u8} vCPUs, {=u64} MiB",
            config.name.as_str(),
            config.vmid,
            config.vcpus,
            config.memory >> 20
        );
        if config.trusted_dma {
            defmt::warn!(
                "{=str}: has a device that nothing confines; it is trusted not to break G2 to G5",
                config.name.as_str()
            );
        }
    }
    make_heaps(manager, package, &mut blocks);
    channels::open(manager, package.channels());
}

fn new(
    manager: &'static Manager,
    index: VmIndex,
    config: &package::Vm,
    package: &Package<'static>,
) -> Vm {
    let cpus = config.cpus;
    let memory = config.memory_at..config.memory_at + config.memory;
    let tree = config.device_tree.map_or(0, |tree| tree.at);
    let vcpu = |n: usize| {
        let boot = if n == 0 { tree } else { 0 };
        let on = n == 0 || config.start == Start::All;
        State::new(n as u8, cpus[n], Begin { entry: config.entry, context: boot, on })
    };
    let starting = if config.start == Start::All { config.vcpus } else { 1 };
    Vm {
        index,
        name: config.name,
        on_fault: config.on_fault,
        manager,
        vttbr: tlb::vttbr(manager.context(index)),
        vgic: Vgic::new(config.vcpus.into(), wires(package, index)),
        terminal: Terminal::new(),
        vcpus: core::array::from_fn(vcpu),
        vcpu_count: config.vcpus.into(),
        vcpus_on: AtomicU8::new(starting),
        start: config.start,
        memory,
        loads: package.loads(config).map(|(at, bytes)| (Ipa(at), bytes)).collect(),
        waits: config.end_of_life == EndOfLife::Keep,
        life: Life::new(),
        notes: Notes::new(),
    }
}

/// Gives the VM its memory, zeroed, with its program in it.
fn give_memory(
    manager: &Manager,
    blocks: &mut Blocks,
    package: &Package<'_>,
    vm: VmIndex,
    config: &package::Vm,
) {
    let mut at = Ipa(config.memory_at);
    let give = |block: Region| {
        package.loads(config).for_each(|(to, bytes)| load(bytes, to, at, block));
        let pages = block.size / PAGE_SIZE;
        if let Err(error) = manager.give(vm, at, block.start, pages) {
            panic!("memory of {}: {error:?}", config.name.as_str());
        }
        at = at.add_pages(pages);
    };
    let enough = match config.placement {
        Placement::Anywhere => blocks.take_all(config.memory, give),
        Placement::Identity => blocks.take_kept(Region::new(config.memory_at, config.memory), give),
    };
    assert!(enough, "the machine has too little RAM for {}", config.name.as_str());
}

/// Gives the VM the registers of the devices that it drives itself.
fn give_devices(manager: &Manager, package: &Package<'_>, vm: VmIndex, config: &package::Vm) {
    for device in package.devices().filter(|device| device.vm == u16::from(vm.0)) {
        let (at, pages) = (Ipa(device.ipa), device.pages.into());
        if let Err(error) = manager.give_device(vm, at, Pa(device.pa), pages) {
            panic!("device {:#x} of {}: {error:?}", device.pa, config.name.as_str());
        }
    }
}

/// The interrupts of the devices that the VM drives itself.
fn interrupts(package: &Package<'_>, vm: VmIndex) -> impl Iterator<Item = package::Interrupt> {
    package.interrupts().filter(move |interrupt| interrupt.vm == u16::from(vm.0))
}

fn wires(package: &Package<'_>, vm: VmIndex) -> Wires {
    let mut wires = Wires::default();
    for interrupt in interrupts(package, vm) {
        wires.connect(interrupt.virtual_, interrupt.physical, interrupt.edge);
    }
    wires
}

/// Lets the interrupts of a VM's devices come, to the CPU on which the VM is at home.
pub(crate) fn connect_interrupts(package: &Package<'_>, cpus: &[u64]) {
    for (index, config) in (0..).zip(package.vms()) {
        let home = cpus[usize::from(config.cpus[0])];
        for interrupt in interrupts(package, VmIndex(index)) {
            gic::enable_shared(interrupt.physical, home, interrupt.edge);
        }
    }
}

/// Sets the memory of the heaps aside, of which VMs take pieces. It comes zeroed.
fn make_heaps(manager: &Manager, package: &Package<'_>, blocks: &mut Blocks) {
    for heap in package.heaps() {
        let name = heap.name.as_str();
        let mut ranges = Vec::<(Pa, u64), MAX_RANGES>::new();
        let enough = blocks.take_all(heap.size, |block| {
            let pages = block.size / PAGE_SIZE;
            match ranges.last_mut() {
                Some((start, before)) if start.add_pages(*before) == block.start => {
                    *before += pages;
                }
                _ => ranges.push((block.start, pages)).expect("a heap is in few pieces of RAM"),
            }
        });
        assert!(enough, "the machine has too little RAM for the heap {name}");
        if let Err(error) = manager.add_heap(configuration::heap(&heap), &ranges) {
            panic!("the heap {name}: {error:?}");
        }
        defmt::info!("heap {=str}: {=u64} MiB", name, heap.size >> 20);
    }
}

/// Keeps the addresses of the devices that EL2 emulates free of memory.
fn keep_devices(manager: &Manager, vm: VmIndex, config: &package::Vm) {
    let redistributors = match *gic::found() {
        board::Gic::V3 { .. } => vgic::REDISTRIBUTOR_SIZE * u64::from(config.vcpus),
        board::Gic::V2 { virtual_interface, .. } => {
            let (at, pages) = (Ipa(vgic::CPU_INTERFACE), vgic::CPU_INTERFACE_SIZE / PAGE_SIZE);
            if let Err(error) = manager.give_device(vm, at, virtual_interface, pages) {
                panic!("the CPU interface of {}: {error:?}", config.name.as_str());
            }
            0
        }
    };
    for (at, size) in [
        (vgic::DISTRIBUTOR, vgic::DISTRIBUTOR_SIZE),
        (vgic::REDISTRIBUTORS, redistributors),
        (CONSOLE, CONSOLE_SIZE),
    ]
    .into_iter()
    .filter(|&(_, size)| size > 0)
    {
        if let Err(error) = manager.give_emulated(vm, Ipa(at), size / PAGE_SIZE) {
            panic!("devices of {}: {error:?}", config.name.as_str());
        }
    }
}

/// Copies the part of a program that lies in the block, which the VM sees from `at` on.
fn load(image: &[u8], load: u64, at: Ipa, block: Region) {
    let (start, end) = (load.max(at.0), (load + image.len() as u64).min(at.0 + block.size));
    if start >= end {
        return;
    }
    let part = &image[(start - load) as usize..(end - load) as usize];
    let to = Pa(block.start.0 + (start - at.0));
    // SAFETY: the block is RAM in the direct map that nobody uses yet, and the part lies inside it.
    unsafe { stage1::direct(to).copy_from_nonoverlapping(part.as_ptr(), part.len()) };
    cache::sync_code(to, part.len() as u64);
}

/// The resource manager, with storage for what the package describes.
fn new_manager(package: &Package<'_>, memory: &mut BootMemory) -> Manager {
    let configs = configuration::vms(package);
    let shared = configuration::amounts(&package.shared());
    let frames = configuration::all_of(package, |amounts| amounts.frames);
    let parcels = configuration::all_of(package, |amounts| amounts.parcels);
    let words = package.heaps().map(|heap| rm::heap::words(heap.size / PAGE_SIZE)).sum();
    let (pool, base) = memory.frames(frames);
    let storage = Storage {
        vms: memory.slice_of(configs.len(), |_| VmSlot::new()),
        handles: memory.slice_of(MAX_HANDLES, |_| HandleSlot::default()),
        parcels: memory.slice_of(parcels, |_| ParcelRecord::new()),
        links: memory.slice_of(configs.len(), |_| LinkRecord::new()),
        frame_records: memory.slice_of(frames, |_| FrameRecord::default()),
        frame_stack: memory.slice_of(frames, |_| AtomicU32::new(0)),
        heaps: memory.slice_of(package.heaps().len(), |_| HeapSlot::new()),
        heap_words: memory.slice_of(words, |_| AtomicU64::new(0)),
    };
    match Manager::with_shared(El2::new(pool, base), storage, &configs, shared) {
        Ok(manager) => manager,
        Err(error) => panic!("the boot configuration: {error:?}"),
    }
}
