//! What a VM learns of parcels, VMs and heaps that it has nothing to do with: nothing, not even from the
//! time that a refusal takes.
//!
//! Cast: this program as first, second and third VM, on one CPU whose clock counts instructions; A is linked
//! with the others, and three heaps are C's alone. A makes parcels for others in every phase, and names them to B.
//! B asks every one of [`QUESTIONS`] with each of them, with the VM and the heap that it does not know, and
//! with names of nothing, by direct calls and through the message queues: the replies must be the same bytes, and no
//! two of them more than `CLOSE` instructions apart. B polls with interrupts masked, so what is counted is
//! what EL2 and the client do from the send to the reply.

use rm_abi::extension::{self, LastRefusal};
use rm_abi::{Bytes, Header};
use rm_client::hvc::{Hvc, HvcQueues, Native};
use rm_client::{
    Acceptance, AclEntry, Direct, Handle, NewParcel, Poll, Queues, Rights, Sanitize, Session,
    Transfer, Transport, Vmid, grant, pages,
};

use crate::bench::count;
use crate::channel::Channel;
use crate::demo::{DONE, granted};
use crate::layout::{LINK_AB, LINK_AC, PAGE, PAGES, VMID_A, VMID_B, VMID_C, WINDOW};
use crate::life;
use crate::questions::{LONGEST, Named, Payload, QUESTIONS, Question};

/// How far apart two refusals may be, in instructions.
const CLOSE: u64 = 8;
/// The shortest of so many is what a refusal takes. There are three of each way in which request and reply can
/// lie in the queues, whose places are not equally quick to copy from: between one of the three no interrupt comes.
const ROUNDS: usize = 3 * PLACES * PLACES;
/// Packets that a queue holds.
const PLACES: usize = 8;
/// Parcels that B is told of, and handles that nobody was ever given.
const MADE: usize = 6;
const NEVER: [u32; 5] = [0, u32::MAX, 1 << 12, 0x1fff, 0x7fff_e001];
const HANDLES: usize = MADE + NEVER.len() + 1;
/// A VM that there is, which B does not know, and some that there are not.
const VMS: [u64; 7] = [VMID_C as u64, 0x13, 3, 31, 99, 0x7fff, 0xffff];
/// Three heaps that there are, which are C's, and some that there are not.
const HEAPS: [u64; 6] = [0, 1, 2, 3, 0x8000_0000, u32::MAX as u64];
/// As many as there are VMs and parcels, and more.
const CURSORS: [u64; 7] = [0, 1, 2, 3, 8, 4096, u32::MAX as u64];
/// Where A has parcels, and where it has none.
const ADDRESSES: [u64; 5] =
    [PAGES, PAGES + 2 * PAGE, PAGES + PAGE, PAGES + 0x80 * PAGE, 0x7fff_f000];
/// A page of B's, for a parcel of its own.
const MINE: u64 = PAGES + 0x42 * PAGE;
/// Room for any reply that a call could have.
const ROOM: usize = 640;
/// What is in that room before the call.
const UNTOUCHED: u8 = 0xa5;
/// Ticks that a waiting VM sleeps.
const NAP: u64 = 9_000_000;

/// The program.
pub fn main() {
    let mut session = life::session();
    match granted("asking who I am", session.vmid()).0 {
        VMID_A => keep(&mut session),
        VMID_B => pry(&Channel::peer(LINK_AB)),
        _ => hold(&mut session, &Channel::peer(LINK_AC).with_naps(NAP)),
    }
}

/// Makes parcels that are none of B's business.
fn keep(session: &mut Session<Hvc>) {
    let (b, c) = (Channel::owner(LINK_AB).with_naps(NAP), Channel::owner(LINK_AC).with_naps(NAP));
    let range = |index: u64| [pages(PAGES + 2 * index * PAGE, 1)];
    let one = [grant(Vmid(VMID_C), Rights::RW)];
    let many: [AclEntry; 12] =
        core::array::from_fn(|index| grant(Vmid(3 + index as u16), Rights::R));
    let for_b = [grant(Vmid(VMID_B), Rights::RW)];
    let lent = granted("lending", session.lend(&NewParcel::new(&range(0), &one)));
    c.say_handle(lent);
    c.expect(DONE);
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
    c.say(DONE);
    println!("B learned nothing of {MADE} parcels, a VM and its heaps");
}

/// Has one of the parcels until all is over.
fn hold(session: &mut Session<Hvc>, a: &Channel) {
    let wanted = Acceptance::new(a.hear_handle(), Transfer::Lend).contiguous();
    granted("accepting", session.accept_at(&wanted, &[pages(WINDOW, 1)]));
    a.say(DONE);
    a.expect(DONE);
}

/// What a call was answered, and how long it took.
struct Answer {
    reply: [u8; ROOM],
    length: usize,
    instructions: u64,
    why: LastRefusal,
}

/// Asks with a name until the shortest time is known.
fn ask(transport: &mut impl Transport, question: &Question, name: u64, mine: Handle) -> Answer {
    let mut payload = [0; LONGEST];
    let length = question.write(name, mine, &mut payload);
    let mut request = [0; Header::SIZE + LONGEST];
    request[..Header::SIZE].copy_from_slice(&Header::request(question.call, 1).encode());
    request[Header::SIZE..].copy_from_slice(&payload);
    let request = &request[..Header::SIZE + length];
    let mut reply = [UNTOUCHED; ROOM];
    let (mut shortest, mut length) = (u64::MAX, 0);
    for round in 0..ROUNDS {
        if round % PLACES == 0 {
            // A request of two packets would always have its reply in the same places beside it.
            granted("asking who I am", Session::<_, 512>::with_capacity(&mut *transport).vmid());
        }
        reply = [UNTOUCHED; ROOM];
        let (instructions, outcome) = count(|| transport.exchange(request, &mut reply));
        length = outcome.unwrap_or_else(|error| panic!("{}: {error:?}", question.name));
        shortest = shortest.min(instructions);
    }
    let why = granted("asking why", Session::<_, 512>::with_capacity(transport).last_refusal());
    Answer { reply, length, instructions: shortest, why }
}

/// Asks with all names, compares the answers, and says how long the shortest and the longest took.
fn compare(
    transport: &mut impl Transport,
    question: &Question,
    names: &[u64],
    mine: Handle,
) -> [u64; 2] {
    let name = question.name;
    let first = ask(transport, question, names[0], mine);
    check(question, &first);
    let mut times = [u64::MAX, 0];
    for &named in names {
        let answer = ask(transport, question, named, mine);
        assert!(answer.reply == first.reply, "{name} {named:#x}: another reply");
        assert!(answer.length == first.length, "{name} {named:#x}: another length");
        assert!(answer.why == first.why, "{name} {named:#x}: refused for another reason");
        let time = answer.instructions;
        if time.abs_diff(first.instructions) > CLOSE {
            println!("{name} {named:#x}: {time} instructions, not {}", first.instructions);
        }
        times = [times[0].min(time), times[1].max(time)];
    }
    times
}

/// Whether the answer says what it should and not a byte more.
fn check(question: &Question, answer: &Answer) {
    let name = question.name;
    let mut end = Header::SIZE;
    if matches!(question.payload, Payload::Copy(_)) {
        // The call's own word, and how many there are.
        end += 8;
        let count = question.words().count() as u32;
        assert!(answer.reply.u32_at(end - 4) == count, "{name}: not a word for each segment");
    } else {
        assert!(answer.why.message == question.call, "{name}: it was not refused");
    }
    for word in question.words() {
        let found = answer.reply.u32_at(end);
        assert!(found == word, "{name}: {found:#x}, not {word:#x}");
        end += 4;
    }
    assert!(answer.length == end, "{name}: {} bytes", answer.length);
    let mut rest = answer.reply[end..].iter();
    assert!(rest.all(|&byte| byte == UNTOUCHED), "{name}: more than was said");
}

/// Tries to tell names apart.
fn pry(a: &Channel) {
    let mut handles = [0; HANDLES];
    handles[..MADE].fill_with(|| a.hear_handle().0.into());
    handles[MADE..HANDLES - 1].copy_from_slice(&NEVER.map(u64::from));
    // The number of a parcel that there is, in another generation.
    handles[HANDLES - 1] = handles[0] + (1 << 13);
    let acl = [grant(Vmid(VMID_B), Rights::RW), grant(Vmid(VMID_C), Rights::R)];
    let place = [pages(MINE, 1)];
    let mine = granted("sharing", life::session().share(&NewParcel::new(&place, &acl)));
    let mut direct = Direct(Native);
    let mut queues: HvcQueues<Poll> = Queues::new(Native, Poll);
    let (mut worst, mut worst_queued) = (0, 0);
    for question in QUESTIONS {
        // In a copy, no handle is the caller's own memory.
        let copies = question.call == extension::COPY;
        let names: &[u64] = match question.named {
            Named::Parcel if copies => {
                &handles.map(|handle| if handle == 0 { 0x1ffe } else { handle })
            }
            Named::Parcel => &handles,
            Named::Vm => &VMS,
            Named::Heap => &HEAPS,
            Named::Cursor => &CURSORS,
            Named::Address => &ADDRESSES,
        };
        let [least, most] = compare(&mut direct, question, names, mine);
        let [least_queued, most_queued] = compare(&mut queues, question, names, mine);
        println!(
            "{}: {least} to {most} instructions, {least_queued} to {most_queued} by the queues",
            question.name
        );
        worst = worst.max(most - least);
        worst_queued = worst_queued.max(most_queued - least_queued);
    }
    println!(
        "{} questions with {HANDLES} handles, {} VMs and {} heaps",
        QUESTIONS.len(),
        VMS.len(),
        HEAPS.len()
    );
    println!("answers differ by {worst} instructions, by {worst_queued} through the queues");
    assert!(worst <= CLOSE && worst_queued <= CLOSE, "the time of an answer tells what there is");
    a.say(DONE);
}
