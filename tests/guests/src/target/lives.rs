//! A VM that dies and starts again, many times, in every way and in the middle of sharing.
//!
//! Cast: this program as first VM, which manages the second, and as second VM, which ends as the label of
//! the last parcel says. In each life each of them lends the other memory and shares some.

use rm_client::hvc::{HvcQueues, Sleep};
use rm_client::{
    Acceptance, ErrorCode, ExitKind, Handle, NewParcel, Notice, Rights, Sanitize, Session,
    Transfer, VmState, Vmid, grant, pages,
};

use crate::demo::{granted, refused};
use crate::layout::{PAGE, PAGES, VMID_A, VMID_B, VMID_C, WINDOW};
use crate::{cpu, life, mailbox, memory, probe, raw, timer};

const A: Vmid = Vmid(VMID_A);
const B: Vmid = Vmid(VMID_B);
/// Pages of each parcel, scattered.
const COUNT: u64 = 4;
/// Where A's share starts behind its lend, and B's parcel in its memory.
const SECOND: u64 = PAGES + 32 * PAGE;
const TAG: u32 = 0x11fe;

/// PSCI SYSTEM_OFF.
const SYSTEM_OFF: u64 = 0x8400_0008;

/// How B ends, by the label of the parcel that it accepts last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// It runs without a trap until it is stopped.
    Spin = 0,
    /// It gives up.
    Exit = 1,
    /// It touches what is not there.
    Fault = 2,
    /// It switches itself off.
    Off = 3,
}

const WAYS: [Way; 4] = [Way::Spin, Way::Exit, Way::Fault, Way::Off];

impl Way {
    const fn kind(self) -> ExitKind {
        match self {
            Self::Spin => ExitKind::Stopped,
            Self::Exit => ExitKind::Call,
            Self::Fault => ExitKind::Fault,
            Self::Off => ExitKind::PowerOff,
        }
    }
}

/// The program, for four lives of B, one for each way to end.
pub fn few() {
    act(WAYS.len() as u64);
}

/// The program, for as many lives as it takes to run out of what a life would leave behind.
pub fn many() {
    act(200);
}

/// As [`few`], while a third VM keeps the CPU busy on which the second has its home: what a dead VM had
/// taken is home within a number of time slices all the same. The clock counts instructions.
pub fn beside_a_spinner() {
    let mut role = act(WAYS.len() as u64);
    let slice = timer::microseconds(1000);
    println!("the longest reset took {} thousandths of a time slice", role.longest * 1000 / slice);
    assert!(role.longest < SLICES * slice, "a reset took {} ticks", role.longest);
    granted("stopping the spinner", role.session.stop_vm(Vmid(VMID_C)));
}

/// Keeps its CPU busy, without a trap.
pub fn spin() {
    loop {
        core::hint::spin_loop();
    }
}

/// Slices within which what a dead VM had a part in is home.
const SLICES: u64 = 5;

fn act(lives: u64) -> Role {
    let session = mailbox::sleeping_session();
    let mut role = Role { session, longest: 0 };
    if granted("asking who I am", role.session.vmid()) == A {
        role.manage(lives);
    } else {
        role.live();
    }
    role
}

struct Role {
    session: Session<HvcQueues<Sleep>>,
    /// Ticks of the longest reset.
    longest: u64,
}

impl Role {
    fn manage(&mut self, lives: u64) {
        for life in 0..lives {
            let way = WAYS[(life % 4) as usize];
            let lent = self.offer(Transfer::Lend, PAGES, 0);
            let shared = self.offer(Transfer::Share, SECOND, way as u32);
            for _ in 0..2 {
                self.expect("that B has accepted", |notice| matches!(notice, Notice::Accepted(_)));
            }
            let theirs = self.accept_next(WINDOW);
            assert!(memory::read(WINDOW) != 0, "B has written to what it lends me");
            if way == Way::Spin {
                granted("stopping B", self.session.stop_vm(B));
            }
            self.bury(way, &[lent, shared], theirs);
            // What B had been lent is wiped, what both shared is as it was.
            scattered(PAGES).iter().for_each(|range| memory::check_zero(range.ipa, 1));
            scattered(SECOND)
                .iter()
                .for_each(|range| memory::check(range.ipa, 1, u64::from(VMID_B)));
            if life + 1 < lives {
                granted("starting B", self.session.start_vm(B));
                self.expect_state(VmState::Init);
                self.expect_state(VmState::Running);
            }
        }
        println!("B has lived {lives} times, and all is home");
    }

    /// B ends; A has what B took from it taken back.
    fn bury(&mut self, way: Way, mine: &[Handle; 2], theirs: Handle) {
        self.expect_state(VmState::Exited);
        self.expect("how B ended", |notice| {
            matches!(notice, Notice::Exited(exited) if exited.vmid == B && exited.kind == way.kind())
        });
        let early = self.session.reclaim(mine[0], Sanitize::empty());
        refused("reclaiming what the dead B holds", early, ErrorCode::MemoryInUse);
        let early = self.session.start_vm(B);
        refused("starting B before it was reset", early, ErrorCode::VmState);
        let start = cpu::now();
        granted("resetting B", self.session.reset_vm(B));
        self.expect_state(VmState::Resetting);
        for parcel in mine.iter().rev() {
            self.expect(
                "that B's part is over, the newest first",
                |notice| matches!(notice, Notice::Released(news) if news.handle == *parcel),
            );
        }
        self.expect(
            "that B's own parcel goes",
            |notice| matches!(notice, Notice::Recall(recall) if recall.handle == theirs),
        );
        self.expect_state(VmState::Reset);
        self.longest = self.longest.max(cpu::now() - start);
        probe::expect_no_access(WINDOW);
        let released = self.session.release(theirs, Sanitize::empty());
        refused("releasing what is gone", released, ErrorCode::HandleInvalid);
        for parcel in mine {
            granted("reclaiming", self.session.reclaim(*parcel, Sanitize::empty()));
        }
    }

    /// One life of B.
    fn live(&mut self) {
        for page in 0..COUNT {
            memory::check_zero(PAGES + 2 * page * PAGE, 1);
        }
        let mut way = 0;
        for at in [WINDOW, WINDOW + 16 * PAGE] {
            way = self.accept_as_offered(at);
            (0..COUNT).for_each(|page| memory::fill(at + page * PAGE, 1, u64::from(VMID_B)));
        }
        self.offer(Transfer::Lend, PAGES, 0);
        match WAYS[way as usize] {
            Way::Spin => loop {
                core::hint::spin_loop();
            },
            Way::Exit => drop(life::session().exit(3)),
            Way::Fault => memory::write(WINDOW - PAGE, 1),
            Way::Off => drop(raw::hvc([SYSTEM_OFF, 0, 0, 0, 0, 0])),
        }
        loop {
            cpu::wait_for_interrupt();
        }
    }

    /// Fills pages, makes them a parcel for the other VM, and tells it.
    fn offer(&mut self, transfer: Transfer, at: u64, label: u32) -> Handle {
        let ranges = scattered(at);
        ranges.iter().for_each(|range| memory::fill(range.ipa, 1, 7));
        let me = granted("asking who I am", self.session.vmid());
        let other = if me == A { B } else { A };
        let parcel = if transfer == Transfer::Share {
            let acl = [grant(me, Rights::RW), grant(other, Rights::RW)];
            self.session.share(&NewParcel::new(&ranges, &acl).label(label))
        } else {
            self.session.lend(&NewParcel::new(&ranges, &[grant(other, Rights::RW)]).label(label))
        };
        let parcel = granted("offering", parcel);
        granted("telling", self.session.notify_shared(parcel, TAG, &[other]));
        parcel
    }

    fn accept_next(&mut self, at: u64) -> Handle {
        let (parcel, ..) = self.hear_offer();
        let wanted = Acceptance::new(parcel, Transfer::Lend).contiguous();
        granted("accepting", self.session.accept_at(&wanted, &[pages(at, COUNT)]));
        parcel
    }

    /// Accepts the next offer, tells the owner, and gives the label.
    fn accept_as_offered(&mut self, at: u64) -> u32 {
        let (parcel, transfer, label) = self.hear_offer();
        let wanted = Acceptance::new(parcel, transfer).contiguous();
        granted("accepting", self.session.accept_at(&wanted, &[pages(at, COUNT)]));
        granted("telling", self.session.notify_accepted(parcel, TAG));
        label
    }

    fn hear_offer(&mut self) -> (Handle, Transfer, u32) {
        loop {
            match granted("waiting", self.session.wait_notice()) {
                Notice::Shared(offered) => {
                    let offer = offered.offer;
                    return (offer.handle, offer.transfer, offer.label);
                }
                Notice::Status(_) => {}
                other => panic!("I hear {other:x?}, and no offer"),
            }
        }
    }

    fn expect_state(&mut self, state: VmState) {
        self.expect("of a state of B", |notice| {
            matches!(notice, Notice::Status(status) if status.vmid == B && status.state == state)
        });
    }

    fn expect(&mut self, what: &str, is_it: impl Fn(&Notice<'_>) -> bool) {
        let notice = granted("waiting", self.session.wait_notice());
        assert!(is_it(&notice), "I hear {notice:x?}, not {what}");
    }
}

/// Every second page from `at` on.
fn scattered(at: u64) -> [rm_client::SglEntry; COUNT as usize] {
    core::array::from_fn(|index| pages(at + 2 * index as u64 * PAGE, 1))
}
