//! The bytes. Every field is little endian and unaligned, so a package can be read where it lies.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::vm::{
    Amounts, Channel, EndOfLife, Name, OnFault, OwnedParcels, Quotas, Roles, Sanitize, Vm,
};

/// Header flag: EL2 may use semihosting.
pub(crate) const FLAG_HLT: u32 = 1;
/// All flags of this version.
pub(crate) const FLAGS: u32 = FLAG_HLT;
/// Section kind: the boot configuration.
pub(crate) const KIND_BOOT_CONFIG: u32 = 1;
/// Section kind: a VM's program. Images are numbered in the order of the table.
pub(crate) const KIND_IMAGE: u32 = 2;

/// The first 64 bytes.
#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Header {
    pub(crate) magic: [u8; 8],
    pub(crate) version: U32,
    pub(crate) board: U32,
    pub(crate) flags: U32,
    pub(crate) cpus: u8,
    pub(crate) reserved: [u8; 3],
    pub(crate) nonce: [u8; 16],
    pub(crate) length: U64,
    pub(crate) section_table: U32,
    pub(crate) section_count: U32,
    pub(crate) reserved_end: [u8; 8],
}

/// Where a section lies, counted from the header.
#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct SectionEntry {
    pub(crate) kind: U32,
    pub(crate) reserved: U32,
    pub(crate) offset: U64,
    pub(crate) length: U64,
}

/// Start of the boot configuration.
#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct ConfigHeader {
    pub(crate) vms: U32,
    pub(crate) channels: U32,
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
    reserved: [u8; 2],
    roles: U32,
    memory: U64,
    load: U64,
    entry: U64,
    image: U32,
    guaranteed: AmountsEntry,
    limit: AmountsEntry,
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

const _: () = assert!(size_of::<Header>() == 64, "the format says 64 bytes");

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
            image: self.image.get(),
            load: self.load.get(),
            entry: self.entry.get(),
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
            reserved: [0; 2],
            roles: vm.roles.bits().into(),
            memory: vm.memory.into(),
            load: vm.load.into(),
            entry: vm.entry.into(),
            image: vm.image.into(),
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
