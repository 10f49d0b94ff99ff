//! Which devices have a part in a parcel.
//!
//! A device is attached by its VM, and then mapped and unmapped as often as its driver likes. Like a
//! borrower's, its progress is kept here and not with the call that is at work: whoever needs it gone takes
//! over from its cursor, and the call finds that its attachment is another one or none.

use rm_abi::Rights;

use crate::address::VmIndex;
use crate::machine::Direction;
use crate::memparcel::borrower::Place;
use crate::memparcel::units::End;

/// How many devices a parcel can have attached.
pub(crate) const MAX_ATTACHMENTS: usize = 8;

/// How far an attachment is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// The call that makes it is comparing addresses; it may still be refused.
    Checking,
    /// The device reaches nothing.
    Attached,
    /// A mapping is reserving addresses; it may still be refused.
    Holding,
    /// All are reserved, and the caches make way for a device that does not look into them.
    Cleaning,
    /// It is being mapped, which cannot be refused any more.
    Mapping,
    /// All that its VM has of the parcel.
    Mapped,
    /// What it has is being taken away.
    Unmapping,
    /// It reaches nothing any more, and the caches forget what was before it.
    Settling,
}

/// A device that is attached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attachment {
    /// Tells it from those before it; rises too when a call's work on it is taken over.
    pub(crate) id: u32,
    pub(crate) vm: VmIndex,
    /// The VM's place in the ACL; none for the owner.
    pub(crate) entry: Option<u8>,
    /// The device's place among its VM's.
    pub(crate) device: u8,
    /// It looks into the caches.
    pub(crate) is_coherent: bool,
    /// It may have written since it was mapped.
    pub(crate) has_reached: bool,
    pub(crate) direction: Direction,
    pub(crate) stage: Stage,
    /// Progress of what is done to it, and where that ends.
    pub(crate) place: Place,
    pub(crate) end: End,
}

impl Attachment {
    /// Begins a stage from the first page on.
    pub(crate) fn enter(&mut self, stage: Stage) {
        (self.stage, self.place) = (stage, Place::START);
    }

    /// What the device may do with memory while it is mapped.
    pub(crate) const fn rights(&self) -> Rights {
        rights(self.direction)
    }
}

/// What a device may do with memory, by direction.
pub(crate) const fn rights(direction: Direction) -> Rights {
    match direction {
        Direction::ToDevice => Rights::R,
        Direction::FromDevice => Rights::W,
        Direction::Bidirectional => Rights::RW,
    }
}

/// The devices that are attached to a parcel.
#[derive(Debug)]
pub(crate) struct Attachments {
    all: [Option<Attachment>; MAX_ATTACHMENTS],
    /// The id of the last one.
    last: u32,
}

impl Attachments {
    pub(crate) const fn new() -> Self {
        Self { all: [None; MAX_ATTACHMENTS], last: 0 }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Attachment> {
        self.all.iter().flatten()
    }

    /// How many more there can be.
    pub(crate) fn free(&self) -> usize {
        MAX_ATTACHMENTS - self.iter().count()
    }

    /// Whether there is none at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// The attachment of a device of a VM, and its place.
    pub(crate) fn of(&self, vm: VmIndex, device: u8) -> Option<(usize, &Attachment)> {
        let is_it = |one: &&Attachment| one.vm == vm && one.device == device;
        self.places().find(|(_, one)| is_it(one))
    }

    /// The first attachment of a VM.
    pub(crate) fn first_of(&self, vm: VmIndex) -> Option<usize> {
        self.places().find(|(_, one)| one.vm == vm).map(|(place, _)| place)
    }

    /// Whether a device of the VM is mapped, or on its way from or to it.
    pub(crate) fn maps(&self, vm: VmIndex) -> bool {
        self.iter().any(|one| one.vm == vm && one.stage != Stage::Attached)
    }

    /// Whether some device does not look into the caches.
    pub(crate) fn bypass_caches(&self) -> bool {
        self.iter().any(|one| !one.is_coherent)
    }

    fn places(&self) -> impl Iterator<Item = (usize, &Attachment)> {
        (0..).zip(&self.all).filter_map(|(place, one)| Some((place, one.as_ref()?)))
    }

    /// Puts a new one in a free place, if there is one, and gives it an id.
    pub(crate) fn insert(&mut self, attachment: Attachment) -> Option<(usize, u32)> {
        let place = self.all.iter().position(Option::is_none)?;
        let id = self.next_id();
        self.all[place] = Some(Attachment { id, ..attachment });
        Some((place, id))
    }

    fn next_id(&mut self) -> u32 {
        self.last = self.last.wrapping_add(1);
        self.last
    }

    /// The one at a place that has one.
    pub(crate) fn at(&mut self, place: usize) -> &mut Attachment {
        self.all[place]
            .as_mut()
            .expect("G5: an attachment goes only when its device reaches nothing")
    }

    /// The one at a place, if there is one.
    pub(crate) fn get(&mut self, place: usize) -> Option<&mut Attachment> {
        self.all[place].as_mut()
    }

    /// The one at a place, if it is still the one with this id.
    pub(crate) fn named(&mut self, place: usize, id: u32) -> Option<&mut Attachment> {
        self.all[place].as_mut().filter(|one| one.id == id)
    }

    /// The one at a place is not what the call at work on it believes.
    pub(crate) fn take_over(&mut self, place: usize) {
        let id = self.next_id();
        self.at(place).id = id;
    }

    pub(crate) fn remove(&mut self, place: usize) {
        self.all[place] = None;
    }
}
