//! Who has what: VMs ask about their parcels, and one asks about all.
//!
//! Cast: this program as first, second and third VM, each linked to the first. A lends pages to B and
//! gives the parcel a name; B looks at it before it accepts it; A wants it back, is refused, and asks who
//! is in the way. C has no part in it, and is configured to inspect.

use rm_client::hvc::{Hvc, HvcQueues, Sleep};
use rm_client::{
    Acceptance, ErrorCode, Handle, Holder, HolderStage, ListFlags, NewParcel, ParcelEntry,
    ParcelFlags, ParcelPhase, Resource, Rights, Sanitize, Session, Stream, Transfer, Vmid, grant,
    pages,
};

use crate::channel::Channel;
use crate::demo::{DONE, granted, refused};
use crate::layout::{LINK_AB, LINK_AC, PAGE, PAGES, VMID_A, VMID_B, VMID_C, WINDOW};
use crate::{life, mailbox, memory};

const A: Vmid = Vmid(VMID_A);
const B: Vmid = Vmid(VMID_B);
/// Pages that A lends, every second one of its memory.
const COUNT: u64 = 5;
const NAME: &str = "camera frames";
/// B holds all of it.
const HELD: Holder = Holder {
    vmid: B,
    stage: HolderStage::Mapped,
    rights: Rights::RW,
    stream: Stream(0),
    pages: COUNT,
};

/// The program.
pub fn main() {
    let mut session = life::session();
    match granted("asking who I am", session.vmid()).0 {
        VMID_A => owner(&mut mailbox::sleeping_session()),
        VMID_B => borrower(&mut session, &Channel::peer(LINK_AB)),
        VMID_C => inspector(&mut session, &Channel::peer(LINK_AC)),
        other => panic!("nobody is VM {other:#x} here"),
    }
}

fn owner(session: &mut Session<HvcQueues<Sleep>>) {
    let (b, c) = (Channel::owner(LINK_AB), Channel::owner(LINK_AC));
    let ranges: [_; COUNT as usize] =
        core::array::from_fn(|index| pages(PAGES + 2 * index as u64 * PAGE, 1));
    let acl = [grant(B, Rights::RW)];
    let parcel = granted("lending", session.lend(&NewParcel::new(&ranges, &acl)));
    granted("naming", session.name_parcel(parcel, NAME));
    // The links are parcels too, which each peer holds from boot on.
    let (mut links, mut mine) = (0, None);
    granted(
        "listing",
        session.list_parcels(ListFlags::empty(), |entry| match entry.name.as_str() {
            Some(NAME) => mine = Some(*entry),
            _ => links += u32::from(entry.transfer == Transfer::Share && entry.holders == 1),
        }),
    );
    let mine = mine.expect("what I named is in the list");
    assert_eq!((mine.handle, mine.pages, mine.holders, links), (parcel, COUNT, 0, 2));

    b.say_handle(parcel);
    b.expect(DONE);
    let early = session.reclaim(parcel, Sanitize::empty());
    refused("reclaiming what B holds", early, ErrorCode::MemoryInUse);
    let mut holders = granted("asking who holds it", session.holders(parcel));
    assert_eq!((holders.next(), holders.next()), (Some(HELD), None));
    println!("\"{NAME}\" is not mine to reclaim: VM {:#x} has all {COUNT} pages mapped", B.0);
    refused("asking about another VM", session.limits(B).map(drop), ErrorCode::Denied);

    c.say_handle(parcel);
    c.expect(DONE);
    b.say(DONE);
    b.expect(DONE);
    granted("reclaiming", session.reclaim(parcel, Sanitize::empty()));
    refused("asking about what is gone", session.info(parcel), ErrorCode::HandleInvalid);
}

fn borrower(session: &mut Session<Hvc>, a: &Channel) {
    let parcel = a.hear_handle();
    let offered = granted("asking what it is", session.info(parcel));
    assert_eq!((offered.owner, offered.transfer), (A, Transfer::Lend));
    assert_eq!((offered.pages, offered.extents, offered.rights), (COUNT, COUNT as u32, Rights::RW));
    assert_eq!((offered.phase, offered.name.as_str()), (ParcelPhase::Offered, Some(NAME)));
    refused("asking who else has it", session.holders(parcel).map(drop), ErrorCode::Denied);
    refused("naming it", session.name_parcel(parcel, "mine"), ErrorCode::Denied);
    let wanted = Acceptance::new(parcel, offered.transfer).contiguous();
    granted("accepting", session.accept_at(&wanted, &[pages(WINDOW, offered.pages)]));
    let held = granted("asking where it is", session.info(parcel));
    assert!(held.flags.contains(ParcelFlags::MINE) && held.address == WINDOW);
    memory::fill(held.address, held.pages, 1);
    a.say(DONE);
    a.expect(DONE);
    granted("releasing", session.release(parcel, Sanitize::empty()));
    a.say(DONE);
}

fn inspector(session: &mut Session<Hvc>, a: &Channel) {
    let parcel = a.hear_handle();
    refused("asking as a party", session.info(parcel), ErrorCode::HandleInvalid);
    granted("listing all", session.list_parcels(ListFlags::ALL, print));
    let mut holders = granted("asking who holds it", session.holders(parcel));
    assert_eq!((holders.next(), holders.next()), (Some(HELD), None));
    for (vmid, resource) in [(A, Resource::PagesLent), (B, Resource::PagesAccepted)] {
        let limits = granted("asking how it stands", session.limits(vmid));
        let pages = limits.of(resource).expect("every manager counts pages");
        println!("VM {:#x} uses {} of {} {resource}", vmid.0, pages.used, pages.limit);
        assert!(pages.used >= COUNT && limits.handles_left > 0);
    }
    a.say(DONE);
}

fn print(entry: &ParcelEntry) {
    let ParcelEntry { handle: Handle(handle), owner, pages, holders, .. } = *entry;
    let name = entry.name.as_str().expect("the manager takes no other names");
    println!(
        "parcel {handle:#x} \"{name}\" of VM {:#x}: {pages} pages, {holders} holders",
        owner.0
    );
}
