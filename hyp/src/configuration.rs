//! What the resource manager is told of a package: its VMs and how much of it they may use.

use heapless::Vec;
use package::{EndOfLife, Package, Placement, Sanitize, VM_MEMORY_BASE};
use rm::address::{Ipa, PAGE_SIZE, TlbTag, Vmid};
use rm::config::{AfterEnd, MAX_VMS, OwnedParcels, Roles, VmConfig, VmName};
use rm::heap::HeapConfig;
use rm::quota::{Amounts, Quotas};
use rm::stage2::MAX_IPA_PAGES;

/// The VMs, in the order of their indices.
pub fn vms(package: &Package<'_>) -> Vec<VmConfig, MAX_VMS> {
    (1..).zip(package.vms()).map(vm).collect()
}

/// How much there must be of something that is guaranteed to VMs and shared by them.
pub fn all_of(package: &Package<'_>, of: fn(&package::Amounts) -> u32) -> usize {
    let guaranteed = package.vms().map(|vm| of(&vm.quotas.guaranteed) as usize);
    guaranteed.sum::<usize>() + of(&package.shared()) as usize
}

/// What the resource manager is told of a VM. Tag 0 stays free, for a CPU that has no VM loaded.
fn vm((tag, vm): (u16, package::Vm)) -> VmConfig {
    let package::Quotas { guaranteed, limit } = vm.quotas;
    let mut roles = Roles::from_bits_truncate(vm.roles.bits());
    roles.set(Roles::TRUSTED_DMA, vm.trusted_dma);
    VmConfig {
        name: VmName::new(vm.name.as_str()),
        roles,
        may_supply: vm.may_supply,
        may_consume: vm.may_consume,
        ipa_pages: ((1 << vm.ipa_bits) / PAGE_SIZE).min(MAX_IPA_PAGES),
        // Below are the devices that EL2 emulates.
        accept_from: Ipa(VM_MEMORY_BASE),
        direct_mapped: vm.placement == Placement::Identity,
        quotas: Quotas {
            parcels: limit.parcels,
            pages_lent: limit.pages_lent,
            pages_accepted: limit.pages_accepted,
            extents: limit.extents.into(),
            unfinished: limit.unfinished,
            unread: limit.unread,
            frames: limit.frames,
            frames_reserved: guaranteed.frames,
            guaranteed: amounts(&guaranteed),
        },
        sanitize_always: vm.sanitize == Sanitize::Always,
        after_end: match vm.end_of_life {
            EndOfLife::Keep => AfterEnd::Wait,
            EndOfLife::Reset => AfterEnd::Reset,
            EndOfLife::Restart => AfterEnd::Restart,
        },
        owned_parcels: match vm.owned_parcels {
            package::OwnedParcels::Revoke => OwnedParcels::Revoke,
            package::OwnedParcels::Keep => OwnedParcels::Keep,
        },
        ..VmConfig::new(Vmid(vm.vmid), TlbTag(tag))
    }
}

/// What the resource manager is told of a heap.
pub fn heap(heap: &package::Heap) -> HeapConfig {
    HeapConfig {
        name: VmName::new(heap.name.as_str()),
        vms: heap.vms,
        guaranteed: heap.guaranteed / PAGE_SIZE,
        limit: heap.limit / PAGE_SIZE,
    }
}

/// What is counted, as the resource manager wants it.
pub fn amounts(of: &package::Amounts) -> Amounts {
    Amounts {
        parcels: of.parcels.into(),
        pages_lent: of.pages_lent,
        pages_accepted: of.pages_accepted,
        extents: of.extents.into(),
        unfinished: of.unfinished.into(),
        unread: of.unread.into(),
    }
}

const _: () = assert!(MAX_VMS <= package::MAX_VMS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_whose_devices_nothing_confines_is_marked_as_such() {
        let told = |trusted_dma| vm((1, package::Vm { trusted_dma, ..package::Vm::SMALL })).roles;
        assert_eq!((told(false), told(true)), (Roles::empty(), Roles::TRUSTED_DMA));
    }
}
