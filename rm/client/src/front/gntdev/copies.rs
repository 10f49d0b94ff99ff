//! GRANT_COPY: copies between grants and a program's memory, without a mapping.

use rm_abi::extension::{CopySegment as Wish, CopySide as End};
use rm_abi::{ErrorCode, Handle};

use super::device::{entry, read, vm_of};
use super::program::Program;
use super::{
    COPY_DEST_GRANT, COPY_SOURCE_GRANT, CopySegment, CopySide, GNTST_BAD_COPY_ARG,
    GNTST_BAD_DOMAIN, GNTST_BAD_GNTREF, GNTST_BAD_PAGE, GNTST_EAGAIN, GNTST_GENERAL_ERROR,
    GNTST_OKAY, GNTST_PERMISSION_DENIED,
};
use crate::error::Error;
use crate::front::Errno;
use crate::parcel::PAGE_SIZE;
use crate::session::Session;
use crate::transport::Transport;

/// Segments that are copied by one call to the manager: it and its reply fit a [`Session`] of the usual
/// size.
const BATCH: usize = 6;
/// Pieces of a segment at most: a program's pages need not lie side by side, and a grant is one page.
const PIECES: usize = 2;

/// Copies `count` segments, which lie at an address of the program, and writes the status of each.
///
/// `EINVAL` for a segment of which no side is a grant, with unknown flags, or that leaves a grant's page; `EFAULT` if
/// the program does not have its side. Those before it in earlier batches are done then, and have their
/// status. What a grant does not allow is that segment's status.
pub(super) fn copy<T: Transport, const N: usize>(
    session: &mut Session<T, N>,
    program: &mut impl Program,
    (count, segments): (u32, u64),
) -> Result<(), Errno> {
    for first in (0..count).step_by(BATCH) {
        let mut batch = Batch::new();
        let last = count.min(first.saturating_add(BATCH as u32));
        for (n, number) in (first..last).enumerate() {
            let at = entry(segments, 0, size_of::<CopySegment>(), number)?;
            let segment: CopySegment = read(program, at)?;
            batch.add(session, program, n, &segment)?;
        }
        batch.perform(session)?;
        for (n, number) in (first..last).enumerate() {
            let offset = core::mem::offset_of!(CopySegment, status);
            let at = entry(segments, offset, size_of::<CopySegment>(), number)?;
            program.write(at, &batch.statuses[n].to_le_bytes())?;
        }
    }
    Ok(())
}

/// Some segments at work.
struct Batch {
    wishes: [Wish; BATCH * PIECES],
    /// The segment that each belongs to.
    of: [usize; BATCH * PIECES],
    len: usize,
    statuses: [i16; BATCH],
}

impl Batch {
    const fn new() -> Self {
        let none = Wish { source: End::Own(0), dest: End::Own(0), length: 0 };
        Self {
            wishes: [none; BATCH * PIECES],
            of: [0; BATCH * PIECES],
            len: 0,
            statuses: [GNTST_OKAY; BATCH],
        }
    }

    /// Adds segment `n`, unless it is refused already.
    fn add<T: Transport, const N: usize>(
        &mut self,
        session: &mut Session<T, N>,
        program: &mut impl Program,
        n: usize,
        segment: &CopySegment,
    ) -> Result<(), Errno> {
        let is_grant = [COPY_SOURCE_GRANT, COPY_DEST_GRANT].map(|flag| segment.flags & flag != 0);
        if segment.flags & !(COPY_SOURCE_GRANT | COPY_DEST_GRANT) != 0 || is_grant == [false; 2] {
            return Err(Errno::EINVAL);
        }
        let sides = [(segment.source, is_grant[0]), (segment.dest, is_grant[1])];
        let leaves_page = |(side, is_grant): &(CopySide, bool)| {
            *is_grant && u64::from(side.grant().offset) + u64::from(segment.len) > PAGE_SIZE
        };
        if sides.iter().any(leaves_page) {
            return Err(Errno::EINVAL);
        }
        for (side, _) in sides.into_iter().filter(|(_, is_grant)| *is_grant && segment.len > 0) {
            let status = check(session, side)?;
            if status != GNTST_OKAY {
                self.statuses[n] = status;
                return Ok(());
            }
        }
        let mut done = 0;
        while done < segment.len {
            let mut length = segment.len - done;
            let mut ends = [End::Own(0); 2];
            for ((end, (side, is_grant)), writes) in ends.iter_mut().zip(sides).zip([false, true]) {
                *end = if is_grant {
                    let place = side.grant();
                    End::Parcel(Handle(place.grant), u64::from(place.offset) + u64::from(done))
                } else {
                    let at = side.address().checked_add(done.into()).ok_or(Errno::EFAULT)?;
                    // At most a page, so it fits.
                    length = length.min((PAGE_SIZE - at % PAGE_SIZE) as u16);
                    End::Own(program.address(at, writes)?)
                };
            }
            let [source, dest] = ends;
            self.wishes[self.len] = Wish { source, dest, length: length.into() };
            self.of[self.len] = n;
            self.len += 1;
            done += length;
        }
        Ok(())
    }

    fn perform<T: Transport, const N: usize>(
        &mut self,
        session: &mut Session<T, N>,
    ) -> Result<(), Errno> {
        if self.len == 0 {
            return Ok(());
        }
        for (copied, &n) in session.copy(&self.wishes[..self.len])?.zip(&self.of) {
            let status = copied.map_or_else(status, |()| GNTST_OKAY);
            // The first failure of a segment is its status.
            if self.statuses[n] == GNTST_OKAY {
                self.statuses[n] = status;
            }
        }
        Ok(())
    }
}

/// Whether a grant is one, and of the domain that it is said to be of.
fn check<T: Transport, const N: usize>(
    session: &mut Session<T, N>,
    side: CopySide,
) -> Result<i16, Errno> {
    let place = side.grant();
    let owner = vm_of(place.domid.into())?;
    match session.info(Handle(place.grant)) {
        Ok(info) if info.owner == owner => Ok(GNTST_OKAY),
        Ok(_) => Ok(GNTST_BAD_DOMAIN),
        Err(error @ Error::Refused(_)) => Ok(status(error)),
        Err(error) => Err(error.into()),
    }
}

/// Xen's number for why a segment was refused.
fn status(error: Error) -> i16 {
    let Error::Refused(code) = error else { return GNTST_GENERAL_ERROR };
    match code {
        ErrorCode::HandleInvalid => GNTST_BAD_GNTREF,
        ErrorCode::Denied => GNTST_PERMISSION_DENIED,
        ErrorCode::MemoryInvalid | ErrorCode::MemoryReleased => GNTST_BAD_PAGE,
        ErrorCode::ArgumentInvalid => GNTST_BAD_COPY_ARG,
        ErrorCode::Busy => GNTST_EAGAIN,
        _ => GNTST_GENERAL_ERROR,
    }
}
