//! Parcels that must not come to be.

use rm_abi::memparcel::create::Create;
use rm_abi::{
    AttributeEntry, Bytes, CreateFlags, EncodeError, Header, HypercallError, Writer, message,
};
use rm_client::{
    AclEntry, ErrorCode, Handle, MemoryKind, NewParcel, Rights, Sanitize, SglEntry, Vmid, grant,
    pages,
};

use super::{Attacker, NEXT, OWN_SEED, transport};
use crate::channel::Channel;
use crate::demo::granted;
use crate::layout::{
    BLOCK, CONSOLE, DISTRIBUTOR, LINK_AB, MEMORY, PAGE, PAGES, RAM, VMID_A, VMID_B, VMID_C, WINDOW,
};
use crate::{memory, probe, raw};

const ME: Vmid = Vmid(VMID_A);
const B: Vmid = Vmid(VMID_B);
const SHARED: [AclEntry; 2] = [grant(ME, Rights::RWX), grant(B, Rights::RW)];
const LENT: [AclEntry; 1] = [grant(B, Rights::RW)];
const ONE: [SglEntry; 1] = [pages(PAGES, 1)];

/// Pages for the parcel that the borrower attacks: two runs.
pub(super) const TWO_RUNS: [SglEntry; 2] =
    [pages(RAM + 2 * BLOCK, 1), pages(RAM + 2 * BLOCK + 2 * PAGE, 2)];
/// What they hold.
pub(super) const LENT_SEED: u64 = 0x1e;
/// Its label.
pub(super) const LABEL: u32 = 0xbad;

/// Shortest payload of a create request: here it ends with the access list.
const SHORTEST: usize = 20;

/// A share of one page that would be granted, to spoil in one place.
const GOOD: Create<'_> = Create {
    memory: MemoryKind::NORMAL,
    flags: CreateFlags::empty(),
    label: 0,
    acl: &SHARED,
    sgl: &ONE,
    attributes: &[],
};

pub(super) fn attack(attacker: &mut Attacker, b: &Channel) {
    lengths_and_counts(attacker);
    access_lists(attacker);
    attributes(attacker);
    ranges(attacker);
    handles(attacker);
    for call in [0, 1, 0x5100_0016, 0x5100_0019, 0x5100_0099, 0xffff_ffff] {
        attacker.refused("an unknown call", call, ErrorCode::Unimplemented, |_| ());
    }
    own_calls(attacker);
    // After all that a share of the same page is granted, so nothing stuck to it.
    let parcel = NewParcel::new(&ONE, &SHARED);
    let handle = granted("sharing", attacker.session.share(&parcel));
    granted("reclaiming", attacker.session.reclaim(handle, Sanitize::empty()));
    unknown_flags_are_ignored(attacker);
    lend_the_reply_buffer(attacker);
    offer_two_runs(attacker, b);
}

/// Sends a create request as it is.
fn refuse(attacker: &mut Attacker, what: &str, call: u32, code: ErrorCode, create: &Create<'_>) {
    attacker.refused(what, call, code, |writer| {
        writer.u8(create.memory.0).u8(0).u8(create.flags.0).u8(0).u32(create.label);
        writer.list(create.acl, 0).list(create.sgl, 0).list(create.attributes, 0);
    });
}

fn lengths_and_counts(attacker: &mut Attacker) {
    use ErrorCode::{ArgumentInvalid, MessageInvalid, NoResource};
    let mut whole = [0; 128];
    let length = encoded(&GOOD, &mut whole);
    for call in [message::MEM_SHARE, message::MEM_LEND, message::MEM_DONATE] {
        // Cut anywhere it is malformed, but for lists that are absent as a whole.
        for cut in (0..length).filter(|cut| ![length - 4, SHORTEST].contains(cut)) {
            attacker.refused("a cut request", call, MessageInvalid, |writer| {
                writer.bytes(&whole[..cut]);
            });
        }
        attacker.refused("trailing bytes", call, MessageInvalid, |writer| {
            writer.bytes(&whole[..length]).u32(0);
        });
        attacker.refused("no lists", call, ArgumentInvalid, |writer| {
            writer.bytes(&[0; 20]);
        });
    }
    // Each count in turn, far too large: 513 is a matter of resources, 512 of bytes that are not there.
    for (at, what) in [(8, "access list"), (20, "range list"), (40, "attribute list")] {
        for (count, code) in [(513u16, NoResource), (0xffff, NoResource), (512, MessageInvalid)] {
            attacker.refused(what, message::MEM_SHARE, code, |writer| {
                writer.bytes(&whole[..at]).u16(count).bytes(&whole[at + 2..length]);
            });
        }
    }
}

/// The payload of a create request, and its length.
fn encoded(create: &Create<'_>, into: &mut [u8]) -> usize {
    create.encode(into).unwrap_or_else(|error: EncodeError| panic!("{error:?}"))
}

fn access_lists(attacker: &mut Attacker) {
    use ErrorCode::{ArgumentInvalid, Denied, NoResource};
    let (share, lend) = (message::MEM_SHARE, message::MEM_LEND);
    let mut with = |what, call, code, acl: &[AclEntry]| {
        refuse(attacker, what, call, code, &Create { acl, ..GOOD });
    };
    let mut many = [grant(B, Rights::RW); 17];
    for (entry, vmid) in many.iter_mut().zip(4..) {
        entry.vmid = Vmid(vmid);
    }
    with("17 borrowers", share, NoResource, &many);
    with("a VM twice", share, ArgumentInvalid, &[SHARED[0], SHARED[1], SHARED[1]]);
    for vmid in [0, 64, 0x80, 0xbe, 0xfffe, 0xffff] {
        with("no such VM", share, ArgumentInvalid, &[SHARED[0], grant(Vmid(vmid), Rights::R)]);
    }
    for rights in [0, 1, 2, 3, 8, 0x14, 0xff] {
        with("no such rights", share, ArgumentInvalid, &[SHARED[0], grant(B, Rights(rights))]);
    }
    with("a share without me", share, ArgumentInvalid, &LENT);
    with("a loan to myself", lend, ArgumentInvalid, &SHARED);
    let donate = message::MEM_DONATE;
    with("a gift to many", donate, ArgumentInvalid, &[LENT[0], grant(Vmid(VMID_C), Rights::RWX)]);
    with("half a gift", donate, Denied, &LENT);
    let io = Create { memory: MemoryKind::IO, ..GOOD };
    refuse(attacker, "executable registers", share, ArgumentInvalid, &io);
    let io = Create { flags: CreateFlags::SANITIZE, acl: &LENT, ..io };
    refuse(attacker, "zeroed registers", lend, ArgumentInvalid, &io);
}

fn attributes(attacker: &mut Attacker) {
    use ErrorCode::{ArgumentInvalid, VmidInvalid};
    let mut with = |what, code, attributes: &[AttributeEntry]| {
        let create = Create { attributes, ..GOOD };
        refuse(attacker, what, message::MEM_SHARE, code, &create);
    };
    let entry = |attribute, vmid| AttributeEntry { attribute, vmid };
    with("an attribute twice", ArgumentInvalid, &[entry(3, B), entry(3, B)]);
    with("no such attribute", ArgumentInvalid, &[entry(4, B)]);
    with("RAM as a device", ArgumentInvalid, &[entry(1, B)]);
    with("an attribute for a stranger", VmidInvalid, &[entry(3, Vmid(VMID_C))]);
    with("two policies", ArgumentInvalid, &[entry(2, B), entry(3, ME)]);
}

fn ranges(attacker: &mut Attacker) {
    use ErrorCode::{ArgumentInvalid, MemoryInvalid};
    let end = RAM + MEMORY;
    let range = |ipa, size| SglEntry { ipa, size };
    let cases = [
        ("an unaligned address", ArgumentInvalid, range(PAGES + 8, PAGE)),
        ("an unaligned size", ArgumentInvalid, range(PAGES, PAGE + 1)),
        ("an address beyond 44 bits", ArgumentInvalid, range(1 << 44, PAGE)),
        ("the last address", ArgumentInvalid, range(!0xfff, PAGE)),
        ("a size beyond 44 bits", ArgumentInvalid, range(PAGES, 1 << 44)),
        ("a wrapping range", ArgumentInvalid, range(!0xfff, !0xfff)),
        ("a range to the end of 44 bits", MemoryInvalid, range((1 << 44) - PAGE, 2 * PAGE)),
        ("the largest range", MemoryInvalid, range(PAGES, (1 << 44) - PAGE)),
        ("no pages", MemoryInvalid, range(PAGES, 0)),
        ("nothing", MemoryInvalid, range(WINDOW, PAGE)),
        ("the page below mine", MemoryInvalid, range(RAM - PAGE, PAGE)),
        ("the page behind mine", MemoryInvalid, range(end, PAGE)),
        ("my last page and the next", MemoryInvalid, range(end - PAGE, 2 * PAGE)),
        ("my console", MemoryInvalid, range(CONSOLE, PAGE)),
        ("my distributor", MemoryInvalid, range(DISTRIBUTOR, PAGE)),
        ("what I share already", MemoryInvalid, range(LINK_AB.owner, PAGE)),
    ];
    for call in [message::MEM_SHARE, message::MEM_LEND] {
        let acl: &[AclEntry] = if call == message::MEM_SHARE { &SHARED } else { &LENT };
        for (what, code, spoiled) in cases {
            refuse(attacker, what, call, code, &Create { acl, sgl: &[spoiled], ..GOOD });
            // Behind a good one: the whole call is refused, and the good page stays mine.
            let sgl = [ONE[0], spoiled];
            refuse(attacker, what, call, code, &Create { acl, sgl: &sgl, ..GOOD });
        }
        let (page, three) = (pages(PAGES + PAGE, 1), pages(PAGES, 3));
        for sgl in [[page, page], [three, page], [page, three]] {
            let create = Create { acl, sgl: &sgl, ..GOOD };
            refuse(attacker, "a page twice", call, MemoryInvalid, &create);
        }
    }
}

fn handles(attacker: &mut Attacker) {
    use ErrorCode::{Denied, HandleInvalid, MemoryInvalid, MessageInvalid};
    for call in [message::MEM_RELEASE, message::MEM_RECLAIM] {
        for handle in [0, 0x1234_5678, 0x8000_0001, 0xffff_fffe, 0xffff_ffff] {
            attacker.refused("no such parcel", call, HandleInvalid, |writer| {
                writer.u32(handle).u32(0);
            });
        }
        for length in 0..8 {
            attacker.refused("a cut request", call, MessageInvalid, |writer| {
                writer.bytes(&[1; 8][..length]);
            });
        }
    }
    let page = [pages(PAGES + 8 * PAGE, 1)];
    let parcel = NewParcel::new(&page, &SHARED);
    let handle = granted("sharing", attacker.session.share(&parcel));
    let again = Create { sgl: &page, ..GOOD };
    refuse(attacker, "sharing twice", message::MEM_SHARE, MemoryInvalid, &again);
    let lend = Create { acl: &LENT, ..again };
    refuse(attacker, "lending what is shared", message::MEM_LEND, MemoryInvalid, &lend);
    attacker.refused("releasing my own", message::MEM_RELEASE, Denied, |writer| {
        request(handle, writer);
    });
    attacker.refused("accepting my own", message::MEM_ACCEPT, Denied, |writer| {
        writer.u32(handle.0).u8(0).u8(2).u8(0x90).u8(0).u32(0);
        writer.list(&[] as &[AclEntry], 0).list(&[pages(WINDOW, 1)], 0).u32(0);
    });
    granted("reclaiming", attacker.session.reclaim(handle, Sanitize::empty()));
    attacker.refused("reclaiming twice", message::MEM_RECLAIM, HandleInvalid, |writer| {
        request(handle, writer);
    });
}

/// The calls of a VM about itself, whose lengths are exact.
fn own_calls(attacker: &mut Attacker) {
    let malformed = ErrorCode::MessageInvalid;
    attacker.refused("asking with bytes", message::VM_GET_VMID, malformed, |writer| {
        writer.u32(0);
    });
    for payload in [&[][..], &[0; 3], &[0; 8], &[0, 0, 5, 0], &[0, 0, 0xff, 0]] {
        attacker.refused("leaving wrongly", message::VM_EXIT, malformed, |writer| {
            writer.bytes(payload);
        });
    }
}

/// Flag bits without a meaning change nothing: the page is neither zeroed now nor at the reclaim.
fn unknown_flags_are_ignored(attacker: &mut Attacker) {
    let create = Create { flags: CreateFlags(!3), ..GOOD };
    let call = message::MEM_SHARE;
    let outcome = attacker.session.call(call, |into| create.encode(into));
    let handle = Handle(granted("sharing with all flags", outcome).u32_at(0));
    granted("reclaiming with all flags", attacker.session.reclaim(handle, Sanitize(!1)));
    memory::check(PAGES, 1, OWN_SEED);
}

/// A call that lends the page its reply should go to is carried out; the reply waits to be fetched.
fn lend_the_reply_buffer(attacker: &mut Attacker) {
    let page = PAGES + 4 * PAGE;
    let mut bytes = [0; 64];
    bytes[..8].copy_from_slice(&Header::request(message::MEM_LEND, 7).encode());
    let create = Create { acl: &LENT, sgl: &[pages(page, 1)], ..GOOD };
    let length = Header::SIZE as u64 + encoded(&create, &mut bytes[Header::SIZE..]) as u64;
    let from = bytes.as_ptr() as u64;
    let [error, _, token] = raw::direct(from, length, page, 64, 0);
    let kept = error == HypercallError::ADDR_INVALID as u64 && token != 0;
    assert!(kept, "replying into a lent page: error {error}, token {token}");
    let mut reply = [0u8; 16];
    let [error, size, _] = raw::direct(0, 0, reply.as_mut_ptr() as u64, 16, token);
    assert!([error, size] == [0, 16], "fetching the reply: error {error}, {size} bytes");
    let handle = Handle(reply[..].u32_at(12));
    granted("reclaiming", attacker.session.reclaim(handle, Sanitize::empty()));
}

fn request(handle: Handle, writer: &mut Writer<'_>) {
    writer.u32(handle.0).u32(0);
}

/// Lends two runs for reading, lets the borrower attack them, and takes them back as they were.
fn offer_two_runs(attacker: &mut Attacker, b: &Channel) {
    for range in TWO_RUNS {
        memory::fill(range.ipa, range.size / PAGE, LENT_SEED);
    }
    let acl = [grant(B, Rights::R)];
    let parcel = NewParcel::new(&TWO_RUNS, &acl).label(LABEL);
    let handle = granted("lending", attacker.session.lend(&parcel));
    probe::expect_no_access(TWO_RUNS[0].ipa);
    transport::refuse_request_at(TWO_RUNS[0].ipa);
    transport::refuse_reply_at(TWO_RUNS[0].ipa);
    b.say_handle(handle);
    b.expect(NEXT);
    attacker.refused("reclaiming early", message::MEM_RECLAIM, ErrorCode::MemoryInUse, |writer| {
        request(handle, writer);
    });
    b.say(NEXT);
    b.expect(NEXT);
    granted("reclaiming", attacker.session.reclaim(handle, Sanitize::empty()));
    for range in TWO_RUNS {
        memory::check(range.ipa, range.size / PAGE, LENT_SEED);
    }
}
