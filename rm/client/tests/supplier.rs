//! mem-buf's protocol between two VMs: supplier and consumer with the manager over the strict fake, the
//! channel between them in the hands of the test.

mod common;

#[path = "supplier/alloc.rs"]
mod alloc;
#[path = "supplier/failures.rs"]
mod failures;

use common::Vcpu;
use rm::address::{Ipa, VmIndex};
use rm::config::VmConfig;
use rm::machine::fake::world::{RAM, World, vm};
use rm_client::supplier::{
    Agreement, Block, Body, Consumer, Event, Given, Heap, Memory, Message, Packet, Refusal,
    Supplier, Terms, Ticket,
};
use rm_client::{
    AclEntry, Error, ErrorCode, Handle, LARGEST, NewParcel, Notice, Rights, Sanitize, Session,
    Transfer, VmState, VmStatus, Vmid, grant, pages,
};

const A: VmIndex = VmIndex(0);
const B: VmIndex = VmIndex(1);
const C: VmIndex = VmIndex(2);
const VMID_A: Vmid = Vmid(3);
const VMID_B: Vmid = Vmid(4);
const VMID_C: Vmid = Vmid(5);
const HEAP: u64 = RAM.0 + 0x20_0000;
const HEAP_SIZE: u64 = 64 * GRANULE;
const GRANULE: u64 = 0x2000;
const PATIENCE: u64 = 3500;
const LEND: [AclEntry; 1] = [grant(VMID_B, Rights::RW)];
const SHARE: [AclEntry; 2] = [grant(VMID_A, Rights::RW), grant(VMID_B, Rights::RW)];

/// Two VMs with their ends of the protocol, and a third that has a session too.
struct Stage<'a> {
    world: &'a World,
    a: Session<Vcpu<'a>, LARGEST>,
    b: Session<Vcpu<'a>, LARGEST>,
    c: Session<Vcpu<'a>, LARGEST>,
    supplier: Supplier<1, 8>,
    consumer: Consumer<4>,
    now: u64,
}

fn world() -> World {
    World::new(&[vm(3), vm(4), vm(5)])
}

/// As [`world`], with a page between A and each of the others from boot on: who is at the end of a channel
/// hears of the VM at the other end.
fn linked(vms: &[VmConfig]) -> World {
    let world = World::new(vms);
    for (peer, at) in [(B, 0xff_0000), (C, 0xff_1000)] {
        let page = Ipa(RAM.0 + at);
        world.manager.share_at_boot((A, page), (peer, Ipa(0x9000_0000)), 1, 0).unwrap();
    }
    world
}

fn agreement() -> Agreement {
    Agreement { supplier: VMID_A, granule: GRANULE, patience: PATIENCE }
}

impl<'a> Stage<'a> {
    fn new(world: &'a World) -> Self {
        let session = |vm| Session::with_capacity(Vcpu(world.caller(vm)));
        let heap = Heap::new("frames", HEAP, HEAP_SIZE, GRANULE).unwrap();
        let terms = Terms { bytes: 40 * GRANULE, objects: 6, patience: 2 * PATIENCE };
        Self {
            world,
            a: session(A),
            b: session(B),
            c: session(C),
            supplier: Supplier::new(VMID_A, [heap], terms).unwrap(),
            consumer: Consumer::new(agreement()),
            now: 0,
        }
    }

    fn ask(&mut self, size: u64, transfer: Transfer, acl: &[AclEntry]) -> (Ticket, Packet) {
        self.consumer.alloc(self.now, "frames", size, transfer, acl).unwrap()
    }

    /// A message of B's arrives at A.
    fn at_a(&mut self, packet: &[u8]) -> Option<Packet> {
        self.supplier.receive(self.now, &mut self.a, VMID_B, packet)
    }

    /// A message arrives at B.
    fn at_b(&mut self, packet: &[u8]) -> rm_client::supplier::Step {
        self.consumer.receive(&mut self.b, packet)
    }

    fn lent(&mut self, size: u64) -> (Ticket, Memory) {
        self.allocated(size, Transfer::Lend, &LEND)
    }

    fn allocated(&mut self, size: u64, transfer: Transfer, acl: &[AclEntry]) -> (Ticket, Memory) {
        let (ticket, ask) = self.ask(size, transfer, acl);
        let answer = self.at_a(&ask).unwrap();
        let step = self.at_b(&answer);
        match step.event {
            Some(Event::Allocated(of, memory)) if of == ticket => (ticket, memory),
            other => panic!("{other:?}"),
        }
    }

    /// A's answer to B's wish for lent memory.
    fn asked(&mut self, size: u64) -> (Ticket, Packet) {
        let (ticket, ask) = self.ask(size, Transfer::Lend, &LEND);
        let answer = self.at_a(&ask).unwrap();
        (ticket, answer)
    }

    fn close(&mut self, ticket: Ticket) {
        let told = self.consumer.close(self.now, &mut self.b, ticket).unwrap();
        let answer = self.at_a(&told).unwrap();
        assert_eq!(self.at_b(&answer).event, Some(Event::Closed(ticket, Ok(()))));
    }

    /// What A answers to a request of its peer.
    fn refused(&mut self, packet: &[u8]) -> Refusal {
        let answer = self.at_a(packet).expect("a request is always answered");
        match Message::decode(&answer).unwrap().body {
            Body::Allocated(Err(refusal)) | Body::Relinquished(Err(refusal)) => refusal,
            other => panic!("{other:?}"),
        }
    }

    fn given(answer: &[u8]) -> Given {
        match Message::decode(answer).unwrap().body {
            Body::Allocated(Ok(given)) => given,
            other => panic!("{other:?}"),
        }
    }

    /// A hears what the manager has told it by its message queue.
    fn a_hears(&mut self) -> usize {
        let told = self.world.caller(A).packets();
        for packet in &told {
            let notice = Notice::decode(packet).expect("a notification");
            self.supplier.hear(&mut self.a, &notice);
        }
        told.len()
    }

    /// B hears what the manager has told it.
    fn b_hears(&mut self) -> Vec<Event> {
        let mut events = vec![];
        for packet in self.world.caller(B).packets() {
            let notice = Notice::decode(&packet).expect("a notification");
            self.consumer.hear(&mut self.b, &notice, |event| events.push(event));
        }
        events
    }

    fn all_home(&self) {
        assert_eq!(self.supplier.free_bytes("frames"), Some(HEAP_SIZE));
        assert_eq!((self.supplier.objects(), self.supplier.counts().poisoned), (0, 0));
        // Tables become blocks again.
        for vm in self.world.vms() {
            while self.world.manager.idle(vm) {}
        }
        self.world.check();
    }
}

fn answer(transaction: u32, given: Given) -> Packet {
    Message { transaction, body: Body::Allocated(Ok(given)) }.encode().unwrap()
}

fn transaction(packet: &[u8]) -> u32 {
    Message::decode(packet).unwrap().transaction
}

#[test]
fn memory_is_lent_used_and_comes_home_wiped() {
    let world = world();
    let before = world.check();
    let mut stage = Stage::new(&world);
    world.cpu(A).write(Ipa(HEAP), 0xa5).unwrap();
    let (ticket, memory) = stage.lent(5 * GRANULE - 1);
    assert_eq!(memory.size, 5 * GRANULE, "rounded up");
    assert_eq!(stage.consumer.memory(ticket), Some(memory));
    assert_eq!(world.cpu(B).read(Ipa(memory.ipa)), Ok(0), "wiped for its borrower");
    world.cpu(B).write(Ipa(memory.ipa), 0x5a).unwrap();
    assert!(world.cpu(A).read(Ipa(HEAP)).is_err(), "lent");
    let mut is_exclusive =
        |ipa, size| stage.supplier.is_exclusive(&mut stage.a, Block { ipa, size }).unwrap();
    assert!(!is_exclusive(HEAP, 4096));
    assert!(is_exclusive(HEAP + 5 * GRANULE, 4096));
    stage.close(ticket);
    assert_eq!(world.cpu(A).read(Ipa(HEAP)), Ok(0), "wiped for its owner");
    assert!(world.cpu(B).read(Ipa(memory.ipa)).is_err());
    let whole = Block { ipa: HEAP, size: HEAP_SIZE };
    assert_eq!(stage.supplier.is_exclusive(&mut stage.a, whole), Ok(true));
    stage.all_home();
    assert_eq!(world.check(), before);
}

#[test]
fn shared_memory_is_seen_by_both() {
    let world = world();
    let mut stage = Stage::new(&world);
    let (ticket, memory) = stage.allocated(1, Transfer::Share, &SHARE);
    world.cpu(B).write(Ipa(memory.ipa), 7).unwrap();
    assert_eq!(world.cpu(A).read(Ipa(HEAP)), Ok(7));
    stage.close(ticket);
    stage.all_home();
}

#[test]
fn a_used_allocation_is_not_closed() {
    let world = world();
    let mut stage = Stage::new(&world);
    let (ticket, memory) = stage.lent(1);
    stage.consumer.begin_use(ticket).unwrap();
    let closed = stage.consumer.close(0, &mut stage.b, ticket);
    assert_eq!(closed, Err(Refusal::Busy));
    world.cpu(B).write(Ipa(memory.ipa), 1).unwrap();
    assert_eq!(
        stage.a.reclaim(memory.handle, Sanitize::empty()),
        Err(Error::Refused(ErrorCode::MemoryInUse))
    );
    stage.consumer.end_use(ticket).unwrap();
    stage.close(ticket);
    assert_eq!(stage.consumer.close(0, &mut stage.b, ticket), Err(Refusal::Unknown), "once");
    stage.all_home();
}

#[test]
fn what_cannot_be_asked_for_is_refused_on_either_side() {
    let world = world();
    let before = world.check();
    let mut stage = Stage::new(&world);
    let consumer = &mut stage.consumer;
    for (heap, size, transfer, acl) in [
        ("frames", 0, Transfer::Lend, &LEND[..]),
        ("frames", u64::MAX, Transfer::Lend, &LEND[..]),
        ("", 1, Transfer::Lend, &LEND[..]),
        ("a name of more than thirty-one bytes", 1, Transfer::Lend, &LEND[..]),
        ("frames", 1, Transfer::Lend, &[][..]),
        ("frames", 1, Transfer::Lend, &SHARE[..]),
        ("frames", 1, Transfer::Share, &LEND[..]),
        ("frames", 1, Transfer::Donate, &LEND[..]),
        ("frames", 1, Transfer::Lend, &[LEND[0]; 2][..]),
        ("frames", 1, Transfer::Lend, &[LEND[0]; 17][..]),
        ("frames", 1, Transfer::Lend, &[grant(VMID_B, Rights::W)][..]),
    ] {
        let asked = consumer.alloc(0, heap, size, transfer, acl);
        assert_eq!(asked.err(), Some(Refusal::Invalid), "{heap:?} {size} {transfer:?} {acl:?}");
    }
    // A peer that does not check itself.
    let (_, ask) = stage.ask(41 * GRANULE, Transfer::Lend, &LEND);
    assert_eq!(stage.refused(&ask), Refusal::NoSpace, "over its quota");
    let (_, ask) = stage.consumer.alloc(0, "other", 1, Transfer::Lend, &LEND).unwrap();
    assert_eq!(stage.refused(&ask), Refusal::Invalid, "no such heap");
    let (_, ask) = stage.ask(1, Transfer::Lend, &[LEND[0], grant(VMID_C, Rights::RW)]);
    assert_eq!(stage.refused(&ask), Refusal::NotPermitted, "for a third VM");
    let (_, ask) = stage.ask(u64::MAX - 2 * GRANULE, Transfer::Lend, &LEND);
    assert_eq!(stage.refused(&ask), Refusal::NoSpace, "more than there can be");
    let mut short = ask.to_vec();
    short.pop();
    assert_eq!(stage.refused(&short), Refusal::Invalid, "not as long as it says");
    assert_eq!(stage.at_a(&ask[..11]), None);
    assert_eq!(stage.supplier.counts().malformed, 1);
    stage.all_home();
    assert_eq!(world.check(), before);
}

#[test]
fn messages_for_a_role_one_does_not_have_do_nothing() {
    let world = world();
    let mut stage = Stage::new(&world);
    let (ticket, memory) = stage.lent(1);
    stage.supplier.set_role(false);
    let (_, ask) = stage.ask(1, Transfer::Lend, &LEND);
    assert_eq!(stage.refused(&ask), Refusal::NotSupported);
    // A consumer that is asked, and a supplier that is answered.
    let told = stage.at_b(&ask);
    let answer = Message::decode(&told.send.unwrap()).unwrap();
    assert_eq!(answer.body, Body::Allocated(Err(Refusal::NotSupported)));
    let given = Given { handle: memory.handle, object: 1 };
    assert_eq!(stage.at_a(&self::answer(1, given)), None);
    let mut unknown = ask.to_vec();
    unknown[4] = 9;
    assert_eq!(stage.at_a(&unknown), None);
    assert_eq!(stage.at_b(&unknown).send, None);
    stage.close(ticket);
    stage.all_home();
}

#[test]
fn a_late_reply_is_undone_and_a_repeated_one_dropped() {
    let world = world();
    let mut stage = Stage::new(&world);
    let (ticket, ask) = stage.ask(1, Transfer::Lend, &LEND);
    let late = stage.at_a(&ask).unwrap();
    assert_eq!(stage.consumer.tick(PATIENCE - 1).event, None);
    let failed = Some(Event::Failed(ticket, Refusal::TimedOut));
    assert_eq!(stage.consumer.tick(PATIENCE).event, failed);
    let undo = stage.at_b(&late);
    assert_eq!(undo.event, None);
    stage.at_a(&undo.send.unwrap()).unwrap();
    assert_eq!(stage.consumer.counts().late, 1);
    stage.all_home();

    let (ticket, ask) = stage.ask(1, Transfer::Lend, &LEND);
    let answer = stage.at_a(&ask).unwrap();
    assert_eq!(stage.at_a(&ask), Some(answer), "the same question, the same answer");
    // At the limit, but before the timer was looked at.
    stage.now = 10 * PATIENCE;
    assert!(matches!(stage.at_b(&answer).event, Some(Event::Allocated(..))));
    let again = stage.at_b(&answer);
    assert_eq!((again.event, again.send), (None, None));
    assert_eq!(stage.consumer.counts().unexpected, 1);
    assert_eq!(stage.consumer.tick(u64::MAX).event, None, "it has been answered");
    stage.close(ticket);
    stage.all_home();
}

#[test]
fn a_lying_supplier_gives_nothing_and_takes_nothing() {
    let world = world();
    let mut stage = Stage::new(&world);
    let (held, memory) = stage.lent(1);
    let lent = |stage: &mut Stage<'_>, at, count, acl: &[AclEntry], label| {
        let ranges = [pages(at, count)];
        stage.a.lend(&NewParcel::new(&ranges, acl).label(label).sanitized()).unwrap()
    };
    let (at, third) = (RAM.0 + 0x1000, [grant(VMID_C, Rights::RW)]);
    let exact = lent(&mut stage, at, 2, &LEND, 9);
    let short = lent(&mut stage, at + 0x2000, 1, &LEND, 9);
    let to_c = lent(&mut stage, at + 0x3000, 2, &third, 9);
    let read_only = lent(&mut stage, at + 0x5000, 2, &[grant(VMID_B, Rights::R)], 9);
    let range = [pages(at + 0x7000, 2)];
    let dirty = stage.a.lend(&NewParcel::new(&range, &LEND).label(9)).unwrap();
    let range = [pages(at, 2)];
    let other = stage.c.lend(&NewParcel::new(&range, &LEND).label(9).sanitized()).unwrap();
    let range = [pages(at, 2)];
    let own = stage.b.lend(&NewParcel::new(&range, &third).label(9).sanitized()).unwrap();
    let before = world.check();
    for (what, handle, object) in [
        ("another label", exact, 8),
        ("another size", short, 9),
        ("another VM's", to_c, 9),
        ("other rights", read_only, 9),
        ("not wiped", dirty, 9),
        ("another owner's", other, 9),
        ("its own", own, 9),
        ("nobody's", Handle(0x7fff_0000), 9),
        ("one that it holds", memory.handle, 1),
    ] {
        let (ticket, ask) = stage.ask(1, Transfer::Lend, &LEND);
        let step = stage.at_b(&answer(transaction(&ask), Given { handle, object }));
        assert!(
            matches!(step.event, Some(Event::Failed(of, _)) if of == ticket),
            "{what}: {:?}",
            step.event
        );
        if let Some(undo) = step.send {
            assert_eq!(stage.refused(&undo), Refusal::Unknown, "{what}");
        }
        assert_eq!(world.check(), before, "{what}");
    }
    world.cpu(B).write(Ipa(memory.ipa), 1).unwrap();
    stage.close(held);
    for handle in [exact, short, to_c, read_only, dirty] {
        stage.a.reclaim(handle, Sanitize::empty()).unwrap();
    }
    stage.all_home();
}

#[test]
fn a_peer_gives_back_only_what_is_its_own_and_released() {
    let world = world();
    let mut stage = Stage::new(&world);
    let (ticket, ask) = stage.ask(1, Transfer::Lend, &LEND);
    let answer = stage.at_a(&ask).unwrap();
    assert!(stage.at_b(&answer).event.is_some());
    let given = Stage::given(&answer);
    let give_back =
        |given| Message { transaction: 99, body: Body::Relinquish(given) }.encode().unwrap();
    assert_eq!(stage.refused(&give_back(given)), Refusal::Busy, "it still holds it");
    for wrong in [
        Given { object: given.object + 1, ..given },
        Given { handle: Handle(given.handle.0 ^ 1), ..given },
    ] {
        assert_eq!(stage.refused(&give_back(wrong)), Refusal::Unknown);
    }
    let of_c = stage.supplier.receive(0, &mut stage.a, VMID_C, &give_back(given)).unwrap();
    let told = Message::decode(&of_c).unwrap().body;
    assert_eq!(told, Body::Relinquished(Err(Refusal::Unknown)), "another VM's");
    let memory = stage.consumer.memory(ticket).unwrap();
    world.cpu(B).write(Ipa(memory.ipa), 1).unwrap();
    stage.close(ticket);
    assert_eq!(stage.refused(&give_back(given)), Refusal::Unknown, "once");
    stage.all_home();
}

#[test]
fn memory_that_is_never_accepted_or_never_given_back_comes_home() {
    let world = world();
    let mut stage = Stage::new(&world);
    let (_, ask) = stage.ask(1, Transfer::Lend, &LEND);
    stage.at_a(&ask).unwrap();
    assert!(matches!(stage.consumer.tick(PATIENCE).event, Some(Event::Failed(..))));
    stage.supplier.tick(2 * PATIENCE - 1, &mut stage.a);
    assert_eq!(stage.supplier.objects(), 1);
    stage.supplier.tick(2 * PATIENCE, &mut stage.a);
    stage.all_home();
    // Released, and every message about it lost: the manager's notice is enough.
    let (ticket, memory) = stage.lent(1);
    stage.supplier.tick(u64::MAX - 1, &mut stage.a);
    assert_eq!(stage.supplier.objects(), 1, "what is held stays");
    stage.consumer.close(0, &mut stage.b, ticket).unwrap();
    stage.supplier.released(&mut stage.a, memory.handle);
    stage.all_home();
    let mut tells = 0;
    let last = loop {
        stage.now += PATIENCE;
        let step = stage.consumer.tick(stage.now);
        tells += u32::from(step.send.is_some());
        if let Some(event) = step.event {
            break event;
        }
    };
    assert!(tells == 5 && matches!(last, Event::Closed(_, Err(Refusal::TimedOut))));
    // Kept for ever: taken away.
    let (_, memory) = stage.lent(1);
    stage.supplier.revoke(&mut stage.a, VMID_B).unwrap();
    assert!(world.cpu(B).read(Ipa(memory.ipa)).is_err());
    stage.all_home();
}

#[test]
fn an_object_that_is_broken_does_not_shield_the_others_from_a_revoke() {
    let world = world();
    let mut stage = Stage::new(&world);
    let (_, answer) = stage.asked(GRANULE);
    let broken = Stage::given(&answer).handle;
    stage.at_b(&answer);
    stage.lent(GRANULE);
    // Somebody in the supplier's VM takes the first parcel back behind the service's back.
    stage.a.revoke(broken).unwrap();
    stage.a.reclaim(broken, Sanitize::SANITIZE).unwrap();
    assert_eq!(stage.supplier.revoke(&mut stage.a, VMID_B), Err(Refusal::Lost));
    assert_eq!(stage.supplier.free_bytes("frames"), Some(HEAP_SIZE - GRANULE));
    assert_eq!((stage.supplier.objects(), stage.supplier.counts().poisoned), (1, 1));
    // It stays what it is, and is not counted again.
    assert_eq!(stage.supplier.revoke(&mut stage.a, VMID_B), Err(Refusal::Lost));
    assert_eq!((stage.supplier.objects(), stage.supplier.counts().poisoned), (1, 1));
}

#[test]
fn a_consumer_that_dies_leaves_nothing_behind() {
    let world = world();
    let mut stage = Stage::new(&world);
    let (_, memory) = stage.lent(1);
    world.cpu(B).write(Ipa(memory.ipa), 0x5e).unwrap();
    stage.allocated(GRANULE, Transfer::Share, &SHARE);
    let (_, ask) = stage.ask(1, Transfer::Lend, &LEND);
    stage.at_a(&ask).unwrap();
    world.end(B);
    let status = VmStatus { vmid: VMID_B, state: VmState::Exited };
    stage.supplier.hear(&mut stage.a, &Notice::Status(status));
    world.settle(B, 50);
    stage.supplier.tick(1, &mut stage.a);
    assert_eq!(world.cpu(A).read(Ipa(HEAP)), Ok(0), "wiped");
    stage.all_home();
}

#[test]
fn a_supplier_that_dies_takes_its_memory_with_it() {
    let world = world();
    let mut stage = Stage::new(&world);
    let (held, memory) = stage.lent(1);
    let (asked, ask) = stage.ask(1, Transfer::Lend, &LEND);
    let answer = stage.at_a(&ask).unwrap();
    let (waiting, _) = stage.ask(1, Transfer::Lend, &LEND);
    world.end(A);
    world.settle(A, 50);
    assert!(world.cpu(B).read(Ipa(memory.ipa)).is_err());
    assert_eq!(stage.at_b(&answer).event, Some(Event::Failed(asked, Refusal::Unknown)));
    let mut events = vec![];
    stage.consumer.supplier_ended(&mut stage.b, |event| events.push(event));
    let gone = Event::Closed(held, Err(Refusal::Gone));
    assert_eq!(events, [gone, Event::Failed(waiting, Refusal::Gone)]);
    assert_eq!(stage.consumer.open(), 0);
    world.check();
}

#[test]
fn two_heaps_do_not_have_one_name() {
    let heap = |base| Heap::new("frames", base, GRANULE, GRANULE).unwrap();
    let terms = Terms { bytes: 1, objects: 1, patience: 1 };
    let supplier = Supplier::<2, 1>::new(VMID_A, [heap(HEAP), heap(HEAP + GRANULE)], terms);
    assert_eq!(supplier.err(), Some(Refusal::Invalid));
}

/// A source of numbers (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }

    /// Takes one of the messages on the way, or leaves a copy there, or loses it.
    fn carry(&mut self, way: &mut Vec<Packet>) -> Option<Packet> {
        if way.is_empty() {
            return None;
        }
        let index = self.below(way.len() as u64) as usize;
        match self.below(10) {
            0 | 1 => {
                way.swap_remove(index);
                None
            }
            2 | 3 => Some(way[index]),
            _ => Some(way.swap_remove(index)),
        }
    }
}

/// Tickets that are held, and the messages on the way.
#[derive(Default)]
struct Traffic {
    held: Vec<(Ticket, Memory)>,
    to_a: Vec<Packet>,
    to_b: Vec<Packet>,
}

impl Traffic {
    fn note(&mut self, step: rm_client::supplier::Step) -> bool {
        if let Some(Event::Allocated(ticket, memory)) = step.event {
            self.held.push((ticket, memory));
        }
        self.to_a.extend(step.send);
        step.event.is_some() || step.send.is_some()
    }

    fn act(&mut self, stage: &mut Stage<'_>, random: &mut Random) {
        match random.below(8) {
            0 => {
                let (transfer, acl) = [(Transfer::Lend, &LEND[..]), (Transfer::Share, &SHARE[..])]
                    [random.below(2) as usize];
                let size = random.below(9 * GRANULE) + 1;
                let asked = stage.consumer.alloc(stage.now, "frames", size, transfer, acl);
                self.to_a.extend(asked.ok().map(|(_, packet)| packet));
            }
            1 if !self.held.is_empty() => {
                let index = random.below(self.held.len() as u64) as usize;
                let (ticket, _) = self.held.swap_remove(index);
                let told = stage.consumer.close(stage.now, &mut stage.b, ticket);
                self.to_a.push(told.expect("what is held can be closed"));
            }
            2 => {
                stage.now += random.below(PATIENCE);
                stage.supplier.tick(stage.now, &mut stage.a);
                while self.note(stage.consumer.tick(stage.now)) {}
            }
            3..=5 => {
                if let Some(packet) = random.carry(&mut self.to_a) {
                    self.to_b.extend(stage.at_a(&packet));
                }
            }
            _ => {
                if let Some(packet) = random.carry(&mut self.to_b) {
                    let step = stage.at_b(&packet);
                    self.note(step);
                }
            }
        }
    }

    /// From now on nothing is lost, and nothing new is asked for.
    fn end(&mut self, stage: &mut Stage<'_>) {
        for _ in 0..40 {
            for (ticket, _) in std::mem::take(&mut self.held) {
                self.to_a.push(stage.consumer.close(stage.now, &mut stage.b, ticket).unwrap());
            }
            for packet in std::mem::take(&mut self.to_a) {
                self.to_b.extend(stage.at_a(&packet));
            }
            for packet in std::mem::take(&mut self.to_b) {
                let step = stage.at_b(&packet);
                self.note(step);
            }
            stage.now += PATIENCE;
            stage.supplier.tick(stage.now, &mut stage.a);
            while self.note(stage.consumer.tick(stage.now)) {}
        }
    }
}

#[test]
fn every_page_is_home_in_the_end_whatever_a_channel_loses_repeats_and_reorders() {
    let mut allocated = 0;
    for seed in 1..=60 {
        let world = world();
        let before = world.check();
        let (mut stage, mut traffic) = (Stage::new(&world), Traffic::default());
        let mut random = Random(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        for _ in 0..250 {
            traffic.act(&mut stage, &mut random);
            for (ticket, memory) in &traffic.held {
                assert_eq!(stage.consumer.memory(*ticket), Some(*memory), "seed {seed}");
                world.cpu(B).write(Ipa(memory.ipa), seed as u8).expect("what is held is there");
            }
            allocated += traffic.held.len();
        }
        traffic.end(&mut stage);
        assert_eq!(stage.consumer.open(), 0, "seed {seed}");
        stage.all_home();
        assert_eq!(world.check(), before, "seed {seed}");
    }
    assert!(allocated > 1000, "the channel lets something through: {allocated}");
}

#[test]
fn bytes_that_nobody_would_send_change_nothing() {
    let world = world();
    let mut stage = Stage::new(&world);
    let (ticket, memory) = stage.lent(1);
    let before = world.check();
    let mut random = Random(41);
    for _ in 0..3000 {
        let mut bytes: Vec<u8> = (0..random.below(241)).map(|_| random.below(256) as u8).collect();
        let length = (bytes.len() as u32).to_le_bytes();
        if bytes.len() >= 12 && random.below(8) > 0 {
            bytes[4..8].copy_from_slice(&(random.below(5) as u32).to_le_bytes());
            bytes[8..12].copy_from_slice(&length);
        }
        stage.at_a(&bytes);
        let step = stage.at_b(&bytes);
        assert_eq!(step.event, None);
        assert_eq!(stage.consumer.memory(ticket), Some(memory));
    }
    assert_eq!(world.check(), before);
    stage.close(ticket);
    stage.all_home();
}
