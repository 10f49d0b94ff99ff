//! The smallest embedder: two VMs, a machine without hardware, one page shared and taken back.
//!
//! ```text
//! cargo run -p rm --example embed
//! ```

use std::sync::atomic::{AtomicU32, AtomicU64};

use rm::address::{Ipa, Pa, TlbTag, VmIndex};
use rm::config::VmConfig;
use rm::frame_pool::FrameRecord;
use rm::link::LinkRecord;
use rm::machine::{Features, Frame, Line, Machine, Scope, TranslationContext};
use rm::manager::{Manager, Storage, VmSlot};
use rm::memparcel::{HandleSlot, ParcelRecord};
use rm::operation::Reply;
use rm::quota::Quotas;
use rm::stage2::Access;
use rm_abi::memparcel::{accept::Accept, create::Create, handle::HandleRequest};
use rm_abi::{
    AcceptFlags, AclEntry, CreateFlags, Handle, MemoryKind, Rights, Sanitize, SglEntry, Transfer,
    Vmid, message,
};

/// A machine that nobody runs on: no TLB to invalidate, no cache to clean.
struct Paper {
    frames: Vec<Frame>,
    ranks: AtomicU64,
}

impl Machine for Paper {
    type Relax = spin::Spin;
    fn features(&self) -> Features {
        Features::default()
    }
    fn frames(&self) -> &[Frame] {
        &self.frames
    }
    fn frames_base(&self) -> Pa {
        Pa(0x8000_0000)
    }
    fn publish(&self) {}
    fn invalidate(&self, _: TranslationContext, _: Scope<'_>) {}
    fn zero_page(&self, page: Pa) {
        println!("  the machine zeroes {page:?}");
    }
    fn clean_invalidate_page(&self, _: Pa) {}
    fn interrupt(&self, vm: VmIndex, line: Line) {
        println!("  the machine interrupts VM {}: {line:?}", vm.0);
    }
    fn held_ranks(&self) -> &AtomicU64 {
        &self.ranks
    }
}

fn made<T>(count: usize, make: impl Fn() -> T) -> Vec<T> {
    (0..count).map(|_| make()).collect()
}

fn main() {
    const FRAMES: usize = 64;
    const MEMORY: Ipa = Ipa(0x4000_0000);
    let machine = Paper { frames: made(FRAMES, || Frame::ZERO), ranks: AtomicU64::new(0) };
    let quotas = Quotas { parcels: 4, frames: 32, frames_reserved: 16, ..Quotas::default() };
    let vm = |number: u16| VmConfig {
        accept_from: MEMORY,
        quotas,
        ..VmConfig::new(Vmid(number), TlbTag(number))
    };
    let (vms, parcels) = (made(2, VmSlot::new), made(8, ParcelRecord::new));
    let (handles, records) = (made(64, HandleSlot::default), made(FRAMES, FrameRecord::default));
    let stack = made(FRAMES, || AtomicU32::new(0));
    let links = made(2, LinkRecord::new);
    let storage = Storage {
        links: &links,
        vms: &vms,
        handles: &handles,
        parcels: &parcels,
        frame_records: &records,
        frame_stack: &stack,
    };
    let manager = Manager::new(machine, storage, &[vm(3), vm(4)]).expect("the storage fits");
    let (owner, borrower) = (VmIndex(0), VmIndex(1));
    manager.give(owner, MEMORY, Pa(0x1000_0000), 1024).expect("the memory is free");
    manager.give(borrower, MEMORY, Pa(0x2000_0000), 1024).expect("the memory is free");

    let page = SglEntry { ipa: MEMORY.0 + 0x5000, size: 4096 };
    let mut bytes = [0; 128];
    let lend = Create {
        memory: MemoryKind::NORMAL,
        flags: CreateFlags::empty(),
        label: 1,
        acl: &[AclEntry { vmid: Vmid(4), rights: Rights::R }],
        sgl: &[page],
        attributes: &[],
    };
    let length = lend.encode(&mut bytes).expect("it fits");
    let reply = manager.perform(owner, message::MEM_LEND, &bytes[..length]);
    println!("VM 3 lends {:#x}: {reply:?}", page.ipa);
    let Ok(Reply::Word(handle)) = reply else { panic!("the lend was refused") };
    assert_eq!(manager.allows(owner, Ipa(page.ipa), Access::Read), None);

    let window = SglEntry { ipa: 0x9000_0000, size: 4096 };
    let accept = Accept {
        handle: Handle(handle),
        memory: MemoryKind::NORMAL,
        transfer: Transfer::Lend,
        flags: AcceptFlags::MAP_CONTIGUOUS | AcceptFlags::DONE,
        label: 0,
        acl: &[],
        sgl: &[window],
        attributes: &[],
    };
    let length = accept.encode(&mut bytes).expect("it fits");
    let reply = manager.perform(borrower, message::MEM_ACCEPT, &bytes[..length]);
    println!("VM 4 accepts at {:#x}: {reply:?}", window.ipa);
    println!("  and reads {:?}", manager.allows(borrower, Ipa(window.ipa), Access::Read));
    println!("  and writes {:?}", manager.allows(borrower, Ipa(window.ipa), Access::Write));

    for (vm, call, name) in [
        (owner, message::MEM_RECLAIM, "VM 3 reclaims too early"),
        (borrower, message::MEM_RELEASE, "VM 4 releases"),
        (owner, message::MEM_RECLAIM, "VM 3 reclaims"),
    ] {
        let request = HandleRequest { handle: Handle(handle), flags: Sanitize::SANITIZE };
        let length = request.encode(&mut bytes).expect("it fits");
        let flags = if vm == borrower { 0 } else { 1 };
        bytes[4] = flags;
        println!("{name}: {:?}", manager.perform(vm, call, &bytes[..length]));
    }
    println!("{:?}", manager.audit().expect("nothing is lost"));
}
