//! EL2's boot on the host: the resource manager over the machine that believes nothing, with a package's
//! VMs, their memory in pieces as small and as scattered as they can be.

use std::sync::atomic::{AtomicU32, AtomicU64};

use hyp::configuration;
use package::{Package, Placement, Vm};
use rm::address::{Ipa, PAGE_SIZE, Pa, VmIndex};
use rm::doorbell::MAX_DOORBELLS;
use rm::frame_pool::FrameRecord;
use rm::heap::{self, HeapSlot};
use rm::link::LinkRecord;
use rm::machine::fake::FakeMachine;
use rm::manager::{Manager, Storage, VmSlot};
use rm::memparcel::{HandleSlot, MAX_HANDLES, ParcelRecord};

/// The most frames that a test makes.
const FRAMES: usize = 20_000;
/// The most memory of VMs that a test gives.
const MEMORY: u64 = 1 << 30;
/// The most words for the pages of heaps.
const WORDS: usize = 1 << 16;

/// Boots the package, as `hyp/src/vm/build.rs` does. What is too large for a test counts as booted.
pub(crate) fn boot(package: &Package<'_>) -> Result<(), String> {
    let frames = configuration::all_of(package, |of| of.frames);
    let parcels = configuration::all_of(package, |of| of.parcels);
    let memory = package.vms().map(|vm| vm.memory).sum::<u64>();
    let words: usize = package.heaps().map(|heap| heap::words(heap.size / PAGE_SIZE)).sum();
    if frames > FRAMES || memory > MEMORY || words > WORDS {
        return Ok(());
    }
    let configs = configuration::vms(package);
    let many = |count: usize| 0..count;
    let vms: Vec<_> = many(configs.len()).map(|_| VmSlot::new()).collect();
    let handles: Vec<_> = many(MAX_HANDLES).map(|_| HandleSlot::default()).collect();
    let parcels: Vec<_> = many(parcels).map(|_| ParcelRecord::new()).collect();
    let links: Vec<_> = many(configs.len()).map(|_| LinkRecord::new()).collect();
    let frame_records: Vec<_> = many(frames).map(|_| FrameRecord::default()).collect();
    let frame_stack: Vec<_> = many(frames).map(|_| AtomicU32::new(0)).collect();
    let heaps: Vec<_> = package.heaps().map(|_| HeapSlot::new()).collect();
    let heap_words: Vec<_> = many(words).map(|_| AtomicU64::new(0)).collect();
    let storage = Storage {
        vms: &vms,
        handles: &handles,
        parcels: &parcels,
        links: &links,
        frame_records: &frame_records,
        frame_stack: &frame_stack,
        heaps: &heaps,
        heap_words: &heap_words,
    };
    let machine = FakeMachine::new(frames);
    let shared = configuration::amounts(&package.shared());
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
    for (index, heap) in (0x80..).zip(package.heaps()) {
        let range = (Pa(index << 40), heap.size / PAGE_SIZE);
        manager
            .add_heap(configuration::heap(&heap), &[range])
            .map_err(|error| format!("the heap {}: {error:?}", heap.name.as_str()))?;
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
