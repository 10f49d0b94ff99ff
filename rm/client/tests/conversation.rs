//! Clients and the manager, client -> bytes -> manager -> strict fake: the demo's story and what the
//! client promises beside it, without QEMU, over each transport.

mod common;

use common::Vcpu;
use rm::address::{Ipa, VmIndex};
use rm::config::{AfterEnd, Roles, VmConfig, VmName};
use rm::machine::Line;
use rm::machine::fake::Wish;
use rm::machine::fake::world::{Guest, RAM, Turn, World, vm};
use rm::operation::budget::Budget;
use rm_abi::EncodeError;
use rm_client::{
    Acceptance, Error, ErrorCode, EventKind, EventReason, Events, ExitKind, Handle, Holder,
    HolderStage, LARGEST, LastRefusal, ListFlags, NewParcel, Notice, ParcelFlags, ParcelPhase,
    Policies, Policy, QueueTrap, Queues, Received, Resource, Rights, Rule, Sanitize, Sent, Session,
    SglEntry, Stream, Transfer, Transport, TransportError, TrimFlags, VmState, Vmid, Wait, grant,
    pages,
};

const A: VmIndex = VmIndex(0);
const B: VmIndex = VmIndex(1);
const C: VmIndex = VmIndex(2);
const PAGE: u64 = RAM.0 + 0x7000;
const WINDOW: u64 = 0x9000_0000;

/// The hypercalls of a vCPU on its queues.
struct Trap<'a>(Guest<'a>);

impl QueueTrap for Trap<'_> {
    fn send(&mut self, packet: &[u8], push: bool) -> Sent {
        let (error, not_full) = self.0.queue_send(packet, push);
        Sent { error, not_full }
    }

    fn receive(&mut self, into: &mut [u8; 240]) -> Received {
        match self.0.queue_receive() {
            Ok((packet, not_empty)) => {
                into[..packet.len()].copy_from_slice(&packet);
                Received { error: 0, size: packet.len(), not_empty }
            }
            Err(error) => Received { error, size: 0, not_empty: false },
        }
    }
}

/// A vCPU that waits. The manager goes on meanwhile, as EL2's timer lets it.
struct Pause<'a> {
    world: &'a World,
    vm: VmIndex,
    /// Whether it sleeps until an interrupt; then one that never comes is a failure.
    sleeps: bool,
    interrupts: u64,
}

impl Pause<'_> {
    fn interrupts(&self) -> u64 {
        [Line::Send, Line::Receive].iter().map(|&line| self.world.interrupts(self.vm, line)).sum()
    }
}

impl Wait for Pause<'_> {
    fn enter(&mut self) {
        self.interrupts = self.interrupts();
    }

    fn wait(&mut self) {
        loop {
            let pending = self.world.manager.pending(self.vm);
            self.world.manager.step(self.vm, &mut Budget::new(1));
            if !self.sleeps || self.interrupts() > self.interrupts {
                return;
            }
            assert!(pending, "a client sleeps and nothing will wake it");
        }
    }
}

/// How the clients of a test call.
#[derive(Clone, Copy)]
enum Way {
    Direct,
    Polling,
    Asleep,
}

/// Any of the transports.
enum Any<'a> {
    Direct(Vcpu<'a>),
    Queues(Box<Queues<Trap<'a>, Pause<'a>>>),
}

impl Transport for Any<'_> {
    fn exchange(&mut self, request: &[u8], reply: &mut [u8]) -> Result<usize, TransportError> {
        match self {
            Self::Direct(vcpu) => vcpu.exchange(request, reply),
            Self::Queues(queues) => queues.exchange(request, reply),
        }
    }
}

impl Any<'_> {
    fn queues(&mut self) -> &mut Queues<impl QueueTrap, impl Wait> {
        match self {
            Self::Queues(queues) => queues,
            Self::Direct(_) => panic!("notices come by the queues"),
        }
    }
}

fn world() -> World {
    World::new(&[vm(3), vm(4), vm(5)])
}

/// VM 3 manages 4 and 5.
fn managed() -> World {
    let name = VmName::new("worker");
    let managed = |vmid| VmConfig { name, after_end: AfterEnd::Wait, ..vm(vmid) };
    World::new(&[VmConfig { roles: Roles::MANAGE, ..vm(3) }, managed(4), managed(5)])
}

fn session(world: &World, vm: VmIndex, way: Way) -> Session<Any<'_>, LARGEST> {
    smaller_session(world, vm, way)
}

fn smaller_session<const N: usize>(world: &World, vm: VmIndex, way: Way) -> Session<Any<'_>, N> {
    let guest = world.caller(vm);
    // Many calls take more than one entry then.
    guest.step.set(200);
    let sleeps = matches!(way, Way::Asleep);
    let pause = Pause { world, vm, sleeps, interrupts: 0 };
    Session::with_capacity(match way {
        Way::Direct => Any::Direct(Vcpu(guest)),
        Way::Polling | Way::Asleep => Any::Queues(Box::new(Queues::new(Trap(guest), pause))),
    })
}

/// Runs each test over each transport.
macro_rules! over_each_transport {
    ($($name:ident)*) => { $(
        mod $name {
            use super::Way;
            #[test]
            fn directly() {
                super::stories::$name(Way::Direct);
            }
            #[test]
            fn over_polled_queues() {
                super::stories::$name(Way::Polling);
            }
            #[test]
            fn over_queues_asleep_until_the_interrupt() {
                super::stories::$name(Way::Asleep);
            }
        }
    )* };
}

over_each_transport! {
    a_vm_learns_its_own_name
    two_vms_share_a_page_and_a_third_is_turned_away
    five_hundred_runs_are_lent_placed_and_taken_back
    a_contiguous_accept_joins_scattered_runs
    a_parcel_of_more_runs_than_fit_a_call_is_made_and_mapped_in_parts
    what_a_part_of_a_parcel_makes_impossible_leaves_nothing
    a_parcel_is_found_by_its_description
    a_client_learns_what_there_is_and_why_it_was_refused
    an_owner_that_subscribed_hears_of_its_parcels
    an_owner_takes_a_parcel_away_from_who_keeps_it
    an_owner_changes_the_cache_policy_of_a_parcel_that_nobody_holds
    a_borrower_asks_what_it_is_offered
    an_owner_asks_who_keeps_what_it_wants_back
    a_list_longer_than_the_session_s_buffer_is_told_whole
    a_vm_learns_its_limits_and_who_inspects_those_of_others
    a_vm_knows_itself_and_its_peers
    a_manager_buries_a_vm_and_starts_it_again
    a_page_leaves_a_parcel_that_stays_mapped_around_it
}

const fn refused<T>(code: ErrorCode) -> Result<T, Error> {
    Err(Error::Refused(code))
}

/// The tests that each transport must pass.
mod stories {
    use super::*;

    pub(super) fn a_vm_learns_its_own_name(way: Way) {
        let world = world();
        assert_eq!(session(&world, B, way).vmid(), Ok(Vmid(4)));
    }

    pub(super) fn two_vms_share_a_page_and_a_third_is_turned_away(way: Way) {
        let world = world();
        let (mut a, mut b, mut c) =
            (session(&world, A, way), session(&world, B, way), session(&world, C, way));
        let acl = [grant(Vmid(3), Rights::RW), grant(Vmid(4), Rights::RW)];
        let parcel = a.share(&NewParcel::new(&[pages(PAGE, 1)], &acl).label(7)).unwrap();
        let wanted = Acceptance::new(parcel, Transfer::Share).expect_label(7);
        let place = b.accept(&wanted).unwrap().next().expect("one run, one place");
        world.cpu(A).write(Ipa(PAGE), 1).unwrap();
        assert_eq!(world.cpu(B).read(Ipa(place.ipa)), Ok(1));
        assert_eq!(c.accept(&wanted).map(drop), refused(ErrorCode::HandleInvalid));
        assert_eq!(a.reclaim(parcel, Sanitize::empty()), refused(ErrorCode::MemoryInUse));
        b.release(parcel, Sanitize::empty()).unwrap();
        a.reclaim(parcel, Sanitize::SANITIZE).unwrap();
        assert_eq!(world.cpu(A).read(Ipa(PAGE)), Ok(0));
        world.check();
    }

    pub(super) fn five_hundred_runs_are_lent_placed_and_taken_back(way: Way) {
        let world = world();
        let (mut a, mut b) = (session(&world, A, way), session(&world, B, way));
        let runs: Vec<SglEntry> = (0..500).map(|run| pages(RAM.0 + run * 0x2000, 1)).collect();
        let parcel = a.lend(&NewParcel::new(&runs, &[grant(Vmid(4), Rights::R)])).unwrap();
        let places: Vec<_> = b.accept(&Acceptance::new(parcel, Transfer::Lend)).unwrap().collect();
        assert_eq!(places.len(), 500);
        for (index, place) in places.iter().enumerate() {
            assert_eq!(place.size, 4096);
            let pa = world.manager.allows(B, Ipa(place.ipa), rm::stage2::Access::Read);
            let lent = World::pa_of(A).add_pages(2 * index as u64);
            assert_eq!(pa, Some(lent), "run {index}");
        }
        b.release(parcel, Sanitize::empty()).unwrap();
        a.reclaim(parcel, Sanitize::empty()).unwrap();
        world.check();
    }

    pub(super) fn a_contiguous_accept_joins_scattered_runs(way: Way) {
        let world = world();
        let (mut a, mut b) = (session(&world, A, way), session(&world, B, way));
        let runs = [pages(PAGE + 0x10_0000, 3), pages(PAGE, 2)];
        let parcel = a.lend(&NewParcel::new(&runs, &[grant(Vmid(4), Rights::RW)])).unwrap();
        let wanted = Acceptance::new(parcel, Transfer::Lend).contiguous();
        assert_eq!(b.accept_at(&wanted, &[pages(WINDOW, 4)]), refused(ErrorCode::ArgumentInvalid));
        b.accept_at(&wanted, &[pages(WINDOW, 5)]).unwrap();
        for (page, value) in (0..5).zip(1..) {
            world.cpu(B).write(Ipa(WINDOW + page * 4096), value).unwrap();
        }
        b.release(parcel, Sanitize::empty()).unwrap();
        a.reclaim(parcel, Sanitize::empty()).unwrap();
        assert_eq!(
            world.cpu(A).read(Ipa(PAGE + 0x10_2000)),
            Ok(3),
            "the last page of the first run"
        );
        assert_eq!(world.cpu(A).read(Ipa(PAGE)), Ok(4), "the first page of the second");
        world.check();
    }

    pub(super) fn a_parcel_of_more_runs_than_fit_a_call_is_made_and_mapped_in_parts(way: Way) {
        let world = world();
        let (mut a, mut b) = (session(&world, A, way), session(&world, B, way));
        let runs: Vec<SglEntry> = (0..1300).map(|run| pages(RAM.0 + run * 0x2000, 1)).collect();
        let acl = [grant(Vmid(4), Rights::RW)];
        let parcel = a.create_all(Transfer::Lend, &NewParcel::new(&runs, &acl)).unwrap();
        let mut places = vec![];
        b.accept_all(&Acceptance::new(parcel, Transfer::Lend), |place| places.push(place)).unwrap();
        assert_eq!(places.len(), 1300);
        for (index, place) in (0..).zip(&places) {
            let pa = world.manager.allows(B, Ipa(place.ipa), rm::stage2::Access::Write);
            assert_eq!(pa, Some(World::pa_of(A).add_pages(2 * index)), "run {index}");
        }
        b.release(parcel, Sanitize::empty()).unwrap();
        a.reclaim(parcel, Sanitize::empty()).unwrap();
        world.check();
    }

    pub(super) fn what_a_part_of_a_parcel_makes_impossible_leaves_nothing(way: Way) {
        let world = world();
        let (mut a, mut b) = (session(&world, A, way), session(&world, B, way));
        let before = world.check();
        let mut runs: Vec<SglEntry> = (0..1300).map(|run| pages(RAM.0 + run * 0x2000, 1)).collect();
        runs[1200] = pages(WINDOW, 1);
        let acl = [grant(Vmid(4), Rights::RW)];
        let lent = a.create_all(Transfer::Lend, &NewParcel::new(&runs, &acl));
        assert_eq!(lent, refused(ErrorCode::MemoryInvalid));
        while world.manager.idle(A) {}
        assert_eq!(world.check(), before);
        let parcel = a.lend(&NewParcel::new(&runs[..3], &acl)).unwrap();
        let wanted = Acceptance::new(parcel, Transfer::Lend).expect_label(99);
        let accepted = b.accept_all(&wanted, |_| panic!("nothing is placed"));
        assert_eq!(accepted, refused(ErrorCode::ValidateFailed));
        a.reclaim(parcel, Sanitize::empty()).unwrap();
        world.check();
    }

    pub(super) fn a_parcel_is_found_by_its_description(way: Way) {
        let world = world();
        let mut a = session(&world, A, way);
        let (acl, runs) = ([grant(Vmid(4), Rights::R)], [pages(PAGE, 2), pages(PAGE + 0x8000, 1)]);
        let parcel = NewParcel::new(&runs, &acl);
        let handle = a.lend(&parcel).unwrap();
        assert_eq!(a.lookup(&parcel), Ok(handle));
        let other = [pages(PAGE, 2)];
        assert_eq!(a.lookup(&parcel.with_ranges(&other)), refused(ErrorCode::LookupFailed));
    }

    pub(super) fn a_client_learns_what_there_is_and_why_it_was_refused(way: Way) {
        let world = world();
        let (mut a, mut b) = (session(&world, A, way), session(&world, B, way));
        let there = a.discover().unwrap();
        assert_eq!((there.vms, there.max_entries), (3, 512));
        assert!(there.serves(rm_abi::extension::LAST_REFUSAL));
        assert_eq!(a.last_refusal(), Ok(LastRefusal::NONE));
        let parcel = a.lend(&NewParcel::new(&[pages(PAGE, 1)], &[grant(Vmid(4), Rights::RW)]));
        let parcel = parcel.unwrap();
        let wanted = Acceptance::new(parcel, Transfer::Lend).contiguous();
        b.accept_at(&wanted, &[pages(WINDOW, 1)]).unwrap();
        assert_eq!(a.reclaim(parcel, Sanitize::empty()), refused(ErrorCode::MemoryInUse));
        let why = a.last_refusal().unwrap();
        assert_eq!((why.rule, why.error), (Rule::Held as u16, ErrorCode::MemoryInUse as u32));
        assert_eq!(why.holders(), [Vmid(4)]);
    }

    pub(super) fn an_owner_takes_a_parcel_away_from_who_keeps_it(way: Way) {
        let world = world();
        let (mut a, mut b) = (session(&world, A, way), session(&world, B, way));
        let parcel = a.lend(&NewParcel::new(&[pages(PAGE, 1)], &[grant(Vmid(4), Rights::RW)]));
        let parcel = parcel.unwrap();
        let wanted = Acceptance::new(parcel, Transfer::Lend).contiguous();
        b.accept_at(&wanted, &[pages(WINDOW, 1)]).unwrap();
        world.cpu(B).write(Ipa(WINDOW), 1).unwrap();
        assert_eq!(b.revoke(parcel), refused(ErrorCode::Denied));
        a.revoke(parcel).unwrap();
        assert!(world.cpu(B).read(Ipa(WINDOW)).is_err());
        assert_eq!(b.release(parcel, Sanitize::empty()), refused(ErrorCode::HandleInvalid));
        a.reclaim(parcel, Sanitize::empty()).unwrap();
        assert_eq!(world.cpu(A).read(Ipa(PAGE)), Ok(0));
        world.check();
    }

    pub(super) fn an_owner_changes_the_cache_policy_of_a_parcel_that_nobody_holds(way: Way) {
        let world = world();
        let (mut a, mut b) = (session(&world, A, way), session(&world, B, way));
        let acl = [grant(Vmid(3), Rights::RW), grant(Vmid(4), Rights::RW)];
        let parcel = a.share(&NewParcel::new(&[pages(PAGE, 1)], &acl)).unwrap();
        world.cpu(A).write(Ipa(PAGE), 7).unwrap();
        assert_eq!(b.set_policy(parcel, Policy::Uncached), refused(ErrorCode::Denied));
        a.set_policy(parcel, Policy::Uncached).unwrap();
        let wanted = Acceptance::new(parcel, Transfer::Share).contiguous();
        b.accept_at(&wanted, &[pages(WINDOW, 1)]).unwrap();
        assert_eq!(world.cpu(B).read(Ipa(WINDOW)), Ok(7));
        assert_eq!(a.set_policy(parcel, Policy::Cached), refused(ErrorCode::MemoryInUse));
        assert_eq!(a.last_refusal().unwrap().holders(), [Vmid(4)]);
        assert_eq!(a.set_policy(parcel, Policy::Device), refused(ErrorCode::ArgumentInvalid));
        assert_eq!(a.last_refusal().unwrap().rule, Rule::Policy as u16);
        b.release(parcel, Sanitize::empty()).unwrap();
        a.set_policy(parcel, Policy::Cached).unwrap();
        a.reclaim(parcel, Sanitize::empty()).unwrap();
        world.check();
    }

    pub(super) fn a_borrower_asks_what_it_is_offered(way: Way) {
        let world = world();
        let (mut a, mut b, mut c) =
            (session(&world, A, way), session(&world, B, way), session(&world, C, way));
        let (acl, runs) = ([grant(Vmid(4), Rights::R)], [pages(PAGE, 2), pages(PAGE + 0x8000, 1)]);
        let parcel = a.lend(&NewParcel::new(&runs, &acl).label(7).sanitized()).unwrap();
        a.name_parcel(parcel, "camera frames").unwrap();
        let offered = b.info(parcel).unwrap();
        assert_eq!((offered.owner, offered.transfer), (Vmid(3), Transfer::Lend));
        assert_eq!((offered.pages, offered.extents, offered.label), (3, 2, 7));
        assert_eq!((offered.rights, offered.policy), (Rights::R, Policies::CACHED));
        assert_eq!((offered.phase, offered.flags), (ParcelPhase::Offered, ParcelFlags::SANITIZED));
        assert_eq!(offered.name.as_str(), Some("camera frames"));
        let wanted = Acceptance::new(parcel, offered.transfer).contiguous();
        b.accept_at(&wanted, &[pages(WINDOW, offered.pages)]).unwrap();
        let held = b.info(parcel).unwrap();
        assert_eq!(held.address, WINDOW);
        assert_eq!(held.flags, ParcelFlags::SANITIZED | ParcelFlags::MINE);
        assert_eq!(c.info(parcel), refused(ErrorCode::HandleInvalid));
        assert_eq!(b.name_parcel(parcel, "mine"), refused(ErrorCode::Denied));
        let long = "a name that has more than 32 bytes";
        assert_eq!(a.name_parcel(parcel, long), Err(Error::Encode(EncodeError::TooLong)));
        assert_eq!(a.name_parcel(parcel, "two\0names"), refused(ErrorCode::ArgumentInvalid));
        assert_eq!(a.info(parcel).unwrap().name, offered.name, "refused names change nothing");
    }

    pub(super) fn an_owner_asks_who_keeps_what_it_wants_back(way: Way) {
        let world = world();
        let (mut a, mut b, mut c) =
            (session(&world, A, way), session(&world, B, way), session(&world, C, way));
        let acl = [grant(Vmid(4), Rights::RW), grant(Vmid(5), Rights::R)];
        let parcel = a.lend(&NewParcel::new(&[pages(PAGE, 2)], &acl)).unwrap();
        assert_eq!(a.holders(parcel).unwrap().count(), 0);
        let wanted = Acceptance::new(parcel, Transfer::Lend).contiguous();
        c.accept_at(&wanted, &[pages(WINDOW, 2)]).unwrap();
        assert_eq!(a.reclaim(parcel, Sanitize::empty()), refused(ErrorCode::MemoryInUse));
        let mapped = HolderStage::Mapped;
        let holder =
            Holder { vmid: Vmid(5), stage: mapped, rights: Rights::R, stream: Stream(0), pages: 2 };
        assert_eq!(a.holders(parcel).unwrap().collect::<Vec<_>>(), [holder]);
        assert_eq!(c.holders(parcel).map(drop), refused(ErrorCode::Denied));
        assert_eq!(b.holders(Handle(0x7777)).map(drop), refused(ErrorCode::HandleInvalid));
        c.release(parcel, Sanitize::empty()).unwrap();
        a.reclaim(parcel, Sanitize::empty()).unwrap();
        assert_eq!(a.info(parcel), refused(ErrorCode::HandleInvalid));
    }

    pub(super) fn a_list_longer_than_the_session_s_buffer_is_told_whole(way: Way) {
        let world = World::new(&[vm(3), vm(4), VmConfig { roles: Roles::INSPECT, ..vm(5) }]);
        let mut a = session(&world, A, way);
        let acl = [grant(Vmid(4), Rights::RW)];
        let mut made: Vec<_> = (0..20)
            .map(|n| a.lend(&NewParcel::new(&[pages(RAM.0 + n * 0x1000, 1)], &acl)).unwrap())
            .collect();
        made.sort_unstable_by_key(|handle| handle.0);
        let mine = ListFlags::empty();
        for (vm, which) in [(A, mine), (B, mine), (C, ListFlags::ALL)] {
            let mut listed = vec![];
            let mut small: Session<_, 300> = smaller_session(&world, vm, way);
            let parts = small.list_part(which, 0).unwrap();
            assert_eq!((parts.parcels.len(), parts.next.is_some()), (5, true));
            small.list_parcels(which, |entry| listed.push(entry.handle)).unwrap();
            listed.sort_unstable_by_key(|handle| handle.0);
            assert_eq!(listed, made);
        }
        let denied = session(&world, B, way).list_parcels(ListFlags::ALL, |_| {});
        assert_eq!(denied, refused(ErrorCode::Denied));
        session(&world, C, way)
            .list_parcels(mine, |entry| panic!("{entry:?} is none of VM 5's"))
            .unwrap();
        let mut tiny: Session<_, 75> = smaller_session(&world, A, way);
        let listed = tiny.list_part(mine, 0).map(drop);
        assert_eq!(listed, Err(Error::Encode(EncodeError::BufferTooSmall)));
    }

    pub(super) fn a_vm_learns_its_limits_and_who_inspects_those_of_others(way: Way) {
        let world = World::new(&[vm(3), vm(4), VmConfig { roles: Roles::INSPECT, ..vm(5) }]);
        let (mut a, mut b, mut c) =
            (session(&world, A, way), session(&world, B, way), session(&world, C, way));
        let before = a.limits(Vmid(0)).unwrap().handles_left;
        a.lend(&NewParcel::new(&[pages(PAGE, 2)], &[grant(Vmid(4), Rights::RW)])).unwrap();
        for (session, vmid) in [(&mut a, 0), (&mut c, 3)] {
            let limits = session.limits(Vmid(vmid)).unwrap();
            let parcels = limits.of(Resource::Parcels).unwrap();
            assert_eq!((parcels.used, parcels.limit), (1, vm(3).quotas.parcels.into()));
            assert_eq!(limits.of(Resource::PagesLent).map(|limit| limit.used), Some(2));
            assert_eq!(limits.resources.len(), Resource::ALL.len());
            assert_eq!(limits.handles_left, before - 1);
        }
        assert_eq!(b.limits(Vmid(3)).map(drop), refused(ErrorCode::Denied));
        assert_eq!(c.limits(Vmid(99)).map(drop), refused(ErrorCode::VmidInvalid));
    }

    pub(super) fn a_vm_knows_itself_and_its_peers(way: Way) {
        let world = managed();
        let (mut a, mut b) = (session(&world, A, way), session(&world, B, way));
        assert_eq!((a.vm_owner(), b.vm_owner()), (Ok(Vmid(3)), Ok(Vmid(3))));
        assert_eq!(a.vm_peers().unwrap().iter().collect::<Vec<_>>(), [Vmid(4), Vmid(5)]);
        assert_eq!(b.vm_peers().unwrap().iter().collect::<Vec<_>>(), [Vmid(3)]);
        for vmid in [Vmid(0), Vmid(3)] {
            assert_eq!(b.vm_state(vmid), Ok(VmState::Running));
        }
        assert_eq!(b.vm_name(Vmid(0)), Ok(&b"worker"[..]));
        assert_eq!(a.vm_name(Vmid(4)), Ok(&b"worker"[..]));
        assert_eq!(b.vm_name(Vmid(5)), refused(ErrorCode::NoResource), "no peer of its own");
        assert_eq!(b.stop_vm(Vmid(5)), refused(ErrorCode::VmidInvalid));
        assert_eq!(b.start_vm(Vmid(5)), refused(ErrorCode::Denied));
    }

    pub(super) fn a_manager_buries_a_vm_and_starts_it_again(way: Way) {
        use VmState::{Exited, Init, Reset, Resetting, Running};
        let world = managed();
        let (mut a, mut b) = (session(&world, A, way), session(&world, B, way));
        let machine = world.manager.machine();
        let parcel = a.lend(&NewParcel::new(&[pages(PAGE, 1)], &[grant(Vmid(4), Rights::RW)]));
        let parcel = parcel.unwrap();
        b.accept_at(&Acceptance::new(parcel, Transfer::Lend).contiguous(), &[pages(WINDOW, 1)])
            .unwrap();
        a.ask_vm_to_stop(Vmid(4), 9).unwrap();
        let mut ears = session(&world, B, Way::Asleep);
        assert!(matches!(ears.transport().queues().wait_notice(), Ok(Notice::Shutdown(9))));
        assert_eq!(a.reset_vm(Vmid(4)), refused(ErrorCode::VmState));
        a.stop_vm(Vmid(4)).unwrap();
        assert_eq!(machine.wishes(), [(B, Wish::Stop)]);
        // The machine does as it was asked to.
        world.manager.ended(B, ExitKind::Stopped);
        assert_eq!(a.vm_state(Vmid(4)), Ok(Exited));
        assert_eq!(a.reclaim(parcel, Sanitize::empty()), refused(ErrorCode::MemoryInUse));
        a.reset_vm(Vmid(4)).unwrap();
        assert_eq!(a.vm_state(Vmid(4)), Ok(Resetting));
        world.settle(B, 1);
        a.reclaim(parcel, Sanitize::empty()).unwrap();
        a.start_vm(Vmid(4)).unwrap();
        assert_eq!(machine.wishes(), [(B, Wish::Start)]);
        world.manager.started(B);
        assert_eq!(session(&world, B, way).vm_state(Vmid(0)), Ok(Running));
        // What a direct caller was told meanwhile waits in its queue.
        let mut ears = if matches!(way, Way::Direct) { session(&world, A, Way::Asleep) } else { a };
        let mut heard = vec![];
        while let Some(notice) = ears.transport().queues().poll_notice().unwrap() {
            match notice {
                Notice::Status(status) => heard.push((status.vmid, Some(status.state))),
                Notice::Exited(exited) => {
                    assert_eq!(exited.kind, ExitKind::Stopped);
                    heard.push((exited.vmid, None));
                }
                Notice::Released(news) => assert_eq!(news.handle, parcel),
                other => panic!("{other:?}"),
            }
        }
        let told = [Some(Exited), None, Some(Resetting), Some(Reset), Some(Init), Some(Running)];
        assert_eq!(heard, told.map(|state| (Vmid(4), state)));
        world.check();
    }

    pub(super) fn a_page_leaves_a_parcel_that_stays_mapped_around_it(way: Way) {
        let world = world();
        let (mut a, mut b) = (session(&world, A, way), session(&world, B, way));
        let parcel = a.lend(&NewParcel::new(&[pages(PAGE, 3)], &[grant(Vmid(4), Rights::RW)]));
        let parcel = parcel.unwrap();
        let wanted = Acceptance::new(parcel, Transfer::Lend).contiguous();
        b.accept_at(&wanted, &[pages(WINDOW, 3)]).unwrap();
        world.cpu(B).write(Ipa(WINDOW + 0x1000), 7).unwrap();
        let early = a.trim(parcel, 0x1000, 0x1000, TrimFlags::empty());
        assert_eq!(early, refused(ErrorCode::MemoryInUse));
        assert_eq!(a.last_refusal().unwrap().holders(), [Vmid(4)]);
        b.trim(parcel, 0x1000, 0x1000, TrimFlags::empty()).unwrap();
        a.trim(parcel, 0x1000, 0x1000, TrimFlags::empty()).unwrap();
        assert_eq!(world.cpu(A).read(Ipa(PAGE + 0x1000)), Ok(7));
        assert!(world.cpu(B).read(Ipa(WINDOW + 0x1000)).is_err());
        assert!(world.cpu(B).read(Ipa(WINDOW + 0x2000)).is_ok());
        let twice = a.trim(parcel, 0, 0x2000, TrimFlags::SANITIZE);
        assert_eq!(twice, refused(ErrorCode::MemoryReleased));
        assert_eq!(a.last_refusal().unwrap().rule, Rule::Trimmed as u16);
        b.release(parcel, Sanitize::empty()).unwrap();
        a.reclaim(parcel, Sanitize::empty()).unwrap();
        world.check();
    }

    pub(super) fn an_owner_that_subscribed_hears_of_its_parcels(way: Way) {
        let world = world();
        let (mut a, mut b) = (session(&world, A, way), session(&world, B, way));
        a.subscribe(Events::ACCEPTED | Events::RELEASED).unwrap();
        let parcel = a.lend(&NewParcel::new(&[pages(PAGE, 1)], &[grant(Vmid(4), Rights::RW)]));
        let parcel = parcel.unwrap();
        let wanted = Acceptance::new(parcel, Transfer::Lend).contiguous();
        b.accept_at(&wanted, &[pages(WINDOW, 1)]).unwrap();
        b.release(parcel, Sanitize::empty()).unwrap();
        // Events come by the queues, whatever way the calls go.
        let mut ears = session(&world, A, Way::Asleep);
        for kind in [EventKind::Accepted, EventKind::Released] {
            let Ok(Notice::Event(event)) = ears.transport().queues().wait_notice() else {
                panic!("not an event")
            };
            assert_eq!((event.kind, event.handle, event.borrower), (kind, parcel, Vmid(4)));
            assert_eq!(event.reason, EventReason::CALL);
        }
    }
}

#[test]
fn a_reply_that_is_too_large_for_the_session_is_refused_before_anything_happens() {
    let world = world();
    let mut a = session(&world, A, Way::Direct);
    let runs: Vec<SglEntry> = (0..100).map(|run| pages(RAM.0 + run * 0x2000, 1)).collect();
    let parcel = a.lend(&NewParcel::new(&runs, &[grant(Vmid(4), Rights::R)])).unwrap();
    let before = world.check();
    let guest = world.caller(B);
    let request =
        rm::machine::fake::world::accept(parcel.0, Transfer::Lend, rm_abi::AcceptFlags::DONE, &[]);
    let mut bytes = rm_abi::Header::request(rm_abi::message::MEM_ACCEPT, 1).encode().to_vec();
    bytes.extend_from_slice(&request);
    assert!(matches!(guest.send_bytes(&bytes[..3]), Turn::Error(2, 0)));
    guest.put_request(&bytes);
    assert_eq!(guest.direct(bytes.len() as u64, 100, 0), Turn::Error(2, 0));
    assert_eq!(world.check(), before);
}

/// VM 3 lends `count` runs to VM 4 and tells it so.
fn offer(a: &mut Session<Any<'_>, LARGEST>, count: u64, tag: u32) -> Handle {
    let runs: Vec<_> = (0..count).map(|run| pages(RAM.0 + run * 0x2000, 1)).collect();
    let acl = [grant(Vmid(4), Rights::RW)];
    let parcel = a.lend(&NewParcel::new(&runs, &acl).label(7)).unwrap();
    a.notify_shared(parcel, tag, &[Vmid(4)]).unwrap();
    parcel
}

#[test]
fn parties_tell_each_other_what_happens() {
    for way in [Way::Polling, Way::Asleep] {
        let world = world();
        let (mut a, mut b) = (session(&world, A, way), session(&world, B, way));
        assert!(b.transport().queues().poll_notice().unwrap().is_none());
        let parcel = offer(&mut a, 20, 0x55);
        let Notice::Shared(offered) = b.transport().queues().wait_notice().unwrap() else {
            panic!("not an offer")
        };
        assert_eq!((offered.offer.handle, offered.offer.owner), (parcel, Vmid(3)));
        assert_eq!((offered.offer.label, offered.offer.tag), (7, 0x55));
        assert_eq!(offered.acl().collect::<Vec<_>>(), [grant(Vmid(4), Rights::RW)]);
        assert_eq!(offered.sizes().collect::<Vec<_>>(), [4096; 20]);
        assert_eq!(offered.attributes().count(), 0);
        let wanted = Acceptance::new(parcel, Transfer::Lend).contiguous();
        b.accept_at(&wanted, &[pages(WINDOW, 20)]).unwrap();
        b.notify_accepted(parcel, 0x55).unwrap();
        a.notify_recall(parcel, 0x55, &[Vmid(4)]).unwrap();
        let Notice::Accepted(news) = a.transport().queues().wait_notice().unwrap() else {
            panic!("not accepted")
        };
        assert_eq!((news.handle, news.borrower, news.tag), (parcel, Vmid(4), 0x55));
        assert!(matches!(b.transport().queues().wait_notice(), Ok(Notice::Recall(_))));
        b.release(parcel, Sanitize::empty()).unwrap();
        b.notify_released(parcel, 0x55).unwrap();
        assert!(matches!(a.transport().queues().wait_notice(), Ok(Notice::Released(_))));
        a.reclaim(parcel, Sanitize::empty()).unwrap();
        world.check();
    }
}

#[test]
fn notices_that_come_during_a_call_wait_for_the_program() {
    let world = world();
    let (mut a, mut b) = (session(&world, A, Way::Asleep), session(&world, B, Way::Asleep));
    let parcel = offer(&mut a, 1, 1);
    a.notify_recall(parcel, 1, &[Vmid(4)]).unwrap();
    assert_eq!(b.vmid(), Ok(Vmid(4)));
    assert!(matches!(b.transport().queues().poll_notice(), Ok(Some(Notice::Shared(_)))));
    assert!(matches!(b.transport().queues().poll_notice(), Ok(Some(Notice::Recall(_)))));
    assert!(matches!(b.transport().queues().poll_notice(), Ok(None)));
}

#[test]
fn notices_without_room_are_counted_and_calls_go_on() {
    let world = world();
    let (mut a, mut b) = (session(&world, A, Way::Polling), session(&world, B, Way::Polling));
    let parcel = offer(&mut a, 500, 1);
    a.notify_recall(parcel, 1, &[Vmid(4)]).unwrap();
    assert_eq!(b.vmid(), Ok(Vmid(4)));
    assert!(matches!(b.transport().queues().poll_notice(), Ok(Some(Notice::Recall(_)))));
    assert_eq!(b.transport().queues().lost_notices(), 1, "4 KiB of sizes do not fit 1 KiB");
}

#[test]
fn a_long_offer_is_heard_whole_where_the_inbox_has_room() {
    let world = world();
    let mut a = session(&world, A, Way::Asleep);
    let pause = Pause { world: &world, vm: B, sleeps: true, interrupts: 0 };
    let mut b = Queues::<_, _, 8192>::with_inbox(Trap(world.caller(B)), pause);
    let parcel = offer(&mut a, 500, 1);
    let Ok(Notice::Shared(offered)) = b.wait_notice() else { panic!("not an offer") };
    assert_eq!(offered.offer.handle, parcel);
    assert_eq!(offered.sizes().collect::<Vec<_>>(), [4096; 500]);
    assert_eq!(b.lost_notices(), 0);
}
