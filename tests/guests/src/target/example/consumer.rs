//! A VM that asks its peer for memory by mem-buf's calls, gives it back, takes a buffer that it is
//! offered, gives up waiting, and ends with some of the memory.

use rm_client::front::Errno;
use rm_client::front::membuf::{
    AclEntry, AllocArg, AllocCall, AllocEvent, Allocator, Buffer, ExportArg, ImportArg, IonData,
    Local, MemBuf, PERM_READ, PERM_WRITE, VMID_PRIMARY, VMID_TRUSTED,
};
use rm_client::hvc::Hvc;
use rm_client::supplier::{Agreement, Memory, Offer, Ticket};
use rm_client::{Rights, Session, pages};

use super::supplier::{GRANULE, HEAP, PATIENCE, WRITTEN};
use super::wire::Wire;
use super::{OWNER, named};
use crate::layout::{LINK_AB, PAGE, PAGES};
use crate::{cpu, life, memory};

const RW: u32 = PERM_READ | PERM_WRITE;
/// For this VM alone: a loan.
const MINE: [AclEntry; 1] = [AclEntry { vmid: VMID_TRUSTED, perms: RW }];
/// For the supplier too: a share.
const OURS: [AclEntry; 2] = [AclEntry { vmid: VMID_PRIMARY, perms: RW }, MINE[0]];
/// The supplier's heap, as mem-buf names it, and one that it does not have.
const FRAMES: IonData = IonData { heap_id: 27 };
const OTHER: IonData = IonData { heap_id: 28 };

fn heap_of(heap: IonData) -> Option<&'static str> {
    match heap {
        FRAMES => Some(HEAP),
        OTHER => Some("no such heap"),
        _ => None,
    }
}

/// The heap of this VM that gets the memory. All memory is mapped already: translation is the identity.
#[derive(Default)]
struct Here {
    /// Pieces that its programs have.
    in_use: u32,
}

impl Local for Here {
    fn map(&mut self, _: &Memory) -> Result<(), Errno> {
        Ok(())
    }

    fn unmap(&mut self, _: &Memory) -> Result<(), Errno> {
        Ok(())
    }

    fn add(&mut self, _: IonData, _: &Memory) -> Result<(), Errno> {
        Ok(())
    }

    fn remove(&mut self, _: IonData, _: &Memory) -> Result<(), Errno> {
        if self.in_use == 0 { Ok(()) } else { Err(Errno::EBUSY) }
    }
}

struct Program {
    session: Session<Hvc>,
    wire: Wire,
    allocator: Allocator,
    here: Here,
}

impl Program {
    /// Calls ALLOC, and does not wait.
    fn ask(&mut self, size: u64, src: IonData, acl: &[AclEntry]) -> Ticket {
        let arg = AllocArg {
            size,
            acl_list: acl.as_ptr() as u64,
            nr_acl_entries: acl.len() as u32,
            src_mem_type: 0,
            src_data: core::ptr::from_ref(&src) as u64,
            dst_mem_type: 0,
            mem_buf_fd: -1,
            dst_data: core::ptr::from_ref(&FRAMES) as u64,
            reserved: [0; 3],
        };
        let call = AllocCall { arg, acl, src, dst: FRAMES };
        let asked = self.allocator.alloc(cpu::now(), &call, named, heap_of);
        let (ticket, request) = asked.expect("a request that makes sense");
        self.wire.send(&request);
        ticket
    }

    /// What comes of what was asked for or given back.
    fn event(&mut self) -> AllocEvent {
        loop {
            let now = cpu::now();
            let step = match self.wire.hear() {
                Some(message) => {
                    self.allocator.receive(now, &mut self.session, &mut self.here, message)
                }
                None => self.allocator.tick(now, &mut self.session, &mut self.here),
            };
            if let Some(message) = step.send {
                self.wire.send(&message);
            }
            if let Some(event) = step.event {
                return event;
            }
        }
    }

    fn get(&mut self, size: u64, acl: &[AclEntry]) -> (Ticket, Memory) {
        let ticket = self.ask(size, FRAMES, acl);
        match self.event() {
            AllocEvent::Ready(of, memory) if of == ticket => (ticket, memory),
            other => panic!("{other:?}"),
        }
    }

    fn refused(&mut self, size: u64, heap: IonData, why: Errno) {
        let ticket = self.ask(size, heap, &MINE);
        let event = self.event();
        assert!(event == AllocEvent::Failed(ticket, why), "{event:?}");
    }

    fn close(&mut self, ticket: Ticket) -> Result<(), Errno> {
        let now = cpu::now();
        let told = self.allocator.close(now, &mut self.session, &mut self.here, ticket)?;
        self.wire.send(&told);
        let event = self.event();
        assert!(event == AllocEvent::Closed(ticket, Ok(())), "{event:?}");
        Ok(())
    }

    /// Takes the buffer that the peer offers, as it is offered and not otherwise.
    fn import(&mut self) {
        let AllocEvent::Offered(offer) = self.event() else { panic!("no offer") };
        let Offer { handle, size, .. } = offer;
        println!("an OFFER tells me of {} pages of A's: parcel {:#x}", size / PAGE, handle.0);
        let mut front = MemBuf::new(&mut self.session).expect("the manager knows me");
        let arg = ImportArg {
            memparcel_hdl: handle.0,
            nr_acl_entries: 1,
            acl_list: MINE.as_ptr() as u64,
            dma_buf_import_fd: 0,
            reserved0: 0,
            reserved: [0; 3],
        };
        let more = front.import(arg, &MINE, named, |_| panic!("more than A lent"));
        assert!(more == Err(Errno::EINVAL), "{more:?}");
        println!("IMPORT with the right to write: {}, for A lent them to be read", Errno::EINVAL);
        let lie = Offer { size: size + PAGE, ..offer };
        let more = front.import_offer(OWNER, &lie, |_| panic!("larger than it is"));
        assert!(more == Err(Errno::EINVAL), "{more:?}");
        let mut place = None;
        let imported = front.import_offer(OWNER, &offer, |imported| {
            place = Some(imported);
            Ok(5)
        });
        assert!(imported == Ok(5), "{imported:?}");
        let place = place.expect("it was installed");
        memory::check(place.place.ipa, size / PAGE, WRITTEN);
        println!("IMPORT as A offered them: I read what A wrote");
        front.close_import(handle).expect("it is mine to release");
    }

    /// The boot configuration lets this VM take memory and not give it.
    fn export(&mut self) {
        let range = [pages(PAGES, 1)];
        let buffer =
            Buffer { ranges: &range, is_mapped: false, is_cached: true, rights: Rights::RWX };
        let to_a = [AclEntry { vmid: VMID_PRIMARY, perms: RW }];
        let arg = ExportArg {
            dma_buf_fd: 3,
            nr_acl_entries: 1,
            acl_list: to_a.as_ptr() as u64,
            export_fd: 0,
            memparcel_hdl: 0,
            reserved: [0; 3],
        };
        let mut front = MemBuf::new(&mut self.session).expect("the manager knows me");
        let made = front.export(arg, &to_a, named, &buffer, |_| panic!("it may not"));
        assert!(made == Err(Errno::EOPNOTSUPP), "{made:?}");
        memory::write(PAGES, 1);
        println!("EXPORT: {}, for the boot configuration keeps me from it", Errno::EOPNOTSUPP);
    }
}

/// The program.
pub fn main() {
    let patience = PATIENCE * cpu::frequency();
    let agreement = Agreement { supplier: OWNER, granule: GRANULE, patience };
    let mut program = Program {
        session: life::session(),
        wire: Wire::peer(LINK_AB),
        allocator: Allocator::new(agreement),
        here: Here::default(),
    };
    program.import();
    program.export();

    let (lent, place) = program.get(5 * PAGE, &MINE);
    memory::check_zero(place.ipa, place.size / PAGE);
    memory::fill(place.ipa, place.size / PAGE, 0xb);
    println!(
        "ALLOC of 5 pages lent me {} at {:#x}, all zero; I write",
        place.size / PAGE,
        place.ipa
    );
    program.here.in_use = 1;
    assert!(program.close(lent) == Err(Errno::EBUSY));
    memory::check(place.ipa, place.size / PAGE, 0xb);
    println!("close while a program has some of it: {}, and nothing is lost", Errno::EBUSY);
    program.here.in_use = 0;

    let (shared, place) = program.get(PAGE, &OURS);
    memory::fill(place.ipa, 1, 0xb);
    println!("ALLOC with A in the list shared {} pages at {:#x}", place.size / PAGE, place.ipa);

    program.refused(PAGE, OTHER, Errno::EINVAL);
    println!("ALLOC from a heap that A does not have: {}", Errno::EINVAL);
    program.refused(64 * PAGE, FRAMES, Errno::ENOSPC);
    println!("ALLOC of more than my share of the heap: {}", Errno::ENOSPC);

    // The answer is on its way, or soon will be: the clock says that it comes too late.
    let given_up = program.ask(PAGE, FRAMES, &MINE);
    let late = cpu::now() + patience;
    let event = program.allocator.tick(late, &mut program.session, &mut program.here).event;
    assert!(event == Some(AllocEvent::Failed(given_up, Errno::ETIMEDOUT)), "{event:?}");
    assert!(program.close(shared) == Ok(()));
    assert!(program.allocator.counts().late == 1, "the answer came before the one to that");
    println!("ALLOC whose answer comes too late: {}; I gave back what came", Errno::ETIMEDOUT);

    assert!(program.close(lent) == Ok(()));
    println!("close: out of my heap, unmapped, released, and A has confirmed it");
    let (_, place) = program.get(3 * GRANULE, &MINE);
    memory::fill(place.ipa, place.size / PAGE, 0xb);
    println!("ALLOC once more, {} pages; and I end with them", place.size / PAGE);
}
