//! What is compared behind each step: all that a VM, its CPUs and its devices could notice.

use rm::address::{Ipa, Pa, VmIndex};
use rm::machine::{Line, Stream};
use rm::stage2::{Access, MemoryType};
use rm_abi::{Capability, hypercall};

use super::{Dice, Story, is_usual, ram, window};
use crate::ghost::model::VMS;
use crate::ghost::model::devices::{DEVICES, rights};

impl Story {
    pub(super) fn compare(&mut self, number: u32, dice: &mut Dice) {
        self.compare_reach();
        self.compare_devices();
        self.compare_bells(dice);
        self.world.manager.machine().check_no_stale();
        let report = self.world.manager.audit().expect("G8: nothing is lost");
        assert_eq!(report.parcels, self.model.parcels.len() as u64, "step {number}");
        if number.is_multiple_of(8) {
            self.compare_content(dice);
            self.compare_heaps();
            self.compare_attachments();
            self.world.check();
        }
        if number.is_multiple_of(3) {
            self.write(dice);
        }
    }

    /// What the tables say of every page that a VM may have or may have had.
    fn compare_reach(&mut self) {
        let places = self.model.pages.keys().map(|(_, at)| *at);
        self.elsewhere.extend(places.filter(|at| !is_usual(*at)));
        for vm in (0..VMS).map(VmIndex) {
            self.world.manager.with_page(vm, |page| {
                for at in ram().chain(window()).chain(self.elsewhere.iter().copied()) {
                    let reach = self.model.pages.get(&(vm.0, at)).and_then(|page| page.reach());
                    for (access, bit) in
                        [(Access::Read, 4), (Access::Write, 2), (Access::Execute, 1)]
                    {
                        let found = page(Ipa(at), access).map(|page| page.pa);
                        let expected = reach.filter(|(_, rights)| rights & bit != 0);
                        let expected = expected.map(|(pa, _)| Pa(pa));
                        assert_eq!(found, expected, "{vm:?} at {at:#x}, {access:?}");
                    }
                }
            });
        }
    }

    /// What every device reaches, with which rights and memory type.
    fn compare_devices(&self) {
        for device in DEVICES {
            let found = self.world.manager.machine().device_pages(Stream(device.stream));
            let found = found.iter().map(|page| {
                let rights = rights(page.direction as u32).expect("a direction has rights");
                ((page.at.0, page.pa.0, rights), page.is_cached)
            });
            let expected = self.model.reached_by(device).into_iter();
            let expected = expected.map(|page| (page, !self.model.uncached.contains(&page.1)));
            assert!(
                found.clone().eq(expected.clone()),
                "device {:#x}: {:x?}, not {:x?}",
                device.stream,
                found.collect::<Vec<_>>(),
                expected.collect::<Vec<_>>()
            );
        }
    }

    /// How often every bell was rung, and the flags of one, which are taken down.
    fn compare_bells(&mut self, dice: &mut Dice) {
        for bell in (0..VMS).flat_map(|vm| (0..3).map(move |number| (vm, number))) {
            let rung = self.world.interrupts(VmIndex(bell.0), Line::Doorbell(bell.1));
            assert_eq!(rung, self.model.bells.times(bell), "how often {bell:?} was rung");
        }
        let (vm, number) = (dice.vm(), dice.roll(3) as u8);
        if dice.once_in(4) {
            let args = [Capability::doorbell_receive(number).0, u64::MAX, 0, 0, 0];
            let guest = self.world.caller(VmIndex(vm));
            let results = guest.hypercall(hypercall::DOORBELL_RECEIVE, args).expect("a known call");
            let flags = if results.x[0] == 0 { results.x[1] } else { 0 };
            assert_eq!(flags, self.model.bells.take((vm, number)), "flags of {:?}", (vm, number));
        }
    }

    /// What every VM and every device reads, and how VMs may cache it.
    fn compare_content(&self, dice: &mut Dice) {
        let machine = self.world.manager.machine();
        for (&(vm, at), page) in &self.model.pages {
            let Some((pa, rights)) = page.reach() else { continue };
            if rights & 4 == 0 {
                continue;
            }
            let vm = VmIndex(vm);
            let found = self.world.manager.with_page(vm, |page| page(Ipa(at), Access::Read));
            let uncached = self.model.uncached.contains(&pa);
            let memory = if uncached { MemoryType::NonCacheable } else { MemoryType::WriteBack };
            assert_eq!(found.map(|page| page.memory), Some(memory), "{vm:?} at {at:#x}");
            let expected = self.model.bytes(pa);
            let whole = if uncached { machine.memory(Pa(pa)) } else { machine.page(Pa(pa)) };
            assert!(whole == expected, "{vm:?} at {at:#x}: {}", differs(&whole, &expected));
            let offset = dice.spot();
            let byte = self.world.cpu(vm).read(Ipa(at + offset));
            assert_eq!(byte, Ok(expected[offset as usize]), "{vm:?} at {at:#x}");
        }
        for device in DEVICES {
            for (at, pa, rights) in self.model.reached_by(device) {
                let sees = device.coherent || self.model.uncached.contains(&pa);
                let offset = dice.spot();
                let byte = self.world.device(Stream(device.stream)).read(Ipa(at + offset));
                if rights & 4 == 0 {
                    assert!(byte.is_err(), "device {:#x} at {at:#x}", device.stream);
                } else if sees {
                    let expected = self.model.bytes(pa)[offset as usize];
                    assert_eq!(byte, Ok(expected), "device {:#x} at {at:#x}", device.stream);
                }
            }
        }
    }

    /// VMs and their devices write to some of the pages that they may write to.
    fn write(&mut self, dice: &mut Dice) {
        let places: Vec<_> = self.model.pages.iter().map(|(place, page)| (*place, *page)).collect();
        for _ in 0..6 {
            let ((vm, at), page) = places[dice.roll(places.len() as u64) as usize];
            let Some((pa, rights)) = page.reach() else { continue };
            if rights & 2 != 0 {
                let (at, pa) = (Ipa(at), Pa(pa));
                let (cpu, offset, value) =
                    (self.world.cpu(VmIndex(vm)), dice.spot(), dice.roll(256) as u8);
                let allows = |at, access| self.world.manager.allows(VmIndex(vm), at, access);
                assert_eq!(cpu.retrying(at, Access::Write, allows), Ok(pa));
                cpu.write(Ipa(at.0 + offset), value).expect("it was just allowed");
                self.model.write(pa.0 + offset, value);
            }
        }
        for device in DEVICES {
            let reached = self.model.reached_by(device);
            if reached.is_empty() {
                continue;
            }
            let (at, pa, rights) = reached[dice.roll(reached.len() as u64) as usize];
            let (offset, value) = (dice.spot(), dice.roll(256) as u8);
            // What a device writes behind the caches is seen when those agree to: not here.
            let sees = device.coherent || self.model.uncached.contains(&pa);
            if sees || rights & 2 == 0 {
                let fake = self.world.device(Stream(device.stream));
                assert_eq!(fake.write(Ipa(at + offset), value).is_ok(), rights & 2 != 0);
            }
            if sees && rights & 2 != 0 {
                self.model.write(pa + offset, value);
            }
        }
    }
}

/// Where the content of a page is not what it should be.
fn differs(whole: &[u8], expected: &[u8]) -> String {
    let at = (0..whole.len()).find(|&at| whole[at] != expected[at]);
    at.map_or(String::new(), |at| format!("byte {at:#x} is {}, not {}", whole[at], expected[at]))
}
