//! A VM that gives its peer memory of a named heap, and a buffer of its own, until that peer has ended
//! and all is home. What became of its memory the manager tells it.

use rm_client::front::membuf::{AclEntry, Buffer, ExportArg, MemBuf, PERM_READ, VMID_TRUSTED};
use rm_client::hvc::{Hvc, HvcQueues, Native};
use rm_client::supplier::{Body, Desk, Generation, Heap, Message, Offer, Supplier, Terms};
use rm_client::{
    Error, EventKind, Events, Handle, Notice, Poll, Queues, Rights, Session, SglEntry, VmState,
    pages,
};

use super::wire::Wire;
use super::{PARTNER, named};
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

/// A buffer that is in no heap.
const OWN: [SglEntry; 1] = [pages(PAGES + HEAP_PAGES * PAGE, 2)];
/// What its peer may do with it.
const READERS: [AclEntry; 1] = [AclEntry { vmid: VMID_TRUSTED, perms: PERM_READ }];
/// What is in it.
pub(crate) const WRITTEN: u64 = 0xe;

struct Program {
    session: Session<Hvc>,
    /// Where notices come in.
    ears: HvcQueues<Poll>,
    wire: Wire,
    desk: Desk<1>,
    supplier: Supplier<1>,
    /// The buffer that is exported.
    exported: Option<Handle>,
    peer_ended: bool,
}

/// The program.
pub fn main() {
    granted("supplying memory", supply());
}

fn supply() -> Result<(), Error> {
    let mut session = life::session();
    session.subscribe(Events::RELEASED)?;
    memory::fill(PAGES, HEAP_PAGES, 0xa);
    let heap = Heap::new(HEAP, PAGES, HEAP_PAGES * PAGE, GRANULE).expect("whole granules");
    let patience = 2 * PATIENCE * cpu::frequency();
    let terms = Terms { bytes: 32 * PAGE, objects: 4, patience };
    let supplier = Supplier::new(session.vmid()?, [heap], terms).expect("one heap, one name");
    println!("my heap {HEAP:?} has {HEAP_PAGES} pages; my peer may have half of it");
    let mut program = Program {
        session,
        ears: Queues::new(Native, Poll),
        wire: Wire::owner(LINK_AB),
        desk: Desk::new([(PARTNER, Generation::Second)]),
        supplier,
        exported: None,
        peer_ended: false,
    };
    program.export();
    while !program.peer_ended || program.supplier.objects() > 0 {
        program.turn()?;
    }
    let Program { supplier, exported, .. } = program;
    assert!(exported.is_none(), "the buffer came home");
    assert!(supplier.free_bytes(HEAP) == Some(HEAP_PAGES * PAGE));
    assert!(supplier.counts().refused == 2 && supplier.counts().poisoned == 0);
    // The first two objects; where the others lay depends on when the manager said that those were free.
    memory::check_zero(PAGES, 4 * GRANULE / PAGE);
    println!("all of it is home, and zero where my peer had it");
    Ok(())
}

impl Program {
    /// Lends a buffer by mem-buf's EXPORT, and tells the peer.
    fn export(&mut self) {
        memory::fill(OWN[0].ipa, 2, WRITTEN);
        let buffer =
            Buffer { ranges: &OWN, is_mapped: false, is_cached: true, rights: Rights::RWX };
        let arg = ExportArg {
            dma_buf_fd: 3,
            nr_acl_entries: READERS.len() as u32,
            acl_list: READERS.as_ptr() as u64,
            export_fd: 0,
            memparcel_hdl: 0,
            reserved: [0; 3],
        };
        let mut front = MemBuf::new(&mut self.session).expect("the manager knows me");
        let exported = front.export(arg, &READERS, named, &buffer, |_| Ok(4)).expect("it is mine");
        let offer: Offer = front.offer(&exported, &READERS, named, &buffer).expect("as exported");
        let message = Message { transaction: 0, body: Body::Offer(offer) };
        self.wire.send(&message.encode().expect("an offer fits"));
        self.exported = Some(offer.handle);
        println!("EXPORT lends 2 more pages to my peer, for reading; an OFFER tells it");
    }

    /// One message, and before it what the manager had to say.
    fn turn(&mut self) -> Result<(), Error> {
        let message = self.wire.hear();
        let before = self.supplier.objects();
        while let Some(notice) = self.ears.poll_notice().map_err(Error::from)? {
            self.desk.hear(&notice);
            self.supplier.hear(&mut self.session, &notice);
            match notice {
                Notice::Status(status)
                    if status.vmid == PARTNER
                        && status.state != VmState::Running
                        && !self.peer_ended =>
                {
                    println!(
                        "the manager says that my peer has ended; it had {before} of my objects"
                    );
                    self.peer_ended = true;
                }
                Notice::Event(event)
                    if event.kind == EventKind::Released && self.exported == Some(event.handle) =>
                {
                    let mut front = MemBuf::new(&mut self.session).expect("the manager knows me");
                    front.close_export(event.handle).expect("nobody has it any more");
                    memory::check(OWN[0].ipa, 2, WRITTEN);
                    println!(
                        "the manager says that my peer has released my buffer: it is mine again"
                    );
                    self.exported = None;
                }
                _ => {}
            }
        }
        if let Some(busy) = message.and_then(|message| self.desk.put(PARTNER, message)) {
            self.wire.send(&busy);
        }
        let now = cpu::now();
        while let Some((_, answer)) = self.desk.serve(now, &mut self.session, &mut self.supplier) {
            if let Some(answer) = answer {
                self.wire.send(&answer);
            }
        }
        self.supplier.tick(now, &mut self.session);
        let given = self.supplier.objects();
        if given != before && !self.peer_ended {
            let free = self.supplier.free_bytes(HEAP).unwrap_or(0) / PAGE;
            println!("objects given away: {given}; pages free: {free}");
        }
        Ok(())
    }
}
