//! A VM that sends everything malformed that it can think of, and checks that each refusal has its
//! code and changed nothing.
//!
//! Cast: this program as first and second VM, linked. The first makes parcels and plays the owner, the
//! second the borrower; both attack the transport, the devices and the CPU.

mod borrower;
mod machine;
mod owner;
mod transport;

use rm_abi::Writer;
use rm_client::hvc::Hvc;
use rm_client::{Error, ErrorCode, Session, Vmid};

use crate::channel::Channel;
use crate::demo::granted;
use crate::layout::{LINK_AB, PAGES, VMID_A};
use crate::{life, memory};

/// Pages that each VM keeps for itself, and what it filled them with.
const OWN_PAGES: u64 = 16;
const OWN_SEED: u64 = 0x0e;
/// Room for a list of 513 ranges.
const CAPACITY: usize = 9216;

/// A word for "go on".
const NEXT: u64 = 0x7e87;

/// What an attack needs.
struct Attacker {
    session: Session<Hvc, CAPACITY>,
    refusals: u32,
}

/// The program.
pub fn main() {
    let mut attacker = Attacker {
        session: Session::with_capacity(rm_client::Direct(rm_client::hvc::Native)),
        refusals: 0,
    };
    memory::fill(PAGES, OWN_PAGES, OWN_SEED);
    let me = granted("asking who I am", life::session().vmid());
    transport::attack(&mut attacker);
    machine::attack();
    if me == Vmid(VMID_A) {
        owner::attack(&mut attacker, &Channel::owner(LINK_AB));
    } else {
        borrower::attack(&mut attacker, &Channel::peer(LINK_AB));
    }
    memory::check(PAGES, OWN_PAGES, OWN_SEED);
    println!("{} malformed calls were refused, each with its code", attacker.refusals);
}

impl Attacker {
    /// Sends a request whose payload `write` makes, expects this refusal, and checks that the VM's
    /// memory is what it was.
    fn refused(
        &mut self,
        what: &str,
        message: u32,
        code: ErrorCode,
        write: impl FnOnce(&mut Writer<'_>),
    ) {
        let outcome = self.session.call(message, |into| {
            let mut writer = Writer::new(into);
            write(&mut writer);
            writer.finish()
        });
        match outcome {
            Ok(_) => panic!("{what}: was not refused"),
            Err(error) => assert!(error == Error::Refused(code), "{what}: {error}, not {code:?}"),
        }
        self.refusals += 1;
        memory::check(PAGES, 2, OWN_SEED);
        memory::fill(PAGES, 2, OWN_SEED);
    }
}
