//! The VMs of the boot configuration: memory, programs, channels, vCPUs.

use core::sync::atomic::{AtomicU8, AtomicU32};

use heapless::Vec;
use package::{EndOfLife, Package, Sanitize, VM_MEMORY_BASE};
use rm::address::{Ipa, PAGE_SIZE, Pa, TlbTag, VmIndex, Vmid};
use rm::config::{AfterEnd, MAX_VMS, OwnedParcels, Roles, VmConfig, VmName};
use rm::frame_pool::FrameRecord;
use rm::link::LinkRecord;
use rm::manager::{Storage, VmSlot};
use rm::memparcel::{HandleSlot, MAX_HANDLES, ParcelRecord};
use rm::quota::{Amounts, Quotas};
use rm::stage2::MAX_IPA_PAGES;
use spin::Once;
use spin::mutex::SpinMutex;

use super::life::Life;
use super::{Manager, VMS, Vm, channels};
use crate::board::Region;
use crate::console::{CONSOLE, CONSOLE_SIZE, Console};
use crate::frames::{Blocks, BootMemory};
use crate::machine::El2;
use crate::rate::Notes;
use crate::vcpu::State;
use crate::vgic::{self, Vgic};
use crate::{cache, stage1, tlb};

static MANAGER: Once<Manager> = Once::new();

/// Makes everything that the package describes. Panics when the machine is too small for it.
pub(crate) fn build(package: &Package<'static>, mut memory: BootMemory) {
    let manager = MANAGER.call_once(|| new_manager(package, &mut memory));
    let mut blocks = memory.into_blocks();
    for (index, config) in (0..).zip(package.vms()) {
        let vm = VmIndex(index);
        give_memory(manager, &mut blocks, package, vm, &config);
        keep_devices(manager, vm, &config);
        VMS[usize::from(index)].call_once(|| new(manager, vm, &config, package.image(&config)));
        defmt::info!(
            "{=str}: VMID {=u16}, {=u8} vCPUs, {=u64} MiB",
            config.name.as_str(),
            config.vmid,
            config.vcpus,
            config.memory >> 20
        );
    }
    channels::open(manager, package.channels());
}

fn new(
    manager: &'static Manager,
    index: VmIndex,
    config: &package::Vm,
    image: &'static [u8],
) -> Vm {
    let cpus = config.cpus;
    Vm {
        index,
        name: config.name,
        on_fault: config.on_fault,
        manager,
        vttbr: tlb::vttbr(manager.context(index)),
        vgic: Vgic::new(config.vcpus.into()),
        console: SpinMutex::new(Console::new()),
        vcpus: core::array::from_fn(|n| State::new(n as u8, cpus[n], config.entry)),
        vcpu_count: config.vcpus.into(),
        vcpus_on: AtomicU8::new(config.vcpus),
        memory: config.memory,
        image,
        image_at: config.load,
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
    let image = package.image(config);
    let mut at = Ipa(VM_MEMORY_BASE);
    let enough = blocks.take_all(config.memory, |block| {
        load(image, config.load, at, block);
        let pages = block.size / PAGE_SIZE;
        if let Err(error) = manager.give(vm, at, block.start, pages) {
            panic!("memory of {}: {error:?}", config.name.as_str());
        }
        at = at.add_pages(pages);
    });
    assert!(enough, "the machine has too little RAM for {}", config.name.as_str());
}

/// Keeps the addresses of the devices that EL2 emulates free of memory.
fn keep_devices(manager: &Manager, vm: VmIndex, config: &package::Vm) {
    let redistributors = vgic::REDISTRIBUTOR_SIZE * u64::from(config.vcpus);
    for (at, size) in [
        (vgic::DISTRIBUTOR, vgic::DISTRIBUTOR_SIZE),
        (vgic::REDISTRIBUTORS, redistributors),
        (CONSOLE, CONSOLE_SIZE),
    ] {
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
    let configs: Vec<VmConfig, MAX_VMS> = (1..).zip(package.vms()).map(vm_config).collect();
    let shared = package.shared();
    let sum = |of: fn(&package::Amounts) -> u32| {
        let guaranteed = package.vms().map(|vm| of(&vm.quotas.guaranteed) as usize);
        guaranteed.sum::<usize>() + of(&shared) as usize
    };
    let frames = sum(|amounts| amounts.frames);
    let (pool, base) = memory.frames(frames);
    let storage = Storage {
        vms: memory.slice_of(configs.len(), |_| VmSlot::new()),
        handles: memory.slice_of(MAX_HANDLES, |_| HandleSlot::default()),
        parcels: memory.slice_of(sum(|amounts| amounts.parcels), |_| ParcelRecord::new()),
        links: memory.slice_of(configs.len(), |_| LinkRecord::new()),
        frame_records: memory.slice_of(frames, |_| FrameRecord::default()),
        frame_stack: memory.slice_of(frames, |_| AtomicU32::new(0)),
    };
    match Manager::with_shared(El2::new(pool, base), storage, &configs, amounts(&shared)) {
        Ok(manager) => manager,
        Err(error) => panic!("the boot configuration: {error:?}"),
    }
}

/// What the resource manager is told of a VM. Tag 0 stays free, for a CPU that has no VM loaded.
fn vm_config((tag, vm): (u16, package::Vm)) -> VmConfig {
    let package::Quotas { guaranteed, limit } = vm.quotas;
    VmConfig {
        name: VmName::new(vm.name.as_str()),
        roles: Roles::from_bits_truncate(vm.roles.bits()),
        ipa_pages: ((1 << vm.ipa_bits) / PAGE_SIZE).min(MAX_IPA_PAGES),
        // Below are the devices that EL2 emulates.
        accept_from: Ipa(VM_MEMORY_BASE),
        quotas: Quotas {
            parcels: limit.parcels,
            pages_lent: limit.pages_lent,
            pages_accepted: limit.pages_accepted,
            extents: limit.extents.into(),
            unfinished: limit.unfinished,
            unread: limit.unread,
            frames: limit.frames,
            frames_reserved: guaranteed.frames,
            guaranteed: amounts(&guaranteed),
        },
        sanitize_always: vm.sanitize == Sanitize::Always,
        after_end: match vm.end_of_life {
            EndOfLife::Keep => AfterEnd::Wait,
            EndOfLife::Reset => AfterEnd::Reset,
            EndOfLife::Restart => AfterEnd::Restart,
        },
        owned_parcels: match vm.owned_parcels {
            package::OwnedParcels::Revoke => OwnedParcels::Revoke,
            package::OwnedParcels::Keep => OwnedParcels::Keep,
        },
        ..VmConfig::new(Vmid(vm.vmid), TlbTag(tag))
    }
}

/// What is counted, as the resource manager wants it.
fn amounts(of: &package::Amounts) -> Amounts {
    Amounts {
        parcels: of.parcels.into(),
        pages_lent: of.pages_lent,
        pages_accepted: of.pages_accepted,
        extents: of.extents.into(),
        unfinished: of.unfinished.into(),
        unread: of.unread.into(),
    }
}

const _: () = assert!(MAX_VMS <= package::MAX_VMS);
