//! What a VM is told unasked, and where news waits while its queue is full.
//!
//! A notice goes straight into the receiver's queue when there is room and nothing waits before it.
//! Otherwise it waits in a node of its parcel: each ACL entry has one for what the borrower hears and
//! one for what the owner hears about that borrower, so news needs no memory and is never lost. News
//! for a node that still waits replaces what it held. A parcel that goes leaves what others have still
//! to read of it in nodes of the receiver, as many as its quota of unread news allows; then the oldest
//! makes way, and whoever does not read them is named in no new parcel until it does.
//!
//! News of VMs has nodes of the receiver too: two for each VM that it can be about.
//!
//! MEM_SHARED lists the parcel's sizes and may take many packets. They are written one by one from the
//! parcel; if that goes meanwhile, the sizes that are left are told as zero.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rm_abi::memparcel::notice::{BorrowerNews, Offer, Recall, SizeEntry};
use rm_abi::{Handle, Header, Kind, MAX_ENTRIES, PACKET, PACKET_PAYLOAD, Vmid, Writer};
use rm_abi::{extension, message};

use crate::address::VmIndex;
use crate::config::MAX_VMS;
use crate::link::{Link, LinkRecord};
use crate::machine::Machine;
use crate::manager::Manager;
use crate::memparcel::Memparcel;
use crate::memparcel::acl::MAX_ACL;
use crate::memparcel::extents::Extent;
use crate::memparcel::table::RecordIndex;
use crate::memparcel::words::Cursor;
use crate::operation::budget::{Budget, weight};
use crate::refusal::Resource;
use crate::stage2::Memory;

/// Nodes of a parcel: two for each ACL entry.
pub(crate) const NODES: usize = 2 * MAX_ACL;
/// Nodes of a VM for news of parcels that are gone.
pub(crate) const UNREAD: usize = 32;
/// Those, and the ones for news of VMs: a state and an end of each, and the wish that the receiver ends.
pub(crate) const OWN_NODES: usize = UNREAD + 2 * MAX_VMS + 1;

/// Something that a VM is told about a parcel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum News {
    /// To a borrower: the parcel is offered to it.
    Shared,
    /// To a borrower: the owner wants the parcel back.
    Recall,
    /// To the owner: a borrower has accepted.
    Accepted,
    /// To the owner: a borrower has released.
    Released,
    /// To the owner, if it subscribed: what happened, and why.
    Event { what: u8, reason: u8 },
    /// To a peer: a VM has another state.
    Status { state: u8 },
    /// To its owner: a VM has ended.
    Exited { kind: u8 },
    /// The receiver is asked to end.
    Shutdown,
}

impl News {
    const fn is_for_borrower(self) -> bool {
        matches!(self, Self::Shared | Self::Recall)
    }

    /// Never zero, which is a node without news.
    const fn encode(self) -> u32 {
        match self {
            Self::Shared => 1,
            Self::Recall => 2,
            Self::Accepted => 3,
            Self::Released => 4,
            Self::Event { what, reason } => 5 | (what as u32) << 8 | (reason as u32) << 16,
            Self::Status { state } => 6 | (state as u32) << 8,
            Self::Exited { kind } => 7 | (kind as u32) << 8,
            Self::Shutdown => 8,
        }
    }

    const fn decode(word: u32) -> Option<Self> {
        match word & 0xff {
            1 => Some(Self::Shared),
            2 => Some(Self::Recall),
            3 => Some(Self::Accepted),
            4 => Some(Self::Released),
            5 => Some(Self::Event { what: (word >> 8) as u8, reason: (word >> 16) as u8 }),
            6 => Some(Self::Status { state: (word >> 8) as u8 }),
            7 => Some(Self::Exited { kind: (word >> 8) as u8 }),
            8 => Some(Self::Shutdown),
            _ => None,
        }
    }
}

/// Where a node is: in a parcel's record, or among those of its receiver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NodeId(u32);

impl NodeId {
    const DETACHED: u32 = 1 << 31;

    const fn of(record: RecordIndex, entry: usize, news: News) -> Self {
        let node = 2 * entry + if news.is_for_borrower() { 0 } else { 1 };
        Self((record.0 as usize * NODES + node) as u32)
    }

    /// The receiver's node for news about VM `about`.
    const fn of_vm(about: VmIndex, news: News) -> Self {
        let vm = 2 * about.0 as usize;
        Self::detached(
            UNREAD
                + match news {
                    News::Exited { .. } => vm + 1,
                    News::Shutdown => 2 * MAX_VMS,
                    _ => vm,
                },
        )
    }

    const fn detached(index: usize) -> Self {
        Self(Self::DETACHED | index as u32)
    }

    /// Its index among the receiver's own nodes.
    const fn own(self) -> Option<usize> {
        if self.0 & Self::DETACHED == 0 { None } else { Some((self.0 & !Self::DETACHED) as usize) }
    }

    const fn record(self) -> RecordIndex {
        RecordIndex(self.0 / NODES as u32)
    }

    /// As a link: 0 is none.
    fn link(id: Option<Self>) -> u32 {
        id.map_or(0, |id| id.0 + 1)
    }

    fn from_link(link: u32) -> Option<Self> {
        link.checked_sub(1).map(Self)
    }
}

/// A place for one piece of news. The lock of the receiver's link guards all of it; atomics because it
/// lies in a parcel's record. `news` becomes non-zero only while the parcel is locked too.
#[derive(Debug)]
pub(crate) struct Node {
    news: AtomicU32,
    handle: AtomicU32,
    tag: AtomicU32,
    /// The borrower that it is about.
    vmid: AtomicU32,
    /// Rises with every piece of news that waits.
    stamp: AtomicU64,
    next: AtomicU32,
    previous: AtomicU32,
}

impl Node {
    /// A place with no news.
    pub(crate) const fn new() -> Self {
        Self {
            news: AtomicU32::new(0),
            handle: AtomicU32::new(0),
            tag: AtomicU32::new(0),
            vmid: AtomicU32::new(0),
            stamp: AtomicU64::new(0),
            next: AtomicU32::new(0),
            previous: AtomicU32::new(0),
        }
    }

    fn news(&self) -> Option<News> {
        News::decode(self.news.load(Ordering::Relaxed))
    }

    pub(crate) fn stamp(&self) -> u64 {
        self.stamp.load(Ordering::Relaxed)
    }

    fn write(&self, letter: &Letter) {
        self.news.store(letter.news.encode(), Ordering::Relaxed);
        self.handle.store(letter.handle.0, Ordering::Relaxed);
        self.tag.store(letter.tag, Ordering::Relaxed);
        self.vmid.store(letter.vmid.0.into(), Ordering::Relaxed);
    }

    fn read(&self) -> Option<Letter> {
        Some(Letter {
            news: self.news()?,
            handle: Handle(self.handle.load(Ordering::Relaxed)),
            tag: self.tag.load(Ordering::Relaxed),
            vmid: Vmid(self.vmid.load(Ordering::Relaxed) as u16),
        })
    }
}

/// News with all that is said of its parcel.
#[derive(Clone, Copy, Debug)]
struct Letter {
    news: News,
    handle: Handle,
    /// Of the parcel, or what is said of a VM beside its state.
    tag: u32,
    /// The borrower, or the VM that it is about.
    vmid: Vmid,
}

impl Letter {
    /// Writes its one packet. MEM_SHARED is not written so.
    fn write(&self, sequence: u16, into: &mut [u8; PACKET]) -> usize {
        let Self { handle, tag, vmid: borrower, .. } = *self;
        let (head, payload) = into.split_at_mut(Header::SIZE);
        let mut writer = Writer::new(payload);
        let news = || BorrowerNews { handle, borrower, tag };
        let (message, length) = match self.news {
            News::Shared => panic!("G7: an offer is not one packet"),
            News::Recall => (message::MEM_RECALL, Recall { handle, tag }.encode(payload)),
            News::Accepted => (message::MEM_ACCEPTED, news().encode(payload)),
            News::Released => (message::MEM_RELEASED, news().encode(payload)),
            News::Event { what, reason } => {
                writer.u32(handle.0).u16(borrower.0).u8(what).u8(reason).u32(tag);
                (extension::PARCEL_EVENT, writer.finish())
            }
            News::Status { state } => {
                writer.u16(borrower.0).u16(0).u8(state).u8(0).u16(0);
                (message::VM_STATUS, writer.finish())
            }
            News::Exited { kind } => {
                writer.u16(borrower.0).u16(kind.into()).u32(4).u32(tag);
                (message::VM_EXITED, writer.finish())
            }
            News::Shutdown => (message::VM_SHUTDOWN, writer.u32(tag).finish()),
        };
        let header = Header { kind: Kind::Notification, fragments: 0, sequence, message };
        head.copy_from_slice(&header.encode());
        Header::SIZE + length.expect("a notice fits a packet")
    }
}

/// The nodes of a VM that wait for room in its queue, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    first: Option<NodeId>,
    last: Option<NodeId>,
    /// The stamp of the youngest, and of a reply that is behind it.
    pub(crate) stamp: u64,
    /// Own nodes in use, one bit each.
    detached: u32,
    /// Pieces of news that were replaced by younger ones before they were read.
    pub(crate) replaced: u64,
    /// Pieces of news that were dropped because nobody read them.
    pub(crate) dropped: u64,
}

impl Waiting {
    pub(crate) const fn new() -> Self {
        Self { first: None, last: None, stamp: 0, detached: 0, replaced: 0, dropped: 0 }
    }

    /// Who is next.
    pub(crate) const fn first(&self) -> Option<NodeId> {
        self.first
    }
}

/// A MEM_SHARED message whose first packet is in the queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offering {
    record: RecordIndex,
    handle: Handle,
    header: Header,
    /// Packets in the queue.
    sent: u8,
    /// Bytes of the payload.
    total: usize,
    /// The list of sizes: where it starts in the payload, how many, and the next.
    start: usize,
    sizes: usize,
    cursor: Cursor,
    attributes: u16,
}

impl Offering {
    pub(crate) const fn record(&self) -> RecordIndex {
        self.record
    }

    fn new(parcel: &Memparcel, record: RecordIndex, sequence: u16) -> Self {
        // Of an append that is at work nothing may be told: it may still be refused.
        let sizes = (parcel.settled as usize).min(MAX_ENTRIES);
        let attributes = parcel.acl.attributes().len();
        // Offer, ACL with its count, count of the sizes.
        let start = 20 + 4 + 4 * parcel.acl.len() + 4;
        let total = start + 8 * sizes + 4 + 4 * attributes;
        let fragments = Header::fragments_for(total);
        let message = message::MEM_SHARED;
        Self {
            record,
            handle: parcel.handle,
            header: Header { kind: Kind::Notification, fragments, sequence, message },
            sent: 0,
            total,
            start,
            sizes,
            cursor: Cursor::START,
            attributes: attributes as u16,
        }
    }

    /// Writes the next packet; gives its length, and whether it is the last.
    fn write<M: Machine>(
        &mut self,
        parcel: &Memparcel,
        tag: u32,
        owner: Vmid,
        mem: Memory<'_, '_, M>,
        into: &mut [u8; PACKET],
    ) -> (usize, bool) {
        let parcel = (parcel.handle == self.handle).then_some(parcel);
        let kind = if self.sent == 0 { Kind::Notification } else { Kind::Continuation };
        into[..Header::SIZE].copy_from_slice(&Header { kind, ..self.header }.encode());
        let from = usize::from(self.sent) * PACKET_PAYLOAD;
        let length = (self.total - from).min(PACKET_PAYLOAD);
        let payload = &mut into[Header::SIZE..][..length];
        payload.fill(0);
        if let Some(parcel) = parcel
            && self.sent == 0
        {
            self.write_head(parcel, tag, owner, payload);
        }
        self.write_sizes(parcel, mem, from, payload);
        self.write_attributes(parcel, from, payload);
        self.sent += 1;
        (Header::SIZE + length, self.sent > self.header.fragments)
    }

    /// Everything before the sizes; it fits the first packet.
    fn write_head(&self, parcel: &Memparcel, tag: u32, owner: Vmid, payload: &mut [u8]) {
        let offer = Offer {
            handle: parcel.handle,
            memory: parcel.memory,
            transfer: parcel.transfer,
            sanitized: parcel.sanitized,
            owner,
            label: parcel.label,
            tag,
        };
        let mut head = [0; 20 + 4 + 4 * MAX_ACL + 8];
        // Written with an empty list of sizes, whose count is then put right.
        offer.encode(parcel.acl.entries(), &[], &[], &mut head).expect("the head has room");
        payload[..self.start].copy_from_slice(&head[..self.start]);
        payload[self.start - 4..self.start - 2].copy_from_slice(&(self.sizes as u16).to_le_bytes());
    }

    /// The sizes that lie in the packet which starts at byte `from` of the payload.
    fn write_sizes<M: Machine>(
        &mut self,
        parcel: Option<&Memparcel>,
        mem: Memory<'_, '_, M>,
        from: usize,
        payload: &mut [u8],
    ) {
        loop {
            let index = self.cursor.index() as usize;
            let at = self.start + 8 * index;
            if index >= self.sizes || at >= from + payload.len() {
                return;
            }
            let pages = parcel
                .and_then(|parcel| parcel.extents.peek(mem, self.cursor))
                .map_or(0, |record| Extent::decode(record).pages);
            let SizeEntry(size) = SizeEntry(pages * crate::address::PAGE_SIZE);
            copy_part(payload, from, at, &size.to_le_bytes());
            // One that straddles the packet's end is begun again in the next packet.
            if at + 8 > from + payload.len() {
                return;
            }
            let next = parcel.and_then(|parcel| parcel.extents.next(mem, &mut self.cursor));
            if next.is_none() {
                return;
            }
        }
    }

    /// What of the attribute list lies in the packet.
    fn write_attributes(&self, parcel: Option<&Memparcel>, from: usize, payload: &mut [u8]) {
        let at = self.start + 8 * self.sizes;
        copy_part(payload, from, at, &self.attributes.to_le_bytes());
        for (index, entry) in parcel.iter().flat_map(|parcel| parcel.acl.attributes()).enumerate() {
            let [a, b] = entry.attribute.to_le_bytes();
            let [c, d] = entry.vmid.0.to_le_bytes();
            copy_part(payload, from, at + 4 + 4 * index, &[a, b, c, d]);
        }
    }
}

/// Copies what of `bytes`, which stand at `at` of a message, lies in `part`, which starts at `from`.
fn copy_part(part: &mut [u8], from: usize, at: usize, bytes: &[u8]) {
    for (at, byte) in (at..).zip(bytes) {
        if let Some(place) = at.checked_sub(from).and_then(|at| part.get_mut(at)) {
            *place = *byte;
        }
    }
}

impl<M: Machine> Manager<'_, M> {
    /// Tells a VM something about a parcel: the VM of ACL entry `entry` if the news is for a borrower,
    /// else the owner about that borrower. A borrower that is no VM of this system hears nothing.
    pub(crate) fn post(&self, parcel: &Memparcel, record: RecordIndex, entry: usize, news: News) {
        let vmid = parcel.acl.entries()[entry].vmid;
        let to = if news.is_for_borrower() { self.find(vmid) } else { Some(parcel.owner) };
        let Some(to) = to else { return };
        let letter = Letter { news, handle: parcel.handle, tag: parcel.tag.unwrap_or(0), vmid };
        self.put(to, NodeId::of(record, entry, news), &letter, Some((parcel, record)));
    }

    /// Tells a VM something about a VM. `word` is what belongs to it beside what the news holds.
    pub(crate) fn post_life(&self, to: VmIndex, about: VmIndex, news: News, word: u32) {
        let vmid = self.vmid(about);
        let letter = Letter { news, handle: Handle::INVALID, tag: word, vmid };
        self.put(to, NodeId::of_vm(about, news), &letter, None);
    }

    /// Puts news into the receiver's queue, or into its node if it must wait.
    fn put(
        &self,
        to: VmIndex,
        id: NodeId,
        letter: &Letter,
        parcel: Option<(&Memparcel, RecordIndex)>,
    ) {
        let mut link = self.link(to).lock(self.machine());
        if link.closed {
            return;
        }
        let before = link.lengths();
        let node = self.node(to, id);
        if node.news().is_some() {
            node.write(letter);
            link.waiting.replaced += 1;
        } else if link.is_open() {
            let sequence = link.next_sequence();
            match parcel {
                Some((parcel, record)) if letter.news == News::Shared => {
                    link.offering = Some(Offering::new(parcel, record, sequence));
                    self.write_offer(&mut link, parcel);
                }
                _ => link.to_vm.push_with(|into| letter.write(sequence, into)),
            }
        } else {
            node.write(letter);
            self.append(&mut link, to, id);
        }
        self.interrupt_others(&link, to, before);
    }

    /// Empties the queues of a VM that has ended, and drops its news, one piece for each unit of work.
    /// From now on there is none for it. `true` at the end.
    pub(crate) fn close_link(&self, vm: VmIndex, budget: &mut Budget) -> bool {
        let mut link = self.link(vm).lock(self.machine());
        link.close();
        while let Some(first) = link.waiting.first() {
            if budget.is_spent() {
                return false;
            }
            self.remove(&mut link, vm, first);
            let _ = budget.spend(weight::VISIT);
        }
        true
    }

    /// The VM begins another life, with empty queues.
    pub(crate) fn open_link(&self, vm: VmIndex) {
        self.link(vm).lock(self.machine()).open();
    }

    /// Writes packets of the offer in transmission, as far as the queue has room.
    pub(crate) fn write_offer(&self, link: &mut Link, parcel: &Memparcel) {
        let (tag, owner) = (parcel.tag.unwrap_or(0), self.vmid(parcel.owner));
        while let Some(offering) = &mut link.offering
            && !link.to_vm.is_full()
        {
            let mut last = false;
            link.to_vm.push_with(|into| {
                let (length, is_last) = offering.write(parcel, tag, owner, self.mem(), into);
                last = is_last;
                length
            });
            if last {
                link.offering = None;
            }
        }
    }

    /// Sends what node `id` holds, the first that waits for `to`. The queue has room. An offer is only
    /// begun if its parcel, which the caller has locked, is given.
    pub(crate) fn send_first(
        &self,
        link: &mut Link,
        to: VmIndex,
        id: NodeId,
        parcel: Option<&Memparcel>,
    ) {
        let letter = self.node(to, id).read().expect("G7: a node that waits has news");
        let sequence = link.next_sequence();
        if letter.news == News::Shared {
            let parcel = parcel.expect("G7: an offer needs its parcel");
            link.offering = Some(Offering::new(parcel, id.record(), sequence));
            self.remove(link, to, id);
            self.write_offer(link, parcel);
        } else {
            link.to_vm.push_with(|into| letter.write(sequence, into));
            self.remove(link, to, id);
        }
    }

    /// The record whose parcel must be locked to send node `id`.
    pub(crate) fn offer_of(&self, to: VmIndex, id: NodeId) -> Option<RecordIndex> {
        (self.node(to, id).news() == Some(News::Shared)).then(|| id.record())
    }

    /// A parcel goes: what others have still to read of it must not stay in its record.
    pub(crate) fn detach_news(&self, parcel: &Memparcel, record: RecordIndex) {
        for (entry, acl) in parcel.acl.entries().iter().enumerate() {
            for news in [News::Shared, News::Released] {
                let id = NodeId::of(record, entry, news);
                // Without the receiver's lock: it becomes non-zero only under the parcel's.
                if self.parcels().node(id.0 as usize).news().is_none() {
                    continue;
                }
                let to =
                    if news.is_for_borrower() { self.find(acl.vmid) } else { Some(parcel.owner) };
                if let Some(to) = to {
                    self.detach(to, id);
                }
            }
        }
    }

    fn detach(&self, to: VmIndex, id: NodeId) {
        let record = self.link(to);
        let mut link = record.lock(self.machine());
        // It may have been read meanwhile.
        let Some(letter) = self.node(to, id).read() else { return };
        if letter.news == News::Shared {
            self.remove(&mut link, to, id);
            return;
        }
        // The VM's lock is held, so what it has is what its meter says.
        if self.ledger(to).charge(Resource::Unread, 1).is_err() {
            let used = |&index: &usize| link.waiting.detached >> index & 1 != 0;
            let oldest = (0..UNREAD).filter(used).min_by_key(|&index| record.nodes[index].stamp());
            let oldest = oldest.expect("G7: a VM has room for a piece of news whatever others do");
            // Its room is the new one's: nobody else can take it meanwhile.
            self.take_out(&mut link, to, NodeId::detached(oldest));
            link.waiting.detached &= !(1 << oldest);
            link.waiting.dropped += 1;
        }
        let free = link.waiting.detached.trailing_ones() as usize;
        link.waiting.detached |= 1 << free;
        self.node(to, NodeId::detached(free)).write(&letter);
        self.replace(&mut link, to, id, NodeId::detached(free));
    }

    /// How much news for the VM younger news replaced, and how much was dropped unread.
    pub(crate) fn lost_news(&self, vm: VmIndex) -> (u64, u64) {
        let link = self.link(vm).lock(self.machine());
        (link.waiting.replaced, link.waiting.dropped)
    }

    /// Whether the VM has left so much unread that no new parcel may name it.
    pub(crate) fn is_crowded(&self, vmid: Vmid) -> bool {
        self.find(vmid).is_some_and(|vm| self.ledger(vm).is_full(Resource::Unread))
    }

    fn node(&self, to: VmIndex, id: NodeId) -> &Node {
        match id.own() {
            Some(index) => &self.link(to).nodes[index],
            None => self.parcels().node(id.0 as usize),
        }
    }

    pub(crate) fn stamp_of(&self, to: VmIndex, id: NodeId) -> u64 {
        self.node(to, id).stamp()
    }

    fn append(&self, link: &mut Link, to: VmIndex, id: NodeId) {
        let node = self.node(to, id);
        let last = link.waiting.last.replace(id);
        link.waiting.stamp += 1;
        node.stamp.store(link.waiting.stamp, Ordering::Relaxed);
        node.next.store(0, Ordering::Relaxed);
        node.previous.store(NodeId::link(last), Ordering::Relaxed);
        match last {
            Some(last) => self.node(to, last).next.store(NodeId::link(Some(id)), Ordering::Relaxed),
            None => link.waiting.first = Some(id),
        }
    }

    /// Takes a node out of the list, which has no news then. One of the receiver's is free again.
    fn remove(&self, link: &mut Link, to: VmIndex, id: NodeId) {
        self.take_out(link, to, id);
        if let Some(index) = id.own().filter(|&index| index < UNREAD) {
            link.waiting.detached &= !(1 << index);
            self.ledger(to).refund(Resource::Unread, 1);
        }
    }

    fn take_out(&self, link: &mut Link, to: VmIndex, id: NodeId) {
        let node = self.node(to, id);
        let next = NodeId::from_link(node.next.load(Ordering::Relaxed));
        let previous = NodeId::from_link(node.previous.load(Ordering::Relaxed));
        self.join(link, to, previous, next);
        node.news.store(0, Ordering::Relaxed);
    }

    /// Puts node `new` where `old` is in the list. `old` has no news then.
    fn replace(&self, link: &mut Link, to: VmIndex, old: NodeId, new: NodeId) {
        let (from, into) = (self.node(to, old), self.node(to, new));
        into.stamp.store(from.stamp(), Ordering::Relaxed);
        let next = NodeId::from_link(from.next.load(Ordering::Relaxed));
        let previous = NodeId::from_link(from.previous.load(Ordering::Relaxed));
        self.join(link, to, previous, Some(new));
        self.join(link, to, Some(new), next);
        from.news.store(0, Ordering::Relaxed);
    }

    /// Makes two places of the list neighbours.
    fn join(&self, link: &mut Link, to: VmIndex, left: Option<NodeId>, right: Option<NodeId>) {
        match left {
            Some(id) => self.node(to, id).next.store(NodeId::link(right), Ordering::Relaxed),
            None => link.waiting.first = right,
        }
        match right {
            Some(id) => self.node(to, id).previous.store(NodeId::link(left), Ordering::Relaxed),
            None => link.waiting.last = left,
        }
    }

    pub(crate) fn link(&self, vm: VmIndex) -> &LinkRecord<M::Relax> {
        &self.links()[usize::from(vm.0)]
    }

    /// The VM of this name, if there is one.
    pub(crate) fn find(&self, vmid: Vmid) -> Option<VmIndex> {
        self.all().find(|&vm| self.vmid(vm) == vmid)
    }
}
