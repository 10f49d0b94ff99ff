//! Memory of heaps.

use rm::address::VmIndex;
use rm::config::VmName;
use rm::heap::HeapConfig;
use rm::machine::fake::world::World;
use rm_abi::Bytes;
use rm_abi::extension::{
    HEAP, HEAP_ALLOC, HEAP_FREE, HeapAllocRequest, HeapFreeRequest, HeapInfo, HeapRequest,
};

use super::{Dice, Story, answer, encoded};
use crate::ghost::model::heaps::{BLOCK, HEAPS, HELD, HOLDER, Standing};
use crate::ghost::model::{Answer, Model, PAGE, Page, VMS};

/// Makes the heaps, and takes most of the first.
pub(super) fn make(world: &World, model: &mut Model) {
    for heap in &HEAPS {
        let (name, vms) = (VmName::new(heap.name), heap.vms);
        let config = HeapConfig { name, vms, guaranteed: heap.guaranteed, limit: heap.limit };
        world.try_add_heap(config, 1).expect("a heap of whole blocks");
    }
    let reply = world.caller(VmIndex(HOLDER)).call(HEAP_ALLOC, &piece(0, HELD * PAGE, None));
    assert_eq!(reply.u32_at(0), 0);
    model.hold_heap();
}

fn piece(heap: u32, size: u64, at: Option<u64>) -> Vec<u8> {
    let address = at.unwrap_or(HeapAllocRequest::ANYWHERE);
    encoded(|into| HeapAllocRequest { heap, size, address }.encode(into))
}

impl Story {
    pub(super) fn alloc(&mut self, dice: &mut Dice) -> (Answer, Answer) {
        let (vm, heap) = (dice.vm(), dice.roll(7) as u32 / 3);
        let size = match dice.roll(24) {
            0 => 0,
            1 => BLOCK * PAGE - dice.roll(PAGE),
            _ => 1 + dice.roll(6 * PAGE),
        };
        let at = match dice.roll(5) {
            0..3 => None,
            3 => Some(dice.place(6)),
            _ => Some(dice.place(6) + dice.roll(2) * 0x10),
        };
        self.tell(format_args!("VM {vm}: {size:#x} bytes of heap {heap} at {at:x?}"));
        let reply = self.caller(vm, dice).call(HEAP_ALLOC, &piece(heap, size, at));
        let expected = self.model.alloc(vm, heap as usize, size, at);
        let said = answer(reply.u32_at(0));
        if let (Ok(()), Ok((at, pages))) = (said, expected) {
            assert_eq!((reply.u64_at(4), reply.u64_at(12)), (at, pages * PAGE), "where it is");
        }
        (said, expected.map(drop))
    }

    pub(super) fn free(&mut self, dice: &mut Dice) -> (Answer, Answer) {
        let owned = |page: &Page| matches!(page, Page::Owned(pa) if Model::is_of_heap(*pa));
        let all = self.model.pages.iter().filter(|(_, page)| owned(page));
        let likely: Vec<_> = all.map(|(place, _)| *place).collect();
        let (vm, at) = if likely.is_empty() || dice.once_in(6) {
            (dice.vm(), dice.place(1) + dice.roll(8) / 7)
        } else {
            likely[dice.roll(likely.len() as u64) as usize]
        };
        let is_likely = |page: &u64| likely.contains(&(vm, at + page * PAGE));
        let run = (0..dice.roll(6)).take_while(is_likely).count() as u64;
        let size = (run + dice.roll(8) / 7) * PAGE;
        self.tell(format_args!("VM {vm}: gives {size:#x} bytes at {at:#x} back"));
        let payload = encoded(|into| HeapFreeRequest { address: at, size }.encode(into));
        let said = self.caller(vm, dice).words(HEAP_FREE, &payload).0;
        (answer(said), self.model.free(vm, at, size))
    }

    /// What each VM is told of the heaps that it may use.
    pub(super) fn compare_heaps(&self) {
        for (vm, (from, heap)) in
            (0..VMS).flat_map(|vm| (0..).zip(&HEAPS).map(move |heap| (vm, heap)))
        {
            let payload = encoded(|into| HeapRequest { from }.encode(into));
            let reply = self.world.caller(VmIndex(vm)).call(HEAP, &payload);
            let info = (reply.u32_at(0) == 0).then(|| HeapInfo::decode(&reply[4..])).flatten();
            let info = info.filter(|info| info.number == from);
            assert_eq!(info.is_some(), heap.vms >> vm & 1 != 0);
            let Some(HeapInfo { free, largest, used, guaranteed, limit, size, .. }) = info else {
                continue;
            };
            let bytes = [free, largest, used, guaranteed, limit, size];
            let Standing { free, longest, used } = self.model.standing(heap, vm);
            let pages = [free, longest, used, heap.guaranteed, heap.limit, BLOCK];
            assert_eq!(bytes.map(|bytes| bytes / PAGE), pages, "heap {from}, VM {vm}");
        }
    }
}
