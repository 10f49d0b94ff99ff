//! Every failure: whatever a call asks for is denied it, one thing after the other.
//!
//! A call asks for frames, handles and amounts of quotas; the strict fake can deny the k-th of these, or
//! the k-th and all behind it. Each call that the cells say is done is made with every k until none is
//! denied: directly and through the queues, with whole steps and in steps of one unit. What is denied
//! something is refused because something ran out, or does without; then nobody can tell that it was made, and the
//! same call succeeds as soon as nothing is denied. The same is done with parcels so long that their
//! lists, requests and replies need frames.

mod stage;

use rm::machine::fake::effort::{effort, few, some};
use rm::machine::fake::world::{Guest, RAM, accept, append, by_handle, offer};
use rm::operation::STEP;
use rm_abi::extension::{
    HOLDERS, LIMITS, LIST, ListFlags, ListRequest, MAP, MapRequest, REVOKE, TRIM,
};
use rm_abi::memparcel::lookup::Lookup;
use rm_abi::{
    AcceptFlags, AclEntry, AppendFlags, Bytes, CreateFlags, Handle, MemoryKind, Rights, SglEntry,
    Transfer, Vmid, message,
};
use stage::calls::{CALLS, Call, Effect, trim};
use stage::set::Stage;
use stage::states::{STATES, Scene, State};
use stage::{Outcome, Role, WINDOW, acl, end_all, make, picture, settle, world};

/// Makes a call through the message queues.
fn make_queued(guest: &Guest<'_>, (message, payload): &(u32, Vec<u8>)) -> Outcome {
    let reply = guest.queue_call(*message, payload);
    match reply[..].u32_at(0) {
        0 => Outcome::Done(reply[4..].to_vec()),
        error => {
            let why = guest.queue_call(rm_abi::extension::LAST_REFUSAL, &[]);
            let why = rm_abi::extension::LastRefusal::decode(&why[4..]).expect("a whole reply");
            assert_eq!((why.message, why.error), (*message, error));
            Outcome::Refused(error, why.rule)
        }
    }
}

#[derive(Default, Debug)]
struct Count {
    calls: u64,
    denied: u64,
    refused: u64,
}

/// The ways in which a call is made: through the queues or directly, the weights of its steps, and how much
/// is denied it. No more of them with more effort: the storage of the tests' worlds is never freed.
const WAYS: [(bool, u32, u64); 2] = [(false, STEP, 1), (true, 1, u64::MAX)];

/// Makes a call that is done when nothing is denied it, in every way and with every denial.
fn deny(
    name: &str,
    new_stage: impl Fn() -> Stage,
    role: Role,
    request: impl Fn(&Scene) -> (u32, Vec<u8>),
    effect: Option<Effect>,
    count: &mut Count,
) {
    let mut made = None;
    for (queued, step, many) in some(WAYS, 2) {
        for first in some(1.., 20) {
            let stage = made.take().unwrap_or_else(&new_stage);
            let busy = stage.scene.at_work.is_some_and(|(at_work, _)| at_work == role);
            // Through the queues it would wait for the call at work, and a long one has no place beside that.
            if (queued || step == 1) && busy {
                made = Some(stage);
                break;
            }
            let case = format!("{name}, denied {first} (queued {queued}, step {step}, {many})");
            let request = request(&stage.scene);
            let guest = stage.scene.caller(role);
            guest.step.set(step);
            let machine = stage.scene.world.manager.machine();
            machine.refuse(first, many);
            let outcome =
                if queued { make_queued(&guest, &request) } else { make(&guest, &request) };
            let denied = machine.refused();
            count.calls += 1;
            count.denied += denied.min(1);
            if denied > 0 && !matches!(outcome, Outcome::Done(_)) {
                assert!(outcome.wants(), "{case}: {outcome:?}");
                stage.check_unchanged(&case);
                count.refused += 1;
                made = Some(stage);
                continue;
            }
            assert!(matches!(outcome, Outcome::Done(_)), "{case}: {outcome:?}");
            match effect {
                Some(Effect::None) => {
                    stage.check_unchanged(&case);
                    made = Some(stage);
                }
                _ => {
                    // A VM that waits for its reply passes over what it hears before.
                    let deaf = queued && role == Role::Owner;
                    let deaf = deaf && matches!(effect, Some(Effect::TellOwner(_)));
                    if let Some(effect) = effect.filter(|_| denied == 0 && !deaf) {
                        stage.check_done(effect, role, &case);
                    }
                    stage.strike(&case, true);
                }
            }
            if denied == 0 {
                break;
            }
        }
    }
}

/// The cells of a state whose calls are done. Under Miri they are the owner's.
fn done(state: &State) -> Vec<(Role, &'static Call)> {
    let mut stage = Some(Stage::new(state));
    let mut done = vec![];
    for role in some(Role::ALL, 6) {
        for call in some(CALLS, 12) {
            let at = stage.take().unwrap_or_else(|| Stage::new(state));
            if at.scene.runs(role) {
                let outcome = make(&at.scene.caller(role), &(call.request)(&at.scene, role));
                if matches!(outcome, Outcome::Done(_)) {
                    done.push((role, call));
                    if call.effect != Effect::None {
                        continue;
                    }
                }
            }
            stage = Some(at);
        }
    }
    // What a VM does with its own page is the same whoever it is.
    let own = |role: Role, effect: Effect| {
        matches!(effect, Effect::New { .. }) && !matches!(role, Role::Owner | Role::Borrower)
    };
    done.retain(|(role, call)| !own(*role, call.effect));
    done
}

#[test]
fn g4_every_call_of_a_cell_may_be_denied_whatever_it_asks_for() {
    let mut count = Count::default();
    let mut cells = 0;
    for state in some(STATES, 42) {
        let done = done(state);
        for (role, call) in done {
            let name = format!("{}, {}, {}", role.name(), state.name, call.name);
            let request = |scene: &Scene| (call.request)(scene, role);
            deny(&name, || Stage::new(state), role, request, Some(call.effect), &mut count);
            cells += 1;
        }
    }
    println!(
        "faults: {cells} cells, {} calls, {} of them denied something, {} refused",
        count.calls, count.denied, count.refused
    );
    assert!(count.refused > 0);
}

/// More than have room beside their parcel.
const RUNS: u64 = few(20, 7);

/// Runs of a page, three in each block.
fn scattered(at: u64) -> Vec<(u64, u64)> {
    (0..RUNS).map(|run| (at + run / 3 * 0x20_0000 + run % 3 * 0x3000, 1)).collect()
}

/// So many that a request or reply which names them takes two frames.
fn many() -> Vec<(u64, u64)> {
    (0..300).map(|run| (FIRST + run * 0x2000, 1)).collect()
}

const FIRST: u64 = RAM.0 + 0x8000;
const BLOCKS: u64 = 0x9000_8000;

/// A lend of so many runs that their list takes a frame and their description several packets.
fn long(flags: CreateFlags) -> Scene {
    let scene = Scene { world: world(), handle: 0, transfer: Transfer::Lend, at_work: None };
    let request = offer(flags, &acl(Transfer::Lend), &scattered(FIRST), &[]);
    let (error, handle) = scene.caller(Role::Owner).words(message::MEM_LEND, &request);
    assert_eq!(error, 0);
    Scene { handle, ..scene }
}

fn longer() -> Scene {
    let scene = Scene { world: world(), handle: 0, transfer: Transfer::Lend, at_work: None };
    let owner = scene.caller(Role::Owner);
    let handle = owner.offer(Transfer::Lend, &acl(Transfer::Lend), &many()).unwrap();
    Scene { handle, ..scene }
}

fn long_held() -> Scene {
    let scene = long(CreateFlags::empty());
    scene.caller(Role::Borrower).accept(scene.handle, Transfer::Lend, &scattered(BLOCKS)).unwrap();
    scene
}

/// As [`long_held`], in one run.
fn long_contiguous() -> Scene {
    let scene = long(CreateFlags::empty());
    let place = (WINDOW + 0x1f_8000, RUNS);
    scene.caller(Role::Borrower).accept_contiguous(scene.handle, Transfer::Lend, place).unwrap();
    scene
}

fn describe_long() -> Vec<u8> {
    let acl = acl(Transfer::Lend);
    let entry = |&(vmid, rights): &(u16, u8)| AclEntry { vmid: Vmid(vmid), rights: Rights(rights) };
    let request = Lookup {
        memory: MemoryKind::NORMAL,
        label: rm::machine::fake::world::LABEL,
        acl: &acl.iter().map(entry).collect::<Vec<_>>(),
        sgl: &scattered(FIRST)
            .iter()
            .map(|&(ipa, pages)| SglEntry { ipa, size: pages * 4096 })
            .collect::<Vec<_>>(),
        attributes: &[],
    };
    let mut payload = vec![0; 1024];
    let length = request.encode(&mut payload).expect("it fits");
    payload.truncate(length);
    payload
}

fn asked(
    message: u32,
    encode: impl Fn(&mut [u8]) -> Result<usize, rm_abi::EncodeError>,
) -> (u32, Vec<u8>) {
    let mut payload = vec![0; 64];
    let length = encode(&mut payload).expect("a question fits");
    payload.truncate(length);
    (message, payload)
}

/// A long call: its name, what there is before it, who makes it, the request, and whether it changes
/// anything.
type Long = (&'static str, fn() -> Scene, Role, fn(&Scene) -> (u32, Vec<u8>), bool);

const LONG: &[Long] = &[
    (
        "lend",
        || Scene { handle: 0x2003, ..long(CreateFlags::empty()) },
        Role::Borrower,
        |_| {
            let acl = [(5, 6), (6, 6)];
            (message::MEM_LEND, offer(CreateFlags::empty(), &acl, &scattered(FIRST), &[]))
        },
        true,
    ),
    (
        "lend of many",
        || long(CreateFlags::empty()),
        Role::Borrower,
        |_| {
            let acl = [(5, 6), (6, 6)];
            (message::MEM_LEND, offer(CreateFlags::empty(), &acl, &many(), &[]))
        },
        true,
    ),
    (
        "accept of many anywhere",
        longer,
        Role::Borrower,
        |scene| (message::MEM_ACCEPT, accept(scene.handle, Transfer::Lend, AcceptFlags::DONE, &[])),
        true,
    ),
    (
        "share, wiped",
        || long(CreateFlags::empty()),
        Role::Borrower,
        |_| {
            let acl = [(4, 6), (6, 6)];
            (message::MEM_SHARE, offer(CreateFlags::SANITIZE, &acl, &scattered(FIRST), &[]))
        },
        true,
    ),
    (
        "donate",
        || long(CreateFlags::empty()),
        Role::Borrower,
        |_| (message::MEM_DONATE, offer(CreateFlags::empty(), &[(6, 7)], &scattered(FIRST), &[])),
        true,
    ),
    (
        "append",
        || long(CreateFlags::APPEND),
        Role::Owner,
        |scene| {
            let more: Vec<_> = scattered(FIRST + 0x1_0000);
            (message::MEM_APPEND, append(scene.handle, AppendFlags::END, &more))
        },
        true,
    ),
    (
        "accept",
        || long(CreateFlags::empty()),
        Role::Borrower,
        |scene| {
            let places = scattered(BLOCKS);
            (message::MEM_ACCEPT, accept(scene.handle, Transfer::Lend, AcceptFlags::DONE, &places))
        },
        true,
    ),
    (
        "accept in one piece",
        || long(CreateFlags::empty()),
        Role::Borrower,
        |scene| {
            let flags = AcceptFlags::DONE | AcceptFlags::MAP_CONTIGUOUS;
            let place = [(WINDOW + 0x1f_8000, RUNS)];
            (message::MEM_ACCEPT, accept(scene.handle, Transfer::Lend, flags, &place))
        },
        true,
    ),
    (
        "accept anywhere",
        || long(CreateFlags::empty()),
        Role::Borrower,
        |scene| (message::MEM_ACCEPT, accept(scene.handle, Transfer::Lend, AcceptFlags::DONE, &[])),
        true,
    ),
    (
        "release",
        long_held,
        Role::Borrower,
        |scene| (message::MEM_RELEASE, by_handle(scene.handle, 1)),
        true,
    ),
    (
        "reclaim",
        || long(CreateFlags::empty()),
        Role::Owner,
        |scene| (message::MEM_RECLAIM, by_handle(scene.handle, 1)),
        true,
    ),
    ("revoke", long_held, Role::Owner, |scene| (REVOKE, by_handle(scene.handle, 0)), true),
    ("trim", long_contiguous, Role::Borrower, |scene| (TRIM, trim(scene.handle, 3, 6, 1)), true),
    (
        "take back",
        || long(CreateFlags::empty()),
        Role::Owner,
        |scene| (TRIM, trim(scene.handle, 3, 6, 1)),
        true,
    ),
    (
        "lookup",
        || long(CreateFlags::empty()),
        Role::Owner,
        |_| (message::MEM_LOOKUP, describe_long()),
        false,
    ),
    (
        "map",
        long_held,
        Role::Inspector,
        |_| {
            let request = MapRequest { vmid: Vmid(3), most: 100, parcel: Handle(0), cursor: 0 };
            asked(MAP, |into| request.encode(into))
        },
        false,
    ),
    (
        "list",
        long_held,
        Role::Inspector,
        |_| {
            let request = ListRequest { cursor: 0, most: 100, flags: ListFlags::ALL };
            asked(LIST, |into| request.encode(into))
        },
        false,
    ),
    ("holders", long_held, Role::Owner, |scene| (HOLDERS, by_handle(scene.handle, 0)), false),
    ("limits", long_held, Role::Owner, |_| (LIMITS, vec![0; 8]), false),
];

#[test]
fn g4_long_lists_requests_and_replies_may_be_denied_their_frames() {
    let mut count = Count::default();
    for &(name, scene, role, request, changes) in some(LONG, 19) {
        let effect = (!changes).then_some(Effect::None);
        deny(name, || Stage::of(scene()), role, request, effect, &mut count);
    }
    println!(
        "long faults: {} long calls, made {} times, {} of them denied something, {} refused",
        LONG.len(),
        count.calls,
        count.denied,
        count.refused
    );
    assert!(count.refused > some(LONG, 19).len() as u64);
}

/// Fills a VM's receive queue with replies that it does not read.
fn fill(guest: &Guest<'_>) {
    for sequence in 0..8 {
        let header = rm_abi::Header::request(message::VM_GET_VMID, sequence);
        assert_eq!(guest.queue_send(&header.encode(), false).0, 0);
    }
}

#[test]
fn g4_what_a_vm_is_told_is_not_lost_when_its_queue_is_full() {
    let mut told = 0;
    for state in STATES.iter().filter(|state| !cfg!(miri) || state.name == "poisoned") {
        for (role, call) in done(state) {
            let stage = Stage::new(state);
            let before = stage.before.view(&stage.scene);
            let wanted = call.effect.on(&before, role).heard;
            let hearers: Vec<_> = Role::ALL
                .into_iter()
                .filter(|&hearer| !wanted[hearer as usize].is_empty() && stage.scene.runs(hearer))
                // To fill its queue is to enter EL2, which goes on with what it has at work.
                .filter(|&hearer| stage.scene.at_work.is_none_or(|(at_work, _)| at_work != hearer))
                .collect();
            if hearers.is_empty() {
                continue;
            }
            let case = format!("{}, {}, {}", role.name(), state.name, call.name);
            hearers.iter().for_each(|&hearer| fill(&stage.scene.caller(hearer)));
            let outcome = make(&stage.scene.caller(role), &(call.request)(&stage.scene, role));
            assert!(matches!(outcome, Outcome::Done(_)), "{case}: {outcome:?}");
            for hearer in hearers {
                let heard = picture::heard(&stage.scene.caller(hearer));
                let replies = vec![message::VM_GET_VMID; 8];
                assert_eq!(heard, [replies, wanted[hearer as usize].clone()].concat(), "{case}");
                told += 1;
            }
            stage.strike(&case, false);
        }
    }
    println!("full queues: {told} VMs were told something behind a full queue");
    assert!(told > 0);
}

/// Who stops in the middle of a call.
const VICTIMS: [Role; 3] = [Role::Owner, Role::Borrower, Role::Reborn];

/// Makes a call in steps of one unit and ends a VM after so many of them; `false` if the call has ended
/// before.
fn die(
    name: &str,
    scene: Scene,
    role: Role,
    request: (u32, Vec<u8>),
    after: u64,
    victim: Role,
) -> bool {
    use rm::machine::fake::world::Turn;
    let guest = scene.caller(role);
    guest.step.set(1);
    let (message, payload) = request;
    let mut turn = guest.send(message, &payload);
    for _ in 0..after {
        let Turn::More(token) = turn else { return false };
        turn = guest.resume(token);
    }
    let Turn::More(token) = turn else { return false };
    scene.world.end(victim.vm());
    let mut steps = 0;
    while victim != role && matches!(turn, Turn::More(_)) {
        turn = guest.resume(token);
        scene.world.manager.step(victim.vm(), &mut rm::operation::budget::Budget::new(1));
        steps += 1;
        assert!(steps < 1_000_000, "G7: {name}: the call waits for a dead VM");
    }
    settle(&scene.world);
    let is_given = scene.transfer == Transfer::Donate || message == message::MEM_DONATE;
    end_all(&scene.world, after.is_multiple_of(2));
    let (report, fresh) = (scene.world.check(), world().check());
    assert_eq!((report.parcels, report.borrowed), (0, 0), "G8: {name}");
    assert_eq!(report.total(), fresh.total(), "G8: {name}");
    assert!(is_given || report.frames == fresh.frames, "G8: {name}: a frame is lost");
    true
}

#[test]
fn g5_any_party_may_end_between_any_two_steps_of_a_long_call() {
    let (mut ends, mut calls) = (0, 0);
    let stride = few(20, 1000_usize).div_ceil(effort());
    for &(name, scene, role, request, _) in some(LONG, 19) {
        calls += 1;
        for after in (0..).step_by(stride) {
            let mut went_on = false;
            let other = (!VICTIMS.contains(&role)).then_some(role);
            for victim in some(VICTIMS.into_iter().chain(other), 3) {
                let scene = scene();
                let request = request(&scene);
                let name = format!("{name}, {} ends after {after}", victim.name());
                if die(&name, scene, role, request, after, victim) {
                    ends += 1;
                    went_on = true;
                }
            }
            if !went_on {
                break;
            }
        }
    }
    println!("ends: {calls} long calls, {ends} times a VM ended between two steps");
    assert!(ends > 0);
}
