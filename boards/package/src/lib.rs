//! The package: what a host tool hands to EL2 behind the hypervisor's own code.
//!
//! One boot image is the hypervisor, padded to `__image_end`, followed by one package: a header, a
//! table of sections, the boot configuration (which VMs, with which memory, quotas and roles) and
//! the VMs' programs. The same bytes are run under an emulator and written to a board, so what is
//! tested is what is flashed.
//!
//! ```text
//! +0    Header         magic, version, board, flags, nonce, lengths
//! +64   SectionEntry   one per section: kind, offset, length
//!       BootConfig     ConfigHeader with what is shared, then VMs, then channels
//!       Image 0, 1 ..  raw programs, each on a page boundary
//! ```
//!
//! All numbers are little endian and may lie at any address. [`Package::parse`] checks everything
//! that can be checked without a machine, once; after that no getter can fail, so EL2 has one place
//! where a bad package is refused. The nonce is known to nobody but the host tool and EL2: no VM maps
//! the package.
#![cfg_attr(not(any(test, feature = "std")), no_std)]
#![forbid(unsafe_code)]

mod check;
mod error;
mod vm;
mod wire;
#[cfg(feature = "std")]
mod writer;

pub use error::PackageError;
pub use vm::{
    Amounts, Channel, EndOfLife, Name, OnFault, OwnedParcels, Quotas, Roles, Sanitize, Vm,
};
#[cfg(feature = "std")]
pub use writer::Writer;

use wire::{AmountsEntry, ChannelEntry, Header, SectionEntry, VmEntry};
use zerocopy::FromBytes;

/// First bytes of a package. The line end shows a transfer that rewrote line ends.
pub const MAGIC: [u8; 8] = *b"rm-pack\n";
/// Version of the format. EL2 accepts exactly its own: tool and hypervisor are built together.
pub const VERSION: u32 = 3;
/// Most VMs of one package.
pub const MAX_VMS: usize = 32;
/// Most vCPUs of one VM.
pub const MAX_VCPUS: usize = 2;
/// Granule of memory sizes, and alignment of a VM's memory.
pub const MEMORY_GRANULE: u64 = 2 << 20;
/// Where every VM's memory starts, as guest physical address.
pub const VM_MEMORY_BASE: u64 = 0x4000_0000;

/// Boards a package can be made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Board {
    /// QEMU's `virt` machine with GICv3.
    QemuVirt = 1,
}

/// A checked package. It borrows the bytes that it was parsed from.
#[derive(Clone, Copy, Debug)]
pub struct Package<'a> {
    bytes: &'a [u8],
    header: &'a Header,
    sections: &'a [SectionEntry],
    shared: &'a AmountsEntry,
    vms: &'a [VmEntry],
    channels: &'a [ChannelEntry],
}

impl<'a> Package<'a> {
    /// Checks the package that starts at the first byte. There may be more bytes behind it.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, PackageError> {
        let (header, _) = Header::ref_from_prefix(bytes).map_err(|_| PackageError::Truncated)?;
        let length = check::header(header, bytes.len())?;
        let bytes = &bytes[..length];
        let sections = check::sections(header, bytes)?;
        let config = check::section(bytes, sections, wire::KIND_BOOT_CONFIG, 0)
            .ok_or(PackageError::NoBootConfig)?;
        let (shared, vms, channels) = check::config(config)?;
        let package = Self { bytes, header, sections, shared, vms, channels };
        check::semantics(&package)?;
        Ok(package)
    }

    /// The board it was made for.
    pub fn board(&self) -> Board {
        Board::QemuVirt
    }

    /// Bytes of the whole package, from the first of the header on.
    pub fn length(&self) -> usize {
        self.bytes.len()
    }

    /// The number that proves a verdict to come from EL2. Different in every run.
    pub fn nonce(&self) -> [u8; 16] {
        self.header.nonce
    }

    /// Whether EL2 may use semihosting (`HLT`) for its log and the exit code. Only the package
    /// decides: on a board without a debugger `HLT` is an undefined instruction.
    pub fn hlt_allowed(&self) -> bool {
        self.header.flags.get() & wire::FLAG_HLT != 0
    }

    /// How many CPUs the configuration counts on.
    pub fn cpus(&self) -> usize {
        usize::from(self.header.cpus)
    }

    /// What the VMs share of the resource manager's bookkeeping beyond their guarantees.
    pub fn shared(&self) -> Amounts {
        self.shared.decode()
    }

    /// The VMs in the order of their indices.
    pub fn vms(&self) -> impl ExactSizeIterator<Item = Vm> + Clone + use<'a> {
        self.vms.iter().map(|entry| entry.decode().expect("parse has decoded this entry once"))
    }

    /// Memory that VMs share from boot on.
    pub fn channels(&self) -> impl ExactSizeIterator<Item = Channel> + Clone + use<'a> {
        self.channels.iter().map(ChannelEntry::decode)
    }

    /// The program of a VM of this package ([`Vm::image`]).
    pub fn image(&self, vm: &Vm) -> &'a [u8] {
        check::section(self.bytes, self.sections, wire::KIND_IMAGE, vm.image).unwrap_or(&[])
    }
}
