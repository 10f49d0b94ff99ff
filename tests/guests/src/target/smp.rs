//! Two vCPUs: one reads a block without pause while the other gives single pages of it away and takes
//! them back; then both call at once.
//!
//! Cast: one VM with two vCPUs on two CPUs. The borrower that its access lists name need not exist.

use core::sync::atomic::{AtomicU64, Ordering};

use rm_client::{
    Error, Handle, NewParcel, Rights, Sanitize, Session, Transport, TransportError, Vmid, grant,
    pages,
};

use crate::layout::{BLOCK, PAGE, PAGES, VMID_A, VMID_B};
use crate::{cpu, demo, life, memory};

/// Pages that are shared and reclaimed under the reader.
const ROUNDS: u64 = 300;
/// Calls that each vCPU makes while the other does too.
const CALLS: u64 = 200;
/// EL2 says so when a long call of the VM is under way.
const BUSY: i64 = 31;

/// How far the two are.
static STAGE: AtomicU64 = AtomicU64::new(0);
/// Rounds of the reader through the whole block.
static READS: AtomicU64 = AtomicU64::new(0);
const READING: u64 = 1;
const CALLING: u64 = 2;
const DONE: u64 = 3;

fn wait_for(stage: u64) {
    while STAGE.load(Ordering::Acquire) < stage {
        cpu::relax();
    }
}

/// What the first vCPU does.
pub fn first() {
    memory::fill(PAGES, BLOCK / PAGE, 1);
    let mut session = life::session();
    STAGE.store(READING, Ordering::Release);
    while READS.load(Ordering::Acquire) == 0 {
        cpu::relax();
    }
    for round in 0..ROUNDS {
        // Odd strides, so that blocks are cut and merged in changing places.
        let page = PAGES + (round * 37 % (BLOCK / PAGE)) * PAGE;
        let parcel = demo::granted("sharing", share(&mut session, page));
        demo::granted("reclaiming", session.reclaim(parcel, Sanitize::empty()));
    }
    let reads = READS.load(Ordering::Acquire);
    STAGE.store(CALLING, Ordering::Release);
    println!("{ROUNDS} pages were shared and reclaimed while the block was read {reads} times");

    call_without_pause(PAGES);
    wait_for(DONE);
    memory::check(PAGES, BLOCK / PAGE, 1);
    println!("both vCPUs made {CALLS} rounds of calls at once");
}

/// What the second vCPU does. An abort would end the program.
pub fn second() {
    wait_for(READING);
    while STAGE.load(Ordering::Acquire) == READING {
        memory::check(PAGES, BLOCK / PAGE, 1);
        READS.store(READS.load(Ordering::Relaxed) + 1, Ordering::Release);
    }
    call_without_pause(PAGES + BLOCK / 2);
    STAGE.store(DONE, Ordering::Release);
}

/// Shares a page with a borrower that may read it.
fn share<T: Transport>(session: &mut Session<T>, page: u64) -> Result<Handle, Error> {
    let acl = [grant(Vmid(VMID_A), Rights::RWX), grant(Vmid(VMID_B), Rights::R)];
    session.share(&NewParcel::new(&[pages(page, 1)], &acl))
}

/// Calls of both kinds: one that changes nothing, and two that change page tables.
fn call_without_pause(page: u64) {
    let mut session = life::session();
    for _ in 0..CALLS {
        let vmid = when_free(|| session.vmid());
        assert!(vmid == Vmid(VMID_A), "I am {vmid:?}");
        let parcel = when_free(|| share(&mut session, page));
        when_free(|| session.reclaim(parcel, Sanitize::empty()));
    }
}

/// Repeats a call while the VM's other vCPU has a long one under way.
fn when_free<T>(mut call: impl FnMut() -> Result<T, Error>) -> T {
    loop {
        match call() {
            Err(Error::Transport(TransportError::Hypercall(BUSY))) => cpu::relax(),
            outcome => return demo::granted("calling", outcome),
        }
    }
}
