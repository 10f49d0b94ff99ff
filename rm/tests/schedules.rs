//! Every schedule: calls of different VMs on different CPUs, one interleaving after the other.
//!
//! The CPUs are tasks of `shuttle`; another one may go on wherever a lock is about to be taken, the machine
//! is asked for something, or a VM uses memory. What a lock guards is nowhere else touched, so finer switches
//! would show no more of it; atomics that are used without a lock are seen in program order, and no
//! two switches come closer than these places. Each scene is played
//!
//! * in *all* schedules with so many preemptions (a switch away from a task that could go on): this is
//!   [`Explore`], which knows that who waits for a lock cannot go on before somebody else has,
//! * in random ones, and in random ones with few preemptions (`shuttle`'s PCT).
//!
//! The locks assert their order at every acquisition, the fake that no stale translation is used; a
//! schedule in which nobody can go on fails. `RM_EFFORT` scales the number of schedules; a failure prints
//! its schedule, and `RM_SCHEDULE` replays it in the test that is named on the command line.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rm::address::{Ipa, VmIndex};
use rm::config::VmConfig;
use rm::life::VmState;
use rm::machine::fake::effort::effort;
use rm::machine::fake::world::{Guest, RAM, Said, Turn, World, by_handle, offer, vm};
use rm::machine::fake::{Point, schedule_with};
use rm::operation::STEP;
use rm::operation::budget::Budget;
use rm::quota::{Amounts, Quotas};
use rm::stage2::Access;
use rm_abi::extension::{Policy, REVOKE, SET_POLICY, TRIM, TrimFlags, TrimRequest};
use rm_abi::hypercall::{DOORBELL_RECEIVE, DOORBELL_SEND};
use rm_abi::memparcel::lookup::Lookup;
use rm_abi::{
    AcceptFlags, AclEntry, AppendFlags, Bytes, Capability, CreateFlags, Handle, MemoryKind, Rights,
    SglEntry, Transfer, Vmid, message,
};
use shuttle::scheduler::{
    PctScheduler, RandomScheduler, ReplayScheduler, Schedule, Scheduler, Task, TaskId,
};

const A: VmIndex = VmIndex(0);
const B: VmIndex = VmIndex(1);
const C: VmIndex = VmIndex(2);
const PAGE: u64 = RAM.0 + 0x10_0000;
const RUNS: [(u64, u64); 2] = [(PAGE, 2), (PAGE + 0x4000, 1)];
const WINDOW: u64 = 0x9000_0000;
const PLACES: [(u64, u64); 2] = [(WINDOW, 2), (WINDOW + 0x8000, 1)];

/// All schedules with at most so many preemptions.
struct Explore {
    preemptions: usize,
    limit: usize,
    /// The decisions of this execution, each with what there was to choose from.
    decisions: Vec<(Vec<TaskId>, usize)>,
    next: usize,
    left: usize,
    /// Who has found a lock taken since somebody else has gone on.
    waiting: Vec<TaskId>,
    executions: usize,
    /// Set when there are no more.
    complete: Arc<AtomicBool>,
}

impl Explore {
    fn new(preemptions: usize, limit: usize, complete: Arc<AtomicBool>) -> Self {
        let (decisions, waiting) = (vec![], vec![]);
        Self { preemptions, limit, decisions, next: 0, left: 0, waiting, executions: 0, complete }
    }
}

impl Scheduler for Explore {
    fn new_execution(&mut self) -> Option<Schedule> {
        if self.executions > 0 {
            while self.decisions.last().is_some_and(|(options, at)| at + 1 == options.len()) {
                self.decisions.pop();
            }
            match self.decisions.last_mut() {
                Some((_, at)) => *at += 1,
                None => {
                    self.complete.store(true, Ordering::Relaxed);
                    return None;
                }
            }
        }
        if self.executions == self.limit {
            return None;
        }
        self.executions += 1;
        (self.next, self.left) = (0, self.preemptions);
        self.waiting.clear();
        Some(Schedule::new(0))
    }

    fn next_task(
        &mut self,
        runnable: &[&Task],
        current: Option<TaskId>,
        is_waiting: bool,
    ) -> Option<TaskId> {
        match current {
            Some(current) if is_waiting => self.waiting.push(current),
            _ => self.waiting.clear(),
        }
        let all: Vec<_> = runnable.iter().map(|task| task.id()).collect();
        let goes_on = current.filter(|current| all.contains(current) && !is_waiting);
        let others = all.iter().copied().filter(|task| Some(*task) != goes_on);
        let others: Vec<_> = others.filter(|task| !self.waiting.contains(task)).collect();
        let options = match goes_on {
            Some(current) if self.left == 0 => vec![current],
            Some(current) => [vec![current], others].concat(),
            None => others,
        };
        assert!(!options.is_empty(), "all wait for each other");
        let mut at = 0;
        if options.len() > 1 {
            match self.decisions.get(self.next) {
                Some((same, chosen)) => {
                    assert_eq!(*same, options, "a schedule is played otherwise than before");
                    at = *chosen;
                }
                None => self.decisions.push((options.clone(), 0)),
            }
            self.next += 1;
        }
        self.left -= usize::from(goes_on.is_some() && at > 0);
        Some(options[at])
    }

    fn next_u64(&mut self) -> u64 {
        unreachable!("no scene throws dice")
    }
}

/// What the tasks of a scene share.
struct Scene {
    world: World,
    handle: u32,
    /// Weights of one step of every call.
    step: u32,
}

impl Scene {
    fn caller(&self, vm: VmIndex) -> Guest<'_> {
        let guest = self.world.caller(vm);
        guest.step.set(self.step);
        guest
    }

    /// A call that another one of the same VM may be in the way of.
    fn try_call(&self, vm: VmIndex, message: u32, payload: &[u8]) -> Said {
        let guest = self.caller(vm);
        let mut turn = guest.send(message, payload);
        loop {
            match turn {
                Turn::More(token) => turn = guest.resume(token),
                Turn::Error(error, _) => return Err(error as u32),
                Turn::Exit(_) => unreachable!("nobody exits"),
                Turn::Reply(reply) => {
                    let word = |at: usize| reply.get(at..at + 4).map_or(0, |b| b.u32_at(0));
                    return if word(0) == 0 { Ok(word(4)) } else { Err(word(0)) };
                }
            }
        }
    }

    /// Lets every VM's work come to its end.
    fn settle(&self) {
        while self.world.vms().any(|vm| self.world.manager.pending(vm)) {
            for vm in self.world.vms() {
                self.world.manager.step(vm, &mut Budget::new(1000));
            }
        }
    }

    /// Ends a VM and takes it apart.
    fn end(&self, vm: VmIndex) -> Said {
        self.world.end(vm);
        while self.world.manager.state(vm) == VmState::Resetting {
            self.world.manager.step(vm, &mut Budget::new(self.step));
        }
        Ok(0)
    }
}

const CLOSED: Said = Err(7);
const LENT: Transfer = Transfer::Lend;

/// Calls that come at once.
struct Play {
    name: &'static str,
    setup: fn(u32) -> Scene,
    /// What each CPU does.
    cpus: &'static [fn(&Scene) -> Said],
    /// Whether the answers go together, and what the system must be like then.
    check: fn(&Scene, &[Said]),
}

fn world(vms: usize) -> World {
    world_with(vms, Amounts::ALL)
}

fn world_with(vms: usize, guaranteed: Amounts) -> World {
    let quotas = Quotas { frames: 20, frames_reserved: 20, parcels: 2, guaranteed, ..vm(3).quotas };
    let all = [3, 4, 5].map(|vmid| VmConfig { quotas, ..vm(vmid) });
    World::small(&all[..vms])
}

fn nothing(step: u32) -> Scene {
    Scene { world: world(2), handle: 0, step }
}

fn offered(vms: usize, transfer: Transfer, step: u32) -> Scene {
    let world = world(vms);
    let acl: &[(u16, u8)] = match (transfer, vms) {
        (Transfer::Donate, _) => &[(4, 7)],
        (Transfer::Share, _) => &[(3, 6), (4, 6)],
        (Transfer::Lend, 2) => &[(4, 6)],
        (Transfer::Lend, _) => &[(4, 6), (5, 6)],
    };
    let handle = world.caller(A).offer(transfer, acl, &RUNS).unwrap();
    Scene { world, handle, step }
}

/// A donation to B, in a world where the next parcel, whoever makes it, has the record of one that ends.
fn donated(step: u32) -> Scene {
    let world = world_with(3, Amounts { parcels: 0, ..Amounts::ALL });
    let handle = world.caller(A).offer(Transfer::Donate, &[(4, 7)], &RUNS).unwrap();
    Scene { world, handle, step }
}

fn held(step: u32) -> Scene {
    let scene = offered(2, LENT, step);
    scene.world.caller(B).accept(scene.handle, LENT, &PLACES).unwrap();
    scene
}

fn open(step: u32) -> Scene {
    let world = world(2);
    let request = offer(CreateFlags::APPEND, &[(4, 6)], &RUNS[..1], &[]);
    let (error, handle) = world.caller(A).words(message::MEM_LEND, &request);
    assert_eq!(error, 0);
    Scene { world, handle, step }
}

fn accept(scene: &Scene) -> Said {
    scene.caller(B).accept(scene.handle, LENT, &PLACES)
}

fn accept_and_release(scene: &Scene, vm: VmIndex) -> Said {
    let guest = scene.caller(vm);
    guest.accept(scene.handle, LENT, &PLACES)?;
    store(scene, vm, WINDOW);
    guest.release(scene.handle, 0)
}

fn revoke(scene: &Scene) -> Said {
    scene.try_call(A, REVOKE, &by_handle(scene.handle, 0))
}

fn reclaim(scene: &Scene) -> Said {
    scene.try_call(A, message::MEM_RECLAIM, &by_handle(scene.handle, 0))
}

fn release(scene: &Scene) -> Said {
    scene.caller(B).release(scene.handle, 0)
}

fn grow(scene: &Scene, at: u64) -> Said {
    let request = rm::machine::fake::world::append(
        scene.handle,
        AppendFlags::empty(),
        &[(at, 1), (at + 0x2000, 1)],
    );
    scene.try_call(A, message::MEM_APPEND, &request)
}

fn lend(scene: &Scene, at: u64) -> Said {
    let request = offer(CreateFlags::empty(), &[(4, 6)], &[(at, 2)], &[]);
    scene.try_call(A, message::MEM_LEND, &request)
}

/// A's search for what it has offered.
fn look_up(scene: &Scene) -> Said {
    let acl = [AclEntry { vmid: Vmid(4), rights: Rights(7) }];
    let sgl = RUNS.map(|(ipa, pages)| SglEntry { ipa, size: pages * 4096 });
    let (memory, label) = (MemoryKind(0), 0);
    let request = Lookup { memory, label, acl: &acl, sgl: &sgl, attributes: &[] };
    let mut payload = [0; 64];
    let length = request.encode(&mut payload).expect("it fits");
    scene.try_call(A, message::MEM_LOOKUP, &payload[..length])
}

fn trim(scene: &Scene, vm: VmIndex) -> Said {
    let (handle, flags) = (Handle(scene.handle), TrimFlags::SANITIZE);
    let mut payload = [0; TrimRequest::SIZE];
    let request = TrimRequest { handle, flags, offset: 0x1000, size: 0x1000 };
    request.encode(&mut payload).expect("it fits");
    scene.try_call(vm, TRIM, &payload)
}

fn set_policy(scene: &Scene, policy: Policy) -> Said {
    let payload = [scene.handle, policy as u32].map(u32::to_le_bytes).concat();
    scene.try_call(A, SET_POLICY, &payload)
}

fn bell(scene: &Scene, vm: VmIndex, number: u16, capability: Capability, flags: u64) -> u64 {
    let results = scene.caller(vm).hypercall(number, [capability.0, flags, 0, 0, 0]);
    let results = results.expect("a known call");
    assert_eq!(results.x[0], 0);
    results.x[1]
}

/// What the owner can take back when all is over.
fn reclaims(scene: &Scene, wanted: &[Said]) {
    let said = reclaim(scene);
    assert!(wanted.contains(&said), "the last reclaim: {said:?}");
}

const PLAYS: &[Play] = &[
    Play {
        name: "an accept against a revocation",
        setup: |step| offered(2, LENT, step),
        cpus: &[accept, revoke],
        check: |scene, said| {
            assert!(matches!(said, [Ok(0) | CLOSED, Ok(0)]), "{said:?}");
            assert!(scene.world.cpu(B).read(Ipa(WINDOW)).is_err(), "G5: it was taken away");
            reclaims(scene, &[Ok(0)]);
        },
    },
    Play {
        name: "a release against a revocation",
        setup: held,
        cpus: &[release, revoke],
        check: |scene, said| {
            assert!(matches!(said, [Ok(0) | CLOSED, Ok(0)]), "{said:?}");
            reclaims(scene, &[Ok(0)]);
        },
    },
    Play {
        name: "a release against a reclaim",
        setup: held,
        cpus: &[release, reclaim],
        check: |scene, said| {
            assert!(matches!(said, [Ok(0), Ok(0) | Err(0xb)]), "{said:?}");
            reclaims(scene, &[if said[1].is_ok() { CLOSED } else { Ok(0) }]);
        },
    },
    Play {
        name: "an accept against a reclaim",
        setup: |step| offered(2, LENT, step),
        cpus: &[accept, reclaim],
        check: |scene, said| {
            assert!(matches!(said, [Ok(0), Err(0xb)] | [CLOSED, Ok(0)]), "{said:?}");
            reclaims(scene, &[if said[1].is_ok() { CLOSED } else { Err(0xb) }]);
        },
    },
    Play {
        name: "an accept of a donation against its reclaim",
        setup: |step| offered(2, Transfer::Donate, step),
        cpus: &[|scene| scene.caller(B).accept(scene.handle, Transfer::Donate, &PLACES), reclaim],
        check: |_, said| {
            let once = matches!(said, [Ok(0), Err(7 | 0xb)] | [CLOSED, Ok(0)]);
            assert!(once, "G8: it belongs to one: {said:?}");
        },
    },
    Play {
        name: "an accept against the owner's death",
        setup: |step| offered(2, LENT, step),
        cpus: &[accept, |scene| scene.end(A)],
        check: |scene, said| {
            assert!(matches!(said, [Ok(0) | CLOSED, _]), "{said:?}");
            assert!(scene.world.cpu(B).read(Ipa(WINDOW)).is_err(), "G5: it was taken away");
        },
    },
    Play {
        name: "a revocation against the borrower's death",
        setup: held,
        cpus: &[revoke, |scene| scene.end(B)],
        check: |scene, said| {
            assert_eq!(said[0], Ok(0));
            reclaims(scene, &[Ok(0)]);
        },
    },
    Play {
        name: "a reclaim against the borrower's death",
        setup: held,
        cpus: &[reclaim, |scene| scene.end(B)],
        check: |scene, said| {
            assert!(matches!(said[0], Ok(0) | Err(0xb)), "{said:?}");
            reclaims(scene, &[if said[0].is_ok() { CLOSED } else { Ok(0) }]);
        },
    },
    Play {
        name: "two deaths",
        setup: held,
        cpus: &[|scene| scene.end(A), |scene| scene.end(B)],
        check: |_, _| {},
    },
    Play {
        name: "a lookup while another VM takes the record",
        setup: donated,
        cpus: &[look_up, |scene| {
            scene.caller(B).accept(scene.handle, Transfer::Donate, &PLACES)?;
            scene.caller(C).offer(Transfer::Donate, &[(4, 7)], &RUNS)
        }],
        check: |scene, said| {
            assert!(said[1].is_ok(), "{said:?}");
            let own = [Ok(scene.handle), Err(0xe)];
            assert!(own.contains(&said[0]), "G6: a parcel of another VM was found: {said:?}");
        },
    },
    Play {
        name: "two appends",
        setup: open,
        cpus: &[|scene| grow(scene, PAGE + 0x8000), |scene| grow(scene, PAGE + 0x10_000)],
        check: |scene, said| {
            // One of them may find the parcel or the slot busy, but not both.
            let busy = |said: &Said| matches!(said, Err(5 | 31));
            assert!(said.iter().all(|said| *said == Ok(0) || busy(said)), "{said:?}");
            assert!(said.contains(&Ok(0)), "{said:?}");
            reclaims(scene, &[Ok(0)]);
        },
    },
    Play {
        name: "two lends of one page",
        setup: nothing,
        cpus: &[|scene| lend(scene, PAGE), |scene| lend(scene, PAGE + 0x1000)],
        check: |_, said| {
            let won = said.iter().filter(|said| said.is_ok()).count();
            let lost = said.iter().filter(|said| matches!(said, Err(5 | 0xa | 31))).count();
            assert!(won == 1 && lost == 1, "G1: {said:?}");
        },
    },
    Play {
        name: "a share against a revocation of another parcel",
        setup: held,
        cpus: &[
            |scene| {
                let ranges = [(PAGE + 0x3000, 1)];
                let share = offer(CreateFlags::empty(), &[(3, 6), (4, 6)], &ranges, &[]);
                scene.try_call(A, message::MEM_SHARE, &share)
            },
            revoke,
        ],
        check: |scene, said| {
            assert!(matches!(said[0], Ok(_) | Err(31)), "{said:?}");
            assert!(matches!(said[1], Ok(0) | Err(31)), "{said:?}");
            reclaims(scene, &[if said[1].is_ok() { Ok(0) } else { Err(0xb) }]);
        },
    },
    Play {
        name: "a change of policy against an accept",
        setup: |step| offered(2, Transfer::Share, step),
        cpus: &[
            |scene| set_policy(scene, Policy::Uncached),
            |scene| scene.caller(B).accept(scene.handle, Transfer::Share, &PLACES),
        ],
        check: |scene, said| {
            assert!(matches!(said, [Ok(0), Ok(0) | Err(5)] | [Err(0xb), Ok(0)]), "{said:?}");
            reclaims(scene, &[if said[1].is_ok() { Err(0xb) } else { Ok(0) }]);
        },
    },
    Play {
        name: "a trim against a revocation",
        setup: held,
        cpus: &[|scene| trim(scene, B), revoke],
        check: |scene, said| {
            assert!(matches!(said, [Ok(0) | CLOSED, Ok(0)]), "{said:?}");
            reclaims(scene, &[Ok(0)]);
        },
    },
    Play {
        name: "an owner's trim against an accept",
        setup: |step| offered(2, LENT, step),
        cpus: &[|scene| trim(scene, A), accept],
        check: |scene, said| {
            assert!(matches!(said, [Ok(0), Ok(0) | Err(5)] | [Err(0xb), Ok(0)]), "{said:?}");
            if said == [Ok(0), Ok(0)] {
                assert!(scene.world.cpu(B).read(Ipa(WINDOW + 0x1000)).is_err(), "G2: it is home");
            }
        },
    },
    Play {
        name: "two borrowers",
        setup: |step| offered(3, LENT, step),
        cpus: &[|scene| accept_and_release(scene, B), |scene| accept_and_release(scene, C)],
        check: |scene, said| {
            assert_eq!(said, [Ok(0), Ok(0)]);
            reclaims(scene, &[Ok(0)]);
        },
    },
    Play {
        name: "a release that is given up against an accept that wants zeros",
        setup: |step| {
            let world = world(3);
            let acl = [(3, 6), (4, 6), (5, 6)];
            let handle = world.caller(A).offer(Transfer::Share, &acl, &RUNS).unwrap();
            let b = world.caller(B);
            b.accept(handle, Transfer::Share, &PLACES).unwrap();
            // A call of another vCPU has B's slot.
            b.step.set(1);
            let ranges = [(PAGE, 2), (PAGE + 0x8000, 2)];
            let long = offer(CreateFlags::empty(), &[(5, 6)], &ranges, &[]);
            assert!(matches!(b.send(message::MEM_LEND, &long), Turn::More(_)));
            Scene { world, handle, step }
        },
        cpus: &[
            |scene| scene.try_call(B, message::MEM_RELEASE, &by_handle(scene.handle, 0)),
            |scene| {
                let flags = AcceptFlags::DONE | AcceptFlags::SANITIZE;
                let request =
                    rm::machine::fake::world::accept(scene.handle, Transfer::Share, flags, &PLACES);
                scene.try_call(C, message::MEM_ACCEPT, &request)?;
                store(scene, C, WINDOW);
                scene.caller(C).release(scene.handle, 0)
            },
        ],
        check: |scene, said| {
            assert!(matches!(said, [Ok(0) | Err(31), Ok(0)]), "{said:?}");
            assert_eq!(revoke(scene), Ok(0));
            reclaims(scene, &[Ok(0)]);
            assert_eq!(scene.world.cpu(A).read(Ipa(PAGE)), Ok(0), "C was promised zeros");
        },
    },
    Play {
        name: "two borrowers and a revocation",
        setup: |step| offered(3, LENT, step),
        cpus: &[
            |scene| scene.caller(B).accept(scene.handle, LENT, &PLACES),
            |scene| scene.caller(C).accept(scene.handle, LENT, &PLACES),
            revoke,
        ],
        check: |scene, said| {
            assert!(matches!(said, [Ok(0) | CLOSED, Ok(0) | CLOSED, Ok(0)]), "{said:?}");
            reclaims(scene, &[Ok(0)]);
        },
    },
    Play {
        name: "an owner that writes while another page of the block is lent",
        setup: nothing,
        cpus: &[
            |scene| lend(scene, PAGE),
            |scene| {
                for page in [0x3000, 0x4000, 0x5000] {
                    store(scene, A, PAGE + page);
                }
                Ok(0)
            },
        ],
        check: |scene, said| {
            assert!(matches!(said, [Ok(_), Ok(0)]), "{said:?}");
            assert_eq!(scene.world.cpu(A).read(Ipa(PAGE + 0x4000)), Ok(1), "no write is lost");
        },
    },
    Play {
        name: "doorbells",
        setup: |step| {
            let scene = nothing(step);
            scene.world.manager.connect_doorbells((A, 1), (B, 0));
            scene
        },
        cpus: &[
            |scene| {
                for flag in [1, 2, 4] {
                    bell(scene, A, DOORBELL_SEND, Capability::doorbell_send(1), flag);
                }
                Ok(0)
            },
            |scene| {
                let receive = Capability::doorbell_receive(0);
                let read = |_| bell(scene, B, DOORBELL_RECEIVE, receive, u64::MAX);
                Ok((0..3).map(read).fold(0, |all, flags| {
                    assert_eq!(all & flags, 0, "a flag is heard once");
                    all | flags
                }) as u32)
            },
        ],
        check: |scene, said| {
            let heard = u64::from(said[1].unwrap());
            let rest = bell(scene, B, DOORBELL_RECEIVE, Capability::doorbell_receive(0), u64::MAX);
            assert_eq!((heard | rest, heard & rest), (7, 0), "every flag is heard once");
        },
    },
    Play {
        name: "news and its reader",
        setup: |step| offered(2, LENT, step),
        cpus: &[
            |scene| {
                for flag in [1, 8] {
                    let head = [scene.handle, flag, 5, 1, 4].map(u32::to_le_bytes).concat();
                    assert_eq!(scene.try_call(A, message::MEM_NOTIFY, &head), Ok(0));
                }
                Ok(0)
            },
            |scene| Ok((0..3).map(|_| scene.caller(B).packets().len()).sum::<usize>() as u32),
        ],
        check: |scene, said| {
            let late = scene.caller(B).packets().len() as u32;
            assert_eq!(said[1].unwrap() + late, 2, "news is heard once");
        },
    },
];

/// A VM writes to a page that is its to write, as its CPU and the abort handler play it.
fn store(scene: &Scene, vm: VmIndex, at: u64) {
    let (cpu, at) = (scene.world.cpu(vm), Ipa(at));
    for _ in 0..100 {
        let allows = |at, access| scene.world.manager.allows(vm, at, access);
        cpu.retrying(at, Access::Write, allows).expect("it is the VM's to write");
        if cpu.write(at, 1).is_ok() {
            return;
        }
    }
    panic!("G7: a page that is the VM's faults again and again");
}

fn switch(point: Point) -> usize {
    match point {
        // A load of one of shuttle's atomics: another task may come before it.
        Point::Next => drop(NEXT.with(|next| next.load(Ordering::SeqCst))),
        Point::Wait => shuttle::thread::yield_now(),
    }
    usize::from(shuttle::current::me())
}

shuttle::thread_local! {
    static NEXT: shuttle::sync::atomic::AtomicBool = shuttle::sync::atomic::AtomicBool::new(false);
}

/// One execution, as `shuttle` schedules it.
fn play(play: &'static Play, step: u32, switches: &AtomicU64) {
    schedule_with(None);
    let scene = Arc::new((play.setup)(step));
    schedule_with(Some(switch));
    let cpus: Vec<_> = play
        .cpus
        .iter()
        .map(|cpu| {
            let scene = scene.clone();
            shuttle::thread::spawn(move || cpu(&scene))
        })
        .collect();
    let said: Vec<_> = cpus.into_iter().map(|cpu| cpu.join().expect("no CPU panics")).collect();
    schedule_with(None);
    switches.fetch_add(shuttle::current::context_switches() as u64, Ordering::Relaxed);
    close(play, &scene, &said);
}

/// One execution, as whatever runs the threads schedules it.
fn play_threads(play: &'static Play, step: u32) {
    let scene = (play.setup)(step);
    let said: Vec<_> = std::thread::scope(|scope| {
        let cpus: Vec<_> = play.cpus.iter().map(|cpu| scope.spawn(|| cpu(&scene))).collect();
        cpus.into_iter().map(|cpu| cpu.join().expect("no CPU panics")).collect()
    });
    close(play, &scene, &said);
}

/// What must be true at the end.
fn close(play: &Play, scene: &Scene, said: &[Said]) {
    scene.settle();
    (play.check)(scene, said);
    scene.settle();
    scene.world.check();
    for vm in scene.world.vms() {
        scene.world.end(vm);
    }
    scene.settle();
    let report = scene.world.check();
    assert_eq!((report.parcels, report.borrowed), (0, 0), "G8: {}", play.name);
}

fn run(scheduler: impl Scheduler + 'static, of: &'static Play, step: u32) -> usize {
    let mut config = shuttle::Config::new();
    config.stack_size = 1 << 19;
    config.silence_warnings = true;
    shuttle::Runner::new(scheduler, config).run(move || play(of, step, &SWITCHES))
}

static SWITCHES: AtomicU64 = AtomicU64::new(0);

/// Plays a scene in all these schedules; its name is a part of this one.
fn explore(name: &str) {
    let of = PLAYS.iter().find(|play| play.name == name).expect("there is such a scene");
    if let Ok(schedule) = std::env::var("RM_SCHEDULE") {
        let step = std::env::var("RM_STEP").map_or(STEP, |step| step.parse().expect("a number"));
        run(ReplayScheduler::new_from_encoded(&schedule), of, step);
        return;
    }
    for step in [STEP, 12] {
        println!("{name}, steps of {step}");
        // Miri switches threads itself, and cannot switch the stacks of tasks.
        if cfg!(miri) {
            play_threads(of, step);
            continue;
        }
        let (mut all, mut bound) = (0, 0);
        // As many preemptions as there is time for.
        for preemptions in 1..=3 {
            let complete = Arc::new(AtomicBool::new(false));
            // With one preemption these are all, but for where an owner writes.
            let limit = if preemptions == 1 { 1000 } else { 100 * effort::<usize>() };
            all = run(Explore::new(preemptions, limit, complete.clone()), of, step);
            if !complete.load(Ordering::Relaxed) {
                break;
            }
            bound = preemptions;
        }
        let random = run(RandomScheduler::new_from_seed(seed(), 20 * effort::<usize>()), of, step);
        let pct = run(PctScheduler::new_from_seed(seed(), 3, 20 * effort::<usize>()), of, step);
        println!("  all with {bound} preemptions; {all}, {random} random, {pct} PCT schedules");
    }
}

fn seed() -> u64 {
    std::env::var("RM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(41)
}

macro_rules! scenes {
    ($($test:ident: $name:literal;)*) => {
        $(#[test]
        fn $test() {
            explore($name);
        })*

        #[test]
        fn every_scene_is_explored() {
            let explored = [$($name),*];
            assert!(PLAYS.iter().map(|play| play.name).eq(explored));
        }
    };
}

scenes! {
    g5_accept_against_revoke: "an accept against a revocation";
    release_against_revoke: "a release against a revocation";
    release_against_reclaim: "a release against a reclaim";
    accept_against_reclaim: "an accept against a reclaim";
    g8_donation_against_reclaim: "an accept of a donation against its reclaim";
    g5_accept_against_death: "an accept against the owner's death";
    revoke_against_death: "a revocation against the borrower's death";
    reclaim_against_death: "a reclaim against the borrower's death";
    two_deaths: "two deaths";
    g6_lookup_against_another: "a lookup while another VM takes the record";
    two_appends: "two appends";
    g1_two_lends: "two lends of one page";
    share_against_revoke: "a share against a revocation of another parcel";
    g3_policy_against_accept: "a change of policy against an accept";
    trim_against_revoke: "a trim against a revocation";
    g2_trim_against_accept: "an owner's trim against an accept";
    two_borrowers: "two borrowers";
    g5_given_up_release_against_accept: "a release that is given up against an accept that wants zeros";
    two_borrowers_and_a_revoke: "two borrowers and a revocation";
    writes_beside_a_lend: "an owner that writes while another page of the block is lent";
    doorbells: "doorbells";
    news_and_its_reader: "news and its reader";
}
