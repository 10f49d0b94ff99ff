//! A VM that gives its peer memory of a named heap, until that peer has ended and all is home.

use rm_client::supplier::{Heap, Supplier, Terms};
use rm_client::{Error, VmState};

use super::PARTNER;
use super::wire::Wire;
use crate::demo::granted;
use crate::layout::{LINK_AB, PAGE, PAGES};
use crate::{cpu, life, memory};

/// The heap, by its name.
pub(crate) const HEAP: &str = "frames";
/// Its pages, and the granule of its blocks.
const HEAP_PAGES: u64 = 64;
/// Bytes that sizes are rounded up to.
pub(crate) const GRANULE: u64 = 2 * PAGE;
/// Seconds that a consumer waits for an answer.
pub(crate) const PATIENCE: u64 = 4;

/// The program.
pub fn main() {
    granted("supplying memory", supply());
}

fn supply() -> Result<(), Error> {
    let (mut session, mut wire) = (life::session(), Wire::owner(LINK_AB));
    memory::fill(PAGES, HEAP_PAGES, 0xa);
    let heap = Heap::new(HEAP, PAGES, HEAP_PAGES * PAGE, GRANULE).expect("whole granules");
    let patience = 2 * PATIENCE * cpu::frequency();
    let terms = Terms { bytes: 32 * PAGE, objects: 4, patience };
    let me = session.vmid()?;
    let mut supplier: Supplier<1> = Supplier::new(me, [heap], terms).expect("one heap, one name");
    println!("my heap {HEAP:?} has {HEAP_PAGES} pages; my peer may have half of it");

    let mut given = 0;
    loop {
        if let Some(message) = wire.hear() {
            let now = cpu::now();
            if let Some(answer) = supplier.receive(now, &mut session, PARTNER, message) {
                wire.send(&answer);
            }
            if supplier.objects() != given {
                given = supplier.objects();
                let free = supplier.free_bytes(HEAP).unwrap_or(0) / PAGE;
                println!("{given} objects are given away, {free} pages are free");
            }
        } else if !matches!(session.vm_state(PARTNER)?, VmState::Running | VmState::Ready) {
            break;
        }
    }
    println!("my peer has ended and left me {} objects to fetch", supplier.objects());
    assert!(supplier.objects() == 1, "the peer died with one object");
    // A VM that waits for its reset keeps what it has until then: this does not wait for it.
    while supplier.revoke(&mut session, PARTNER).is_err() {
        cpu::relax();
    }
    assert!(supplier.objects() == 0);
    assert!(supplier.free_bytes(HEAP) == Some(HEAP_PAGES * PAGE));
    assert!(supplier.counts().refused == 2 && supplier.counts().poisoned == 0);
    memory::check_zero(PAGES, 5 * GRANULE / PAGE);
    println!("all of it is home, and zero where my peer had it");
    Ok(())
}
