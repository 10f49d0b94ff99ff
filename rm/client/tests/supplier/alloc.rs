//! ALLOC by its struct: what a program asks for, and a close that goes step by step.

use rm_client::front::Errno;
use rm_client::front::membuf::{
    self, AllocArg, AllocCall, AllocEvent, AllocStep, Allocator, IonData, Local, PERM_READ,
    PERM_WRITE, VMID_PRIMARY, VMID_TRUSTED,
};

use super::*;

const RW: u32 = PERM_READ | PERM_WRITE;
const TO_B: [membuf::AclEntry; 1] = [to(VMID_TRUSTED, RW)];
const TO_BOTH: [membuf::AclEntry; 2] = [to(VMID_TRUSTED, RW), to(VMID_PRIMARY, PERM_READ)];

const ARG: AllocArg = AllocArg {
    size: 5 * GRANULE - 1,
    acl_list: 0x1000,
    nr_acl_entries: 1,
    src_mem_type: 0,
    src_data: 0x2000,
    dst_mem_type: 0,
    mem_buf_fd: -1,
    dst_data: 0x3000,
    reserved: [0; 3],
};

const CALL: AllocCall<'_> =
    AllocCall { arg: ARG, acl: &TO_B, src: IonData { heap_id: 27 }, dst: IonData { heap_id: 4 } };

const fn to(vmid: u32, perms: u32) -> membuf::AclEntry {
    membuf::AclEntry { vmid, perms }
}

fn vm_of(name: u32) -> Option<Vmid> {
    match name {
        VMID_PRIMARY => Some(VMID_A),
        VMID_TRUSTED => Some(VMID_B),
        _ => None,
    }
}

fn heap_of(heap: IonData) -> Option<&'static str> {
    (heap.heap_id == 27).then_some("frames")
}

/// B's kernel: what it was asked to do, in order, and what it refuses.
#[derive(Default)]
struct Kernel {
    done: Vec<&'static str>,
    refuses: Option<&'static str>,
}

impl Kernel {
    fn does(&mut self, what: &'static str) -> Result<(), Errno> {
        if self.refuses == Some(what) {
            return Err(Errno::EBUSY);
        }
        self.done.push(what);
        Ok(())
    }
}

impl Local for Kernel {
    fn map(&mut self, _: &Memory) -> Result<(), Errno> {
        self.does("map")
    }

    fn unmap(&mut self, _: &Memory) -> Result<(), Errno> {
        self.does("unmap")
    }

    fn add(&mut self, heap: IonData, _: &Memory) -> Result<(), Errno> {
        assert_eq!(heap, CALL.dst);
        self.does("add")
    }

    fn remove(&mut self, heap: IonData, _: &Memory) -> Result<(), Errno> {
        assert_eq!(heap, CALL.dst);
        self.does("remove")
    }
}

/// B with a driver.
struct Driver<'a> {
    stage: Stage<'a>,
    allocator: Allocator<4>,
    kernel: Kernel,
}

impl<'a> Driver<'a> {
    fn new(world: &'a World) -> Self {
        let (stage, allocator) = (Stage::new(world), Allocator::new(agreement()));
        Self { stage, allocator, kernel: Kernel::default() }
    }

    fn alloc(&mut self, call: &AllocCall<'_>) -> Result<(Ticket, Packet), Errno> {
        self.allocator.alloc(self.stage.now, call, vm_of, heap_of)
    }

    fn receive(&mut self, bytes: &[u8]) -> AllocStep {
        self.allocator.receive(self.stage.now, &mut self.stage.b, &mut self.kernel, bytes)
    }

    fn tick(&mut self) -> AllocStep {
        self.allocator.tick(self.stage.now, &mut self.stage.b, &mut self.kernel)
    }

    fn close(&mut self, ticket: Ticket) -> Result<Packet, Errno> {
        self.allocator.close(self.stage.now, &mut self.stage.b, &mut self.kernel, ticket)
    }

    /// Asks and lets the supplier answer.
    fn answered(&mut self, call: &AllocCall<'_>) -> (Ticket, AllocStep) {
        let (ticket, ask) = self.alloc(call).unwrap();
        let answer = self.stage.at_a(&ask).unwrap();
        (ticket, self.receive(&answer))
    }

    fn ready(&mut self, call: &AllocCall<'_>) -> (Ticket, Memory) {
        let (ticket, step) = self.answered(call);
        match step.event {
            Some(AllocEvent::Ready(of, memory)) if of == ticket => (ticket, memory),
            other => panic!("{other:?}"),
        }
    }

    /// The supplier hears that the memory is free, and B that it has heard.
    fn told(&mut self, packet: &[u8]) -> Option<AllocEvent> {
        let answer = self.stage.at_a(packet).unwrap();
        self.receive(&answer).event
    }
}

#[test]
fn alloc_maps_the_memory_adds_it_to_its_heap_and_a_close_goes_the_other_way() {
    let world = world();
    let before = world.check();
    let mut b = Driver::new(&world);
    let (ticket, memory) = b.ready(&CALL);
    assert_eq!(memory.size, 5 * GRANULE, "rounded up");
    world.cpu(B).write(Ipa(memory.ipa), 3).unwrap();
    assert!(world.cpu(A).read(Ipa(HEAP)).is_err(), "a list without the owner is a loan");
    assert_eq!(b.kernel.done, ["map", "add"]);
    let told = b.close(ticket).unwrap();
    assert_eq!(b.kernel.done, ["map", "add", "remove", "unmap"]);
    assert!(world.cpu(B).read(Ipa(memory.ipa)).is_err(), "given up before the supplier is told");
    assert_eq!(b.close(ticket), Err(Errno::EBADF), "once");
    assert_eq!(b.told(&told), Some(AllocEvent::Closed(ticket, Ok(()))));
    let call = AllocCall { arg: AllocArg { nr_acl_entries: 2, ..ARG }, acl: &TO_BOTH, ..CALL };
    let (ticket, memory) = b.ready(&call);
    world.cpu(B).write(Ipa(memory.ipa), 4).unwrap();
    assert_eq!(world.cpu(A).read(Ipa(HEAP)), Ok(4), "a list with the owner is a share");
    let told = b.close(ticket).unwrap();
    assert_eq!(b.told(&told), Some(AllocEvent::Closed(ticket, Ok(()))));
    assert_eq!(b.allocator.open(), 0);
    b.stage.all_home();
    assert_eq!(world.check(), before);
}

#[test]
fn what_alloc_cannot_mean_is_refused_before_anything_is_sent() {
    let world = world();
    let mut b = Driver::new(&world);
    let one = |at: usize| core::array::from_fn(|index| u64::from(index == at));
    let args = [
        AllocArg { size: 0, ..ARG },
        AllocArg { size: u64::MAX, ..ARG },
        AllocArg { src_mem_type: 1, ..ARG },
        AllocArg { dst_mem_type: 1, ..ARG },
        AllocArg { acl_list: 0, ..ARG },
        AllocArg { nr_acl_entries: 0, ..ARG },
        AllocArg { nr_acl_entries: 2, ..ARG },
        AllocArg { nr_acl_entries: 17, ..ARG },
        AllocArg { reserved: one(0), ..ARG },
        AllocArg { reserved: one(1), ..ARG },
        AllocArg { reserved: one(2), ..ARG },
    ];
    for arg in args {
        let refused = b.alloc(&AllocCall { arg, ..CALL });
        assert_eq!(refused.err(), Some(Errno::EINVAL), "{arg:?}");
    }
    for perms in 0..16 {
        let asked = b.alloc(&AllocCall { acl: &[to(VMID_TRUSTED, perms)], ..CALL });
        if matches!(perms, 1 | 3 | 5 | 7) {
            asked.unwrap();
            b.stage.now += PATIENCE;
            assert!(matches!(b.tick().event, Some(AllocEvent::Failed(_, Errno::ETIMEDOUT))));
        } else {
            assert_eq!(asked.err(), Some(Errno::EINVAL), "{perms}");
        }
    }
    let calls = [
        AllocCall { acl: &[to(2, RW)], ..CALL },
        AllocCall { src: IonData { heap_id: 28 }, ..CALL },
        AllocCall { arg: AllocArg { nr_acl_entries: 2, ..ARG }, acl: &[TO_B[0]; 2], ..CALL },
    ];
    for call in calls {
        assert_eq!(b.alloc(&call).err(), Some(Errno::EINVAL), "{call:?}");
    }
    for _ in 0..4 {
        b.alloc(&CALL).unwrap();
    }
    assert_eq!(b.alloc(&CALL).err(), Some(Errno::EBUSY), "as many as it has room for");
    assert_eq!(b.kernel.done, [""; 0]);
    b.stage.all_home();
}

#[test]
fn what_the_supplier_refuses_is_an_errno() {
    let world = world();
    let mut b = Driver::new(&world);
    let large = AllocCall { arg: AllocArg { size: 41 * GRANULE, ..ARG }, ..CALL };
    let (ticket, step) = b.answered(&large);
    assert_eq!(step.event, Some(AllocEvent::Failed(ticket, Errno::ENOSPC)));
    b.stage.supplier.set_role(false);
    let (ticket, step) = b.answered(&CALL);
    assert_eq!(step.event, Some(AllocEvent::Failed(ticket, Errno::EOPNOTSUPP)));
    assert_eq!((b.allocator.open(), &b.kernel.done[..]), (0, &[][..]));
    let (ticket, _) = b.alloc(&CALL).unwrap();
    let status = Notice::Status(VmStatus { vmid: VMID_A, state: VmState::Exited });
    let mut told = vec![];
    b.allocator.hear(&mut b.stage.b, &status, |event| told.push(event));
    assert_eq!(told, [AllocEvent::Failed(ticket, Errno::ESTALE)]);
}

#[test]
fn a_close_that_fails_at_any_step_keeps_the_memory_and_the_next_one_goes_on_there() {
    let world = world();
    let mut b = Driver::new(&world);
    for (refuses, done) in [("remove", &[][..]), ("unmap", &["remove"])] {
        let (ticket, memory) = b.ready(&CALL);
        b.kernel = Kernel { refuses: Some(refuses), ..Kernel::default() };
        for _ in 0..3 {
            assert_eq!(b.close(ticket), Err(Errno::EBUSY));
            assert_eq!(b.kernel.done, done, "nothing behind the step that failed, nothing twice");
            world.cpu(B).write(Ipa(memory.ipa), 1).expect("it is still accepted");
            let reclaim = b.stage.a.reclaim(memory.handle, Sanitize::empty());
            assert_eq!(reclaim, Err(Error::Refused(ErrorCode::MemoryInUse)));
            let info = b.stage.a.info(memory.handle).unwrap();
            assert!(info.flags.contains(rm_client::ParcelFlags::HELD), "and listed so");
        }
        assert_eq!(b.tick(), AllocStep::default(), "nobody closes it but the program");
        b.kernel.refuses = None;
        let told = b.close(ticket).unwrap();
        assert_eq!(b.kernel.done, ["remove", "unmap"]);
        assert_eq!(b.told(&told), Some(AllocEvent::Closed(ticket, Ok(()))));
        b.stage.all_home();
    }
    // The third step is a call of the manager, which fails where the VM has no place for its reply.
    let (ticket, memory) = b.ready(&CALL);
    b.kernel.done.clear();
    b.stage.b.transport().0.lose_reply_page(true);
    for _ in 0..3 {
        assert_eq!(b.close(ticket), Err(Errno::EIO));
        world.cpu(B).write(Ipa(memory.ipa), 1).expect("it is still accepted");
    }
    b.stage.b.transport().0.lose_reply_page(false);
    b.close(ticket).unwrap();
    assert_eq!(b.kernel.done, ["remove", "unmap"], "once");
    // The fourth is a message, which is repeated until it is confirmed.
    b.stage.now += PATIENCE;
    let again = b.tick().send.expect("the first was lost");
    assert_eq!(b.told(&again), Some(AllocEvent::Closed(ticket, Ok(()))));
    b.stage.all_home();
}

#[test]
fn memory_that_this_vm_cannot_bring_in_goes_back() {
    let world = world();
    let mut b = Driver::new(&world);
    for (refuses, done) in [("map", &[][..]), ("add", &["map", "unmap"])] {
        b.kernel = Kernel { refuses: Some(refuses), ..Kernel::default() };
        let (ticket, step) = b.answered(&CALL);
        assert_eq!(step.event, Some(AllocEvent::Failed(ticket, Errno::EBUSY)));
        assert_eq!(b.kernel.done, done);
        assert_eq!(b.told(&step.send.unwrap()), Some(AllocEvent::Closed(ticket, Ok(()))));
        b.stage.all_home();
    }
}

#[test]
fn what_cannot_be_brought_in_nor_out_is_tried_again() {
    let world = world();
    let mut b = Driver::new(&world);
    /// Maps, and then does nothing that it is asked for.
    struct Stubborn(bool);
    impl Local for Stubborn {
        fn map(&mut self, _: &Memory) -> Result<(), Errno> {
            Ok(())
        }
        fn unmap(&mut self, _: &Memory) -> Result<(), Errno> {
            if self.0 { Err(Errno::EBUSY) } else { Ok(()) }
        }
        fn add(&mut self, _: IonData, _: &Memory) -> Result<(), Errno> {
            Err(Errno::ENOMEM)
        }
        fn remove(&mut self, _: IonData, _: &Memory) -> Result<(), Errno> {
            panic!("it was never added")
        }
    }
    let (ticket, ask) = b.alloc(&CALL).unwrap();
    let answer = b.stage.at_a(&ask).unwrap();
    let mut kernel = Stubborn(true);
    let step = b.allocator.receive(0, &mut b.stage.b, &mut kernel, &answer);
    let failed = AllocEvent::Failed(ticket, Errno::ENOMEM);
    assert_eq!(step, AllocStep { event: Some(failed), send: None }, "it is still mapped");
    assert_eq!(b.allocator.tick(1, &mut b.stage.b, &mut kernel), AllocStep::default());
    assert_eq!(b.stage.supplier.objects(), 1);
    kernel.0 = false;
    let told = b.allocator.tick(2, &mut b.stage.b, &mut kernel).send.expect("now it can go");
    assert_eq!(b.told(&told), Some(AllocEvent::Closed(ticket, Ok(()))));
    b.stage.all_home();
}

#[test]
fn a_descriptor_outlives_the_supplier_and_is_closed_as_ever() {
    let world = linked(&[vm(3), vm(4), vm(5)]);
    let mut b = Driver::new(&world);
    let (ticket, memory) = b.ready(&CALL);
    world.end(A);
    world.settle(A, 50);
    for packet in world.caller(B).packets() {
        let notice = Notice::decode(&packet).unwrap();
        b.allocator.hear(&mut b.stage.b, &notice, |event| panic!("{event:?}"));
    }
    assert!(world.cpu(B).read(Ipa(memory.ipa)).is_err(), "revoked");
    b.close(ticket).expect("what is gone already is no obstacle");
    assert_eq!(b.kernel.done, ["map", "add", "remove", "unmap"]);
    world.check();
}
