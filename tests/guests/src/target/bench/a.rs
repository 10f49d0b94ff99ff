//! The owner's half.

use rm_client::{
    AclEntry, NewParcel, Rights, Sanitize, Session, SglEntry, Transport, Vmid, grant, pages,
};

use super::{
    CONTIGUOUS, END, FROM_A, FROM_B, NAP_A, PIECEWISE, QUEUED, ROUNDS, bells, count, long_session,
    mailbox, measure, median, queue_session, spin,
};
use crate::channel::Channel;
use crate::demo::granted;
use crate::layout::{BLOCK, LINK_AB, PAGE, PAGES, RAM, VMID_A, VMID_B};
use crate::memory;

const ACL: [AclEntry; 2] = [grant(Vmid(VMID_A), Rights::RWX), grant(Vmid(VMID_B), Rights::RW)];

/// Where the cases take their pages, so that each finds its blocks as it expects them.
const FEW: u64 = PAGES;
const SCATTERED: u64 = RAM + 2 * BLOCK;
const MANY: u64 = RAM + 4 * BLOCK + PAGE;
const WHOLE: u64 = RAM + 6 * BLOCK;

/// Instructions of the four calls.
#[derive(Clone, Copy)]
struct Cycle {
    share: u64,
    accept: u64,
    release: u64,
    reclaim: u64,
}

/// The program.
pub fn main() {
    calibrate();
    // No call has the family's last number.
    let null = measure(|| {
        let _ = crate::hvc_immediate!("0x61ff", [0; 6]);
    });
    println!("BENCH null_hypercall {null}");
    let mut session = long_session();
    let trivial = measure(|| {
        let _ = granted("asking who I am", session.vmid());
    });
    println!("BENCH trivial_call {trivial}");
    let mut queued = queue_session();
    println!("BENCH queue_call {}", mailbox::polling(&mut queued));
    println!("BENCH queue_call_asleep {}", mailbox::asleep());

    let b = Channel::owner(LINK_AB).with_naps(NAP_A);
    println!(
        "BENCH notices {}",
        mailbox::tell_and_hear(&b, &NewParcel::new(&[pages(FEW, 1)], &ACL))
    );
    println!("BENCH doorbells {}", bells::ping(&b));
    let mut ranges = [pages(0, 0); 512];
    for (name, count) in [("1_page", 1), ("16_contiguous", 16)] {
        cycle(&mut session, &b, CONTIGUOUS, name, &[pages(FEW, count)]);
    }
    cycle(&mut session, &b, CONTIGUOUS, "512_contiguous", &[pages(MANY, 512)]);
    cycle(&mut session, &b, CONTIGUOUS, "block_2m", &[pages(WHOLE, BLOCK / PAGE)]);
    cycle(&mut queued, &b, QUEUED, "1_page_queued", &[pages(FEW, 1)]);
    cycle(&mut queued, &b, QUEUED, "512_contiguous_queued", &[pages(MANY, 512)]);
    for (name, count) in [("16_scattered", 16), ("512_scattered", 512)] {
        for (index, range) in (0..).zip(&mut ranges[..count]) {
            *range = pages(SCATTERED + index * 2 * PAGE, 1);
        }
        cycle(&mut session, &b, PIECEWISE, name, &ranges[..count]);
    }
    b.say(END);
}

/// A loop of two instructions must cost 2.00 a round.
fn calibrate() {
    let (short, long) = (count(|| spin(1_000)).0, count(|| spin(101_000)).0);
    let hundredths = (long - short) / 1_000;
    println!("BENCH calibration {}.{:02}", hundredths / 100, hundredths % 100);
}

/// Measures a case, and tells the sum and the parts.
fn cycle<T: Transport, const N: usize>(
    session: &mut Session<T, N>,
    b: &Channel,
    kind: u64,
    name: &str,
    ranges: &[SglEntry],
) {
    b.say(kind);
    once(session, b, ranges);
    let cycles = [(); ROUNDS].map(|()| once(session, b, ranges));
    let part = |of: fn(&Cycle) -> u64| median(cycles.each_ref().map(of));
    let whole = part(|cycle| cycle.share + cycle.accept + cycle.release + cycle.reclaim);
    println!("BENCH {name} {whole}");
    println!("BENCH {name}.share {}", part(|cycle| cycle.share));
    println!("BENCH {name}.accept {}", part(|cycle| cycle.accept));
    println!("BENCH {name}.release {}", part(|cycle| cycle.release));
    println!("BENCH {name}.reclaim {}", part(|cycle| cycle.reclaim));
}

/// One cycle, in which each side sees what the other wrote.
fn once<T: Transport, const N: usize>(
    session: &mut Session<T, N>,
    b: &Channel,
    ranges: &[SglEntry],
) -> Cycle {
    ranges.iter().for_each(|range| memory::fill(range.ipa, range.size / PAGE, FROM_A));
    let parcel = NewParcel::new(ranges, &ACL);
    let (share, handle) = count(|| session.share(&parcel));
    let handle = granted("sharing", handle);
    b.say_handle(handle);
    let (accept, release) = (b.hear(), b.hear());
    let (reclaim, outcome) = count(|| session.reclaim(handle, Sanitize::empty()));
    granted("reclaiming", outcome);
    ranges.iter().for_each(|range| memory::check(range.ipa, range.size / PAGE, FROM_B));
    Cycle { share, accept, release, reclaim }
}
