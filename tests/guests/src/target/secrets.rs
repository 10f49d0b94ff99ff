//! What a VM learns of parcels that it has nothing to do with: nothing, not even from the time that a
//! refusal takes.
//!
//! Cast: this program as first and second VM, on one CPU whose clock counts instructions, linked. A makes
//! parcels for others in every phase, and names them to B. B makes every call that takes a handle with each
//! of them, and with handles that name nothing: the replies must be the same bytes, and no two of them more than
//! `CLOSE` instructions apart.

use rm_abi::extension::{self, LastRefusal};
use rm_abi::{ErrorCode, Header, message};
use rm_client::hvc::{Hvc, Native};
use rm_client::{
    AclEntry, Direct, Handle, NewParcel, Rights, Sanitize, Session, Transport, Vmid, grant, pages,
};

use crate::bench::count;
use crate::channel::Channel;
use crate::demo::{DONE, granted};
use crate::layout::{LINK_AB, PAGE, PAGES, VMID_A, VMID_B, VMID_C};
use crate::life;

/// How far apart two refusals may be, in instructions.
const CLOSE: u64 = 8;
/// The shortest of so many is what a refusal takes: no interrupt came between.
const ROUNDS: usize = 16;
/// Parcels that B is told of, and handles that nobody was ever given.
const MADE: usize = 6;
const NEVER: [Handle; 5] =
    [Handle(0), Handle(u32::MAX), Handle(1 << 12), Handle(0x1fff), Handle(0x7fff_e001)];
/// Room for any reply that a call could have.
const ROOM: usize = 640;
const HANDLES: usize = MADE + NEVER.len() + 1;

/// The calls that take a handle, which is first in the payload of each, and the bytes behind it.
const CALLS: &[(&str, u32, &[u8])] = &[
    (
        "accept",
        message::MEM_ACCEPT,
        &[0, 1, 0x90, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ),
    ("release", message::MEM_RELEASE, &[0; 4]),
    ("reclaim", message::MEM_RECLAIM, &[0; 4]),
    ("append", message::MEM_APPEND, &APPEND),
    ("notify shared", message::MEM_NOTIFY, &[1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0x11, 0, 0, 0]),
    ("notify accepted", message::MEM_NOTIFY, &[4, 0, 0, 0, 0, 0, 0, 0]),
    ("info", extension::INFO, &[0; 4]),
    ("holders", extension::HOLDERS, &[0; 4]),
    ("set name", extension::SET_NAME, &[0; 36]),
    ("trim", extension::TRIM, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0]),
    ("revoke", extension::REVOKE, &[0; 4]),
    ("recall", extension::REVOKE, &[1, 0, 0, 0]),
    (
        "set window",
        extension::SET_WINDOW,
        &[0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0],
    ),
    ("will", extension::NOTIFY_SET, &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ("set policy", extension::SET_POLICY, &[2, 0, 0, 0]),
    ("detach", extension::DETACH, &[0x30, 0, 0, 0]),
    ("dma map", extension::DMA_MAP, &[0x30, 0, 0, 0, 1, 0, 0, 0]),
    ("dma unmap", extension::DMA_UNMAP, &[0x30, 0, 0, 0, 1, 0, 0, 0]),
    ("cpu access", extension::CPU_ACCESS, &[1, 0, 0, 0]),
];

/// Flags, and a list of one range: a page of B's own.
const APPEND: [u8; 24] = {
    let mut bytes = [0; 24];
    bytes[4] = 1;
    let mut index = 0;
    while index < 8 {
        bytes[8 + index] = PAGES.to_le_bytes()[index];
        bytes[16 + index] = PAGE.to_le_bytes()[index];
        index += 1;
    }
    bytes
};

/// The program.
pub fn main() {
    let mut session = life::session();
    if granted("asking who I am", session.vmid()) == Vmid(VMID_A) {
        keep(&mut session, &Channel::owner(LINK_AB));
    } else {
        pry(&Channel::peer(LINK_AB));
    }
}

/// Makes parcels that are none of B's business.
fn keep(session: &mut Session<Hvc>, b: &Channel) {
    let range = |index: u64| [pages(PAGES + 2 * index * PAGE, 1)];
    let one = [grant(Vmid(VMID_C), Rights::RW)];
    let many: [AclEntry; 12] =
        core::array::from_fn(|index| grant(Vmid(3 + index as u16), Rights::R));
    let for_b = [grant(Vmid(VMID_B), Rights::RW)];
    let lent = granted("lending", session.lend(&NewParcel::new(&range(0), &one)));
    let to_many = granted("lending", session.lend(&NewParcel::new(&range(1), &many)));
    let given = [grant(Vmid(VMID_C), Rights::RWX)];
    let given = granted("donating", session.donate(&NewParcel::new(&range(2), &given)));
    let places = range(3);
    let open = NewParcel::new(&places, &for_b).unfinished();
    let open = granted("lending the first part", session.lend(&open));
    let taken = granted("lending", session.lend(&NewParcel::new(&range(4), &for_b)));
    granted("revoking", session.revoke(taken));
    let ended = granted("lending", session.lend(&NewParcel::new(&range(5), &for_b)));
    granted("reclaiming", session.reclaim(ended, Sanitize::empty()));
    for handle in [lent, to_many, given, open, taken, ended] {
        b.say_handle(handle);
    }
    b.expect(DONE);
    println!("B learned nothing of {MADE} parcels");
}

/// What a call was answered, and how long it took.
struct Answer {
    reply: [u8; ROOM],
    length: usize,
    instructions: u64,
}

fn ask(transport: &mut Direct<Native>, call: u32, rest: &[u8], handle: Handle) -> Answer {
    let mut request = [0; 64];
    request[..8].copy_from_slice(&Header::request(call, 1).encode());
    request[8..12].copy_from_slice(&handle.0.to_le_bytes());
    request[12..12 + rest.len()].copy_from_slice(rest);
    let request = &request[..12 + rest.len()];
    let mut answer = Answer { reply: [0xa5; ROOM], length: 0, instructions: u64::MAX };
    for _ in 0..ROUNDS {
        answer.reply = [0xa5; ROOM];
        let (instructions, length) = count(|| transport.exchange(request, &mut answer.reply));
        answer.length = length.unwrap_or_else(|error| panic!("{call:#x}: {error:?}"));
        answer.instructions = answer.instructions.min(instructions);
    }
    answer
}

/// Tries to tell handles apart.
fn pry(a: &Channel) {
    let mut handles = [Handle(0); HANDLES];
    handles[..MADE].fill_with(|| a.hear_handle());
    handles[MADE..HANDLES - 1].copy_from_slice(&NEVER);
    // The number of a parcel that there is, in another generation.
    handles[HANDLES - 1] = Handle(handles[0].0 + (1 << 13));
    let mut transport = Direct(Native);
    let mut worst = 0;
    for &(name, call, rest) in CALLS {
        let first = ask(&mut transport, call, rest, handles[0]);
        assert!(first.length == 12, "{name}: a refusal is an error word");
        assert!(
            first.reply[8] == ErrorCode::HandleInvalid as u8,
            "{name}: {:?}",
            &first.reply[8..12]
        );
        assert!(first.reply[12..].iter().all(|&byte| byte == 0xa5), "{name}: more than was said");
        let why = last_refusal();
        let (mut least, mut most) = (first.instructions, first.instructions);
        for handle in handles {
            let answer = ask(&mut transport, call, rest, handle);
            assert!(answer.reply == first.reply, "{name} {handle:?}: another reply");
            assert!(last_refusal() == why, "{name} {handle:?}: refused for another reason");
            least = least.min(answer.instructions);
            most = most.max(answer.instructions);
        }
        println!("{name}: refused in {least} to {most} instructions, whatever the handle");
        worst = worst.max(most - least);
    }
    println!("{} calls with {HANDLES} handles differ by {worst} instructions", CALLS.len());
    assert!(worst <= CLOSE, "a VM can tell parcels from no parcels by the time of a refusal");
    a.say(DONE);
}

fn last_refusal() -> LastRefusal {
    granted("asking why", life::session().last_refusal())
}
