//! A resource manager over this machine, with three VMs that run nothing but a test's program.

use core::sync::atomic::AtomicU32;

use hyp::frames::BootMemory;
use hyp::machine::El2;
use rm::address::{Ipa, PAGE_SIZE, PAGES_PER_1G, PAGES_PER_2M, Pa, TlbTag, VmIndex};
use rm::config::VmConfig;
use rm::frame_pool::FrameRecord;
use rm::link::LinkRecord;
use rm::machine::Machine;
use rm::manager::{Manager, Storage, VmSlot};
use rm::memparcel::{HandleSlot, ParcelRecord};
use rm::quota::Quotas;
use rm_abi::Vmid;

use crate::guest;

/// Number of VMs.
pub const VMS: usize = 3;
/// Where each VM's RAM lies.
pub const RAM: Ipa = Ipa(0x4000_0000);
/// Pages of it: eight blocks of 2 MiB.
pub const RAM_PAGES: u64 = 4096;
/// Where each VM has the guest's program, in a block that no call touches.
pub const PROGRAM: Ipa = Ipa(0x3000_0000);
/// Where the first VM also has one block of 1 GiB. No memory answers there, so nothing may touch it.
pub const GIANT: Ipa = Ipa(0x8000_0000);
/// Where accepted memory goes.
pub const WINDOW: Ipa = Ipa(0x1_0000_0000);
/// Pages there that the tests use.
pub const WINDOW_PAGES: u64 = 4096;

/// Behind all devices and all RAM of QEMU's `virt` machine with 1 GiB.
const NOWHERE: Pa = Pa(0x2_4000_0000);
const FRAMES: usize = 1024;
const PARCELS: usize = 64;

/// The VMs.
pub fn vms() -> impl Iterator<Item = VmIndex> {
    (0..VMS as u8).map(VmIndex)
}

/// A VM's name in calls.
pub const fn vmid(vm: VmIndex) -> Vmid {
    Vmid(vm.0 as u16 + 10)
}

fn config(vm: VmIndex) -> VmConfig {
    VmConfig {
        accept_from: WINDOW,
        quotas: Quotas {
            parcels: (PARCELS / VMS) as u32,
            frames: 512,
            frames_reserved: 64,
            ..Quotas::default()
        },
        ..VmConfig::new(vmid(vm), TlbTag(vm.0 as u16 + 1))
    }
}

/// Builds it. `wrap` may put something between the manager and the hardware.
///
/// # Panics
///
/// If the machine's memory does not suffice.
pub fn build<M: Machine + 'static>(
    mut memory: BootMemory,
    wrap: impl FnOnce(El2) -> M,
) -> Manager<'static, M> {
    let storage = Storage {
        vms: memory.slice_of(VMS, |_| VmSlot::new()),
        handles: memory.slice_of(256, |_| HandleSlot::default()),
        parcels: memory.slice_of(PARCELS, |_| ParcelRecord::new()),
        links: memory.slice_of(VMS, |_| LinkRecord::new()),
        frame_records: memory.slice_of(FRAMES, |_| FrameRecord::default()),
        frame_stack: memory.slice_of(FRAMES, |_| AtomicU32::new(0)),
        heaps: &[],
        heap_words: &[],
    };
    let (frames, base) = memory.frames(FRAMES);
    let machine = wrap(El2::new(frames, base));
    let configs: [VmConfig; VMS] = core::array::from_fn(|vm| config(VmIndex(vm as u8)));
    let manager = Manager::new(machine, storage, &configs).expect("the storage fits");
    let mut blocks = memory.into_blocks(&[]);
    for vm in vms() {
        let pa = blocks.take(RAM_PAGES * PAGE_SIZE).expect("there is RAM for each VM");
        manager.give(vm, RAM, pa, RAM_PAGES).expect("the VM has no memory yet");
        let pa = blocks.take(PAGES_PER_2M * PAGE_SIZE).expect("and for its program");
        manager.give(vm, PROGRAM, pa, PAGES_PER_2M).expect("nothing is there yet");
        guest::install(pa);
    }
    manager.give(VmIndex(0), GIANT, NOWHERE, PAGES_PER_1G).expect("nothing is there yet");
    manager
}
