//! The bytes. Every field is little endian and unaligned, so a package can be read where it lies.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::place::{Channel, Device, Heap, Interrupt};
use crate::vm::{
    Amounts, EndOfLife, Load, Name, OnFault, OwnedParcels, Placement, Quotas, Roles, Sanitize,
    Start, Vm,
};

/// Header flag: EL2 may use semihosting.
pub(crate) const FLAG_HLT: u32 = 1;
/// All flags of this version.
pub(crate) const FLAGS: u32 = FLAG_HLT;
/// Section kind: the boot configuration.
pub(crate) const KIND_BOOT_CONFIG: u32 = 1;
/// Section kind: something that a VM starts with. Images are numbered in the order of the table.
pub(crate) const KIND_IMAGE: u32 = 2;

/// The first 144 bytes.
#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Header {
    pub(crate) magic: [u8; 8],
    pub(crate) version: U32,
    pub(crate) board: U32,
    pub(crate) flags: U32,
    pub(crate) cpus: u8,
    pub(crate) gic: u8,
    pub(crate) reserved: [u8; 2],
    pub(crate) nonce: [u8; 16],
    pub(crate) length: U64,
    pub(crate) section_table: U32,
    pub(crate) section_count: U32,
    /// How many bytes of the hypervisor, behind its arm64 header, its digest covers; 0 without one.
    pub(crate) hypervisor_length: U32,
    pub(crate) reserved_end: [u8; 4],
    pub(crate) hypervisor: [u8; 32],
    pub(crate) board_name: [u8; 16],
    /// Covers the header up to here, and the section table.
    pub(crate) digest: [u8; 32],
}

/// Where a section lies, counted from the header.
#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct SectionEntry {
    pub(crate) kind: U32,
    pub(crate) reserved: U32,
    pub(crate) offset: U64,
    pub(crate) length: U64,
    pub(crate) digest: [u8; 32],
}

/// Start of the boot configuration.
#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct ConfigHeader {
    pub(crate) vms: U32,
    pub(crate) channels: U32,
    pub(crate) devices: U32,
    pub(crate) interrupts: U32,
    pub(crate) heaps: U32,
    pub(crate) reserved: U32,
    pub(crate) shared: AmountsEntry,
}

/// [`Amounts`] as bytes.
#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct AmountsEntry {
    parcels: U32,
    extents: U32,
    unfinished: U32,
    unread: U32,
    frames: U32,
    reserved: U32,
    pages_lent: U64,
    pages_accepted: U64,
}

/// [`Vm`] as bytes.
#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct VmEntry {
    name: [u8; 16],
    vmid: U16,
    vcpus: u8,
    cpus: [u8; 2],
    ipa_bits: u8,
    sanitize: u8,
    end_of_life: u8,
    on_fault: u8,
    owned_parcels: u8,
    placement: u8,
    start: u8,
    roles: U32,
    memory: U64,
    memory_at: U64,
    load: U64,
    entry: U64,
    image: U32,
    trusted_dma: u8,
    may_supply: u8,
    may_consume: u8,
    reserved: u8,
    device_tree: LoadEntry,
    initrd: LoadEntry,
    guaranteed: AmountsEntry,
    limit: AmountsEntry,
}

/// [`Load`] as bytes, or [`NO_IMAGE`].
#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct LoadEntry {
    image: U32,
    reserved: U32,
    at: U64,
}

/// The number of no image.
const NO_IMAGE: u32 = u32::MAX;

impl LoadEntry {
    fn decode(&self) -> Option<Load> {
        let image = self.image.get();
        (image != NO_IMAGE).then(|| Load { image, at: self.at.get() })
    }
}

#[cfg(feature = "std")]
impl From<Option<Load>> for LoadEntry {
    fn from(load: Option<Load>) -> Self {
        let Load { image, at } = load.unwrap_or(Load { image: NO_IMAGE, at: 0 });
        Self { image: image.into(), reserved: 0.into(), at: at.into() }
    }
}

/// [`Channel`] as bytes.
#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct ChannelEntry {
    owner: U16,
    peer: U16,
    label: U32,
    owner_ipa: U64,
    peer_ipa: U64,
    pages: U64,
}

/// [`Device`] as bytes.
#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct DeviceEntry {
    vm: U16,
    reserved: U16,
    pages: U32,
    pa: U64,
    ipa: U64,
}

/// [`Interrupt`] as bytes.
#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct InterruptEntry {
    vm: U16,
    edge: u8,
    reserved: u8,
    physical: U32,
    virtual_: U32,
}

/// [`Heap`] as bytes.
#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct HeapEntry {
    name: [u8; 16],
    size: U64,
    guaranteed: U64,
    limit: U64,
    vms: U32,
    reserved: U32,
}

const _: () = assert!(size_of::<Header>() == 144, "the format says 144 bytes");

/// Yes or no, and no third.
const fn flag(byte: u8) -> Option<bool> {
    match byte {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

impl AmountsEntry {
    pub(crate) fn decode(&self) -> Amounts {
        Amounts {
            parcels: self.parcels.get(),
            extents: self.extents.get(),
            unfinished: self.unfinished.get(),
            unread: self.unread.get(),
            frames: self.frames.get(),
            pages_lent: self.pages_lent.get(),
            pages_accepted: self.pages_accepted.get(),
        }
    }
}

#[cfg(feature = "std")]
impl From<&Amounts> for AmountsEntry {
    fn from(amounts: &Amounts) -> Self {
        Self {
            parcels: amounts.parcels.into(),
            extents: amounts.extents.into(),
            unfinished: amounts.unfinished.into(),
            unread: amounts.unread.into(),
            frames: amounts.frames.into(),
            reserved: 0.into(),
            pages_lent: amounts.pages_lent.into(),
            pages_accepted: amounts.pages_accepted.into(),
        }
    }
}

impl VmEntry {
    /// The VM, unless a policy or role has a value that this version does not know.
    pub(crate) fn decode(&self) -> Option<Vm> {
        Some(Vm {
            name: Name(self.name),
            vmid: self.vmid.get(),
            vcpus: self.vcpus,
            cpus: self.cpus,
            memory: self.memory.get(),
            memory_at: self.memory_at.get(),
            placement: match self.placement {
                0 => Placement::Anywhere,
                1 => Placement::Identity,
                _ => return None,
            },
            image: self.image.get(),
            load: self.load.get(),
            entry: self.entry.get(),
            start: match self.start {
                0 => Start::All,
                1 => Start::First,
                _ => return None,
            },
            device_tree: self.device_tree.decode(),
            initrd: self.initrd.decode(),
            ipa_bits: self.ipa_bits,
            roles: Roles::from_bits(self.roles.get())?,
            sanitize: match self.sanitize {
                0 => Sanitize::WhenAsked,
                1 => Sanitize::Always,
                _ => return None,
            },
            end_of_life: match self.end_of_life {
                0 => EndOfLife::Keep,
                1 => EndOfLife::Reset,
                2 => EndOfLife::Restart,
                _ => return None,
            },
            owned_parcels: match self.owned_parcels {
                0 => OwnedParcels::Revoke,
                1 => OwnedParcels::Keep,
                _ => return None,
            },
            on_fault: match self.on_fault {
                0 => OnFault::Inject,
                1 => OnFault::Stop,
                2 => OnFault::Restart,
                _ => return None,
            },
            trusted_dma: flag(self.trusted_dma)?,
            may_supply: flag(self.may_supply)?,
            may_consume: flag(self.may_consume)?,
            quotas: Quotas { guaranteed: self.guaranteed.decode(), limit: self.limit.decode() },
        })
    }
}

#[cfg(feature = "std")]
impl From<&Vm> for VmEntry {
    fn from(vm: &Vm) -> Self {
        Self {
            name: vm.name.0,
            vmid: vm.vmid.into(),
            vcpus: vm.vcpus,
            cpus: vm.cpus,
            ipa_bits: vm.ipa_bits,
            sanitize: vm.sanitize as u8,
            end_of_life: vm.end_of_life as u8,
            on_fault: vm.on_fault as u8,
            owned_parcels: vm.owned_parcels as u8,
            placement: vm.placement as u8,
            start: vm.start as u8,
            roles: vm.roles.bits().into(),
            memory: vm.memory.into(),
            memory_at: vm.memory_at.into(),
            load: vm.load.into(),
            entry: vm.entry.into(),
            image: vm.image.into(),
            trusted_dma: vm.trusted_dma.into(),
            may_supply: vm.may_supply.into(),
            may_consume: vm.may_consume.into(),
            reserved: 0,
            device_tree: vm.device_tree.into(),
            initrd: vm.initrd.into(),
            guaranteed: (&vm.quotas.guaranteed).into(),
            limit: (&vm.quotas.limit).into(),
        }
    }
}

impl ChannelEntry {
    /// The channel; every value is one, `parse` checks it against the VMs.
    pub(crate) fn decode(&self) -> Channel {
        Channel {
            owner: self.owner.get(),
            peer: self.peer.get(),
            label: self.label.get(),
            owner_ipa: self.owner_ipa.get(),
            peer_ipa: self.peer_ipa.get(),
            pages: self.pages.get(),
        }
    }
}

#[cfg(feature = "std")]
impl From<&Channel> for ChannelEntry {
    fn from(channel: &Channel) -> Self {
        Self {
            owner: channel.owner.into(),
            peer: channel.peer.into(),
            label: channel.label.into(),
            owner_ipa: channel.owner_ipa.into(),
            peer_ipa: channel.peer_ipa.into(),
            pages: channel.pages.into(),
        }
    }
}

impl DeviceEntry {
    pub(crate) fn decode(&self) -> Device {
        Device {
            vm: self.vm.get(),
            pa: self.pa.get(),
            ipa: self.ipa.get(),
            pages: self.pages.get(),
        }
    }
}

#[cfg(feature = "std")]
impl From<&Device> for DeviceEntry {
    fn from(device: &Device) -> Self {
        Self {
            vm: device.vm.into(),
            reserved: 0.into(),
            pages: device.pages.into(),
            pa: device.pa.into(),
            ipa: device.ipa.into(),
        }
    }
}

impl InterruptEntry {
    /// The interrupt, unless its trigger is none.
    pub(crate) fn decode(&self) -> Option<Interrupt> {
        Some(Interrupt {
            vm: self.vm.get(),
            physical: self.physical.get(),
            virtual_: self.virtual_.get(),
            edge: flag(self.edge)?,
        })
    }
}

#[cfg(feature = "std")]
impl From<&Interrupt> for InterruptEntry {
    fn from(interrupt: &Interrupt) -> Self {
        Self {
            vm: interrupt.vm.into(),
            edge: interrupt.edge.into(),
            reserved: 0,
            physical: interrupt.physical.into(),
            virtual_: interrupt.virtual_.into(),
        }
    }
}

impl HeapEntry {
    pub(crate) fn decode(&self) -> Heap {
        Heap {
            name: Name(self.name),
            size: self.size.get(),
            guaranteed: self.guaranteed.get(),
            limit: self.limit.get(),
            vms: self.vms.get(),
        }
    }
}

#[cfg(feature = "std")]
impl From<&Heap> for HeapEntry {
    fn from(heap: &Heap) -> Self {
        Self {
            name: heap.name.0,
            size: heap.size.into(),
            guaranteed: heap.guaranteed.into(),
            limit: heap.limit.into(),
            vms: heap.vms.into(),
            reserved: 0.into(),
        }
    }
}
