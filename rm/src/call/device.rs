//! ATTACH, DETACH, DMA_MAP, DMA_UNMAP: a device of a VM gets a part in a parcel, and gives it up.
//!
//! A device is given what its VM has of the parcel, where its VM has it, with the rights that the access list
//! grants the VM and the direction asks for, and never to execute. Mapping is like accepting: first all
//! addresses are held in the device's tree, with the tables on the way to them, which may be refused; then
//! they are filled, which cannot. So taking them away needs nothing.
//!
//! Caches: a device that does not look into them meets memory. Of a cached parcel every page is cleaned and
//! invalidated before it is mapped for such a device, and again when the device cannot reach it any more;
//! between the two CPU_ACCESS does it.

pub(crate) mod access;

use core::convert::Infallible;

use rm_abi::extension::{
    self, AttachFlags, AttachRequest, DetachRequest, Direction, DmaRequest, Stream,
};
use rm_abi::{Bytes, Handle, Rights, Transfer};

use crate::address::{Ipa, VmIndex};
use crate::call::{Caller, extension as replies, owner};
use crate::device::Device;
use crate::frame_pool::NoFrame;
use crate::machine::Machine;
use crate::memparcel::attachment::{Attachment, Stage, rights};
use crate::memparcel::borrower::{Place, Stage as Progress};
use crate::memparcel::table::{ParcelGuard, RecordIndex};
use crate::memparcel::units::{self, Walk, end_at};
use crate::memparcel::{Memparcel, Phase};
use crate::operation::budget::{Budget, weight};
use crate::operation::{Begun, Operation, Reply, Step};
use crate::refusal::Refusal;
use crate::stage2::{Batch, Change, HoldError, MemoryType, State};

/// A call on an attachment at work.
#[derive(Debug)]
pub(crate) struct DeviceCall {
    record: RecordIndex,
    handle: Handle,
    /// The attachment, as long as nobody takes it over.
    place: usize,
    id: u32,
    work: Work,
}

#[derive(Clone, Copy, Debug)]
enum Work {
    /// Compares the parcel's addresses with what the device can reach.
    Attach,
    Detach,
    Map,
    /// Also what a mapping that was refused has done.
    Unmap(Option<Refusal>),
}

pub(crate) fn begin<M: Machine>(
    caller: Caller<'_, '_, M>,
    message: u32,
    payload: &dyn Bytes,
    operation: &mut Option<Operation>,
) -> Result<Begun, Refusal> {
    let (call, is_short) = match message {
        extension::ATTACH => attach(caller, payload)?,
        extension::DETACH => detach(caller, payload)?,
        extension::DMA_MAP => map(caller, payload)?,
        _ => unmap(caller, payload)?,
    };
    *operation = Some(Operation::Device(call));
    Ok(if is_short { Begun::Short } else { Begun::Long })
}

impl<'a, M: Machine> Caller<'a, '_, M> {
    /// The caller's device with this stream, and its place among them. Another VM's is none.
    fn device(&self, stream: Stream) -> Result<(u8, &'a Device<M::Relax>), Refusal> {
        self.manager.vm(self.vm).device(stream).ok_or(Refusal::NoDevice)
    }
}

/// The caller's ACL entry, or none if it is the owner, and what the access list grants it of what it has.
pub(crate) fn part<M: Machine>(
    parcel: &Memparcel,
    caller: Caller<'_, '_, M>,
) -> Result<(Option<u8>, Rights), Refusal> {
    let rights = parcel.acl.rights(caller.vmid()).unwrap_or(Rights::empty());
    if parcel.owner == caller.vm {
        return Ok((None, rights));
    }
    let entry = parcel.borrower(caller.vm, caller.vmid(), Refusal::NoParcel)?;
    // What lies beside its window is none of its devices' business either.
    if parcel.window(entry).is_some() {
        return Err(Refusal::Window);
    }
    match parcel.borrowers[entry].stage {
        Progress::Mapped => Ok((Some(entry as u8), rights)),
        Progress::Away | Progress::Assigned => Err(Refusal::NotHeld),
        _ => Err(Refusal::InProgress),
    }
}

/// Whether a device may begin to use the parcel.
fn check_open(parcel: &Memparcel) -> Result<(), Refusal> {
    match parcel.phase {
        Phase::Offered => Ok(()),
        Phase::Closing => Err(Refusal::Closing),
        _ => Err(Refusal::InProgress),
    }
}

fn attach<M: Machine>(
    caller: Caller<'_, '_, M>,
    payload: &dyn Bytes,
) -> Result<(DeviceCall, bool), Refusal> {
    let AttachRequest { handle, stream, flags } =
        AttachRequest::decode(payload).map_err(replies::refusal)?;
    if !caller.machine().features().smmu {
        return Err(Refusal::NoSmmu);
    }
    let (record, mut parcel) = caller.parcel(handle)?;
    let (number, device) = caller.device(stream)?;
    check_open(&parcel)?;
    if parcel.recalled {
        return Err(Refusal::Closing);
    }
    let (entry, rights) = part(&parcel, caller)?;
    if rights.is_empty() {
        return Err(Refusal::DeviceRights);
    }
    if parcel.attachments.of(caller.vm, number).is_some() {
        return Err(Refusal::DeviceInUse);
    }
    let is_coherent = device.config.is_coherent;
    let is_cached = parcel.acl.policy() == MemoryType::WriteBack;
    if flags.contains(AttachFlags::COHERENT) && is_cached && !is_coherent {
        return Err(Refusal::DeviceLimits);
    }
    let end = parcel.end();
    let attachment = Attachment {
        id: 0,
        vm: caller.vm,
        entry,
        device: number,
        is_coherent,
        has_reached: false,
        direction: Direction::ToDevice,
        stage: Stage::Checking,
        place: Place::START,
        end,
    };
    if !leaves_room(caller, &parcel) {
        return Err(Refusal::TooManyAttachments);
    }
    let inserted = parcel.attachments.insert(attachment).ok_or(Refusal::TooManyAttachments)?;
    device.count_attachment(1);
    let is_short = caller.fits_step(1, parcel.pieces(entry.map(usize::from)), 0);
    Ok((DeviceCall::new(record, handle, inserted, Work::Attach), is_short))
}

/// Whether every other party with devices and none of them attached has a place left if the caller takes one.
/// A caller's first attachment takes nobody's place.
fn leaves_room<M: Machine>(caller: Caller<'_, '_, M>, parcel: &Memparcel) -> bool {
    let attachments = &parcel.attachments;
    if attachments.first_of(caller.vm).is_none() {
        return true;
    }
    let waits = |vm: &VmIndex| {
        parcel.is_party(*vm)
            && !caller.manager.vm(*vm).devices.is_empty()
            && attachments.first_of(*vm).is_none()
    };
    caller.manager.all().filter(waits).count() < attachments.free()
}

/// The attachment that a request names: its place, and what it is.
fn attached<M: Machine>(
    parcel: &Memparcel,
    caller: Caller<'_, '_, M>,
    stream: Stream,
) -> Result<(usize, Attachment), Refusal> {
    let (number, _) = caller.device(stream)?;
    let found = parcel.attachments.of(caller.vm, number).ok_or(Refusal::NotBegun)?;
    Ok((found.0, *found.1))
}

fn detach<M: Machine>(
    caller: Caller<'_, '_, M>,
    payload: &dyn Bytes,
) -> Result<(DeviceCall, bool), Refusal> {
    let DetachRequest { handle, stream } =
        DetachRequest::decode(payload).map_err(replies::refusal)?;
    let (record, parcel) = caller.parcel(handle)?;
    let (place, Attachment { id, stage, .. }) = attached(&parcel, caller, stream)?;
    if stage != Stage::Attached {
        return Err(Refusal::DeviceInUse);
    }
    Ok((DeviceCall::new(record, handle, (place, id), Work::Detach), true))
}

fn map<M: Machine>(
    caller: Caller<'_, '_, M>,
    payload: &dyn Bytes,
) -> Result<(DeviceCall, bool), Refusal> {
    let DmaRequest { handle, stream, direction } =
        DmaRequest::decode(payload).map_err(replies::refusal)?;
    let (record, mut parcel) = caller.parcel(handle)?;
    let (place, attachment) = attached(&parcel, caller, stream)?;
    let direction = Direction::from_wire(direction).ok_or(Refusal::Direction)?;
    check_open(&parcel)?;
    let (entry, granted) = part(&parcel, caller)?;
    if !granted.contains(rights(direction)) {
        return Err(Refusal::DeviceRights);
    }
    match attachment.stage {
        Stage::Attached => {}
        Stage::Mapped => return Err(Refusal::DeviceInUse),
        _ => return Err(Refusal::InProgress),
    }
    let is_short = is_short(&parcel, caller, entry, cleans(&parcel, &attachment));
    let end = parcel.end();
    let attachment = parcel.attachments.at(place);
    attachment.enter(Stage::Holding);
    (attachment.direction, attachment.end) = (direction, end);
    Ok((DeviceCall::new(record, handle, (place, attachment.id), Work::Map), is_short))
}

fn unmap<M: Machine>(
    caller: Caller<'_, '_, M>,
    payload: &dyn Bytes,
) -> Result<(DeviceCall, bool), Refusal> {
    let DmaRequest { handle, stream, direction } =
        DmaRequest::decode(payload).map_err(replies::refusal)?;
    let (record, mut parcel) = caller.parcel(handle)?;
    let (place, attachment) = attached(&parcel, caller, stream)?;
    match attachment.stage {
        Stage::Mapped => {}
        Stage::Attached => return Err(Refusal::NotBegun),
        _ => return Err(Refusal::InProgress),
    }
    if Direction::from_wire(direction) != Some(attachment.direction) {
        return Err(Refusal::Direction);
    }
    let is_short = is_short(&parcel, caller, attachment.entry, cleans(&parcel, &attachment));
    parcel.attachments.at(place).enter(Stage::Unmapping);
    Ok((DeviceCall::new(record, handle, (place, attachment.id), Work::Unmap(None)), is_short))
}

/// Whether a change of what the device has fits one step.
fn is_short<M: Machine>(
    parcel: &Memparcel,
    caller: Caller<'_, '_, M>,
    entry: Option<u8>,
    cleans: bool,
) -> bool {
    let weight = if cleans { owner::MAINTAINED_PAGE } else { weight::SHORT_PAGE };
    caller.fits_step(parcel.pages, parcel.pieces(entry.map(usize::from)), weight)
}

/// Whether the caches are in the way between the device and the VMs.
fn cleans(parcel: &Memparcel, attachment: &Attachment) -> bool {
    !attachment.is_coherent && parcel.acl.policy() == MemoryType::WriteBack
}

impl DeviceCall {
    const fn new(
        record: RecordIndex,
        handle: Handle,
        (place, id): (usize, u32),
        work: Work,
    ) -> Self {
        Self { record, handle, place, id, work }
    }

    /// The parcel, unless somebody else has ended what this call was at.
    fn lock<'a, M: Machine>(&self, caller: Caller<'a, '_, M>) -> Option<ParcelGuard<'a, M::Relax>> {
        let mut parcel = caller.manager.parcels().lock(caller.machine(), self.record);
        let is_there =
            parcel.handle == self.handle && parcel.attachments.named(self.place, self.id).is_some();
        is_there.then_some(parcel)
    }

    pub(crate) fn abandon<M: Machine>(self, caller: Caller<'_, '_, M>) {
        let Some(mut parcel) = self.lock(caller) else { return };
        match self.work {
            Work::Attach => forget(&mut parcel, caller, self.place),
            Work::Detach => {}
            Work::Map => parcel.attachments.at(self.place).stage = Stage::Attached,
            Work::Unmap(_) => parcel.attachments.at(self.place).stage = Stage::Mapped,
        }
    }

    pub(crate) fn step<M: Machine>(
        &mut self,
        caller: Caller<'_, '_, M>,
        budget: &mut Budget,
    ) -> Step {
        let Some(mut guard) = self.lock(caller) else {
            return Step::Done(Err(Refusal::NoParcel));
        };
        let parcel = &mut *guard;
        loop {
            let walk = match self.work {
                Work::Attach => compare(parcel, caller, self.place, budget),
                Work::Detach => Ok(Walk::End),
                Work::Map => map_on(parcel, caller, self.place, budget),
                Work::Unmap(_) => Ok(unmap_on(parcel, caller, self.place, budget)),
            };
            return match (self.work, walk) {
                (_, Ok(Walk::More)) => Step::More,
                (Work::Attach, Ok(Walk::End)) => {
                    parcel.attachments.at(self.place).stage = Stage::Attached;
                    Step::Done(Ok(Reply::Empty))
                }
                (Work::Attach, Err(refusal)) => {
                    forget(parcel, caller, self.place);
                    Step::Done(Err(refusal))
                }
                (Work::Detach, Ok(Walk::End)) => {
                    forget(parcel, caller, self.place);
                    Step::Done(Ok(Reply::Empty))
                }
                (Work::Map, Err(refusal)) => {
                    self.work = Work::Unmap(Some(refusal));
                    continue;
                }
                (Work::Unmap(Some(refusal)), _) => Step::Done(Err(refusal)),
                (Work::Map | Work::Unmap(None), Ok(Walk::End)) => Step::Done(Ok(Reply::Empty)),
                (Work::Detach | Work::Unmap(None), Err(_)) => {
                    unreachable!("giving up cannot be refused")
                }
            };
        }
    }
}

/// Whether the device can put all addresses on the bus that its VM has the parcel at.
fn compare<M: Machine>(
    parcel: &mut Memparcel,
    caller: Caller<'_, '_, M>,
    place: usize,
    budget: &mut Budget,
) -> Result<Walk, Refusal> {
    let device = usize::from(parcel.attachments.at(place).device);
    let bits = caller.manager.vm(caller.vm).devices[device].config.address_bits;
    // Addresses of VMs have at most 39 bits.
    let pages = 1 << (bits.min(52) - 12);
    units::device(parcel, place, caller.mem(), budget, |at, piece, _| {
        if at.page() + piece.pages <= pages { Ok(piece.pages) } else { Err(Refusal::DeviceLimits) }
    })
}

/// Goes on with a mapping, from whatever stage it is in.
fn map_on<M: Machine>(
    parcel: &mut Memparcel,
    caller: Caller<'_, '_, M>,
    place: usize,
    budget: &mut Budget,
) -> Result<Walk, Refusal> {
    loop {
        let attachment = *parcel.attachments.at(place);
        let (walk, next) = match attachment.stage {
            Stage::Holding if cleans(parcel, &attachment) => {
                (hold(parcel, caller, place, budget)?, Stage::Cleaning)
            }
            Stage::Holding => (hold(parcel, caller, place, budget)?, Stage::Mapping),
            Stage::Cleaning => (clean(parcel, caller, place, budget), Stage::Mapping),
            Stage::Mapping => {
                parcel.attachments.at(place).has_reached = true;
                let (rights, memory) = (attachment.rights(), parcel.acl.policy());
                let borrow = Change::Borrow { rights, memory };
                (change(parcel, caller, place, borrow, budget), Stage::Mapped)
            }
            _ => return Ok(Walk::End),
        };
        if walk == Walk::More {
            return Ok(Walk::More);
        }
        parcel.attachments.at(place).enter(next);
    }
}

/// Holds what the device is to have in its tree.
fn hold<M: Machine>(
    parcel: &mut Memparcel,
    caller: Caller<'_, '_, M>,
    place: usize,
    budget: &mut Budget,
) -> Result<Walk, Refusal> {
    loop {
        let device = usize::from(parcel.attachments.at(place).device);
        let mem = caller.mem();
        let mut tree = caller.manager.vm(caller.vm).devices[device].tree.lock(caller.machine());
        let held = units::device(parcel, place, mem, budget, |at, piece, budget| {
            tree.hold(mem, at, piece.pa, piece.pages, budget)
        });
        drop(tree);
        match held {
            Ok(walk) => return Ok(walk),
            Err(HoldError::Taken) => {
                panic!("G3: a device has what its VM has, and where it has it")
            }
            // A table that the VM's own tree does not need makes room.
            Err(HoldError::NoFrame(NoFrame::Empty)) if caller.manager.idle(caller.vm) => {
                if !budget.spend(weight::TABLE) {
                    return Ok(Walk::More);
                }
            }
            Err(HoldError::NoFrame(none)) => return Err(none.into()),
        }
    }
}

/// Changes what the device has in its tree, up to the end of the attachment. The SMMU knows of it when
/// this returns.
fn change<M: Machine>(
    parcel: &mut Memparcel,
    caller: Caller<'_, '_, M>,
    place: usize,
    change: Change,
    budget: &mut Budget,
) -> Walk {
    let device = usize::from(parcel.attachments.at(place).device);
    let mem = caller.mem();
    let mut tree = caller.manager.vm(caller.vm).devices[device].tree.lock(caller.machine());
    let mut batch = Batch::new();
    let walk = units::device(parcel, place, mem, budget, |at, piece, budget| {
        Ok::<_, Infallible>(tree.change(mem, &mut batch, at, piece.pages, change, budget))
    });
    tree.finish(mem, batch);
    let Ok(walk) = walk;
    walk
}

/// Cleans and invalidates what the device's VM has of the parcel.
fn clean<M: Machine>(
    parcel: &mut Memparcel,
    caller: Caller<'_, '_, M>,
    place: usize,
    budget: &mut Budget,
) -> Walk {
    let machine = caller.machine();
    let clean = |_: &M, page| caller.clean_page(page);
    let Ok(walk) = units::device(parcel, place, caller.mem(), budget, |_, piece, budget| {
        Ok::<_, Infallible>(owner::touch(machine, piece, weight::COPY_PAGE, budget, clean))
    });
    walk
}

/// Takes away what the device has, from whatever stage the attachment is in, until it is no more than
/// attached. Whoever comes next goes on where another stopped.
fn unmap_on<M: Machine>(
    parcel: &mut Memparcel,
    caller: Caller<'_, '_, M>,
    place: usize,
    budget: &mut Budget,
) -> Walk {
    loop {
        let whole = parcel.end();
        let attachment = *parcel.attachments.at(place);
        let next = match attachment.stage {
            Stage::Attached => return Walk::End,
            Stage::Checking => Stage::Attached,
            Stage::Holding => {
                // Only so much was held.
                parcel.attachments.at(place).end = end_at(&attachment.place);
                Stage::Unmapping
            }
            Stage::Cleaning | Stage::Mapping | Stage::Mapped => Stage::Unmapping,
            Stage::Unmapping => {
                if change(parcel, caller, place, Change::Unmap, budget) == Walk::More {
                    return Walk::More;
                }
                parcel.attachments.at(place).end = whole;
                let settles = attachment.has_reached && cleans(parcel, &attachment);
                if settles { Stage::Settling } else { Stage::Attached }
            }
            Stage::Settling => {
                if clean(parcel, caller, place, budget) == Walk::More {
                    return Walk::More;
                }
                Stage::Attached
            }
        };
        let attachment = parcel.attachments.at(place);
        attachment.enter(next);
        attachment.has_reached &= next != Stage::Attached;
    }
}

/// Ends an attachment whose device reaches nothing.
fn forget<M: Machine>(parcel: &mut Memparcel, caller: Caller<'_, '_, M>, place: usize) {
    let device = usize::from(parcel.attachments.at(place).device);
    parcel.attachments.remove(place);
    caller.manager.vm(caller.vm).devices[device].count_attachment(-1);
}

/// Ends all that the caller's devices have of the parcel, whatever its calls are doing, before the caller's
/// own part in it ends. When it is done no access of them can reach a page of it (G5).
pub(crate) fn withdraw<M: Machine>(
    parcel: &mut Memparcel,
    caller: Caller<'_, '_, M>,
    budget: &mut Budget,
) -> Walk {
    while let Some(place) = parcel.attachments.first_of(caller.vm) {
        if budget.is_spent() {
            return Walk::More;
        }
        parcel.attachments.take_over(place);
        if unmap_on(parcel, caller, place, budget) == Walk::More {
            return Walk::More;
        }
        forget(parcel, caller, place);
        // Paid afterwards, so that a budget of one still does a page.
        let _ = budget.spend(weight::VISIT);
    }
    Walk::End
}

/// Why a page of the caller's tree in this state cannot be offered: a device of the caller's has it mapped,
/// and the offer would take it out of the caller's own reach; or it is in a parcel already.
pub(crate) fn in_the_way<M: Machine>(
    parcel: &Memparcel,
    caller: Caller<'_, '_, M>,
    (state, at): (State, Ipa),
) -> Refusal {
    let own = parcel.acl.rights(caller.vmid()).unwrap_or(Rights::empty());
    let keeps = parcel.transfer == Transfer::Share && own.contains(Rights::RW);
    let is_mapped = || caller.manager.is_device_mapped(caller.vm, at);
    if state == State::Shared && !keeps && is_mapped() {
        return Refusal::DeviceInUse;
    }
    Refusal::NotOwned
}
