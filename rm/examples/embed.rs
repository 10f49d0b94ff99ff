//! The smallest embedder: a machine in software, two VMs, one page lent and taken back.
//!
//! The VMs are functions that ask the stage-2 tables for every access, so there is no TLB and no cache to
//! maintain. What runs VMs on CPUs differs in that and in nothing else that is seen here.
//!
//! ```text
//! cargo run -p rm --example embed
//! ```

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst, fence};

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

/// Where the RAM begins, and its pages: half of it for each VM.
const RAM: Pa = Pa(0x1000_0000);
const PAGES: u64 = 32;

/// A machine with RAM and frames for tables, whose one CPU is the caller's thread.
struct Software {
    frames: Vec<Frame>,
    ram: Vec<AtomicU64>,
    ranks: AtomicU64,
}

impl Software {
    fn word(&self, pa: Pa) -> &AtomicU64 {
        &self.ram[((pa.0 - RAM.0) / 8) as usize]
    }
}

impl Machine for Software {
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
    fn publish(&self) {
        fence(SeqCst);
    }
    fn invalidate(&self, _: TranslationContext, _: Scope<'_>) {
        fence(SeqCst);
    }
    fn zero_page(&self, page: Pa) {
        (0..512).for_each(|word| self.word(Pa(page.0 + 8 * word)).store(0, Relaxed));
    }
    fn clean_invalidate_page(&self, _: Pa) {}
    fn read(&self, from: Pa, into: &mut [u8], _: bool) {
        for (at, byte) in (from.0..).zip(into) {
            *byte = self.word(Pa(at)).load(Relaxed).to_le_bytes()[at as usize % 8];
        }
    }
    fn write(&self, to: Pa, from: &[u8], _: bool) {
        for (at, byte) in (to.0..).zip(from) {
            let (shift, word) = (at % 8 * 8, self.word(Pa(at)));
            word.store(word.load(Relaxed) & !(0xff << shift) | u64::from(*byte) << shift, Relaxed);
        }
    }
    fn interrupt(&self, vm: VmIndex, line: Line) {
        println!("  the machine interrupts VM {}: {line:?}", vm.0);
    }
    fn held_ranks(&self) -> &AtomicU64 {
        &self.ranks
    }
}

/// A VM's access, which nothing can take the page from before it is done.
fn touch(manager: &Manager<'_, Software>, vm: VmIndex, at: u64, write: Option<u64>) -> Option<u64> {
    let access = if write.is_some() { Access::Write } else { Access::Read };
    manager.with_page(vm, |page| {
        let word = manager.machine().word(page(Ipa(at), access)?.pa);
        Some(write.map_or_else(|| word.load(Relaxed), |value| word.swap(value, Relaxed)))
    })
}

fn made<T>(count: usize, make: impl Fn() -> T) -> Vec<T> {
    (0..count).map(|_| make()).collect()
}

pub(crate) fn main() {
    const FRAMES: usize = 64;
    const MEMORY: Ipa = Ipa(0x4000_0000);
    let (frames, ram) =
        (made(FRAMES, || Frame::ZERO), made(512 * PAGES as usize, AtomicU64::default));
    let quotas = Quotas { parcels: 4, frames: 32, frames_reserved: 16, ..Quotas::default() };
    let vm = |number: u16| VmConfig {
        accept_from: MEMORY,
        quotas,
        ..VmConfig::new(Vmid(number), TlbTag(number))
    };
    let (vms, links) = (&made(2, VmSlot::new), &made(2, LinkRecord::new));
    let (parcels, handles) = (&made(8, ParcelRecord::new), &made(64, HandleSlot::default));
    let frame_records = &made(FRAMES, FrameRecord::default);
    let frame_stack = &made(FRAMES, || AtomicU32::new(0));
    let (heaps, heap_words) = (&[], &[]);
    let storage =
        Storage { links, vms, handles, parcels, frame_records, frame_stack, heaps, heap_words };
    let machine = Software { frames, ram, ranks: AtomicU64::new(0) };
    let manager = Manager::new(machine, storage, &[vm(3), vm(4)]).expect("the storage fits");
    let (owner, borrower) = (VmIndex(0), VmIndex(1));
    for (vm, first) in [(owner, 0), (borrower, PAGES / 2)] {
        manager.give(vm, MEMORY, RAM.add_pages(first), PAGES / 2).expect("the memory is free");
    }

    let call = |vm, message, what: &str, bytes: [u8; 128], length| {
        let reply = manager.perform(vm, message, &bytes[..length]);
        println!("{what}: {reply:?}");
        reply
    };
    let (page, window, mut bytes) = (MEMORY.0 + 0x5000, 0x9000_0000, [0; 128]);
    let range = |ipa| [SglEntry { ipa, size: 4096 }];
    let (acl, memory) = ([AclEntry { vmid: Vmid(4), rights: Rights::R }], MemoryKind::NORMAL);
    let (flags, sgl, attributes) = (CreateFlags::empty(), &range(page), &[]);
    assert_eq!(touch(&manager, owner, page, Some(7)), Some(0));
    let lend = Create { memory, flags, label: 1, acl: &acl, sgl, attributes };
    let length = lend.encode(&mut bytes).expect("it fits");
    let reply = call(owner, message::MEM_LEND, "VM 3 lends a page", bytes, length);
    let Ok(Reply::Word(handle)) = reply else { panic!("the lend was refused") };
    assert_eq!(touch(&manager, owner, page, None), None, "out of its owner's reach");

    let (handle, transfer, sgl) = (Handle(handle), Transfer::Lend, &range(window));
    let flags = AcceptFlags::MAP_CONTIGUOUS | AcceptFlags::DONE;
    let accept = Accept { handle, memory, transfer, flags, label: 0, acl: &[], sgl, attributes };
    let length = accept.encode(&mut bytes).expect("it fits");
    let reply = call(borrower, message::MEM_ACCEPT, "VM 4 accepts it", bytes, length);
    assert_eq!(reply, Ok(Reply::Empty));
    assert_eq!(touch(&manager, borrower, window, None), Some(7));
    assert_eq!(touch(&manager, borrower, window, Some(8)), None, "it was granted reading");

    for (vm, message, flags, what, succeeds) in [
        (owner, message::MEM_RECLAIM, Sanitize::SANITIZE, "VM 3 reclaims too early", false),
        (borrower, message::MEM_RELEASE, Sanitize::empty(), "VM 4 releases", true),
        (owner, message::MEM_RECLAIM, Sanitize::SANITIZE, "VM 3 reclaims", true),
    ] {
        let length = HandleRequest { handle, flags }.encode(&mut bytes).expect("it fits");
        assert_eq!(call(vm, message, what, bytes, length).is_ok(), succeeds);
    }
    assert_eq!(touch(&manager, borrower, window, None), None, "released");
    assert_eq!(touch(&manager, owner, page, None), Some(0), "sanitized, and home again");
    println!("{:?}", manager.audit().expect("nothing is lost"));
}
