//! A VM that asks its peer for memory, gives it back, gives up waiting, and ends with some of it.

use rm_client::hvc::Hvc;
use rm_client::supplier::{Agreement, Consumer, Event, Memory, Refusal, Ticket};
use rm_client::{AclEntry, Rights, Session, Transfer, grant};

use super::supplier::{GRANULE, HEAP, PATIENCE};
use super::wire::Wire;
use super::{OWNER, PARTNER};
use crate::layout::{LINK_AB, PAGE};
use crate::{cpu, life, memory};

const LEND: [AclEntry; 1] = [grant(PARTNER, Rights::RW)];
const SHARE: [AclEntry; 2] = [grant(OWNER, Rights::RW), grant(PARTNER, Rights::RW)];

struct Program {
    session: Session<Hvc>,
    wire: Wire,
    consumer: Consumer,
}

impl Program {
    fn ask(&mut self, heap: &str, size: u64, transfer: Transfer, acl: &[AclEntry]) -> Ticket {
        let asked = self.consumer.alloc(cpu::now(), heap, size, transfer, acl);
        let (ticket, request) = asked.expect("a request that makes sense");
        self.wire.send(&request);
        ticket
    }

    /// What comes of what was asked for or given back.
    fn event(&mut self) -> Event {
        loop {
            let step = match self.wire.hear() {
                Some(message) => self.consumer.receive(&mut self.session, message),
                None => self.consumer.tick(cpu::now()),
            };
            if let Some(message) = step.send {
                self.wire.send(&message);
            }
            if let Some(event) = step.event {
                return event;
            }
        }
    }

    fn get(&mut self, size: u64, transfer: Transfer, acl: &[AclEntry]) -> (Ticket, Memory) {
        let ticket = self.ask(HEAP, size, transfer, acl);
        match self.event() {
            Event::Allocated(of, memory) if of == ticket => (ticket, memory),
            other => panic!("{other:?}"),
        }
    }

    fn refused(&mut self, heap: &str, size: u64, why: Refusal) {
        let ticket = self.ask(heap, size, Transfer::Lend, &LEND);
        let event = self.event();
        assert!(event == Event::Failed(ticket, why), "{event:?}");
    }

    fn give_back(&mut self, ticket: Ticket) {
        let told = self.consumer.close(cpu::now(), &mut self.session, ticket);
        self.wire.send(&told.expect("nothing uses it"));
        let event = self.event();
        assert!(event == Event::Closed(ticket, Ok(())), "{event:?}");
    }
}

/// The program.
pub fn main() {
    let patience = PATIENCE * cpu::frequency();
    let agreement = Agreement { supplier: OWNER, granule: GRANULE, patience };
    let mut program = Program {
        session: life::session(),
        wire: Wire::peer(LINK_AB),
        consumer: Consumer::new(agreement),
    };
    let (lent, place) = program.get(5 * PAGE, Transfer::Lend, &LEND);
    memory::check_zero(place.ipa, place.size / PAGE);
    memory::fill(place.ipa, place.size / PAGE, 0xb);
    println!("asked for 5 pages, was lent {} at {:#x}", place.size / PAGE, place.ipa);
    let (shared, place) = program.get(PAGE, Transfer::Share, &SHARE);
    memory::fill(place.ipa, 1, 0xb);
    println!("was shared {} pages at {:#x}", place.size / PAGE, place.ipa);

    program.refused("no such heap", PAGE, Refusal::Invalid);
    program.refused(HEAP, 64 * PAGE, Refusal::NoSpace);
    println!("no other heap, and no more than my share of this one");

    // The answer is on its way, or soon will be.
    let given_up = program.ask(HEAP, PAGE, Transfer::Lend, &LEND);
    let event = program.consumer.tick(cpu::now() + patience).event;
    assert!(event == Some(Event::Failed(given_up, Refusal::TimedOut)), "{event:?}");
    program.give_back(shared);
    assert!(program.consumer.counts().late == 1, "the answer came before the one to that");
    println!("gave up waiting, and gave back what came all the same");

    program.give_back(lent);
    let (_, place) = program.get(3 * GRANULE, Transfer::Lend, &LEND);
    memory::fill(place.ipa, place.size / PAGE, 0xb);
    println!("gave all back; took {} pages again, and end with them", place.size / PAGE);
}
