//! One open `/dev/xen/gntdev`: reservations, mappings, and what is done when they end.

use rm_abi::extension::{NotifyActions, Policies, Resource};
use rm_abi::{Handle, MemoryKind, Rights, Sanitize, Transfer, Vmid};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::buffers::{Granted, ReleaseWait};
use super::program::{Buffers, Program};
use super::{
    EXP_FROM_REFS, EXP_WAIT_RELEASED, GET_OFFSET_FOR_VADDR, GRANT_COPY, GRANT_COPY_32,
    GetOffsetForVaddr, GrantCopy, GrantCopy32, GrantRef, IMP_RELEASE, IMP_TO_REFS, MAP_GRANT_REF,
    MAX_PAGES, MapGrantRef, NOTIFY_CLEAR_BYTE, NOTIFY_SEND_EVENT, SET_MAX_GRANTS, SET_UNMAP_NOTIFY,
    SetMaxGrants, UNMAP_GRANT_REF, UnmapGrantRef, UnmapNotify,
};
use crate::front::Errno;
use crate::parcel::{Acceptance, PAGE_SIZE, pages};
use crate::session::Session;
use crate::transport::Transport;

/// Event channel ports for each channel of the VM: one for each flag of its doorbell. Port `p` is flag
/// `p % 64` of channel `p / 64`.
pub const PORTS_PER_CHANNEL: u32 = 64;

/// A context: what one `open` of the device has. `PAGES` is how many grants its reservations and exports
/// can have together, and how many pages it can grant.
///
/// The index that a program gets is a place in this table, so indices are page offsets, do not overlap,
/// and are used again from the lowest.
#[derive(Debug)]
pub struct GntDev<const PAGES: usize> {
    /// What SET_MAX_GRANTS has set.
    limit: u32,
    /// A grant was reserved: the limit stays.
    begun: bool,
    pub(super) slots: [Slot; PAGES],
    pub(super) granted: [Granted; PAGES],
    /// Rises with every buffer that is made, so that nobody waits for the next one of the same number.
    pub(super) buffers: u32,
}

/// A page of the index space.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) part: Part,
    pub(super) grant: GrantRef,
    /// What is done when it is unmapped.
    will: Option<Will>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    Free,
    /// The first page of a reservation or an export.
    First(Window),
    Rest,
}

/// Grants that are mapped together, or not at all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) count: u32,
    pub(super) state: State,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum State {
    Reserved,
    /// At this address of the program.
    Mapped {
        vaddr: u64,
        writable: bool,
    },
    Exported {
        fd: u32,
        at: u64,
        buffer: u32,
    },
}

#[derive(Clone, Copy, Debug)]
struct Will {
    byte: u16,
    actions: NotifyActions,
    port: u32,
}

/// Where a driver has room for a mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The address that the program sees.
    pub vaddr: u64,
    /// The guest physical address behind it, where nothing is.
    pub ipa: u64,
    /// The program wants to write.
    pub writable: bool,
}

/// What an ioctl came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Done {
    /// It is done, and the program's struct filled in.
    Now,
    /// The program sleeps until [`GntDev::poll_released`] has an answer.
    Wait(ReleaseWait),
}

impl<const PAGES: usize> Default for GntDev<PAGES> {
    fn default() -> Self {
        Self::new()
    }
}

pub(super) fn read<S: FromBytes + IntoBytes>(
    program: &mut impl Program,
    at: u64,
) -> Result<S, Errno> {
    let mut value = S::new_zeroed();
    program.read(at, value.as_mut_bytes())?;
    Ok(value)
}

pub(super) fn write<S: IntoBytes + Immutable>(
    program: &mut impl Program,
    at: u64,
    value: &S,
) -> Result<(), Errno> {
    program.write(at, value.as_bytes())
}

/// The address of entry `n` of an array that begins `head` bytes behind `at`.
pub(super) fn entry(at: u64, head: usize, size: usize, n: u32) -> Result<u64, Errno> {
    let offset = u64::from(n).checked_mul(size as u64).and_then(|o| o.checked_add(head as u64));
    offset.and_then(|offset| at.checked_add(offset)).ok_or(Errno::EFAULT)
}

/// The VM that a domain is.
pub(super) fn vm_of(domid: u32) -> Result<Vmid, Errno> {
    u16::try_from(domid).map(Vmid).map_err(|_| Errno::EINVAL)
}

impl<const PAGES: usize> GntDev<PAGES> {
    /// A context with nothing in it.
    pub const fn new() -> Self {
        let grant = GrantRef { domid: 0, grant: 0 };
        Self {
            limit: MAX_PAGES,
            begun: false,
            slots: [Slot { part: Part::Free, grant, will: None }; PAGES],
            granted: [Granted::Free; PAGES],
            buffers: 0,
        }
    }

    /// What `ioctl(fd, number, arg)` does; `arg` is an address of the program. `ENOTTY` for a number that
    /// is none of gntdev's, `EFAULT` for a struct that is not there.
    pub fn ioctl<T: Transport, const N: usize, P: Program + Buffers>(
        &mut self,
        session: &mut Session<T, N>,
        program: &mut P,
        number: u32,
        arg: u64,
    ) -> Result<Done, Errno> {
        match number {
            MAP_GRANT_REF => self.reserve(program, arg)?,
            UNMAP_GRANT_REF => self.unreserve(&read(program, arg)?)?,
            GET_OFFSET_FOR_VADDR => {
                let found = self.offset_for(read(program, arg)?)?;
                write(program, arg, &found)?;
            }
            SET_MAX_GRANTS => self.set_max(session, &read(program, arg)?)?,
            SET_UNMAP_NOTIFY => self.set_notify(session, &read(program, arg)?)?,
            GRANT_COPY => {
                let GrantCopy { count, segments, .. } = read(program, arg)?;
                super::copies::copy(session, program, (count, segments))?;
            }
            GRANT_COPY_32 => {
                let GrantCopy32 { count, segments } = read(program, arg)?;
                super::copies::copy(session, program, (count, segments.into()))?;
            }
            EXP_FROM_REFS => self.export(session, program, arg)?,
            EXP_WAIT_RELEASED => return self.wait_released(&read(program, arg)?).map(Done::Wait),
            IMP_TO_REFS => self.grant_buffer(session, program, arg)?,
            IMP_RELEASE => self.end_grants(session, &read(program, arg)?)?,
            _ => return Err(Errno::ENOTTY),
        }
        Ok(Done::Now)
    }

    /// How many grants are reserved or exported.
    fn used(&self) -> usize {
        self.slots.iter().filter(|slot| !matches!(slot.part, Part::Free)).count()
    }

    /// The lowest run of free places. `EINVAL` for no grants or more than one call may have, `ENOSPC`
    /// beyond the context's limit, `ENOMEM` if its table has no such run.
    pub(super) fn find_gap(&mut self, count: u32) -> Result<usize, Errno> {
        if count == 0 || count > MAX_PAGES {
            return Err(Errno::EINVAL);
        }
        self.begun = true;
        let count = count as usize;
        if self.used() + count > self.limit as usize {
            return Err(Errno::ENOSPC);
        }
        let mut run = 0;
        for (place, slot) in self.slots.iter().enumerate() {
            run = if matches!(slot.part, Part::Free) { run + 1 } else { 0 };
            if run == count {
                return Ok(place + 1 - count);
            }
        }
        Err(Errno::ENOMEM)
    }

    /// Takes places for grants that `grant` names one by one.
    pub(super) fn take(
        &mut self,
        first: usize,
        count: u32,
        state: State,
        mut grant: impl FnMut(u32) -> Result<GrantRef, Errno>,
    ) -> Result<(), Errno> {
        for (n, place) in (0..count).zip(first..) {
            self.slots[place].grant = grant(n)?;
        }
        for place in first..first + count as usize {
            (self.slots[place].part, self.slots[place].will) = (Part::Rest, None);
        }
        self.slots[first].part = Part::First(Window { count, state });
        Ok(())
    }

    pub(super) fn give_up(&mut self, first: usize, count: u32) {
        for slot in &mut self.slots[first..first + count as usize] {
            (slot.part, slot.will) = (Part::Free, None);
        }
    }

    /// Windows, by their first place.
    pub(super) fn windows(&self) -> impl Iterator<Item = (usize, Window)> + '_ {
        self.slots.iter().enumerate().filter_map(|(place, slot)| match slot.part {
            Part::First(window) => Some((place, window)),
            _ => None,
        })
    }

    /// MAP_GRANT_REF.
    fn reserve(&mut self, program: &mut impl Program, arg: u64) -> Result<(), Errno> {
        let head: MapGrantRef = read(program, arg)?;
        let first = self.find_gap(head.count)?;
        let (size, of) = (size_of::<GrantRef>(), size_of::<MapGrantRef>());
        self.take(first, head.count, State::Reserved, |n| read(program, entry(arg, of, size, n)?))?;
        let index = first as u64 * PAGE_SIZE;
        let told = write(program, arg, &MapGrantRef { index, ..head });
        told.inspect_err(|_| self.give_up(first, head.count))
    }

    /// UNMAP_GRANT_REF.
    fn unreserve(&mut self, arg: &UnmapGrantRef) -> Result<(), Errno> {
        let (first, window) = self.reservation(arg.index, arg.count)?.ok_or(Errno::ENOENT)?;
        if matches!(window.state, State::Mapped { .. }) {
            return Err(Errno::EBUSY);
        }
        self.give_up(first, window.count);
        Ok(())
    }

    /// The reservation that begins at an index and has `count` grants, if that is not 0.
    fn reservation(&self, index: u64, count: u32) -> Result<Option<(usize, Window)>, Errno> {
        let found = self.windows().find(|(first, _)| *first as u64 * PAGE_SIZE == index);
        let fits = |(_, window): &(usize, Window)| {
            !matches!(window.state, State::Exported { .. }) && (count == 0 || window.count == count)
        };
        Ok(found.filter(fits))
    }

    /// What `mmap(…, fd, index)` does: maps all grants of the reservation, or none.
    ///
    /// `EINVAL` if no reservation has this index and count, if it is mapped already, or if a grant is none
    /// of that domain's to this VM; `EPERM` if one is only to be read and the program wants to write;
    /// `ENOSPC` and `ENOMEM` if the VM's quota or the manager's memory is used up. The manager maps with
    /// the rights of each grant: the driver's own tables keep a program from writing that did not ask for it.
    pub fn map<T: Transport, const N: usize>(
        &mut self,
        session: &mut Session<T, N>,
        (index, count): (u64, u32),
        place: Place,
    ) -> Result<(), Errno> {
        let found = if count == 0 { None } else { self.reservation(index, count)? };
        let (first, window) = found.ok_or(Errno::EINVAL)?;
        if !matches!(window.state, State::Reserved) {
            return Err(Errno::EINVAL);
        }
        let clears = |slot: &Slot| {
            slot.will.is_some_and(|will| will.actions.contains(NotifyActions::CLEAR_BYTE))
        };
        if !place.writable && self.slots[first..first + count as usize].iter().any(clears) {
            return Err(Errno::EINVAL);
        }
        self.accept(session, (first, count), place.ipa, |info_rights, _| {
            if place.writable && !info_rights.contains(Rights::W) {
                Err(Errno::EPERM)
            } else {
                Ok(())
            }
        })?;
        let state = State::Mapped { vaddr: place.vaddr, writable: place.writable };
        self.slots[first].part = Part::First(Window { count, state });
        Ok(())
    }

    /// What `munmap` of a whole mapping does, or the end of the process. What the program wanted done is
    /// done when this returns, and the reservation can be mapped again. `EINVAL` if nothing is mapped there.
    pub fn unmap<T: Transport, const N: usize>(
        &mut self,
        session: &mut Session<T, N>,
        vaddr: u64,
    ) -> Result<(), Errno> {
        let (first, window) = self.mapped(vaddr).ok_or(Errno::EINVAL)?;
        self.release(session, first, window.count)?;
        let state = State::Reserved;
        self.slots[first].part = Part::First(Window { state, ..window });
        for slot in &mut self.slots[first..first + window.count as usize] {
            slot.will = None;
        }
        Ok(())
    }

    /// What `close` does: unmaps everything. Buffers that were exported live until their own close, and so
    /// do the pages that were granted of buffers.
    pub fn close<T: Transport, const N: usize>(
        &mut self,
        session: &mut Session<T, N>,
    ) -> Result<(), Errno> {
        for first in 0..PAGES {
            let Part::First(window) = self.slots[first].part else { continue };
            match window.state {
                State::Exported { .. } => continue,
                State::Mapped { .. } => self.release(session, first, window.count)?,
                State::Reserved => {}
            }
            self.give_up(first, window.count);
        }
        Ok(())
    }

    /// The mapping that begins at an address of the program.
    fn mapped(&self, at: u64) -> Option<(usize, Window)> {
        let is_there =
            |window: &Window| matches!(window.state, State::Mapped { vaddr, .. } if vaddr == at);
        self.windows().find(|(_, window)| is_there(window))
    }

    /// Accepts grants side by side from `at` on; all, or none. `check` looks at the rights and policy of each.
    pub(super) fn accept<T: Transport, const N: usize>(
        &self,
        session: &mut Session<T, N>,
        (first, count): (usize, u32),
        at: u64,
        check: impl Fn(Rights, Policies) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        for (n, slot) in (0..u64::from(count)).zip(&self.slots[first..first + count as usize]) {
            let done = slot.accept(session, at.wrapping_add(n * PAGE_SIZE), &check);
            if let Err(errno) = done {
                let before = &self.slots[first..first + n as usize];
                for slot in before.iter().rev() {
                    // It was accepted a moment ago. If its owner has revoked it, it is gone as well.
                    let _ = session.release(Handle(slot.grant.grant), Sanitize::empty());
                }
                return Err(errno);
            }
        }
        Ok(())
    }

    /// Releases grants. Whatever is left of them is their owner's business: one that was revoked is gone.
    pub(super) fn release<T: Transport, const N: usize>(
        &self,
        session: &mut Session<T, N>,
        first: usize,
        count: u32,
    ) -> Result<(), Errno> {
        for slot in &self.slots[first..first + count as usize] {
            match session.release(Handle(slot.grant.grant), Sanitize::empty()).map_err(Errno::from)
            {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// GET_OFFSET_FOR_VADDR.
    fn offset_for(&self, arg: GetOffsetForVaddr) -> Result<GetOffsetForVaddr, Errno> {
        let (first, window) = self.mapped(arg.vaddr).ok_or(Errno::EINVAL)?;
        Ok(GetOffsetForVaddr { offset: first as u64 * PAGE_SIZE, count: window.count, ..arg })
    }

    /// SET_MAX_GRANTS.
    fn set_max<T: Transport, const N: usize>(
        &mut self,
        session: &mut Session<T, N>,
        arg: &SetMaxGrants,
    ) -> Result<(), Errno> {
        if self.begun {
            return Err(Errno::EBUSY);
        }
        let limits = session.limits(Vmid(0))?;
        let most = limits.of(Resource::PagesAccepted).ok_or(Errno::EIO)?.limit;
        if u64::from(arg.count) > most.min(MAX_PAGES.into()) {
            return Err(Errno::E2BIG);
        }
        self.limit = arg.count;
        Ok(())
    }

    /// SET_UNMAP_NOTIFY. What is said of a page before it is mapped holds from then on.
    fn set_notify<T: Transport, const N: usize>(
        &mut self,
        session: &mut Session<T, N>,
        arg: &UnmapNotify,
    ) -> Result<(), Errno> {
        arg.check()?;
        let (page, byte) = (arg.index / PAGE_SIZE, (arg.index % PAGE_SIZE) as u16);
        let holds = |(first, window): &(usize, Window)| {
            (*first as u64..*first as u64 + u64::from(window.count)).contains(&page)
        };
        let found = self.windows().find(holds);
        let (_, Window { state, .. }) = found.ok_or(Errno::ENOENT)?;
        let clears = arg.action & NOTIFY_CLEAR_BYTE != 0;
        let mut actions = NotifyActions::empty();
        actions.set(NotifyActions::CLEAR_BYTE, clears);
        actions.set(NotifyActions::RING, arg.action & NOTIFY_SEND_EVENT != 0);
        let will = Will { byte, actions, port: arg.event_channel_port };
        let slot = &mut self.slots[page as usize];
        match state {
            State::Exported { .. } => return Err(Errno::ENOENT),
            State::Mapped { writable: false, .. } if clears => return Err(Errno::EINVAL),
            State::Mapped { .. } => will.set(session, slot.grant)?,
            State::Reserved => {}
        }
        slot.will = Some(will).filter(|will| !will.actions.is_empty());
        Ok(())
    }
}

impl Slot {
    fn accept<T: Transport, const N: usize>(
        &self,
        session: &mut Session<T, N>,
        at: u64,
        check: impl Fn(Rights, Policies) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let (handle, owner) = (Handle(self.grant.grant), vm_of(self.grant.domid)?);
        let no_grant = |errno| if errno == Errno::ENOENT { Errno::EINVAL } else { errno };
        let info = session.info(handle).map_err(Errno::from).map_err(no_grant)?;
        let is_grant = info.owner == owner
            && info.pages == 1
            && info.memory == MemoryKind::NORMAL
            && info.transfer != Transfer::Donate;
        if !is_grant {
            return Err(Errno::EINVAL);
        }
        check(info.rights, info.policy)?;
        let wanted = Acceptance::new(handle, info.transfer);
        session.accept_at(&wanted, &[pages(at, 1)]).map_err(Errno::from).map_err(no_grant)?;
        let done = self.will.map_or(Ok(()), |will| will.set(session, self.grant));
        done.inspect_err(|_| {
            // As in `GntDev::accept`.
            let _ = session.release(handle, Sanitize::empty());
        })
    }
}

impl Will {
    /// Asks the manager for it, which does it even if this VM cannot.
    fn set<T: Transport, const N: usize>(
        &self,
        session: &mut Session<T, N>,
        grant: GrantRef,
    ) -> Result<(), Errno> {
        let bell = (self.port / PORTS_PER_CHANNEL, self.port % PORTS_PER_CHANNEL);
        Ok(session.notify_set(Handle(grant.grant), self.byte.into(), self.actions, bell)?)
    }
}
