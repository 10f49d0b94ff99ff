//! Accepts that must not be granted.

use rm_abi::memparcel::accept::Accept;
use rm_abi::{AcceptFlags, AttributeEntry, Transfer, message};
use rm_client::{
    AclEntry, ErrorCode, Handle, MemoryKind, Rights, Sanitize, SglEntry, Vmid, grant, pages,
};

use super::owner::{LABEL, LENT_SEED};
use super::{Attacker, NEXT, transport};
use crate::channel::Channel;
use crate::demo::granted;
use crate::layout::{DISTRIBUTOR, LINK_AB, MEMORY, PAGE, PAGES, RAM, VMID_A, VMID_B, WINDOW};
use crate::{memory, probe};

const ACL: [AclEntry; 1] = [grant(Vmid(VMID_B), Rights::R)];
/// Where the two runs of the parcel are wanted.
const PLACES: [SglEntry; 2] = [pages(WINDOW, 1), pages(WINDOW + 16 * PAGE, 2)];

/// An accept that would be granted, to spoil in one place.
fn good(handle: Handle) -> Accept<'static> {
    Accept {
        handle,
        memory: MemoryKind::NORMAL,
        transfer: Transfer::Lend,
        flags: AcceptFlags::DONE,
        label: LABEL,
        acl: &ACL,
        sgl: &PLACES,
        attributes: &[],
    }
}

pub(super) fn attack(attacker: &mut Attacker, a: &Channel) {
    let handle = a.hear_handle();
    lengths_and_counts(attacker, handle);
    expectations(attacker, handle);
    places(attacker, handle);
    before_it_is_accepted(attacker, handle);
    while_it_is_accepted(attacker, a, handle);
    a.say(NEXT);
}

/// Sends an accept request as it is, with the VMID to map for.
fn refuse_for(
    attacker: &mut Attacker,
    what: &str,
    code: ErrorCode,
    accept: &Accept<'_>,
    vmid: u16,
) {
    attacker.refused(what, message::MEM_ACCEPT, code, |writer| {
        writer.u32(accept.handle.0).u8(accept.memory.0).u8(accept.transfer as u8);
        writer.u8(accept.flags.0).u8(0).u32(accept.label);
        writer.list(accept.acl, 0).list(accept.sgl, vmid).list(accept.attributes, 0);
    });
    probe::expect_no_access(PLACES[0].ipa);
}

fn refuse(attacker: &mut Attacker, what: &str, code: ErrorCode, accept: &Accept<'_>) {
    refuse_for(attacker, what, code, accept, 0);
}

fn lengths_and_counts(attacker: &mut Attacker, handle: Handle) {
    use ErrorCode::{MessageInvalid, NoResource};
    let mut whole = [0; 128];
    let length = good(handle).encode(&mut whole).unwrap_or(0);
    let call = message::MEM_ACCEPT;
    for cut in (0..length).filter(|cut| *cut != length - 4) {
        attacker.refused("a cut request", call, MessageInvalid, |writer| {
            writer.bytes(&whole[..cut]);
        });
    }
    attacker.refused("trailing bytes", call, MessageInvalid, |writer| {
        writer.bytes(&whole[..length]).u32(0);
    });
    for at in [12, 20, 56] {
        for (count, code) in [(513u16, NoResource), (512, MessageInvalid)] {
            attacker.refused("a count", call, code, |writer| {
                writer.bytes(&whole[..at]).u16(count).bytes(&whole[at + 2..length]);
            });
        }
    }
}

fn expectations(attacker: &mut Attacker, handle: Handle) {
    use ErrorCode::{ArgumentInvalid, Denied, HandleInvalid, ValidateFailed};
    let good = good(handle);
    let with = |flag: AcceptFlags| Accept { flags: good.flags | flag, ..good };
    let (acl_attr, label) = (AcceptFlags::VALIDATE_ACL_ATTR, AcceptFlags::VALIDATE_LABEL);
    let other_acls: [&[AclEntry]; 3] =
        [&[], &[grant(Vmid(VMID_B), Rights::RW)], &[grant(Vmid(VMID_A), Rights::R)]];
    for acl in other_acls {
        refuse(attacker, "another list", ValidateFailed, &Accept { acl, ..with(acl_attr) });
    }
    let attributes = [AttributeEntry { attribute: 2, vmid: Vmid(VMID_B) }];
    let accept = Accept { attributes: &attributes, ..with(acl_attr) };
    refuse(attacker, "other attributes", ValidateFailed, &accept);
    refuse(attacker, "another label", ValidateFailed, &Accept { label: LABEL + 1, ..with(label) });
    let sanitized = with(AcceptFlags::VALIDATE_SANITIZED);
    refuse(attacker, "zeroed before", ValidateFailed, &sanitized);
    refuse(attacker, "for others", Denied, &with(AcceptFlags::MAP_OTHER));
    refuse_for(attacker, "for A", ArgumentInvalid, &good, VMID_A);
    let unwritable = with(AcceptFlags::SANITIZE);
    refuse(attacker, "zeroing what I may only read", ArgumentInvalid, &unwritable);
    for transfer in [Transfer::Share, Transfer::Donate] {
        refuse(attacker, "another kind", ArgumentInvalid, &Accept { transfer, ..good });
    }
    for memory in [MemoryKind::IO, MemoryKind(5)] {
        refuse(attacker, "other memory", ArgumentInvalid, &Accept { memory, ..good });
    }
    for number in [0, handle.0 ^ 0x8000_0000, handle.0 + 0x2000, 0xffff_ffff] {
        let accept = Accept { handle: Handle(number), ..good };
        refuse(attacker, "no such parcel", HandleInvalid, &accept);
    }
}

fn places(attacker: &mut Attacker, handle: Handle) {
    use ErrorCode::{ArgumentInvalid, NoResource};
    let good = good(handle);
    let [one, two] = PLACES;
    let contiguous = Accept { flags: good.flags | AcceptFlags::MAP_CONTIGUOUS, ..good };
    let argument: [(&str, &[SglEntry]); 7] = [
        ("three places for two runs", &[one, two, pages(WINDOW + 32 * PAGE, 1)]),
        ("one place for two runs", &[one]),
        ("one place for the whole", &[pages(WINDOW, 3)]),
        ("places of other sizes", &[two, one]),
        ("an unaligned place", &[SglEntry { ipa: one.ipa + 8, ..one }, two]),
        ("a place beyond 44 bits", &[one, SglEntry { ipa: 1 << 44, ..two }]),
        ("a place at the last page", &[SglEntry { ipa: !0xfff, ..one }, two]),
    ];
    for (what, sgl) in argument {
        refuse(attacker, what, ArgumentInvalid, &Accept { sgl, ..good });
    }
    for sgl in [[pages(WINDOW, 2)], [pages(WINDOW, 4)]] {
        let accept = Accept { sgl: &sgl, ..contiguous };
        refuse(attacker, "a contiguous place of another size", ArgumentInvalid, &accept);
    }
    let taken: [(&str, [SglEntry; 2]); 6] = [
        ("my own memory", [one, pages(PAGES, 2)]),
        ("the end of my memory", [one, pages(RAM + MEMORY - PAGE, 2)]),
        ("a page of the link", [pages(LINK_AB.peer, 1), two]),
        ("the same place twice", [one, pages(WINDOW - PAGE, 2)]),
        ("beyond my addresses", [one, pages((1 << 44) - 2 * PAGE, 2)]),
        ("my distributor", [pages(DISTRIBUTOR, 1), two]),
    ];
    for (what, sgl) in taken {
        refuse(attacker, what, NoResource, &Accept { sgl: &sgl, ..good });
    }
}

fn before_it_is_accepted(attacker: &mut Attacker, handle: Handle) {
    attacker.refused("releasing", message::MEM_RELEASE, ErrorCode::MemoryReleased, |writer| {
        writer.u32(handle.0).u32(0);
    });
    attacker.refused("reclaiming", message::MEM_RECLAIM, ErrorCode::Denied, |writer| {
        writer.u32(handle.0).u32(1);
    });
}

fn while_it_is_accepted(attacker: &mut Attacker, a: &Channel, handle: Handle) {
    // The one flag bit without a meaning is ignored.
    let good = Accept { flags: AcceptFlags(AcceptFlags::DONE.0 | 0x40), ..good(handle) };
    let outcome = attacker.session.call(message::MEM_ACCEPT, |into| good.encode(into));
    granted("accepting", outcome.map(drop));
    let check = || PLACES.map(|place| memory::check(place.ipa, place.size / PAGE, LENT_SEED));
    check();
    let refused_write = probe::write(WINDOW, 0);
    probe::expect_abort(refused_write, probe::DATA_ABORT, WINDOW);
    probe::expect_abort(probe::execute(WINDOW), probe::FETCH_ABORT, WINDOW);

    attacker.refused("accepting twice", message::MEM_ACCEPT, ErrorCode::Denied, |writer| {
        writer.u32(handle.0).u8(0).u8(1).u8(0x80).u8(0).bytes(&[0; 16]);
    });
    let share = [grant(Vmid(VMID_B), Rights::R), grant(Vmid(VMID_A), Rights::R)];
    for (call, acl) in [(message::MEM_SHARE, &share[..]), (message::MEM_LEND, &share[1..])] {
        attacker.refused("passing it on", call, ErrorCode::MemoryInvalid, |writer| {
            writer.u32(0).u32(0).list(acl, 0).list(&PLACES[..1], 0).u32(0);
        });
    }
    let zero = ErrorCode::ArgumentInvalid;
    attacker.refused("zeroing on release", message::MEM_RELEASE, zero, |writer| {
        writer.u32(handle.0).u32(1);
    });
    // What may only be read is no place for a reply.
    transport::refuse_reply_at(WINDOW);
    check();
    a.say(NEXT);
    a.expect(NEXT);
    granted("releasing", attacker.session.release(handle, Sanitize::empty()));
    probe::expect_no_access(WINDOW);
    attacker.refused(
        "releasing twice",
        message::MEM_RELEASE,
        ErrorCode::MemoryReleased,
        |writer| {
            writer.u32(handle.0).u32(0);
        },
    );
}
