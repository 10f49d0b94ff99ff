//! VMs that start again by themselves, and what their peers see of it.
//!
//! Cast: [`mortal_owner`] as first VM and [`heir`] as second: the owner of a lend and of their channel dies
//! twice, as it is told, and lives on at the third time. Or [`taker`] as first VM and [`clinging`] as second:
//! the borrower is restarted for touching what was taken from it.

use rm_client::hvc::{HvcQueues, Sleep};
use rm_client::{
    Acceptance, ErrorCode, Handle, NewParcel, Notice, Rights, Sanitize, Session, Transfer, VmState,
    Vmid, grant, pages,
};

use crate::channel::Channel;
use crate::demo::{granted, refused};
use crate::layout::{LINK_AB, PAGES, VMID_A, VMID_B, WINDOW};
use crate::{life, mailbox, memory, probe};

type Queued = Session<HvcQueues<Sleep>>;

const A: Vmid = Vmid(VMID_A);
const B: Vmid = Vmid(VMID_B);
const COUNT: u64 = 3;
const TAG: u32 = 0x2fe;

/// Words on the channel.
const DIE: u64 = 1;
const LIVE: u64 = 2;

/// Lends memory, and dies or lives as the borrower says.
pub fn mortal_owner() {
    let mut session = mailbox::sleeping_session();
    memory::check_zero(PAGES, COUNT);
    let parcel = lend(&mut session, 5);
    match Channel::owner(LINK_AB).hear() {
        DIE => {
            println!("I die with what I lent");
            let _ = life::session().exit(1);
        }
        LIVE => {
            expect_status(
                &mut session,
                "B released",
                |notice| matches!(notice, Notice::Released(news) if news.handle == parcel),
            );
            granted("reclaiming", session.reclaim(parcel, Sanitize::empty()));
            memory::check(PAGES, COUNT, 6);
            println!("B gave back what I lent in this life");
        }
        other => panic!("I do not know {other:#x}"),
    }
}

/// Borrows, and outlives the owner.
pub fn heir() {
    let mut session = mailbox::sleeping_session();
    for last in [false, false, true] {
        let parcel = accept(&mut session);
        memory::check(WINDOW, COUNT, 5);
        memory::fill(WINDOW, COUNT, 6);
        let owner = Channel::peer(LINK_AB);
        if last {
            owner.say(LIVE);
            granted("releasing", session.release(parcel, Sanitize::empty()));
            granted("telling", session.notify_released(parcel, TAG));
            break;
        }
        owner.say(DIE);
        expect_state(&mut session, A, VmState::Exited);
        expect_state(&mut session, A, VmState::Resetting);
        // Once for what it lent, once for the channel.
        for _ in 0..2 {
            expect_status(&mut session, "A takes it back", |notice| {
                matches!(notice, Notice::Recall(_))
            });
        }
        for state in [VmState::Reset, VmState::Init, VmState::Running] {
            expect_state(&mut session, A, state);
        }
        probe::expect_no_access(WINDOW);
        let released = session.release(parcel, Sanitize::empty());
        refused("releasing what is gone", released, ErrorCode::HandleInvalid);
    }
    println!("I outlived A twice");
}

/// Lends memory and takes it back, which costs the borrower its life.
pub fn taker() {
    let mut session = mailbox::sleeping_session();
    for last in [false, true] {
        let parcel = lend(&mut session, 5);
        let b = Channel::owner(LINK_AB);
        b.expect(LIVE);
        if last {
            b.say(LIVE);
            expect_status(
                &mut session,
                "B released",
                |notice| matches!(notice, Notice::Released(news) if news.handle == parcel),
            );
        } else {
            b.say(DIE);
            granted("revoking", session.revoke(parcel));
            let life = [
                VmState::Exited,
                VmState::Resetting,
                VmState::Reset,
                VmState::Init,
                VmState::Running,
            ];
            for (at, state) in life.into_iter().enumerate() {
                if at == 2 {
                    // B's end of the channel.
                    expect_status(
                        &mut session,
                        "B is gone",
                        |notice| matches!(notice, Notice::Released(news) if news.borrower == B),
                    );
                }
                expect_state(&mut session, B, state);
            }
        }
        granted("reclaiming", session.reclaim(parcel, Sanitize::empty()));
    }
    println!("B was restarted for touching what I took back");
}

/// Goes on to use what it has accepted, until it is told to give it back.
pub fn clinging() {
    let mut session = mailbox::sleeping_session();
    memory::check_zero(PAGES, COUNT);
    let parcel = accept(&mut session);
    let a = Channel::peer(LINK_AB);
    a.say(LIVE);
    if a.hear() == DIE {
        loop {
            memory::write(WINDOW, 1);
        }
    }
    granted("releasing", session.release(parcel, Sanitize::empty()));
    granted("telling", session.notify_released(parcel, TAG));
    println!("I live again, and give back");
}

fn lend(session: &mut Queued, seed: u64) -> Handle {
    memory::fill(PAGES, COUNT, seed);
    let (ranges, acl) = ([pages(PAGES, COUNT)], [grant(B, Rights::RW)]);
    let parcel = granted("lending", session.lend(&NewParcel::new(&ranges, &acl)));
    granted("telling", session.notify_shared(parcel, TAG, &[B]));
    parcel
}

fn accept(session: &mut Queued) -> Handle {
    let parcel = loop {
        match granted("waiting", session.wait_notice()) {
            Notice::Shared(offered) => break offered.offer.handle,
            Notice::Status(_) => {}
            other => panic!("I hear {other:x?}, and no offer"),
        }
    };
    let wanted = Acceptance::new(parcel, Transfer::Lend).contiguous();
    granted("accepting", session.accept_at(&wanted, &[pages(WINDOW, COUNT)]));
    parcel
}

fn expect_state(session: &mut Queued, vmid: Vmid, state: VmState) {
    expect_status(
        session,
        "a state",
        |notice| matches!(notice, Notice::Status(status) if status.vmid == vmid && status.state == state),
    );
}

fn expect_status(session: &mut Queued, what: &str, is_it: impl Fn(&Notice<'_>) -> bool) {
    let notice = granted("waiting", session.wait_notice());
    assert!(is_it(&notice), "I hear {notice:x?}, not {what}");
}
