//! Three VMs that share, lend and donate memory, and keep still while a fourth one looks.
//!
//! Cast: this program as first, second and third VM, the first linked to both others and to the inspector. A
//! (a camera) is the one that everybody talks to: handles of the others' parcels go through it. When the
//! inspector has seen everything, all is given back.

use rm_client::hvc::Hvc;
use rm_client::{
    Acceptance, Attribute, AttributeEntry, Handle, ListFlags, NewParcel, Rights, Sanitize, Session,
    SglEntry, Transfer, Vmid, grant, pages,
};

use crate::channel::Channel;
use crate::demo::granted;
use crate::inspector::STILL;
use crate::layout::{
    BLOCK, LINK_AB, LINK_AC, LINK_AD, PAGE, PAGES, VMID_A, VMID_B, VMID_C, WINDOW,
};
use crate::{life, memory};

const A: Vmid = Vmid(VMID_A);
const B: Vmid = Vmid(VMID_B);
const C: Vmid = Vmid(VMID_C);
/// The word by which a VM says that it is as far as it was to be.
const DONE: u64 = 0xd08e;
/// Parcels that one VM makes, its channels included.
const MOST: usize = 8;

/// What a VM has made and holds, to give it back at the end.
struct Party {
    session: Session<Hvc>,
    made: [Option<Handle>; MOST],
    held: [Option<Handle>; MOST],
}

/// The program.
pub fn main() {
    let mut session = life::session();
    let me = granted("asking who I am", session.vmid());
    let mut party = Party { session, made: [None; MOST], held: [None; MOST] };
    match me {
        A => party.camera(),
        B => party.display(),
        _ => party.analysis(),
    }
    println!("I was looked at, and all is given back");
}

fn note(list: &mut [Option<Handle>; MOST], handle: Handle) {
    let free = list.iter_mut().find(|entry| entry.is_none());
    *free.expect("a party has few parcels") = Some(handle);
}

impl Party {
    fn camera(&mut self) {
        let (b, c, eye) =
            (Channel::owner(LINK_AB), Channel::owner(LINK_AC), Channel::owner(LINK_AD));
        self.name_channels();
        let ring = [pages(PAGES, 4)];
        let both = [grant(A, Rights::RW), grant(B, Rights::RW)];
        let ring = self.make(Transfer::Share, "commands", &NewParcel::new(&ring, &both).label(1));
        hand_over(ring, &b);

        let frames: [SglEntry; 3] =
            core::array::from_fn(|n| pages(PAGES + (0x20 + 0x30 * n as u64) * PAGE, 32));
        let viewers = [grant(B, Rights::RW), grant(C, Rights::R)];
        let frames = NewParcel::new(&frames, &viewers).label(2);
        let frames = self.make(Transfer::Lend, "video frames", &frames);
        hand_over(frames, &b);
        hand_over(frames, &c);

        let uncached = |vmid| AttributeEntry { attribute: Attribute::Uncached as u16, vmid };
        let attributes = [uncached(A), uncached(C)];
        let readers = [grant(A, Rights::RW), grant(C, Rights::R)];
        let telemetry = [pages(PAGES + 0x10 * PAGE, 8)];
        let telemetry = NewParcel::new(&telemetry, &readers).attributes(&attributes).label(3);
        let telemetry = self.make(Transfer::Share, "telemetry", &telemetry);
        hand_over(telemetry, &c);

        // Offered, and nobody takes it.
        let spare = [pages(PAGES + BLOCK, 64)];
        let nobody_yet = [grant(C, Rights::RW)];
        self.make(Transfer::Lend, "spare", &NewParcel::new(&spare, &nobody_yet).label(4));

        c.say_handle(b.hear_handle());
        let gift = c.hear_handle();
        self.take_gift(gift);
        b.expect(DONE);
        c.expect(DONE);
        eye.say(STILL);
        eye.expect(STILL);
        for peer in [b, c] {
            peer.say(DONE);
            peer.expect(DONE);
        }
        self.give_back();
        b.say(DONE);
        c.say(DONE);
    }

    fn display(&mut self) {
        let a = Channel::peer(LINK_AB);
        self.take(&a, Transfer::Share, pages(WINDOW, 4));
        self.take(&a, Transfer::Lend, pages(WINDOW + 0x10 * PAGE, 96));
        let model = [pages(PAGES, BLOCK / PAGE)];
        let reader = [grant(C, Rights::R)];
        let model = NewParcel::new(&model, &reader).label(5);
        let model = self.make(Transfer::Lend, "model", &model);
        a.say_handle(model);
        self.wait_and_leave(&a);
    }

    fn analysis(&mut self) {
        let a = Channel::peer(LINK_AC);
        self.take(&a, Transfer::Lend, pages(WINDOW + BLOCK, 96));
        self.take(&a, Transfer::Share, pages(WINDOW, 8));
        self.take(&a, Transfer::Lend, pages(WINDOW + 2 * BLOCK, BLOCK / PAGE));
        let (all_to_a, all_to_b) = ([grant(A, Rights::RWX)], [grant(B, Rights::RWX)]);
        let gift = [pages(PAGES, 48)];
        let gift = NewParcel::new(&gift, &all_to_a).label(6);
        // It ends when it is accepted, so there is nothing to give back.
        a.say_handle(granted("donating", self.session.donate(&gift)));
        let second = [pages(PAGES + 0x40 * PAGE, 16)];
        let second = NewParcel::new(&second, &all_to_b).label(7);
        self.make(Transfer::Donate, "second gift", &second);
        self.wait_and_leave(&a);
    }

    fn name_channels(&mut self) {
        let mut channels = [None; MOST];
        let listed = self.session.list_parcels(ListFlags::empty(), |entry| {
            note(&mut channels, entry.handle);
        });
        granted("listing", listed);
        for handle in channels.into_iter().flatten() {
            granted("naming", self.session.name_parcel(handle, "channel"));
        }
    }

    fn make(&mut self, transfer: Transfer, name: &str, parcel: &NewParcel<'_>) -> Handle {
        let handle = granted("offering", self.session.create_all(transfer, parcel));
        granted("naming", self.session.name_parcel(handle, name));
        note(&mut self.made, handle);
        handle
    }

    /// Accepts what A hands over.
    fn take(&mut self, a: &Channel, transfer: Transfer, place: SglEntry) {
        let handle = a.hear_handle();
        let wanted = Acceptance::new(handle, transfer).contiguous();
        granted("accepting", self.session.accept_at(&wanted, &[place]));
        memory::read(place.ipa);
        note(&mut self.held, handle);
        // The model comes from B, who waits for no answer.
        if place.ipa != WINDOW + 2 * BLOCK {
            a.say(DONE);
        }
    }

    fn take_gift(&mut self, handle: Handle) {
        let wanted = Acceptance::new(handle, Transfer::Donate).contiguous();
        granted("accepting", self.session.accept_at(&wanted, &[pages(WINDOW, 48)]));
    }

    fn wait_and_leave(&mut self, a: &Channel) {
        a.say(DONE);
        a.expect(DONE);
        for handle in self.held.into_iter().flatten() {
            granted("releasing", self.session.release(handle, Sanitize::empty()));
        }
        a.say(DONE);
        // Everybody has released when A says so.
        a.expect(DONE);
        self.give_back();
    }

    fn give_back(&mut self) {
        for handle in self.made.into_iter().flatten() {
            granted("reclaiming", self.session.reclaim(handle, Sanitize::empty()));
        }
    }
}

/// Tells a VM of a parcel, and waits until it has it.
fn hand_over(parcel: Handle, to: &Channel) {
    to.say_handle(parcel);
    to.expect(DONE);
}

const _: () = assert!(PAGES + BLOCK + 64 * PAGE <= PAGES + 2 * BLOCK);
