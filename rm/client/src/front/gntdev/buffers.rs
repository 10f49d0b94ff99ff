//! Grants as buffers, and buffers as grants.

use rm_abi::extension::Policies;
use rm_abi::{AclEntry, Handle, Rights, Sanitize};

use super::device::{GntDev, Part, State, entry, read, vm_of, write};
use super::program::{Buffers, Program};
use super::{
    DMA_WC, ExportFromRefs, ExportWaitReleased, GrantRef, ImportRelease, ImportToRefs, MAX_PAGES,
};
use crate::front::Errno;
use crate::parcel::{NewParcel, PAGE_SIZE, grant, pages};
use crate::session::Session;
use crate::transport::Transport;

/// A page of this VM that may be granted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Granted {
    Free,
    /// To another VM, as this parcel.
    Page {
        fd: u32,
        parcel: Handle,
        at: u64,
    },
    /// Nobody may begin to use it, and who has it was asked to end. The page is not to be used meanwhile.
    Ending {
        parcel: Handle,
        at: u64,
    },
}

/// A program that waits for the end of a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReleaseWait {
    buffer: u32,
    /// For how many milliseconds.
    pub wait_to_ms: u32,
}

impl<const PAGES: usize> GntDev<PAGES> {
    /// EXP_FROM_REFS: maps grants of one domain side by side, all or none, and makes a buffer of them.
    ///
    /// `EINVAL` for flags, a count or a grant that there is not, and for a grant whose cache policy is not the
    /// one asked for; else as [`GntDev::map`].
    pub(super) fn export<T: Transport, const N: usize, P: Program + Buffers>(
        &mut self,
        session: &mut Session<T, N>,
        program: &mut P,
        arg: u64,
    ) -> Result<(), Errno> {
        let head: ExportFromRefs = read(program, arg)?;
        head.check()?;
        let (count, first) = (head.count, self.find_gap(head.count)?);
        let of = size_of::<ExportFromRefs>();
        let reference = |n| {
            let number = read(program, entry(arg, of, size_of::<u32>(), n)?)?;
            Ok(GrantRef { domid: head.domid, grant: number })
        };
        self.take(first, count, State::Reserved, reference)?;
        let made = self.make_buffer(session, program, (first, head));
        made.and_then(|fd| {
            let told = write(program, arg, &ExportFromRefs { fd, ..head });
            told.inspect_err(|_| {
                let _ = self.close_buffer(session, program, fd);
            })
        })
        .inspect_err(|_| self.give_up(first, count))
    }

    fn make_buffer<T: Transport, const N: usize>(
        &mut self,
        session: &mut Session<T, N>,
        buffers: &mut impl Buffers,
        (first, head): (usize, ExportFromRefs),
    ) -> Result<u32, Errno> {
        // What devices see as CPUs do is write-back: the manager's caches are coherent.
        let wanted = if head.flags == DMA_WC { Policies::UNCACHED } else { Policies::CACHED };
        let at = buffers.room(head.count)?;
        let accepted = self.accept(session, (first, head.count), at, |_, policy| {
            if policy == wanted { Ok(()) } else { Err(Errno::EINVAL) }
        });
        let installed = accepted.and_then(|()| {
            let installed = buffers.install(at, head.count);
            installed.inspect_err(|_| {
                // Nobody has seen it. What cannot be released was revoked, and is gone as well.
                let _ = self.release(session, first, head.count);
            })
        });
        let fd = installed.inspect_err(|_| buffers.free(at, head.count))?;
        self.buffers = self.buffers.wrapping_add(1);
        let state = State::Exported { fd, at, buffer: self.buffers };
        if let Part::First(window) = &mut self.slots[first].part {
            window.state = state;
        }
        Ok(fd)
    }

    /// The last close of an exported buffer, when nothing of this VM uses it any more: its grants are
    /// released. `EBADF` if it is none of this context's.
    pub fn close_buffer<T: Transport, const N: usize>(
        &mut self,
        session: &mut Session<T, N>,
        buffers: &mut impl Buffers,
        fd: u32,
    ) -> Result<(), Errno> {
        let found = self.windows().find_map(|(first, window)| match window.state {
            State::Exported { fd: this, at, .. } if this == fd => Some((first, window.count, at)),
            _ => None,
        });
        let (first, count, at) = found.ok_or(Errno::EBADF)?;
        self.release(session, first, count)?;
        buffers.free(at, count);
        self.give_up(first, count);
        Ok(())
    }

    /// EXP_WAIT_RELEASED: `ENOENT` if there is no such buffer, or no more.
    pub(super) fn wait_released(&self, arg: &ExportWaitReleased) -> Result<ReleaseWait, Errno> {
        let found = self.windows().find_map(|(_, window)| match window.state {
            State::Exported { fd, buffer, .. } if fd == arg.fd => Some(buffer),
            _ => None,
        });
        let buffer = found.ok_or(Errno::ENOENT)?;
        Ok(ReleaseWait { buffer, wait_to_ms: arg.wait_to_ms })
    }

    /// The answer to a program that has waited for so long, if there is one yet: when its buffer has been
    /// closed, or `ETIMEDOUT`.
    pub fn poll_released(&self, wait: ReleaseWait, waited_ms: u32) -> Option<Result<(), Errno>> {
        let is_there = self.windows().any(|(_, window)| {
            matches!(window.state, State::Exported { buffer, .. } if buffer == wait.buffer)
        });
        match is_there {
            false => Some(Ok(())),
            true => (waited_ms >= wait.wait_to_ms).then_some(Err(Errno::ETIMEDOUT)),
        }
    }

    /// IMP_TO_REFS: grants each page of a buffer to a domain, to read and write.
    ///
    /// `EINVAL` for a reserved field that is not zero, a count that is not the buffer's, or a domain that
    /// there is not; `EBADF` for a descriptor that is none; `ENOSPC` if the VM can have no more parcels;
    /// `ENOMEM` if the context's table is full. If one page cannot be granted none is.
    pub(super) fn grant_buffer<T: Transport, const N: usize, P: Program + Buffers>(
        &mut self,
        session: &mut Session<T, N>,
        program: &mut P,
        arg: u64,
    ) -> Result<(), Errno> {
        let head: ImportToRefs = read(program, arg)?;
        head.check()?;
        if head.count == 0 || head.count > MAX_PAGES {
            return Err(Errno::EINVAL);
        }
        let to = vm_of(head.domid)?;
        if program.size(head.fd)? != u64::from(head.count) * PAGE_SIZE {
            return Err(Errno::EINVAL);
        }
        let free = self.granted.iter().filter(|page| matches!(page, Granted::Free)).count();
        if free < head.count as usize {
            return Err(Errno::ENOMEM);
        }
        let acl = [grant(session.vmid()?, Rights::RWX), grant(to, Rights::RW)];
        for n in 0..head.count {
            let granted = self.grant_page(session, program, (arg, head, n), &acl);
            if let Err(errno) = granted {
                self.take_back(session, head.fd)?;
                return Err(errno);
            }
        }
        Ok(())
    }

    fn grant_page<T: Transport, const N: usize, P: Program + Buffers>(
        &mut self,
        session: &mut Session<T, N>,
        program: &mut P,
        (arg, head, n): (u64, ImportToRefs, u32),
        acl: &[AclEntry],
    ) -> Result<(), Errno> {
        let at = program.page(head.fd, n)?;
        let to = entry(arg, size_of::<ImportToRefs>(), size_of::<u32>(), n)?;
        let parcel = session.share(&NewParcel::new(&[pages(at, 1)], acl))?;
        let free = self.granted.iter_mut().find(|page| matches!(page, Granted::Free));
        *free.ok_or(Errno::ENOMEM)? = Granted::Page { fd: head.fd, parcel, at };
        write(program, to, &parcel.0)
    }

    /// IMP_RELEASE: ends all grants of a buffer. Pages that the peer still has stay away until it has
    /// released them: see [`GntDev::is_ending`] and [`GntDev::released`]. `EINVAL` for a reserved field that
    /// is not zero, `ENOENT` if no page of the buffer is granted.
    pub(super) fn end_grants<T: Transport, const N: usize>(
        &mut self,
        session: &mut Session<T, N>,
        arg: &ImportRelease,
    ) -> Result<(), Errno> {
        arg.check()?;
        let is_of = |page: &Granted| matches!(page, Granted::Page { fd, .. } if *fd == arg.fd);
        if !self.granted.iter().any(is_of) {
            return Err(Errno::ENOENT);
        }
        self.take_back(session, arg.fd)
    }

    fn take_back<T: Transport, const N: usize>(
        &mut self,
        session: &mut Session<T, N>,
        buffer: u32,
    ) -> Result<(), Errno> {
        for page in &mut self.granted {
            let Granted::Page { fd, parcel, at } = *page else { continue };
            if fd != buffer {
                continue;
            }
            // Before the first try: who has it not yet does not get it any more.
            session.recall(parcel)?;
            *page = Granted::Ending { parcel, at };
            page.try_to_end(session)?;
        }
        Ok(())
    }

    /// The manager has said that a parcel was released (MEM_RELEASED, or an event: the driver subscribes to
    /// those). The page that is this VM's alone again, if it was one that waited for this.
    pub fn released<T: Transport, const N: usize>(
        &mut self,
        session: &mut Session<T, N>,
        parcel: Handle,
    ) -> Result<Option<u64>, Errno> {
        let is_it = |page: &&mut Granted| matches!(page, Granted::Ending { parcel: this, .. } if *this == parcel);
        let Some(page) = self.granted.iter_mut().find(is_it) else { return Ok(None) };
        page.try_to_end(session)
    }

    /// Whether a page of this VM was granted, and its peer has not released it though the grant is over:
    /// nobody may use it for anything else.
    pub fn is_ending(&self, page: u64) -> bool {
        self.granted
            .iter()
            .any(|granted| matches!(granted, Granted::Ending { at, .. } if *at == page))
    }
}

impl Granted {
    /// Takes the page back, unless somebody still has it: where it was then.
    fn try_to_end<T: Transport, const N: usize>(
        &mut self,
        session: &mut Session<T, N>,
    ) -> Result<Option<u64>, Errno> {
        let Self::Ending { parcel, at } = *self else { return Ok(None) };
        match session.reclaim(parcel, Sanitize::empty()).map_err(Errno::from) {
            Ok(()) => {
                *self = Self::Free;
                Ok(Some(at))
            }
            Err(Errno::EBUSY) => Ok(None),
            Err(errno) => Err(errno),
        }
    }
}
