//! The states that a parcel can be in, and how it gets there.

use rm::address::{Ipa, Pa};
use rm::config::{OwnedParcels, VmConfig};
use rm::machine::fake::world::{Guest, RAM, Turn, World, accept, append, by_handle, offer};
use rm::operation::STEP;
use rm_abi::extension::{
    ATTACH, CPU_ACCESS, DMA_MAP, DMA_UNMAP, Policy, REVOKE, RevokeFlags, TRIM,
};
use rm_abi::{AcceptFlags, AppendFlags, CreateFlags, Transfer, message};

use super::calls::{device, policy, trim};
use super::{PAGE, PAGES, RUNS, Role, SPARE, WINDOW, acl, world};

/// A world in which a parcel is in some state.
pub struct Scene {
    pub world: World,
    pub handle: u32,
    pub transfer: Transfer,
    /// The call that is at work on it, and its caller.
    pub at_work: Option<(Role, u64)>,
}

/// A state by its name in the table.
pub struct State {
    pub name: &'static str,
    pub make: fn() -> Scene,
}

const fn state(name: &'static str, make: fn() -> Scene) -> State {
    State { name, make }
}

pub const STATES: &[State] = &[
    state("never made", || Scene { handle: 0x2003, ..fresh() }),
    state("lend begun", || creating(When::Begun)),
    state("lend ending", || creating(When::Ending)),
    state("to be appended", initial),
    state("append begun", || appending(When::Begun)),
    state("append ending", || appending(When::Ending)),
    state("lent", || offered(Transfer::Lend)),
    state("shared", || offered(Transfer::Share)),
    state("donated", || offered(Transfer::Donate)),
    state("policy begun", || retyping(When::Begun)),
    state("policy ending", || retyping(When::Ending)),
    state("half assigned", assigned),
    state("accept begun", || accepting(Transfer::Lend, When::Begun)),
    state("accept ending", || accepting(Transfer::Lend, When::Ending)),
    state("donation ending", || accepting(Transfer::Donate, When::Ending)),
    state("held", || held(Transfer::Lend)),
    state("held share", || held(Transfer::Share)),
    state("release begun", || releasing(When::Begun)),
    state("release ending", || releasing(When::Ending)),
    state("trim begun", || trimming(Role::Borrower, When::Begun)),
    state("trim ending", || trimming(Role::Borrower, When::Ending)),
    state("trimmed", trimmed),
    state("attached", attached),
    state("dma map begun", || mapping(DMA_MAP, When::Begun)),
    state("dma map ending", || mapping(DMA_MAP, When::Ending)),
    state("dma mapped", mapped),
    state("dma unmap begun", || mapping(DMA_UNMAP, When::Begun)),
    state("dma unmap ending", || mapping(DMA_UNMAP, When::Ending)),
    state("recalled, held", || recalled(held(Transfer::Lend))),
    state("recalled", || recalled(offered(Transfer::Lend))),
    state("revoke begun", || revoking(When::Begun)),
    state("revoke ending", || revoking(When::Ending)),
    state("revoked", revoked),
    state("take back begun", || trimming(Role::Owner, When::Begun)),
    state("take back ending", || trimming(Role::Owner, When::Ending)),
    state("reclaim begun", || reclaiming(When::Begun)),
    state("reclaim ending", || reclaiming(When::Ending)),
    state("reclaimed", reclaimed),
    state("accepted gift", || held(Transfer::Donate)),
    state("poisoned", poisoned),
    state("owner restarted", owner_restarted),
    state("owner dead", owner_dead),
];

impl Scene {
    pub fn caller(&self, role: Role) -> Guest<'_> {
        self.world.caller(role.vm())
    }

    /// Lets the call at work come to its end.
    pub fn finish(&self) {
        let Some((role, token)) = self.at_work else { return };
        let guest = self.caller(role);
        for _ in 0..1_000_000 {
            match guest.resume(token) {
                Turn::More(_) => {}
                Turn::Reply(_) => return,
                // The manager has done the steps, or dropped a reply that a later call did not wait for.
                Turn::Error(1, 0) => return,
                other => panic!("the call at work ended with {other:?}"),
            }
        }
        panic!("G7: the call at work does not end")
    }

    /// Whether this VM can call at all.
    pub fn runs(&self, role: Role) -> bool {
        self.world.manager.state(role.vm()) == rm::life::VmState::Running
    }
}

fn fresh() -> Scene {
    Scene { world: world(), handle: 0, transfer: Transfer::Lend, at_work: None }
}

/// How far a call is that is at work.
#[derive(Clone, Copy)]
enum When {
    /// It has done its first step, of one unit.
    Begun,
    /// It has one step to go.
    Ending,
}

/// Puts a call to work on what `base` makes. The handle is the base's, or else the one that the call is
/// about to answer with.
fn at_work(
    base: fn() -> Scene,
    when: When,
    role: Role,
    request: impl Fn(&Scene) -> (u32, Vec<u8>),
) -> Scene {
    let run = |scene: &Scene, limit: u32| -> (u32, Turn) {
        let guest = scene.caller(role);
        guest.step.set(1);
        let (message, payload) = request(scene);
        let mut turn = guest.send(message, &payload);
        let mut entries = 1;
        while let Turn::More(token) = turn
            && entries < limit
        {
            turn = guest.resume(token);
            entries += 1;
        }
        (entries, turn)
    };
    let rehearsal = base();
    let (entries, end) = run(&rehearsal, u32::MAX);
    let Turn::Reply(reply) = end else { panic!("a rehearsal ended with {end:?}") };
    assert_eq!(reply[..4], [0; 4], "a rehearsal was refused");
    assert!(entries > 2, "a call of {entries} steps is never at work");
    let scene = base();
    let limit = match when {
        When::Begun => 1,
        When::Ending => entries - 1,
    };
    let (_, turn) = run(&scene, limit);
    let Turn::More(token) = turn else { panic!("a call is at its end early: {turn:?}") };
    let handle = match scene.handle {
        0 => u32::from_le_bytes(reply[4..8].try_into().expect("a creation answers with a handle")),
        handle => handle,
    };
    Scene { handle, at_work: Some((role, token)), ..scene }
}

fn creating(when: When) -> Scene {
    at_work(fresh, when, Role::Owner, |_| {
        (message::MEM_LEND, offer(CreateFlags::empty(), &acl(Transfer::Lend), &RUNS, &[]))
    })
}

fn made(transfer: Transfer, flags: CreateFlags) -> Scene {
    let scene = Scene { transfer, ..fresh() };
    let request = offer(flags, &acl(transfer), &RUNS, &[]);
    let (error, handle) = scene.caller(Role::Owner).words(transfer.message(), &request);
    assert_eq!(error, 0);
    Scene { handle, ..scene }
}

fn initial() -> Scene {
    made(Transfer::Lend, CreateFlags::APPEND)
}

fn appending(when: When) -> Scene {
    at_work(initial, when, Role::Owner, |scene| {
        let pages = [(SPARE, 1), (SPARE + 0x2000, 2)];
        (message::MEM_APPEND, append(scene.handle, AppendFlags::empty(), &pages))
    })
}

/// A parcel that one of its borrowers has had before it died and was started again.
fn offered(transfer: Transfer) -> Scene {
    let scene = made(transfer, CreateFlags::empty());
    if transfer != Transfer::Donate {
        let (world, vm) = (&scene.world, Role::Reborn.vm());
        let reborn = scene.caller(Role::Reborn);
        reborn.accept_contiguous(scene.handle, transfer, (WINDOW, PAGES)).unwrap();
        world.end(vm);
        world.settle(vm, STEP);
        world.start(vm);
    }
    scene.caller(Role::Owner).packets();
    scene
}

fn retyping(when: When) -> Scene {
    at_work(
        || offered(Transfer::Share),
        when,
        Role::Owner,
        |scene| policy(scene.handle, Policy::Uncached as u32),
    )
}

/// Addresses for all units, of which no two are neighbours.
fn places() -> [(u64, u64); 2] {
    [(WINDOW, 2), (WINDOW + 0x8000, 1)]
}

fn assigned() -> Scene {
    let scene = offered(Transfer::Lend);
    let first = accept(scene.handle, Transfer::Lend, AcceptFlags::empty(), &places()[..1]);
    assert_eq!(scene.caller(Role::Borrower).words(message::MEM_ACCEPT, &first).0, 0);
    scene
}

fn accepting(transfer: Transfer, when: When) -> Scene {
    let base = match transfer {
        Transfer::Donate => || offered(Transfer::Donate),
        _ => || offered(Transfer::Lend),
    };
    at_work(base, when, Role::Borrower, |scene| {
        (message::MEM_ACCEPT, accept(scene.handle, transfer, AcceptFlags::DONE, &places()))
    })
}

fn held(transfer: Transfer) -> Scene {
    let scene = offered(transfer);
    scene.caller(Role::Borrower).accept(scene.handle, transfer, &places()).unwrap();
    scene
}

fn releasing(when: When) -> Scene {
    at_work(
        || held(Transfer::Lend),
        when,
        Role::Borrower,
        |scene| (message::MEM_RELEASE, by_handle(scene.handle, 0)),
    )
}

/// Two pages of a parcel that the borrower holds, or nobody where the owner takes them back.
fn trimming(role: Role, when: When) -> Scene {
    let base = match role {
        Role::Owner => || offered(Transfer::Lend),
        _ => || held(Transfer::Lend),
    };
    at_work(base, when, role, |scene| (TRIM, trim(scene.handle, 1, 2, 1)))
}

fn trimmed() -> Scene {
    let scene = held(Transfer::Lend);
    let last = trim(scene.handle, 2, 1, 0);
    assert_eq!(scene.caller(Role::Borrower).words(TRIM, &last).0, 0);
    assert_eq!(scene.caller(Role::Owner).words(TRIM, &last).0, 0);
    scene
}

/// A share that owner and borrower have, each with a device attached and a CPU access begun.
fn attached() -> Scene {
    let scene = held(Transfer::Share);
    for role in [Role::Owner, Role::Borrower] {
        let (message, payload) = device(ATTACH, &scene, role, 0);
        assert_eq!(scene.caller(role).words(message, &payload).0, 0);
        assert_eq!(scene.caller(role).words(CPU_ACCESS, &by_handle(scene.handle, 1)).0, 0);
    }
    scene
}

/// Both devices read it.
fn mapped() -> Scene {
    let scene = attached();
    for role in [Role::Owner, Role::Borrower] {
        let (message, payload) = device(DMA_MAP, &scene, role, 1);
        assert_eq!(scene.caller(role).words(message, &payload).0, 0);
    }
    scene
}

fn mapping(message: u32, when: When) -> Scene {
    let base = if message == DMA_MAP { attached } else { mapped };
    at_work(base, when, Role::Borrower, |scene| device(message, scene, Role::Borrower, 1))
}

fn recalled(scene: Scene) -> Scene {
    let request = by_handle(scene.handle, RevokeFlags::RECALL.bits() as u8);
    assert_eq!(scene.caller(Role::Owner).words(REVOKE, &request).0, 0);
    scene.caller(Role::Borrower).packets();
    scene
}

fn revoking(when: When) -> Scene {
    at_work(
        || held(Transfer::Lend),
        when,
        Role::Owner,
        |scene| (REVOKE, by_handle(scene.handle, 0)),
    )
}

fn revoked() -> Scene {
    let scene = held(Transfer::Lend);
    assert_eq!(scene.caller(Role::Owner).words(REVOKE, &by_handle(scene.handle, 0)).0, 0);
    scene.caller(Role::Borrower).packets();
    scene
}

fn reclaiming(when: When) -> Scene {
    at_work(
        || offered(Transfer::Lend),
        when,
        Role::Owner,
        |scene| (message::MEM_RECLAIM, by_handle(scene.handle, 1)),
    )
}

fn reclaimed() -> Scene {
    let scene = offered(Transfer::Lend);
    scene.caller(Role::Owner).reclaim(scene.handle, 0).unwrap();
    scene
}

fn poisoned() -> Scene {
    let scene = offered(Transfer::Lend);
    let page = Pa(World::pa_of(Role::Owner.vm()).0 + (PAGE - RAM.0));
    scene.world.manager.machine().spoil(page);
    assert_eq!(scene.caller(Role::Owner).reclaim(scene.handle, 0), Err(0xa));
    scene
}

fn owner_restarted() -> Scene {
    let scene = offered(Transfer::Lend);
    let owner = Role::Owner.vm();
    scene.world.end(owner);
    scene.world.settle(owner, STEP);
    scene.world.start(owner);
    scene
}

/// The owner has ended, and its configuration leaves the parcel to who holds it.
fn owner_dead() -> Scene {
    let config = |role: Role| VmConfig { owned_parcels: OwnedParcels::Keep, ..super::config(role) };
    let world = super::world_of(config);
    let owner = world.caller(Role::Owner.vm());
    let handle = owner.offer(Transfer::Lend, &acl(Transfer::Lend), &RUNS).unwrap();
    let borrower = world.caller(Role::Borrower.vm());
    borrower.accept(handle, Transfer::Lend, &places()).unwrap();
    world.end(Role::Owner.vm());
    world.settle(Role::Owner.vm(), STEP);
    borrower.packets();
    assert!(world.cpu(Role::Borrower.vm()).read(Ipa(WINDOW)).is_ok());
    Scene { world, handle, transfer: Transfer::Lend, at_work: None }
}
