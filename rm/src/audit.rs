//! Conservation (G8): the pages of all VMs add up to what boot gave them, and every page that a VM
//! lends or borrows is in a live parcel that says so, and the VMs are charged for what their parcels are made of.
//!
//! The audit reads the real tables. It runs while no call is at work; it takes each VM's lock once
//! for each leaf, so it delays nobody for long, but what it finds is only meaningful in a quiet
//! system.

use heapless::Vec;

use crate::address::{Ipa, PAGES_PER_2M, VmIndex};
use crate::call::Caller;
use crate::device::Device;
use crate::heap::View;
use crate::machine::Machine;
use crate::manager::Manager;
use crate::memparcel::attachment::{self, MAX_ATTACHMENTS};
use crate::memparcel::borrower::{Place, Stage};
use crate::memparcel::units::{self, Walk};
use crate::memparcel::{Memparcel, Phase};
use crate::operation::STEP;
use crate::operation::budget::Budget;
use crate::quota::COUNTED;
use crate::refusal::Resource;
use crate::stage2::{Leaf, Next, State};

/// How much of something a parcel costs its owner, or those that hold it.
type Cost = fn(&Memparcel) -> u64;

const CHARGED: [(Resource, Cost); 5] = [
    (Resource::Parcels, |_| 1),
    (Resource::PagesLent, Memparcel::pages_left),
    (Resource::Extents, |parcel| parcel.extents.len().into()),
    (Resource::Unfinished, |parcel| parcel.unfinished.into()),
    (Resource::PagesAccepted, |parcel| parcel.borrowers.iter().map(|holder| holder.pages).sum()),
];

/// Heaps that one walk over a VM's tables counts.
const HEAPS: usize = 8;

/// Pages by what they are to the VMs, over all VMs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct AuditReport {
    /// Pages that their VM owns and nobody else reaches.
    pub owned: u64,
    /// Pages that their owner shares.
    pub shared: u64,
    /// Pages that their owner has lent or donated and not got back.
    pub lent: u64,
    /// Mappings of other VMs' pages. These are not counted in the total.
    pub borrowed: u64,
    /// Pages of heaps that nobody has.
    pub heaps: u64,
    /// Mappings of parcels' pages for devices. These are not counted in the total either.
    pub of_devices: u64,
    /// Frames of the manager in use.
    pub frames: u64,
    /// Those of them that are translation tables, of VMs and of their devices.
    pub tables: u64,
    /// Those tables that could be merged back into blocks.
    pub mergeable: u64,
    /// Live parcels.
    pub parcels: u64,
    /// Pages of those that the machine does not vouch for: they stay where they are.
    pub poisoned: u64,
}

impl AuditReport {
    /// Pages that have an owner, and those of heaps that wait for one.
    pub const fn total(&self) -> u64 {
        self.owned + self.shared + self.lent + self.heaps
    }
}

/// What does not add up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Broken {
    /// A call is at work, so nothing can be said.
    Busy,
    /// The pages of all VMs are not those that boot gave out.
    Total {
        /// Pages counted.
        counted: u64,
        /// Pages given at boot.
        given: u64,
    },
    /// A page of a parcel is not in its owner's tree as the parcel says.
    OwnerPage(Ipa),
    /// A page of a parcel is not in a borrower's tree as the parcel says.
    BorrowerPage(Ipa),
    /// A page of a parcel is not in a device's tree as the parcel says.
    DevicePage(Ipa),
    /// Pages are lent, shared, borrowed or mapped for a device without a parcel that says so.
    Unaccounted,
    /// The VMs are charged for more or less of this than their parcels are made of.
    Charges(Resource),
    /// Devices count other attachments than the parcels have.
    Attachments,
    /// The pages of the heap with this number are not each free or with a VM that is charged for it.
    Heap(u32),
    /// What the VMs use beyond their guarantees is not what is missing in the shared pool.
    Shared(Resource),
    /// The frames in use are not those of the VMs.
    Frames,
}

impl<M: Machine> Manager<'_, M> {
    /// Checks G8 over the tables of all VMs.
    ///
    /// # Errors
    ///
    /// The first thing that does not add up.
    pub fn audit(&self) -> Result<AuditReport, Broken> {
        let mut report = AuditReport::default();
        let (mut lent_or_shared, mut borrowed) = (0, 0);
        let mut costs = [0; CHARGED.len()];
        let (mut of_devices, mut attachments) = (0, 0);
        self.count_pages(&mut report)?;
        for vm in self.all() {
            report.frames += u64::from(self.pool().taken(vm));
            let stage2 = self.vm(vm).stage2.lock(self.machine());
            report.tables += u64::from(stage2.tables());
            report.mergeable += u64::from(stage2.mergeable());
            drop(stage2);
            for device in &self.vm(vm).devices {
                self.count_device(device, &mut report)?;
                attachments += u64::from(device.attachments());
            }
        }
        for record in self.parcels().all() {
            let mut parcel = self.parcels().lock(self.machine(), record);
            match parcel.phase {
                Phase::Vacant => continue,
                Phase::Initial | Phase::Offered | Phase::Closing => {}
                Phase::Creating
                | Phase::Appending
                | Phase::Retyping
                | Phase::Trimming
                | Phase::Reclaiming => return Err(Broken::Busy),
            }
            report.parcels += 1;
            for (sum, (_, cost)) in costs.iter_mut().zip(CHARGED) {
                *sum += cost(&parcel);
            }
            report.poisoned += if parcel.poisoned { parcel.pages_left() } else { 0 };
            lent_or_shared += self.check_owner(&mut parcel)?;
            borrowed += self.check_borrowers(&mut parcel)?;
            of_devices += self.check_attachments(&mut parcel)?;
            attachments -= parcel.attachments.iter().count() as u64;
        }
        if attachments != 0 {
            return Err(Broken::Attachments);
        }
        for ((resource, _), cost) in CHARGED.into_iter().zip(costs) {
            let used = self.all().map(|vm| self.vm(vm).meters.of(resource).used());
            if used.sum::<u64>() != cost {
                return Err(Broken::Charges(resource));
            }
        }
        self.check_shared()?;
        if lent_or_shared != report.lent + report.shared || borrowed != report.borrowed {
            return Err(Broken::Unaccounted);
        }
        if of_devices != report.of_devices {
            return Err(Broken::Unaccounted);
        }
        let (counted, given) = (report.total(), self.given());
        if counted != given {
            return Err(Broken::Total { counted, given });
        }
        let free = u64::from(self.pool().free(self.machine()));
        if report.frames + free != self.machine().frames().len() as u64 {
            return Err(Broken::Frames);
        }
        Ok(report)
    }

    fn check_shared(&self) -> Result<(), Broken> {
        for resource in COUNTED {
            let used = self.all().map(|vm| self.vm(vm).meters.of(resource).shared());
            if used.sum::<u64>() != self.pools().of(resource).taken() {
                return Err(Broken::Shared(resource));
            }
        }
        Ok(())
    }

    /// Counts the pages of all VMs and heaps. Each page of a heap is free or in the tables of the VM that is
    /// charged for it.
    fn count_pages(&self, report: &mut AuditReport) -> Result<(), Broken> {
        let mut heaps = Vec::<_, HEAPS>::new();
        for heap in self.heaps().all() {
            if let Err(heap) = heaps.push(heap) {
                report.heaps += self.count_with(&heaps, &mut AuditReport::default())?;
                heaps.clear();
                let _ = heaps.push(heap);
            }
        }
        report.heaps += self.count_with(&heaps, report)?;
        Ok(())
    }

    /// Counts the pages of all VMs; the result is how many of these heaps are free.
    fn count_with(
        &self,
        heaps: &[View<'_, M::Relax>],
        report: &mut AuditReport,
    ) -> Result<u64, Broken> {
        let (mut counted, mut free) = ([0; HEAPS], 0);
        for vm in self.all() {
            let owned = self.count_leaves(vm, heaps, report)?;
            for ((heap, owned), counted) in heaps.iter().zip(owned).zip(&mut counted) {
                if heap.usage(self.machine(), vm).used != owned {
                    return Err(Broken::Heap(heap.number));
                }
                *counted += owned;
            }
        }
        for (heap, counted) in heaps.iter().zip(counted) {
            let left = heap.free(self.machine());
            if counted + left != heap.pages() {
                return Err(Broken::Heap(heap.number));
            }
            free += left;
        }
        Ok(free)
    }

    /// Counts the pages of a VM; the result is how many of each heap it owns, whoever else may use them.
    fn count_leaves(
        &self,
        vm: VmIndex,
        heaps: &[View<'_, M::Relax>],
        report: &mut AuditReport,
    ) -> Result<[u64; HEAPS], Broken> {
        let (mut at, mut of_heaps) = (Ipa(0), [0; HEAPS]);
        loop {
            let (stage2, budget) = (self.vm(vm).stage2.lock(self.machine()), &mut Budget::new(64));
            match stage2.next_leaf(self.mem(), at, budget) {
                Next::End => return Ok(of_heaps),
                Next::More(next) => at = next,
                Next::Leaf(found, leaf) => {
                    let (count, is_own) = match leaf.state {
                        State::Owned => (&mut report.owned, true),
                        State::Shared => (&mut report.shared, true),
                        State::Lent => (&mut report.lent, true),
                        State::Borrowed => (&mut report.borrowed, false),
                        State::Claimed => return Err(Broken::Busy),
                        // Reserved addresses and registers are nobody's RAM.
                        State::Held | State::Device | State::Absent => (&mut 0, false),
                    };
                    // Not over a block's end, where a heap may end.
                    let rest = PAGES_PER_2M - leaf.pa.page() % PAGES_PER_2M;
                    let pages = if leaf.pages < rest {
                        stage2.run(self.mem(), found, rest, budget).2
                    } else {
                        leaf.pages
                    };
                    let leaf = Leaf { pages, ..leaf };
                    *count += leaf.pages;
                    let mut counts = heaps.iter().zip(&mut of_heaps).filter(|_| is_own);
                    if let Some((_, pages)) = counts.find(|(heap, _)| heap.has(leaf.pa)) {
                        *pages += leaf.pages;
                    }
                    at = found.add_pages(leaf.pages);
                }
            }
        }
    }

    /// Counts what a device reaches.
    fn count_device(
        &self,
        device: &Device<M::Relax>,
        report: &mut AuditReport,
    ) -> Result<(), Broken> {
        let mut at = Ipa(0);
        loop {
            let tree = device.tree.lock(self.machine());
            match tree.next_leaf(self.mem(), at, &mut Budget::new(64)) {
                Next::End => {
                    report.tables += u64::from(tree.tables());
                    return Ok(());
                }
                Next::More(next) => at = next,
                Next::Leaf(found, leaf) if leaf.state == State::Borrowed => {
                    report.of_devices += leaf.pages;
                    at = found.add_pages(leaf.pages);
                }
                Next::Leaf(..) => return Err(Broken::Busy),
            }
        }
    }

    /// Every page that a device has mapped stands in its tree where its VM has it, with the rights of the
    /// direction, which the access list grants; the result is how many.
    fn check_attachments(&self, parcel: &mut Memparcel) -> Result<u64, Broken> {
        let mut mapped = 0;
        for place in 0..MAX_ATTACHMENTS {
            let end = parcel.end();
            let Some(attachment) = parcel.attachments.get(place) else { continue };
            match attachment.stage {
                attachment::Stage::Attached => continue,
                attachment::Stage::Mapped => {}
                _ => return Err(Broken::Busy),
            }
            (attachment.place, attachment.end) = (Place::START, end);
            let (rights, vm) = (attachment.rights(), self.vm(attachment.vm));
            let device = &vm.devices[usize::from(attachment.device)];
            let policy = parcel.acl.policy();
            let granted = parcel.acl.rights(vm.vmid).is_some_and(|all| all.contains(rights));
            let tree = device.tree.lock(self.machine());
            let budget = &mut Budget::new(u32::MAX);
            let walk = units::device(parcel, place, self.mem(), budget, |at, piece, _| {
                let leaf = tree.leaf(self.mem(), at);
                let agrees = leaf.state == State::Borrowed && leaf.pa == piece.pa;
                let type_agrees = leaf.rights == rights && leaf.memory == policy;
                if !(agrees && type_agrees && granted) {
                    return Err(Broken::DevicePage(at));
                }
                mapped += 1;
                Ok(1)
            })?;
            assert!(walk == Walk::End, "G8: a walk without a budget did not end");
        }
        Ok(mapped)
    }

    /// Every page that is left of the parcel stands in its owner's tree as lent or shared; the result is
    /// how many.
    fn check_owner(&self, parcel: &mut Memparcel) -> Result<u64, Broken> {
        let caller = Caller { manager: self, vm: parcel.owner, step: STEP, at_boot: false };
        let wanted = match parcel.transfer {
            rm_abi::Transfer::Share => State::Shared,
            rm_abi::Transfer::Lend | rm_abi::Transfer::Donate => State::Lent,
        };
        let stage2 = caller.stage2();
        let (end, budget) = (parcel.end(), &mut Budget::new(u32::MAX));
        let (mut pages, mut wrong) = (0, None);
        parcel.place = Place::START;
        let walk = units::owner(parcel, self.mem(), end, budget, |piece, _| {
            let leaf = stage2.leaf(self.mem(), piece.at);
            if leaf.state != wanted || leaf.pa != piece.pa {
                wrong.get_or_insert(piece.at);
            }
            let done = leaf.pages.min(piece.pages);
            pages += done;
            done
        });
        assert!(walk == Walk::End, "G8: a walk without a budget did not end");
        match wrong {
            Some(at) => Err(Broken::OwnerPage(at)),
            None if pages != parcel.pages_left() => Err(Broken::Charges(Resource::PagesLent)),
            None => Ok(pages),
        }
    }

    /// Every page that a borrower has mapped stands in its tree with the parcel's address and no more
    /// than the ACL's rights; the result is how many.
    fn check_borrowers(&self, parcel: &mut Memparcel) -> Result<u64, Broken> {
        let mut pages = 0;
        for index in 0..parcel.acl.len() {
            match parcel.borrowers[index].stage {
                Stage::Away | Stage::Assigned => continue,
                Stage::Mapped => {}
                _ => return Err(Broken::Busy),
            }
            let entry = parcel.acl.entries()[index];
            let vm = self.all().find(|&vm| self.vmid(vm) == entry.vmid);
            let Some(vm) = vm else { return Err(Broken::Unaccounted) };
            let stage2 = self.vm(vm).stage2.lock(self.machine());
            let (end, budget) = (parcel.end(), &mut Budget::new(u32::MAX));
            let (mut mapped, mut wrong) = (0, None);
            parcel.borrowers[index].place = Place::START;
            let walk = units::borrower(parcel, index, self.mem(), end, budget, |at, piece, _| {
                let leaf = stage2.leaf(self.mem(), at);
                let agrees = leaf.state == State::Borrowed && leaf.pa == piece.pa;
                if !agrees || !entry.rights.contains(leaf.rights) {
                    wrong.get_or_insert(at);
                }
                let done = leaf.pages.min(piece.pages);
                mapped += done;
                done
            });
            assert!(walk == Walk::End, "G8: a walk without a budget did not end");
            if let Some(at) = wrong {
                return Err(Broken::BorrowerPage(at));
            }
            if mapped != parcel.borrowers[index].pages {
                return Err(Broken::Charges(Resource::PagesAccepted));
            }
            pages += mapped;
        }
        Ok(pages)
    }
}
