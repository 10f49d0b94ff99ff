//! Requests of every size, so that EL2 can tell how long the longest of their steps keeps a CPU.
//!
//! Cast: `residency_small`, `_medium` or `_large` as first VM, which owns parcels of many extents and many
//! parcels, and `residency_peer` as second VM, on one CPU, linked. Every call is made at least once. In
//! the end the owner goes with all that it has lent, while its borrower runs.

use rm_client::hvc::{Hvc, HvcQueues, Native};
use rm_client::{
    Acceptance, Direct, ErrorCode, Handle, NewParcel, Poll, Queues, Rights, Sanitize, Session,
    SglEntry, Transfer, Transport, Vmid, grant, pages,
};

use crate::channel::Channel;
use crate::demo::{DONE, granted, refused};
use crate::layout::{
    BLOCK, LINK_AB, PAGE, PAGES, RESIDENCY_EXTENTS, RESIDENCY_PARCELS, VMID_A, VMID_B,
};
use crate::{cpu, probe, timer};

/// Entries of the longest list.
const LIST: usize = 512;
/// Blocks over which a parcel is scattered, whatever its size.
const BLOCKS: u64 = RESIDENCY_EXTENTS / (BLOCK / PAGE);
/// Behind the scattered pages: one for each of many parcels.
const CROWD: u64 = PAGES + RESIDENCY_EXTENTS * PAGE;
const TAG: u32 = 0x5e1f;
/// Ticks that a waiting side sleeps, so that the other has the CPU.
const NAP: u64 = 50_000;
/// Ticks that the borrower runs between two sleeps while its owner's end is under way: its entries are
/// timed then, and while it sleeps the steps are done without any.
const RUN: u64 = 2_000_000;

/// A session that can name a full list.
type LongSession = Session<Hvc, 8704>;

/// One extent and one parcel.
pub fn small() {
    owner(1, 1);
}

/// One full list, and as many parcels as a VM usually may have.
pub fn medium() {
    owner(LIST as u64, 64);
}

/// 120 MiB in pages, and 1,024 parcels.
pub fn large() {
    owner(RESIDENCY_EXTENTS / 4, RESIDENCY_PARCELS / 4);
}

/// Page number `index` of a parcel: neighbours lie in different blocks.
fn place(index: u64) -> SglEntry {
    pages(PAGES + index % BLOCKS * BLOCK + index / BLOCKS * PAGE, 1)
}

/// Part of a parcel's list, from page number `first` on.
fn list(ranges: &mut [SglEntry; LIST], first: u64, extents: u64) -> &[SglEntry] {
    let count = (extents - first).min(LIST as u64) as usize;
    for (range, index) in ranges[..count].iter_mut().zip(first..) {
        *range = place(index);
    }
    &ranges[..count]
}

/// Lends B as many pages, list by list.
fn lend<T: Transport, const N: usize>(session: &mut Session<T, N>, extents: u64) -> Handle {
    let acl = [grant(Vmid(VMID_B), Rights::RW)];
    let mut ranges = [pages(0, 0); LIST];
    let first = NewParcel::new(list(&mut ranges, 0, extents), &acl).sanitized();
    if extents <= LIST as u64 {
        return granted("lending", session.lend(&first));
    }
    let parcel = granted("lending", session.lend(&first.unfinished()));
    let mut next = LIST as u64;
    while next < extents {
        let more = list(&mut ranges, next, extents);
        next += more.len() as u64;
        granted("appending", session.append(parcel, more, next == extents));
    }
    parcel
}

fn owner(extents: u64, parcels: u64) {
    let mut session = LongSession::with_capacity(Direct(Native));
    let mut queued = Session::<HvcQueues<Poll>, 8704>::with_capacity(Queues::new(Native, Poll));
    let b = Channel::owner(LINK_AB).with_naps(NAP);

    let listed = lend(&mut queued, extents.min(LIST as u64));
    granted("reclaiming", queued.reclaim(listed, Sanitize::SANITIZE));

    for released in [true, false] {
        let parcel = lend(&mut session, extents);
        let all = session.notify_shared(parcel, TAG, &[Vmid(VMID_B)]);
        granted("telling", all);
        println!("VM {VMID_A:#x} has lent {extents} extents");
        b.say(released.into());
        b.say_handle(parcel);
        b.expect(DONE);
        println!("they are accepted");
        granted("revoking", session.revoke(parcel));
        granted("reclaiming", session.reclaim(parcel, Sanitize::SANITIZE));
    }

    let acl = [grant(Vmid(VMID_B), Rights::RW)];
    b.say(parcels);
    for index in 0..parcels {
        let page = [pages(CROWD + index * PAGE, 1)];
        let parcel = granted("lending", session.lend(&NewParcel::new(&page, &acl)));
        b.say_handle(parcel);
        b.expect(DONE);
    }
    println!("{parcels} parcels are accepted");
    let missing = [pages(CROWD - PAGE, 2)];
    let found = session.lookup(&NewParcel::new(&missing, &acl));
    refused("looking for no parcel", found, ErrorCode::LookupFailed);

    let parcel = lend(&mut session, extents);
    b.say_handle(parcel);
    b.expect(DONE);
    println!("VM {VMID_A:#x} leaves {extents} extents and {parcels} parcels behind");
}

/// The borrower.
pub fn borrower() {
    let mut session = LongSession::with_capacity(Direct(Native));
    let a = Channel::peer(LINK_AB).with_naps(NAP);
    for _ in 0..2 {
        let released = a.hear() != 0;
        let parcel = a.hear_handle();
        borrow(&mut session, parcel);
        if released {
            granted("releasing", session.release(parcel, Sanitize::SANITIZE));
        }
        a.say(DONE);
    }
    for _ in 0..a.hear() {
        let parcel = a.hear_handle();
        let wanted = Acceptance::new(parcel, Transfer::Lend).contiguous();
        granted("accepting", session.accept(&wanted).map(drop));
        a.say(DONE);
    }
    let parcel = a.hear_handle();
    let last = borrow(&mut session, parcel);
    a.say(DONE);
    // All of it goes with its owner; the last page goes last.
    while probe::write(last, 1).is_ok() {
        let start = cpu::now();
        while !cpu::passed(start, RUN) {}
        timer::after(20 * RUN);
        cpu::wait_for_interrupt();
        timer::stop();
    }
}

/// Accepts a parcel wherever there is room, and says where its last page is.
fn borrow(session: &mut LongSession, parcel: Handle) -> u64 {
    let mut last = 0;
    let wanted = Acceptance::new(parcel, Transfer::Lend);
    granted("accepting", session.accept_all(&wanted, |place| last = place.ipa));
    last
}
