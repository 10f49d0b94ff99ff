//! A client with the role `inspect` against the manager, and against replies that no manager sends.

mod common;

use common::Vcpu;
use rm::address::VmIndex;
use rm::config::{Roles, VmConfig, VmName};
use rm::machine::fake::world::{Guest, RAM, RAM_PAGES, World, vm};
use rm_client::{
    Acceptance, Counter, Error, ErrorCode, LARGEST, MapEntry, NewParcel, PageState, Policy, Rights,
    Session, Transfer, Transport, TransportError, VmState, Vmid, grant, pages,
};

const A: VmIndex = VmIndex(0);
const B: VmIndex = VmIndex(1);
const EYE: VmIndex = VmIndex(2);
const PAGE: u64 = RAM.0 + 0x7000;
const WINDOW: u64 = 0x9000_0000;

/// A vCPU that calls by its queues.
struct Queued<'a>(Guest<'a>);

impl Transport for Queued<'_> {
    fn exchange(&mut self, request: &[u8], reply: &mut [u8]) -> Result<usize, TransportError> {
        let message = u32::from_le_bytes(request[4..8].try_into().unwrap());
        let payload = self.0.queue_call(message, &request[8..]);
        reply[..8].copy_from_slice(&request[..8]);
        reply[1] = 2;
        reply[8..8 + payload.len()].copy_from_slice(&payload);
        Ok(8 + payload.len())
    }
}

fn world() -> World {
    let eye = VmConfig { roles: Roles::INSPECT, name: VmName::new("eye"), ..vm(5) };
    World::new(&[VmConfig { name: VmName::new("camera"), ..vm(3) }, vm(4), eye])
}

/// VM 3 lends every second page of twenty to VM 4, which maps them behind one another.
fn lend(world: &World) -> rm_client::Handle {
    let mut a: Session<_, LARGEST> = Session::with_capacity(Vcpu(world.caller(A)));
    let mut b: Session<_, LARGEST> = Session::with_capacity(Vcpu(world.caller(B)));
    let runs: Vec<_> = (0..10).map(|run| pages(PAGE + run * 0x2000, 1)).collect();
    let parcel = a.lend(&NewParcel::new(&runs, &[grant(Vmid(4), Rights::R)])).unwrap();
    let wanted = Acceptance::new(parcel, Transfer::Lend).contiguous();
    b.accept_at(&wanted, &[pages(WINDOW, 10)]).unwrap();
    parcel
}

fn sees_everything<const N: usize>(eye: &mut Session<impl Transport, N>, world: &World) {
    let parcel = lend(world);
    let mut vms = vec![];
    eye.list_vms(|entry| vms.push(entry)).unwrap();
    let names: Vec<_> = vms.iter().map(|entry| (entry.vmid.0, entry.name(), entry.state)).collect();
    let running = VmState::Running;
    assert_eq!(names, [(3, &b"camera"[..], running), (4, b"", running), (5, b"eye", running)]);

    let mut owner: Vec<MapEntry> = vec![];
    eye.map(Vmid(3), |run| owner.push(run)).unwrap();
    assert_eq!(owner.iter().map(|run| run.pages).sum::<u64>(), RAM_PAGES);
    let lent: Vec<_> = owner.iter().filter(|run| run.state == PageState::Lent).copied().collect();
    assert!(lent.len() == 10 && lent.iter().all(|run| run.parcel == parcel));
    let mut of_parcel = vec![];
    eye.map_parcel(Vmid(3), parcel, |run| of_parcel.push(run)).unwrap();
    assert_eq!(of_parcel, lent);
    let mut borrowed = vec![];
    eye.map(Vmid(4), |run| borrowed.extend((run.state == PageState::Borrowed).then_some(run)))
        .unwrap();
    for (index, (run, lent)) in borrowed.iter().zip(&lent).enumerate() {
        assert_eq!((run.ipa, run.pa), (WINDOW + index as u64 * 0x1000, lent.pa));
        assert_eq!((run.rights, run.policy), (Rights::R, Policy::Cached));
    }
    assert_eq!(borrowed.len(), 10);

    let counts = eye.counters(Vmid(3)).unwrap();
    assert_eq!((counts.of(Counter::Calls), counts.of(Counter::Parcels)), (Some(1), Some(1)));
    assert_eq!(counts.iter().count(), Counter::ALL.len());
    let leaf = eye.leaf(Vmid(3), PAGE).unwrap();
    assert_eq!((leaf.level, leaf.ipa, leaf.descriptor & 1), (3, PAGE, 0));
    world.check();
}

#[test]
fn an_inspector_sees_everything_directly() {
    let world = world();
    sees_everything::<LARGEST>(&mut Session::with_capacity(Vcpu(world.caller(EYE))), &world);
}

#[test]
fn an_inspector_sees_everything_through_its_queues() {
    let world = world();
    sees_everything::<LARGEST>(&mut Session::with_capacity(Queued(world.caller(EYE))), &world);
}

#[test]
fn an_inspector_with_a_small_buffer_sees_the_same_in_more_parts() {
    let world = world();
    sees_everything::<512>(&mut Session::with_capacity(Vcpu(world.caller(EYE))), &world);
    // A counter's reply is the longest that does not come in parts.
    let world = self::world();
    sees_everything::<{ 12 + 8 + 16 * Counter::ALL.len() }>(
        &mut Session::with_capacity(Vcpu(world.caller(EYE))),
        &world,
    );
}

#[test]
fn who_has_no_role_sees_only_its_own_counters() {
    let world = world();
    let mut a: Session<_, LARGEST> = Session::with_capacity(Vcpu(world.caller(A)));
    let denied = Error::Refused(ErrorCode::Denied);
    assert_eq!(a.list_vms(|_| panic!("nothing is told")), Err(denied));
    assert_eq!(a.map(Vmid(0), |_| panic!("nothing is told")), Err(denied));
    assert_eq!(a.leaf(Vmid(3), RAM.0), Err(denied));
    assert!(matches!(a.counters(Vmid(4)), Err(error) if error == denied));
    assert!(a.counters(Vmid(3)).unwrap().of(Counter::Refusals) >= Some(4));
}

/// Answers every request with this data.
struct Canned(Vec<u8>);

impl Transport for Canned {
    fn exchange(&mut self, request: &[u8], reply: &mut [u8]) -> Result<usize, TransportError> {
        reply[..8].copy_from_slice(&request[..8]);
        reply[1] = 2;
        reply[8..12].fill(0);
        reply[12..12 + self.0.len()].copy_from_slice(&self.0);
        Ok(12 + self.0.len())
    }
}

#[test]
fn replies_that_no_manager_sends_are_malformed() {
    let canned = |data: &[u8]| Session::<_, 512>::with_capacity(Canned(data.to_vec()));
    let ignore = |_: rm_client::VmEntry| {};
    assert_eq!(canned(&[0; 7]).list_vms(ignore), Err(Error::Malformed));
    assert_eq!(canned(&[0, 0, 0, 0, 1, 0, 0, 0]).list_vms(ignore), Err(Error::Malformed));
    let circle = [5, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(canned(&circle).list_vms(ignore), Err(Error::Malformed), "it never ends");
    let circle = [5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(canned(&circle).map(Vmid(3), |_| {}), Err(Error::Malformed), "it never ends");
    let short = [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(canned(&short).map(Vmid(3), |_| {}), Err(Error::Malformed));
    assert!(canned(&[1, 0, 0, 0, 0, 0, 0, 0]).counters(Vmid(3)).is_err());
    assert!(canned(&[0xff; 8]).counters(Vmid(3)).is_err());
    assert!(canned(&[0; 31]).leaf(Vmid(3), 0).is_err());
}

#[test]
fn a_buffer_without_room_for_one_entry_is_refused_before_anything_is_sent() {
    let mut tiny = Session::<_, 40>::with_capacity(Canned(vec![0; 8]));
    let encode = Error::Encode(rm_abi::EncodeError::BufferTooSmall);
    assert_eq!(tiny.list_vms(|_| {}), Err(encode));
    assert_eq!(tiny.map(Vmid(3), |_| {}), Err(encode));
}
