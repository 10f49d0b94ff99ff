//! A manager over the strict fake, with VMs that call it: the stage of most tests.

use core::cell::{Cell, RefCell};
use std::boxed::Box;
use std::vec;
use std::vec::Vec;

use core::sync::atomic::{AtomicU32, AtomicU64};
use rm_abi::extension::{self, LastRefusal};
use rm_abi::memparcel::append::Append;
use rm_abi::memparcel::{accept::Accept, create::Create, handle::HandleRequest};
use rm_abi::{
    AcceptFlags, AclEntry, AppendFlags, AttributeEntry, Bytes, Capability, CreateFlags, Handle,
    Header, HypercallError, Kind, MemoryKind, Rights, Sanitize, SglEntry, Transfer, Vmid,
    hypercall, message,
};

use super::effort::few;
use super::{FakeDevice, FakeMachine, VirtualCpu, YieldThread};
use crate::address::{Ipa, PAGE_SIZE, PAGES_PER_2M, Pa, TlbTag, VmIndex};
use crate::audit::AuditReport;
use crate::config::{BootError, VmConfig, VmName};
use crate::direct::{Direct, DirectCall, DirectResult, GuestFault, GuestMemory};
use crate::frame_pool::FrameRecord;
use crate::heap::{self, HeapConfig, HeapSlot};
use crate::hypercall::{Hypercall, Results};
use crate::life::ExitKind;
use crate::link::LinkRecord;
use crate::machine::{Direction, Features, Line, Stream, StreamContext};
use crate::manager::{Manager, Storage, VmSlot};
use crate::memparcel::{HandleSlot, MAX_HANDLES, ParcelRecord};
use crate::operation::STEP;
use crate::operation::budget::Budget;
use crate::quota::{Amounts, Quotas};
use crate::stage2::{Access, MemoryType};

/// Where every VM of a world has its RAM.
pub const RAM: Ipa = Ipa(0x4000_0000);
/// How much of it, in pages.
pub const RAM_PAGES: u64 = 4096;

/// How many heaps a world may have.
pub const HEAPS: usize = 16;
/// How many pages they may have together. An interpreter is slow to make what keeps count of them.
pub const HEAP_PAGES: u64 = few(4 << 18, 32 * PAGES_PER_2M);

/// Frames that a VM may use, for the same reason.
const FRAMES: u32 = few(200, 40);

/// Frames that it is sure of, likewise.
const FRAMES_RESERVED: u32 = few(40, 12);

/// Parcels that it may have, likewise.
const PARCELS: u32 = few(Quotas::USUAL.parcels, 17);

/// Handles of a world that names no number of them, likewise.
pub const HANDLES: usize = few(MAX_HANDLES, 256);

/// VMs at a manager.
pub struct World {
    /// The manager under test. Its storage lives as long as the process, as at EL2.
    pub manager: Manager<'static, FakeMachine>,
}

/// The configuration of a VM that may do whatever tests do.
pub fn vm(vmid: u16) -> VmConfig {
    VmConfig {
        accept_from: RAM,
        quotas: Quotas {
            frames: FRAMES,
            frames_reserved: FRAMES_RESERVED,
            parcels: PARCELS,
            ..Quotas::USUAL
        },
        ..VmConfig::new(Vmid(vmid), TlbTag(vmid))
    }
}

fn leaked<T>(count: usize, make: impl Fn() -> T) -> &'static [T] {
    (0..count).map(|_| make()).collect::<Vec<_>>().leak()
}

fn storage(
    vms: usize,
    handles: usize,
    parcels: usize,
    frames: usize,
    heaps: usize,
) -> Storage<'static, YieldThread> {
    let words = if heaps == 0 { 0 } else { heap::words(HEAP_PAGES) };
    Storage {
        vms: leaked(vms, || const { VmSlot::new() }),
        handles: leaked(handles, HandleSlot::default),
        parcels: leaked(parcels, || const { ParcelRecord::new() }),
        links: leaked(vms, || const { LinkRecord::new() }),
        frame_records: leaked(frames, FrameRecord::default),
        frame_stack: leaked(frames, || AtomicU32::new(0)),
        heaps: leaked(heaps, || const { HeapSlot::new() }),
        heap_words: leaked(words, || AtomicU64::new(0)),
    }
}

impl World {
    /// VMs with [`RAM_PAGES`] pages of RAM each, at [`RAM`].
    pub fn new(vms: &[VmConfig]) -> Self {
        Self::with_features(vms, Features::default())
    }

    /// As [`World::new`], on a machine with `features`.
    pub fn with_features(vms: &[VmConfig], features: Features) -> Self {
        let world = Self::without_memory(vms, features);
        world.give_all();
        world
    }

    /// As [`World::new`], with storage for exactly what the VMs are guaranteed and what they share:
    /// these amounts, and so many frames.
    ///
    /// # Errors
    ///
    /// What the manager says of the configuration.
    pub fn with_shared(
        vms: &[VmConfig],
        shared: Amounts,
        frames: usize,
    ) -> Result<Self, BootError> {
        let sure = |vm: &VmConfig| vm.quotas.guaranteed.parcels.min(vm.quotas.parcels.into());
        let parcels = vms.iter().map(sure).sum::<u64>() + shared.parcels;
        let reserved: usize = vms.iter().map(|vm| vm.quotas.frames_reserved as usize).sum();
        Self::with_storage(vms, shared, parcels as usize, reserved + frames)
    }

    /// As [`World::with_shared`], with storage for so many parcels and frames, on a machine with an SMMU.
    ///
    /// # Errors
    ///
    /// What the manager says of the configuration.
    pub fn with_storage(
        vms: &[VmConfig],
        shared: Amounts,
        parcels: usize,
        frames: usize,
    ) -> Result<Self, BootError> {
        let storage = storage(vms.len(), HANDLES, parcels, frames, HEAPS);
        let features = Features { smmu: true, ..Features::default() };
        let machine = FakeMachine::with_features(frames, features);
        let world = Self { manager: Manager::with_shared(machine, storage, vms, shared)? };
        world.give_all();
        Ok(world)
    }

    /// VMs that have no memory yet.
    pub fn without_memory(vms: &[VmConfig], features: Features) -> Self {
        Self::with_room(vms, features, HANDLES, HEAPS)
    }

    /// As [`World::new`], on a machine with an SMMU, and with no more handles than the VMs may have parcels and
    /// no room for heaps: for tests that make thousands of worlds, whose storage is never freed.
    pub fn small(vms: &[VmConfig]) -> Self {
        let handles = vms.iter().map(|vm| vm.quotas.parcels as usize).sum();
        let features = Features { smmu: true, ..Features::default() };
        let world = Self::with_room(vms, features, handles, 0);
        world.give_all();
        world
    }

    fn with_room(vms: &[VmConfig], features: Features, handles: usize, heaps: usize) -> Self {
        let frames = vms.iter().map(|vm| vm.quotas.frames as usize).sum();
        let parcels = vms.iter().map(|vm| vm.quotas.parcels as usize).sum();
        let storage = storage(vms.len(), handles, parcels, frames, heaps);
        let machine = FakeMachine::with_features(frames, features);
        Self { manager: Manager::new(machine, storage, vms).expect("the storage fits") }
    }

    fn give_all(&self) {
        for vm in self.vms() {
            self.manager.give(vm, RAM, Self::pa_of(vm), RAM_PAGES).expect("the range is free");
        }
    }

    /// Makes a heap of so many blocks.
    ///
    /// # Errors
    ///
    /// What the manager says of it.
    pub fn try_add_heap(&self, config: HeapConfig, blocks: u64) -> Result<(), BootError> {
        self.manager.add_heap(config, &[(Self::heap_pa(config.name), blocks * PAGES_PER_2M)])
    }

    /// As [`World::try_add_heap`], where nothing is wrong with it, for some VMs, one bit each, which can
    /// have all of it.
    pub fn add_heap(&self, name: &str, vms: u32, blocks: u64) {
        let limit = blocks * PAGES_PER_2M;
        let config = HeapConfig { name: VmName::new(name), vms, guaranteed: 0, limit };
        self.try_add_heap(config, blocks).expect("a heap of whole blocks");
    }

    /// Where a heap's memory begins in the machine: by its name's first letter.
    pub fn heap_pa(name: VmName) -> Pa {
        Pa((0x100 + u64::from(name.bytes()[0])) << 32)
    }

    /// The VMs.
    pub fn vms(&self) -> impl Iterator<Item = VmIndex> + use<> {
        (0..self.manager.vm_count() as u8).map(VmIndex)
    }

    /// The machine address of a VM's first page of RAM.
    pub const fn pa_of(vm: VmIndex) -> Pa {
        Pa((vm.0 as u64 + 1) << 32)
    }

    /// How often an interrupt of `vm` was raised.
    pub fn interrupts(&self, vm: VmIndex, line: Line) -> u64 {
        self.manager.machine().interrupts(vm, line)
    }

    /// A CPU that runs `vm`.
    pub fn cpu(&self, vm: VmIndex) -> VirtualCpu<'_> {
        self.manager.machine().cpu(self.manager.context(vm))
    }

    /// A device of a VM, as its configuration describes it.
    pub fn device(&self, stream: Stream) -> FakeDevice<'_> {
        let config = self.vms().find_map(|vm| self.manager.device_config(vm, stream));
        let is_coherent = config.expect("a device of some VM").is_coherent;
        self.manager.machine().device(stream, is_coherent)
    }

    /// No device reaches a page that its VM does not reach at the same address, with the same rights and the
    /// same memory type at least (G3).
    fn check_devices(&self) {
        for (vm, StreamContext { stream, .. }) in self.manager.streams() {
            for page in self.manager.machine().device_pages(stream) {
                let accesses: &[Access] = match page.direction {
                    Direction::ToDevice => &[Access::Read],
                    Direction::FromDevice => &[Access::Write],
                    Direction::Bidirectional => &[Access::Read, Access::Write],
                };
                for access in accesses {
                    let own = self.manager.with_page(vm, |walk| walk(page.at, *access));
                    let own = own.map(|own| (own.pa, own.memory == MemoryType::WriteBack));
                    assert_eq!(
                        own,
                        Some((page.pa, page.is_cached)),
                        "G3: {stream:?} reaches {page:?}, and its VM does not"
                    );
                }
            }
        }
    }

    /// A vCPU of `vm` that calls the manager directly.
    pub fn caller(&self, vm: VmIndex) -> Guest<'_> {
        Guest { world: self, vm, step: Cell::new(STEP), memory: RefCell::default() }
    }

    /// Ends a VM from outside, as the embedder does.
    pub fn end(&self, vm: VmIndex) {
        self.manager.ended(vm, ExitKind::Fault);
    }

    /// Does steps of a VM that does not run, until none is left; the result is how many.
    pub fn settle(&self, vm: VmIndex, step: u32) -> u64 {
        let mut steps = 0;
        while self.manager.pending(vm) {
            self.manager.step(vm, &mut Budget::new(step));
            steps += 1;
            assert!(steps < 1_000_000, "G7: a VM's steps do not end");
        }
        steps
    }

    /// Starts a VM that was reset, as an embedder does when it has loaded it.
    pub fn start(&self, vm: VmIndex) {
        assert!(self.manager.begin_start(vm), "only a VM that was reset is started");
        self.manager.started(vm);
    }

    /// The conservation check (G8), that no CPU or device could use what no table grants (G5), that devices
    /// have no more than their VMs (G3), and that caches and memory agree wherever somebody could tell.
    pub fn check(&self) -> AuditReport {
        self.manager.machine().check_no_stale();
        self.manager.machine().check_caches();
        self.check_devices();
        self.manager.audit().expect("G8: nothing is lost")
    }
}

/// A vCPU with a buffer for requests and one for replies.
pub struct Guest<'a> {
    world: &'a World,
    /// Which VM it belongs to.
    pub vm: VmIndex,
    /// Weights of one step of its calls.
    pub step: Cell<u32>,
    memory: RefCell<Buffers>,
}

/// Request and reply, at the addresses of [`REQUEST`] and [`REPLY`].
struct Buffers {
    request: Vec<u8>,
    reply: Box<[u8; REPLY_ROOM]>,
    reply_faults: bool,
}

impl Default for Buffers {
    fn default() -> Self {
        Self { request: vec![], reply: Box::new([0; REPLY_ROOM]), reply_faults: false }
    }
}

const REQUEST: u64 = 0x10_0000;
const REPLY: u64 = 0x20_0000;
const REPLY_ROOM: usize = 16384;

/// What a call of a [`Guest`] came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The payload of its reply: error word and data.
    Reply(Vec<u8>),
    /// The call goes on; ask again with this token.
    More(u64),
    /// A hypercall error, and a token if the reply is kept.
    Error(i64, u64),
    /// The VM ended.
    Exit(u8),
}

impl Guest<'_> {
    /// Sends a request, with header.
    pub fn send(&self, message: u32, payload: &[u8]) -> Turn {
        let mut bytes = Header::request(message, 7).encode().to_vec();
        bytes.extend_from_slice(payload);
        self.send_bytes(&bytes)
    }

    /// Sends any bytes.
    pub fn send_bytes(&self, bytes: &[u8]) -> Turn {
        self.put_request(bytes);
        self.direct(bytes.len() as u64, REPLY_ROOM as u64, 0)
    }

    /// Puts bytes where the next direct call looks for its request.
    pub fn put_request(&self, bytes: &[u8]) {
        self.memory.borrow_mut().request = bytes.to_vec();
    }

    /// Asks again for the call that `token` names.
    pub fn resume(&self, token: u64) -> Turn {
        self.direct(0, REPLY_ROOM as u64, token)
    }

    /// A direct call with these lengths.
    pub fn direct(&self, length: u64, capacity: u64, token: u64) -> Turn {
        let call = DirectCall { request: REQUEST, length, reply: REPLY, capacity, token };
        let result = self.world.manager.direct_within(self.vm, &call, self, self.step.get());
        match result {
            Direct::Exit { code } => Turn::Exit(code),
            Direct::Return(DirectResult { error: 0, length, .. }) => {
                let reply = &self.memory.borrow().reply[..length as usize];
                let header = Header::decode(reply).expect("a reply has a header");
                assert_eq!(header.kind, Kind::Reply);
                Turn::Reply(reply[Header::SIZE..].to_vec())
            }
            Direct::Return(DirectResult { error: -2, token, .. }) => Turn::More(token),
            Direct::Return(DirectResult { error, token, .. }) => Turn::Error(error, token),
        }
    }

    /// What stands in the buffer for replies.
    pub fn reply(&self, at: usize, length: usize) -> Vec<u8> {
        self.memory.borrow().reply[at..at + length].to_vec()
    }

    /// From now on the reply's page is not the guest's (or is again).
    pub fn lose_reply_page(&self, lost: bool) {
        self.memory.borrow_mut().reply_faults = lost;
    }

    /// Sends a request and follows its token to the reply's payload.
    pub fn call(&self, message: u32, payload: &[u8]) -> Vec<u8> {
        let mut turn = self.send(message, payload);
        for _ in 0..10_000_000 {
            match turn {
                Turn::Reply(payload) => return payload,
                Turn::More(token) => turn = self.resume(token),
                other => panic!("a call ended with {other:?}"),
            }
        }
        panic!("G7: a call took ten million steps")
    }

    /// Error word and first word of data of a call.
    pub fn words(&self, message: u32, payload: &[u8]) -> (u32, u32) {
        let reply = self.call(message, payload);
        let word = |at: usize| {
            reply.get(at..at + 4).map_or(0, |b| u32::from_le_bytes(b.try_into().unwrap()))
        };
        (word(0), word(4))
    }
}

/// The message queues.
impl Guest<'_> {
    /// A hypercall, natively.
    pub fn hypercall(&self, number: u16, args: [u64; 5]) -> Option<Results> {
        let call = Hypercall { number, args, native: true };
        self.world.manager.hypercall_within(self.vm, &call, self, self.step.get())
    }

    /// Sends one packet; the result is the error and whether there is room for another.
    pub fn queue_send(&self, packet: &[u8], push: bool) -> (i64, bool) {
        self.put_request(packet);
        let args = [Capability::SEND_QUEUE.0, packet.len() as u64, REQUEST, push.into(), 0];
        let results = self.hypercall(hypercall::MSGQUEUE_SEND, args).expect("a known call");
        assert_eq!((results.count, results.exit), (2, None));
        (results.x[0] as i64, results.x[1] == 1)
    }

    /// Receives one packet; the result is the packet and whether more wait, or the error.
    pub fn queue_receive(&self) -> Result<(Vec<u8>, bool), i64> {
        let args = [Capability::RECEIVE_QUEUE.0, REPLY, rm_abi::PACKET as u64, 0, 0];
        let results = self.hypercall(hypercall::MSGQUEUE_RECEIVE, args).expect("a known call");
        assert_eq!((results.count, results.exit), (3, None));
        let [error, size, more] = results.x;
        match error as i64 {
            0 => Ok((self.memory.borrow().reply[..size as usize].to_vec(), more == 1)),
            error => Err(error),
        }
    }

    /// Everything that waits in the receive queue.
    pub fn packets(&self) -> Vec<Vec<u8>> {
        core::iter::from_fn(|| self.queue_receive().ok().map(|(packet, _)| packet)).collect()
    }

    /// A request as packets.
    pub fn fragments(header: Header, payload: &[u8]) -> Vec<Vec<u8>> {
        let fragments = Header::fragments_for(payload.len());
        let part = |(index, part): (usize, &[u8])| {
            let kind = if index == 0 { header.kind } else { Kind::Continuation };
            let mut packet = Header { kind, fragments, ..header }.encode().to_vec();
            packet.extend_from_slice(part);
            packet
        };
        match payload {
            [] => vec![part((0, &[]))],
            _ => payload.chunks(rm_abi::PACKET_PAYLOAD).enumerate().map(part).collect(),
        }
    }

    /// Sends a request through the queues and follows it to the payload of its reply. News that comes
    /// before the reply is passed over.
    pub fn queue_call(&self, message: u32, payload: &[u8]) -> Vec<u8> {
        for packet in Self::fragments(Header::request(message, 7), payload) {
            let mut turns = 0;
            while self.queue_send(&packet, false).0 == HypercallError::MSGQUEUE_FULL {
                turns += 1;
                assert!(turns < 1_000_000, "G7: the send queue stays full");
            }
        }
        let (mut reply, mut left) = (vec![], None);
        for _ in 0..10_000_000 {
            let Ok((packet, _)) = self.queue_receive() else {
                self.world.manager.step(self.vm, &mut Budget::new(self.step.get()));
                continue;
            };
            let header = Header::decode(&packet[..]).expect("the manager sends headers");
            match (header.kind, left) {
                (Kind::Reply, None) => left = Some(header.fragments),
                (Kind::Continuation, Some(more)) => left = Some(more - 1),
                _ => continue,
            }
            reply.extend_from_slice(&packet[Header::SIZE..]);
            if left == Some(0) {
                return reply;
            }
        }
        panic!("G7: a call took ten million entries")
    }
}

/// An answer: the first word of its data, or the error word.
pub type Said = Result<u32, u32>;

/// The calls that most tests make.
impl Guest<'_> {
    fn said(&self, message: u32, payload: &[u8]) -> Said {
        match self.words(message, payload) {
            (0, data) => Ok(data),
            (error, _) => Err(error),
        }
    }

    /// Offers ranges, each an address and pages, to VMs with rights.
    pub fn offer(&self, transfer: Transfer, acl: &[(u16, u8)], ranges: &[(u64, u64)]) -> Said {
        self.said(transfer.message(), &offer(CreateFlags::empty(), acl, ranges, &[]))
    }

    /// As [`Guest::offer`]; `None` if another long call of the VM has the slot.
    pub fn offer_or_busy(
        &self,
        transfer: Transfer,
        acl: &[(u16, u8)],
        ranges: &[(u64, u64)],
    ) -> Option<Said> {
        let mut turn =
            self.send(transfer.message(), &offer(CreateFlags::empty(), acl, ranges, &[]));
        loop {
            match turn {
                Turn::More(token) => turn = self.resume(token),
                Turn::Error(HypercallError::BUSY, _) => return None,
                Turn::Reply(reply) => {
                    let word = |at| Bytes::u32_at(&reply[..], at);
                    return Some(if word(0) == 0 { Ok(word(4)) } else { Err(word(0)) });
                }
                other => panic!("a call ended with {other:?}"),
            }
        }
    }

    /// Appends ranges to a parcel, the last ones if `end`.
    pub fn append(&self, handle: u32, end: bool, ranges: &[(u64, u64)]) -> Said {
        let flags = if end { AppendFlags::END } else { AppendFlags::empty() };
        self.said(message::MEM_APPEND, &append(handle, flags, ranges))
    }

    /// Accepts all units of a parcel at addresses.
    pub fn accept(&self, handle: u32, transfer: Transfer, ranges: &[(u64, u64)]) -> Said {
        self.said(message::MEM_ACCEPT, &accept(handle, transfer, AcceptFlags::DONE, ranges))
    }

    /// Accepts a parcel at one address.
    pub fn accept_contiguous(&self, handle: u32, transfer: Transfer, range: (u64, u64)) -> Said {
        let flags = AcceptFlags::DONE | AcceptFlags::MAP_CONTIGUOUS;
        self.said(message::MEM_ACCEPT, &accept(handle, transfer, flags, &[range]))
    }

    /// Releases a parcel.
    pub fn release(&self, handle: u32, flags: u8) -> Said {
        self.said(message::MEM_RELEASE, &by_handle(handle, flags))
    }

    /// Why the last direct call that was refused was refused.
    pub fn last_refusal(&self) -> LastRefusal {
        let reply = self.call(extension::LAST_REFUSAL, &[]);
        assert_eq!(reply[..4], [0; 4]);
        LastRefusal::decode(&reply[4..]).expect("a reply has its length")
    }

    /// Reclaims a parcel.
    pub fn reclaim(&self, handle: u32, flags: u8) -> Said {
        self.said(message::MEM_RECLAIM, &by_handle(handle, flags))
    }
}

/// The payload of an offer, with attributes as pairs of value and VMID.
pub fn offer(
    flags: CreateFlags,
    acl: &[(u16, u8)],
    ranges: &[(u64, u64)],
    attributes: &[(u16, u16)],
) -> Vec<u8> {
    let entry = |&(vmid, rights)| AclEntry { vmid: Vmid(vmid), rights: Rights(rights) };
    let attribute = |&(attribute, vmid)| AttributeEntry { attribute, vmid: Vmid(vmid) };
    let request = Create {
        memory: MemoryKind::NORMAL,
        flags,
        label: LABEL,
        acl: &acl.iter().map(entry).collect::<Vec<_>>(),
        sgl: &sgl(ranges),
        attributes: &attributes.iter().map(attribute).collect::<Vec<_>>(),
    };
    encoded(|into| request.encode(into))
}

/// The payload of an append.
pub fn append(handle: u32, flags: AppendFlags, ranges: &[(u64, u64)]) -> Vec<u8> {
    let request = Append { handle: Handle(handle), flags, sgl: &sgl(ranges) };
    encoded(|into| request.encode(into))
}

/// The payload of an accept.
pub fn accept(
    handle: u32,
    transfer: Transfer,
    flags: AcceptFlags,
    ranges: &[(u64, u64)],
) -> Vec<u8> {
    let request = Accept {
        handle: Handle(handle),
        memory: MemoryKind::NORMAL,
        transfer,
        flags,
        label: LABEL,
        acl: &[],
        sgl: &sgl(ranges),
        attributes: &[],
    };
    encoded(|into| request.encode(into))
}

/// The payload of a release or reclaim.
pub fn by_handle(handle: u32, flags: u8) -> Vec<u8> {
    let request = HandleRequest { handle: Handle(handle), flags: Sanitize(flags) };
    encoded(|into| request.encode(into))
}

/// The label of every parcel of a world.
pub const LABEL: u32 = 0x11;

fn sgl(ranges: &[(u64, u64)]) -> Vec<SglEntry> {
    ranges.iter().map(|&(ipa, pages)| SglEntry { ipa, size: bytes(pages) }).collect()
}

fn encoded(encode: impl FnOnce(&mut [u8]) -> Result<usize, rm_abi::EncodeError>) -> Vec<u8> {
    let mut payload = vec![0; rm_abi::MAX_PAYLOAD];
    let length = encode(&mut payload).expect("a request of a test fits");
    payload.truncate(length);
    payload
}

impl GuestMemory for Guest<'_> {
    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), GuestFault> {
        let memory = self.memory.borrow();
        let first = at.checked_sub(REQUEST).ok_or(GuestFault::Unmapped)? as usize;
        let from = memory.request.get(first..first + into.len()).ok_or(GuestFault::Unmapped)?;
        into.copy_from_slice(from);
        Ok(())
    }

    fn write(&self, at: u64, from: &[u8]) -> Result<(), GuestFault> {
        self.writable(at, from.len())?;
        let first = (at - REPLY) as usize;
        self.memory.borrow_mut().reply[first..first + from.len()].copy_from_slice(from);
        Ok(())
    }

    fn writable(&self, at: u64, length: usize) -> Result<(), GuestFault> {
        let first = at.checked_sub(REPLY).ok_or(GuestFault::Unmapped)?;
        let fits = first + length as u64 <= REPLY_ROOM as u64;
        let lost = self.memory.borrow().reply_faults;
        if fits && !lost { Ok(()) } else { Err(GuestFault::Unmapped) }
    }
}

/// Pages in bytes.
pub const fn bytes(pages: u64) -> u64 {
    pages * PAGE_SIZE
}
