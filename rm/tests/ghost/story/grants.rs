//! Wills, copies and windows.

use rm_abi::extension::{
    COPY, CopyRequest, CopySegment, CopySide, NOTIFY_SET, NotifyActions, NotifySetRequest,
    SET_WINDOW, WindowFlags, WindowRequest,
};
use rm_abi::{Bytes, Handle, Transfer, Vmid};

use super::{Dice, Story, answer, encoded, vmid};
use crate::ghost::model::copies::Side;
use crate::ghost::model::wills::Will;
use crate::ghost::model::{Answer, PAGE};

impl Story {
    pub(super) fn set_will(&mut self, dice: &mut Dice) -> (Answer, Answer) {
        let (vm, handle) = self.pick(dice, |parcel, vm| {
            let owns = parcel.owner == vm && parcel.transfer != Transfer::Donate;
            owns && !parcel.revoked || parcel.held.contains_key(&vm)
        });
        let (page, spot) = (dice.roll(self.pages_of(handle) + 1), dice.spot());
        let bell = (dice.roll(4) as u8, dice.roll(66) as u8);
        let actions = NotifyActions::from_bits_truncate(dice.roll(4) as u32);
        let will = Will {
            clears: actions.contains(NotifyActions::CLEAR_BYTE).then_some(spot),
            rings: actions.contains(NotifyActions::RING).then_some(bell),
        };
        self.tell(format_args!("VM {vm}: at the end of page {page} of {handle:#x} {will:x?}"));
        let request = NotifySetRequest {
            handle: Handle(handle),
            actions,
            offset: page * PAGE + spot,
            doorbell: bell.0.into(),
            flag: bell.1.into(),
        };
        let payload = encoded(|into| request.encode(into));
        let said = self.caller(vm, dice).words(NOTIFY_SET, &payload).0;
        (answer(said), self.model.set_will(vm, handle, page as usize, will))
    }

    pub(super) fn set_window(&mut self, dice: &mut Dice) -> (Answer, Answer) {
        let (vm, handle) = self.pick(dice, |parcel, vm| {
            parcel.owner == vm && parcel.transfer != Transfer::Donate && !parcel.revoked
        });
        let other = dice.vm();
        let bytes = self.pages_of(handle) * PAGE;
        let first = dice.roll(bytes);
        let bytes = match dice.roll(3) {
            0 => (0, 0),
            _ => (first, dice.roll(bytes - first + bytes / 8)),
        };
        let is_open = self.model.parcels.iter().any(|one| one.handle == handle && one.open);
        let end = dice.once_in(if is_open { 2 } else { 8 });
        self.tell(format_args!("VM {vm}: window {bytes:x?} of {handle:#x} for {other}, end {end}"));
        let flags = if end { WindowFlags::END } else { WindowFlags::empty() };
        let ((offset, size), vmid) = (bytes, Vmid(vmid(other)));
        let request = WindowRequest { handle: Handle(handle), vmid, flags, offset, size };
        let payload = encoded(|into| request.encode(into));
        let said = self.caller(vm, dice).words(SET_WINDOW, &payload).0;
        (answer(said), self.model.set_window(vm, handle, other, bytes, end))
    }

    /// A copy of some segments, of which each has an answer of its own.
    pub(super) fn copy(&mut self, dice: &mut Dice) -> (Answer, Answer) {
        let (vm, handle) = self.pick(dice, |parcel, vm| {
            parcel.rights(vm).is_some() && !parcel.open && parcel.transfer != Transfer::Donate
        });
        let wishes: Vec<_> = (0..1 + dice.roll(3))
            .map(|_| {
                let length = match dice.roll(12) {
                    0 => 0x1_0000 + dice.roll(2),
                    1 => 0,
                    2..5 => dice.roll(9000),
                    _ => 1 + dice.roll(600),
                };
                let (parcel, other) = (self.side(vm, handle, dice), self.other_side(vm, dice));
                let (source, dest) =
                    if dice.once_in(2) { (parcel, other) } else { (other, parcel) };
                (source, dest, length)
            })
            .collect();
        self.tell(format_args!("VM {vm}: copy {wishes:x?}"));
        let side = |side| match side {
            Side::Own(at) => CopySide::Own(at),
            Side::Parcel(handle, at) => CopySide::Parcel(Handle(handle), at),
        };
        let segments: Vec<_> = wishes
            .iter()
            .map(|&(source, dest, length)| {
                let (source, dest) = (side(source), side(dest));
                CopySegment { source, dest, length: length as u32 }
            })
            .collect();
        let payload = encoded(|into| CopyRequest::encode(&segments, into));
        let reply = self.caller(vm, dice).call(COPY, &payload);
        let said: Vec<_> = (0..wishes.len()).map(|n| answer(reply.u32_at(8 + 4 * n))).collect();
        let expected: Vec<_> = wishes
            .into_iter()
            .map(|(source, dest, length)| self.model.copy(vm, source, dest, length))
            .collect();
        assert_eq!((reply.u32_at(0), reply.u32_at(4)), (0, expected.len() as u32));
        assert_eq!(said, expected, "a copy of several segments");
        (said[0], expected[0])
    }

    fn pages_of(&self, handle: u32) -> u64 {
        let known = self.model.parcels.iter().find(|parcel| parcel.handle == handle);
        known.map_or(1, |parcel| parcel.pages.len() as u64)
    }

    fn side(&self, vm: u8, handle: u32, dice: &mut Dice) -> Side {
        if dice.once_in(12) {
            return self.other_side(vm, dice);
        }
        Side::Parcel(handle, dice.roll(self.pages_of(handle)) * PAGE + dice.spot())
    }

    /// Mostly some of the VM's own memory.
    fn other_side(&self, vm: u8, dice: &mut Dice) -> Side {
        if dice.once_in(4) {
            return self.side(vm, self.any_handle(dice), dice);
        }
        let own: Vec<_> = self.model.pages.range((vm, 0)..=(vm, u64::MAX)).collect();
        let ((_, at), _) = own[dice.roll(own.len() as u64) as usize];
        Side::Own(at + dice.spot())
    }
}
