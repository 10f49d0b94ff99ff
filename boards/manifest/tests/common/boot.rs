//! EL2's boot on the host: the resource manager over the machine that believes nothing, with a package's
//! VMs, their memory in pieces as small and as scattered as they can be.

use std::sync::atomic::AtomicU32;

use package::{Amounts, Package, Placement, VM_MEMORY_BASE, Vm};
use rm::address::{Ipa, PAGE_SIZE, Pa, TlbTag, VmIndex};
use rm::config::{Roles, VmConfig, VmName};
use rm::doorbell::MAX_DOORBELLS;
use rm::frame_pool::FrameRecord;
use rm::link::LinkRecord;
use rm::machine::fake::FakeMachine;
use rm::manager::{Manager, Storage, VmSlot};
use rm::memparcel::{HandleSlot, MAX_HANDLES, ParcelRecord};
use rm::quota::Quotas;
use rm::stage2::MAX_IPA_PAGES;
use rm_abi::Vmid;

/// The most frames that a test makes.
const FRAMES: usize = 20_000;
/// The most memory of VMs that a test gives.
const MEMORY: u64 = 1 << 30;

/// Boots the package, as `hyp/src/vm/build.rs` does. What is too large for a test counts as booted.
pub(crate) fn boot(package: &Package<'_>) -> Result<(), String> {
    let sum = |of: fn(&Amounts) -> u32| {
        let guaranteed = package.vms().map(|vm| of(&vm.quotas.guaranteed) as usize);
        guaranteed.sum::<usize>() + of(&package.shared()) as usize
    };
    let (frames, parcels) = (sum(|of| of.frames), sum(|of| of.parcels));
    if frames > FRAMES || package.vms().map(|vm| vm.memory).sum::<u64>() > MEMORY {
        return Ok(());
    }
    let configs: Vec<_> = (1..).zip(package.vms()).map(config).collect();
    let many = |count: usize| 0..count;
    let vms: Vec<_> = many(configs.len()).map(|_| VmSlot::new()).collect();
    let handles: Vec<_> = many(MAX_HANDLES).map(|_| HandleSlot::default()).collect();
    let parcels: Vec<_> = many(parcels).map(|_| ParcelRecord::new()).collect();
    let links: Vec<_> = many(configs.len()).map(|_| LinkRecord::new()).collect();
    let frame_records: Vec<_> = many(frames).map(|_| FrameRecord::default()).collect();
    let frame_stack: Vec<_> = many(frames).map(|_| AtomicU32::new(0)).collect();
    let storage = Storage {
        vms: &vms,
        handles: &handles,
        parcels: &parcels,
        links: &links,
        frame_records: &frame_records,
        frame_stack: &frame_stack,
    };
    let machine = FakeMachine::new(frames);
    let shared = amounts(&package.shared());
    let manager = Manager::with_shared(machine, storage, &configs, shared);
    let manager = manager.map_err(|error| format!("the boot configuration: {error:?}"))?;
    for (index, vm) in (0..).zip(package.vms()) {
        let said = |error| format!("VM {index}: {error:?}");
        give(&manager, index, &vm).map_err(said)?;
        for device in package.devices().filter(|device| device.vm == u16::from(index)) {
            let (at, pa) = (Ipa(device.ipa), Pa(device.pa));
            manager.give_device(VmIndex(index), at, pa, device.pages.into()).map_err(said)?;
        }
        for (at, size) in [
            (0x800_0000, 0x1_0000),
            (0x80a_0000, 0x2_0000 * u64::from(vm.vcpus)),
            (0x900_0000, 0x1000),
        ] {
            manager.give_emulated(VmIndex(index), Ipa(at), size / PAGE_SIZE).map_err(said)?;
        }
    }
    let mut bells = vec![0; configs.len()];
    for (index, channel) in package.channels().enumerate() {
        let end = |vm: u16, at: u64| (VmIndex(vm as u8), Ipa(at));
        let owner = end(channel.owner, channel.owner_ipa);
        let peer = end(channel.peer, channel.peer_ipa);
        manager
            .share_at_boot(owner, peer, channel.pages, channel.label)
            .map_err(|error| format!("channel {index}: {error:?}"))?;
        let ends = [owner.0, peer.0].map(|vm| (vm, bells[usize::from(vm.0)]));
        if ends.iter().all(|&(_, bell)| usize::from(bell) < MAX_DOORBELLS) {
            manager.connect_doorbells(ends[0], ends[1]);
        }
        ends.iter().for_each(|(vm, _)| bells[usize::from(vm.0)] += 1);
    }
    manager.audit().map(|_| ()).map_err(|broken| format!("{broken:?}"))
}

/// Memory in blocks of 2 MiB, of which no two are neighbours, unless it lies where the VM sees it.
fn give(
    manager: &Manager<'_, FakeMachine>,
    index: u8,
    vm: &Vm,
) -> Result<(), rm::config::BootError> {
    if vm.placement == Placement::Identity {
        let (at, pages) = (vm.memory_at, vm.memory / PAGE_SIZE);
        return manager.give(VmIndex(index), Ipa(at), Pa(at), pages);
    }
    const BLOCK: u64 = 2 << 20;
    for block in 0..vm.memory / BLOCK {
        let pa = ((u64::from(index) + 1) << 40) + block * 2 * BLOCK;
        let at = Ipa(vm.memory_at + block * BLOCK);
        manager.give(VmIndex(index), at, Pa(pa), BLOCK / PAGE_SIZE)?;
    }
    Ok(())
}

fn config((tag, vm): (u16, Vm)) -> VmConfig {
    let package::Quotas { guaranteed, limit } = vm.quotas;
    VmConfig {
        name: VmName::new(vm.name.as_str()),
        roles: Roles::from_bits_truncate(vm.roles.bits()),
        ipa_pages: ((1 << vm.ipa_bits) / PAGE_SIZE).min(MAX_IPA_PAGES),
        accept_from: Ipa(VM_MEMORY_BASE),
        direct_mapped: vm.placement == Placement::Identity,
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
        ..VmConfig::new(Vmid(vm.vmid), TlbTag(tag))
    }
}

fn amounts(of: &Amounts) -> rm::quota::Amounts {
    rm::quota::Amounts {
        parcels: of.parcels.into(),
        pages_lent: of.pages_lent,
        pages_accepted: of.pages_accepted,
        extents: of.extents.into(),
        unfinished: of.unfinished.into(),
        unread: of.unread.into(),
    }
}
