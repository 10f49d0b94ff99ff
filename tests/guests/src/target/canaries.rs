//! Memory that changes hands in every way, for the host to search when all is over.
//!
//! Cast: `canary_owner` as first VM, linked with `canary_borrower` and `canary_cautious`, whose pages are
//! wiped whatever the calls say. Each fills what it has with a canary made of a seed that it tells; the
//! host searches all of the machine's memory for them, see [`FIELDS`] for what it must find.

use rm_client::hvc::Hvc;
use rm_client::{
    Acceptance, Error, ErrorCode, Handle, NewParcel, Rights, Sanitize, Session, SglEntry, Transfer,
    Vmid, grant, pages,
};

use crate::channel::Channel;
use crate::demo::{DONE, granted};
use crate::layout::{
    BEACON, FIELD, FIELDS, LINK_AB, LINK_AC, Left, PAGE, PAGES, VMID_A, VMID_B, VMID_C, WINDOW,
    beacon, canary,
};
use crate::{cpu, life, memory};

/// Pages of each parcel.
const COUNT: u64 = FIELD / 2;
const B: Vmid = Vmid(VMID_B);
const C: Vmid = Vmid(VMID_C);

/// Words that begin a turn of a borrower: how it accepts and what it does then.
const PLAIN: u64 = 1;
const READ_ONLY: u64 = 2;
const SANITIZED_RELEASE: u64 = 3;
const SANITIZED_ACCEPT: u64 = 4;
const HOLD: u64 = 5;
const HOLD_SHARE: u64 = 6;
const DIE: u64 = 7;
const END: u64 = 8;

/// What is done in each field.
const TURNS: [u64; FIELDS.len()] = [
    PLAIN,
    READ_ONLY,
    READ_ONLY,
    SANITIZED_RELEASE,
    SANITIZED_ACCEPT,
    PLAIN,
    HOLD,
    HOLD_SHARE,
    PLAIN,
    DIE,
];

/// Tells the host this VM's seed, and marks its memory.
fn introduce() -> u64 {
    let seed = cpu::now();
    fill(BEACON, beacon(seed));
    println!("CANARY {seed:#x}");
    canary(seed)
}

/// Fills a page with a word.
fn fill(at: u64, word: u64) {
    for at in (at..at + PAGE).step_by(8) {
        memory::write(at, word);
    }
}

/// The pages of the parcel in a field.
fn parcel_in(field: usize) -> [SglEntry; COUNT as usize] {
    let first = PAGES + field as u64 * FIELD * PAGE;
    core::array::from_fn(|page| pages(first + 2 * page as u64 * PAGE, 1))
}

/// The VM that owns the pages.
pub fn owner() {
    let word = introduce();
    for page in 0..FIELDS.len() as u64 * FIELD {
        fill(PAGES + page * PAGE, word);
    }
    let mut session = life::session();
    let (b, c) = (Channel::owner(LINK_AB), Channel::owner(LINK_AC));
    for (field, left) in FIELDS.into_iter().enumerate() {
        let peer = if field == 8 { C } else { B };
        let acl = [grant(Vmid(VMID_A), Rights::RW), grant(peer, Rights::RW)];
        let ranges = parcel_in(field);
        let shares = field == 7;
        let parcel = NewParcel::new(&ranges, if shares { &acl } else { &acl[1..] });
        let parcel = if field == 2 { parcel.sanitized() } else { parcel };
        let made = if shares { session.share(&parcel) } else { session.lend(&parcel) };
        let handle = granted("offering", made);
        let channel = if peer == C { &c } else { &b };
        channel.say(TURNS[field]);
        channel.say_handle(handle);
        channel.expect(DONE);
        if matches!(TURNS[field], HOLD | HOLD_SHARE) {
            granted("revoking", session.revoke(handle));
        }
        let flags = if field == 5 { Sanitize::SANITIZE } else { Sanitize::empty() };
        take_back(&mut session, handle, flags);
        let owners = memory::read(ranges[0].ipa) == word;
        let zero = memory::read(ranges[0].ipa) == 0;
        assert!(owners == (left == Left::Owners) && zero == (left == Left::Zeros), "field {field}");
    }
    c.say(END);
    println!("all {} fields are mine again", FIELDS.len());
}

/// Reclaims a parcel as soon as nobody holds it.
fn take_back(session: &mut Session<Hvc>, handle: Handle, flags: Sanitize) {
    let start = cpu::now();
    while let Err(error) = session.reclaim(handle, flags) {
        assert!(error == Error::Refused(ErrorCode::MemoryInUse), "reclaiming: {error}");
        assert!(!cpu::passed(start, 30 * cpu::frequency()), "a borrower does not let go");
        cpu::relax();
    }
}

/// The VM that ends with a part of a parcel.
pub fn borrower() {
    borrow(&Channel::peer(LINK_AB));
}

/// The VM whose pages are wiped always.
pub fn cautious() {
    borrow(&Channel::peer(LINK_AC));
}

fn borrow(a: &Channel) {
    let word = introduce();
    let mut session = life::session();
    loop {
        let turn = a.hear();
        if turn == END {
            return;
        }
        let handle = a.hear_handle();
        let transfer = if turn == HOLD_SHARE { Transfer::Share } else { Transfer::Lend };
        let wanted = Acceptance::new(handle, transfer).contiguous();
        let wanted = if turn == SANITIZED_ACCEPT { wanted.sanitize() } else { wanted };
        granted("accepting", session.accept_at(&wanted, &[pages(WINDOW, COUNT)]));
        if turn != READ_ONLY {
            (0..COUNT).for_each(|page| fill(WINDOW + page * PAGE, word));
        }
        let flags = if turn == SANITIZED_RELEASE { Sanitize::SANITIZE } else { Sanitize::empty() };
        match turn {
            HOLD | HOLD_SHARE => {}
            DIE => {
                a.say(DONE);
                println!("I end with what I filled");
                return;
            }
            _ => granted("releasing", session.release(handle, flags)),
        }
        a.say(DONE);
    }
}
