//! The smallest embedder: a machine in software, two VMs, one page lent and taken back.
//!
//! The VMs are functions that ask the stage-2 tables for every access, so there is no TLB and no cache to
//! maintain. What runs VMs on CPUs differs in that and in nothing else that is seen here. To see it run:
//! `cargo run -p rm --example embed`.

use std::sync::atomic::{
    AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst, fence,
};

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
    AcceptFlags, AclEntry, CreateFlags, EncodeError, Handle, MemoryKind, Rights, Sanitize,
    SglEntry, Transfer, Vmid, message,
};

/// Where the RAM begins, and its pages for each VM.
const RAM: Pa = Pa(0x1000_0000);
const PAGES: u64 = 16;

/// A machine with RAM and frames for tables, whose one CPU is the caller's thread.
struct Software {
    frames: Vec<Frame>,
    ram: Vec<AtomicU8>,
    ranks: AtomicU64,
}

impl Software {
    fn bytes(&self, from: Pa) -> &[AtomicU8] {
        &self.ram[(from.0 - RAM.0) as usize..]
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
        self.write(page, &[0; 4096], true);
    }
    fn clean_invalidate_page(&self, _: Pa) {}
    fn read(&self, from: Pa, into: &mut [u8], _: bool) {
        self.bytes(from).iter().zip(into).for_each(|(byte, into)| *into = byte.load(Relaxed));
    }
    fn write(&self, to: Pa, from: &[u8], _: bool) {
        self.bytes(to).iter().zip(from).for_each(|(byte, &from)| byte.store(from, Relaxed));
    }
    fn interrupt(&self, _: VmIndex, _: Line) {}
    fn held_ranks(&self) -> &AtomicU64 {
        &self.ranks
    }
}

/// A VM's access, which nothing can take the page from before it is done.
fn touch(manager: &Manager<'_, Software>, vm: VmIndex, at: u64, write: Option<u8>) -> Option<u8> {
    let access = if write.is_some() { Access::Write } else { Access::Read };
    manager.with_page(vm, |page| {
        let byte = &manager.machine().bytes(page(Ipa(at), access)?.pa)[0];
        Some(write.map_or_else(|| byte.load(Relaxed), |value| byte.swap(value, Relaxed)))
    })
}

fn made<T>(count: usize, make: impl Fn() -> T) -> Vec<T> {
    (0..count).map(|_| make()).collect()
}

pub(crate) fn main() {
    const FRAMES: usize = 64;
    const MEMORY: Ipa = Ipa(0x4000_0000);
    let quotas = Quotas { parcels: 4, frames: 32, frames_reserved: 16, ..Quotas::default() };
    let new = |number| VmConfig::new(Vmid(number), TlbTag(number));
    let vm = |number| VmConfig { accept_from: MEMORY, quotas, ..new(number) };
    let storage = Storage {
        vms: &made(2, VmSlot::new),
        handles: &made(64, HandleSlot::default),
        parcels: &made(8, ParcelRecord::new),
        links: &made(2, LinkRecord::new),
        frame_records: &made(FRAMES, FrameRecord::default),
        frame_stack: &made(FRAMES, || AtomicU32::new(0)),
        heaps: &[],
        heap_words: &[],
    };
    let ram = made(2 * 4096 * PAGES as usize, AtomicU8::default);
    let machine = Software { frames: made(FRAMES, || Frame::ZERO), ram, ranks: AtomicU64::new(0) };
    let manager = Manager::new(machine, storage, &[vm(3), vm(4)]).expect("the storage fits");
    let (owner, borrower) = (VmIndex(0), VmIndex(1));
    manager.give(owner, MEMORY, RAM, PAGES).expect("the memory is free");
    manager.give(borrower, MEMORY, RAM.add_pages(PAGES), PAGES).expect("the memory is free");

    type Encoder<'a> = &'a dyn Fn(&mut [u8]) -> Result<usize, EncodeError>;
    let call = |vm, message, what: &str, encode: Encoder<'_>| {
        let mut bytes = [0; 128];
        let length = encode(&mut bytes).expect("it fits");
        let reply = manager.perform(vm, message, &bytes[..length]);
        println!("{what}: {reply:?}");
        reply
    };
    let (page, window) = (MEMORY.0 + 0x5000, 0x9000_0000);
    let range = |ipa| [SglEntry { ipa, size: 4096 }];
    let (acl, memory) = ([AclEntry { vmid: Vmid(4), rights: Rights::R }], MemoryKind::NORMAL);
    let (flags, sgl, attributes) = (CreateFlags::empty(), &range(page), &[]);
    assert_eq!(touch(&manager, owner, page, Some(7)), Some(0));
    let lend = Create { memory, flags, label: 1, acl: &acl, sgl, attributes };
    let reply = call(owner, message::MEM_LEND, "VM 3 lends a page", &|into| lend.encode(into));
    let Ok(Reply::Word(handle)) = reply else { panic!("the lend was refused") };
    assert_eq!(touch(&manager, owner, page, None), None, "out of its owner's reach");

    let (handle, transfer, sgl) = (Handle(handle), Transfer::Lend, &range(window));
    let flags = AcceptFlags::MAP_CONTIGUOUS | AcceptFlags::DONE;
    let accept = Accept { handle, memory, transfer, flags, label: 0, acl: &[], sgl, attributes };
    let reply = call(borrower, message::MEM_ACCEPT, "VM 4 accepts", &|into| accept.encode(into));
    assert_eq!((reply, touch(&manager, borrower, window, None)), (Ok(Reply::Empty), Some(7)));
    assert_eq!(touch(&manager, borrower, window, Some(8)), None, "it was granted reading");

    for (vm, message, flags, what, succeeds) in [
        (owner, message::MEM_RECLAIM, Sanitize::SANITIZE, "VM 3 reclaims too early", false),
        (borrower, message::MEM_RELEASE, Sanitize::empty(), "VM 4 releases", true),
        (owner, message::MEM_RECLAIM, Sanitize::SANITIZE, "VM 3 reclaims", true),
    ] {
        let request = HandleRequest { handle, flags };
        assert_eq!(call(vm, message, what, &|into| request.encode(into)).is_ok(), succeeds);
    }
    assert_eq!(touch(&manager, borrower, window, None), None, "released");
    assert_eq!(touch(&manager, owner, page, None), Some(0), "sanitized, and home again");
    println!("{:?}", manager.audit().expect("nothing is lost"));
}
