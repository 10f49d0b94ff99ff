//! Clients and the manager, client -> bytes -> manager -> strict fake: the demo's story and what the
//! client promises beside it, without QEMU.

use rm::address::{Ipa, VmIndex};
use rm::machine::fake::world::{Guest, RAM, Turn, World, vm};
use rm_client::{
    Acceptance, Error, ErrorCode, LARGEST, NewParcel, Rights, Sanitize, Session, SglEntry,
    Transfer, Transport, TransportError, Vmid, grant, pages,
};

const A: VmIndex = VmIndex(0);
const B: VmIndex = VmIndex(1);
const C: VmIndex = VmIndex(2);
const PAGE: u64 = RAM.0 + 0x7000;
const WINDOW: u64 = 0x9000_0000;

/// A vCPU of the world as a transport: it follows tokens as [`rm_client::Direct`] does.
struct Vcpu<'a>(Guest<'a>);

impl Transport for Vcpu<'_> {
    fn exchange(&mut self, request: &[u8], reply: &mut [u8]) -> Result<usize, TransportError> {
        let mut turn = self.0.send_bytes(request);
        loop {
            match turn {
                Turn::More(token) => turn = self.0.resume(token),
                Turn::Error(error, _) => return Err(TransportError::Hypercall(error)),
                Turn::Exit(_) => return Err(TransportError::Hypercall(0)),
                Turn::Reply(payload) => {
                    reply[..8].copy_from_slice(&request[..8]);
                    // The world has checked the header and cut it off; the type byte says reply.
                    reply[1] = 2;
                    let length = 8 + payload.len();
                    reply[8..length].copy_from_slice(&payload);
                    return Ok(length);
                }
            }
        }
    }
}

fn world() -> World {
    World::new(&[vm(3), vm(4), vm(5)])
}

fn session(world: &World, vm: VmIndex) -> Session<Vcpu<'_>, LARGEST> {
    Session::with_capacity(Vcpu(world.caller(vm)))
}

const fn refused<T>(code: ErrorCode) -> Result<T, Error> {
    Err(Error::Refused(code))
}

#[test]
fn a_vm_learns_its_own_name() {
    let world = world();
    assert_eq!(session(&world, B).vmid(), Ok(Vmid(4)));
}

#[test]
fn two_vms_share_a_page_and_a_third_is_turned_away() {
    let world = world();
    let (mut a, mut b, mut c) = (session(&world, A), session(&world, B), session(&world, C));
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

#[test]
fn five_hundred_runs_are_lent_placed_and_taken_back() {
    let world = world();
    let (mut a, mut b) = (session(&world, A), session(&world, B));
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

#[test]
fn a_contiguous_accept_joins_scattered_runs() {
    let world = world();
    let (mut a, mut b) = (session(&world, A), session(&world, B));
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
    assert_eq!(world.cpu(A).read(Ipa(PAGE + 0x10_2000)), Ok(3), "the last page of the first run");
    assert_eq!(world.cpu(A).read(Ipa(PAGE)), Ok(4), "the first page of the second");
    world.check();
}

#[test]
fn a_reply_that_is_too_large_for_the_session_is_refused_before_anything_happens() {
    let world = world();
    let mut a = session(&world, A);
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
