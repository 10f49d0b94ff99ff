//! Bytes that a VM copies without a mapping, and windows of those that it may.

use rm_abi::Transfer;

use super::{ARGUMENT, Answer, BUSY, DENIED, IN_USE, MEMORY, Model, PAGE, READ, RELEASED, WRITE};

/// A side of a copy: the VM's own address, or an offset in a parcel.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Side {
    Own(u64),
    Parcel(u32, u64),
}

/// Most bytes of a segment, and of what is read before the next is written.
const LONGEST: u64 = 1 << 16;
const PIECE: u64 = 512;

impl Model {
    pub(crate) fn set_window(
        &mut self,
        vm: u8,
        handle: u32,
        other: u8,
        (offset, size): (u64, u64),
        end: bool,
    ) -> Answer {
        let index = self.own(vm, handle)?;
        let parcel = &mut self.parcels[index];
        if parcel.revoked || end && !parcel.open {
            return Err(DENIED);
        }
        let is_named = other != vm && parcel.rights(other).is_some();
        let is_inside = offset + size <= parcel.pages.len() as u64 * PAGE;
        let is_none = (offset, size) == (0, 0);
        if parcel.transfer == Transfer::Donate || !is_named || !is_inside || size == 0 && !is_none {
            return Err(ARGUMENT);
        }
        if parcel.held.contains_key(&other) {
            return Err(IN_USE);
        }
        if is_none {
            parcel.windows.remove(&other);
        } else {
            parcel.windows.insert(other, (offset, offset + size));
        }
        parcel.open &= !end;
        Ok(())
    }

    /// What is refused in its middle has been copied up to there.
    pub(crate) fn copy(&mut self, vm: u8, source: Side, dest: Side, length: u64) -> Answer {
        if matches!((source, dest), (Side::Own(_), Side::Own(_))) || length > LONGEST {
            return Err(ARGUMENT);
        }
        let mut done = 0;
        while done < length {
            let from = self.byte(vm, source, (done, length), READ)?;
            let to = self.byte(vm, dest, (done, length), WRITE)?;
            let piece = PIECE.min(length - done).min(PAGE - from % PAGE).min(PAGE - to % PAGE);
            let read: Vec<_> = self.content.range(from..from + piece).collect();
            let read: Vec<_> = read.into_iter().map(|(at, value)| (at - from, *value)).collect();
            self.take_bytes(to, piece);
            self.content.extend(read.into_iter().map(|(offset, value)| (to + offset, value)));
            done += piece;
        }
        Ok(())
    }

    /// The byte in the machine on one side of a segment, so far in it.
    fn byte(&self, vm: u8, side: Side, part: (u64, u64), wanted: u8) -> Result<u64, u32> {
        let (done, length) = part;
        match side {
            Side::Own(at) => {
                let at = at + done;
                let reach = self.page(vm, at - at % PAGE).and_then(|page| page.reach());
                let (pa, _) = reach.filter(|(_, rights)| rights & wanted != 0).ok_or(MEMORY)?;
                Ok(pa + at % PAGE)
            }
            Side::Parcel(handle, offset) => {
                let page = ((offset + done) / PAGE) as usize;
                let index = self.may_copy(vm, handle, (offset, offset + length), wanted)?;
                let parcel = &self.parcels[index];
                if parcel.gone[page] {
                    return Err(RELEASED);
                }
                Ok(parcel.pages[page].1 + (offset + done) % PAGE)
            }
        }
    }

    /// Whether the access list lets the VM copy, and all of that is in the parcel, or in its window.
    fn may_copy(
        &self,
        vm: u8,
        handle: u32,
        (first, end): (u64, u64),
        wanted: u8,
    ) -> Result<usize, u32> {
        let index = self.find(vm, handle)?;
        let parcel = &self.parcels[index];
        if parcel.open {
            return Err(BUSY);
        }
        if parcel.transfer == Transfer::Donate {
            return Err(ARGUMENT);
        }
        let is_late = parcel.recalled && parcel.owner != vm && !parcel.held.contains_key(&vm);
        if parcel.rights(vm).is_none_or(|rights| rights & wanted == 0) || is_late {
            return Err(DENIED);
        }
        let all = (0, parcel.pages.len() as u64 * PAGE);
        let (lowest, highest) = parcel.windows.get(&vm).copied().unwrap_or(all);
        if first < lowest || end > highest { Err(ARGUMENT) } else { Ok(index) }
    }
}
