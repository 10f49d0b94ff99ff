//! The package: what a host tool hands to EL2 behind the hypervisor's own code.
//!
//! One boot image is the hypervisor, padded to `__image_end`, followed by one package: a header, a
//! table of sections, the boot configuration (which VMs, with which memory, quotas and roles) and
//! the VMs' programs. The same bytes are run under an emulator and written to a board, so what is
//! tested is what is flashed.
//!
//! ```text
//! +0    Header         magic, version, board, flags, nonce, lengths, digests
//! +144  SectionEntry   one per section: kind, offset, length, digest
//!       BootConfig     ConfigHeader with what is shared; VMs, channels, devices, interrupts, heaps
//!       Image 0, 1 ..  what VMs start with (programs, device trees, initial RAM disks), on pages
//!       END            the last 8 bytes: without them the image was cut short
//! ```
//!
//! Digests are SHA-256. That of the header covers the header and the section table, that of each
//! section its bytes, and one covers the hypervisor's code and constants, so an image that was put
//! together from two, or changed on its way, is refused by name.
//!
//! All numbers are little endian and may lie at any address. [`Package::parse`] checks everything
//! that can be checked without a machine, once; after that no getter can fail, so EL2 has one place
//! where a bad package is refused. The nonce is known to nobody but the host tool and EL2: no VM maps
//! the package.
#![cfg_attr(not(any(test, feature = "std")), no_std)]
#![forbid(unsafe_code)]

mod board;
mod check;
mod digest;
mod error;
mod place;
mod vm;
mod wire;
#[cfg(feature = "std")]
mod writer;

pub use board::Board;
pub use digest::Digest;
pub use error::{PackageError, Part};
pub use place::{Channel, Device, Heap, Interrupt};
pub use vm::{
    Amounts, EndOfLife, Load, Name, OnFault, OwnedParcels, Placement, Quotas, Roles, Sanitize,
    Start, Vm,
};
#[cfg(feature = "std")]
pub use writer::{Writer, seal};

use wire::{
    AmountsEntry, ChannelEntry, DeviceEntry, Header, HeapEntry, InterruptEntry, SectionEntry,
    VmEntry,
};
use zerocopy::FromBytes;

/// First bytes of a package. The line end shows a transfer that rewrote line ends.
pub const MAGIC: [u8; 8] = *b"rm-pack\n";
/// Last bytes of a package.
pub const END: [u8; 8] = *b"pack-rm\n";
/// Version of the format. EL2 accepts exactly its own: tool and hypervisor are built together.
pub const VERSION: u32 = 6;
/// Most VMs of one package.
pub const MAX_VMS: usize = 32;
/// Most vCPUs of one VM.
pub const MAX_VCPUS: usize = 2;
/// Granule of memory sizes, and alignment of a VM's memory.
pub const MEMORY_GRANULE: u64 = 2 << 20;
/// Where a VM's memory usually starts, as guest physical address.
pub const VM_MEMORY_BASE: u64 = 0x4000_0000;
/// Guest physical addresses at which every VM finds its interrupt controller and its console.
pub const EMULATED: core::ops::Range<u64> = 0x0800_0000..0x0a00_0000;
/// A VM's interrupts that devices may have: those below are its mailbox's, doorbells' and console's.
pub const DEVICE_INTERRUPTS: core::ops::RangeInclusive<u32> = 43..=63;
/// The machine's shared interrupts (SPIs) by INTID (IHI 0048B, 2.2.1).
pub const SHARED_INTERRUPTS: core::ops::RangeInclusive<u32> = 32..=1019;
/// Most channels of one package.
pub const MAX_CHANNELS: usize = 64;
/// Most devices of one package, and most of their interrupts.
pub const MAX_DEVICES: usize = 64;
/// Most heaps of one package.
pub const MAX_HEAPS: usize = 16;

/// A checked package. It borrows the bytes that it was parsed from.
#[derive(Clone, Copy, Debug)]
pub struct Package<'a> {
    bytes: &'a [u8],
    header: &'a Header,
    sections: &'a [SectionEntry],
    shared: &'a AmountsEntry,
    vms: &'a [VmEntry],
    channels: &'a [ChannelEntry],
    devices: &'a [DeviceEntry],
    interrupts: &'a [InterruptEntry],
    heaps: &'a [HeapEntry],
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
        let check::Config { shared, vms, channels, devices, interrupts, heaps } =
            check::config(config)?;
        let package =
            Self { bytes, header, sections, shared, vms, channels, devices, interrupts, heaps };
        check::semantics(&package)?;
        Ok(package)
    }

    /// Whether it was made for this board.
    pub fn is_for(&self, board: Board) -> bool {
        self.header.board.get() == board.id() && self.board_name() == Name::new(board.name())
    }

    /// The name of the board it was made for.
    pub fn board_name(&self) -> Name {
        Name(self.header.board_name)
    }

    /// The version of the interrupt controller that the VMs' device trees describe: 2 or 3. `None`: no
    /// VM was told, so any will do.
    pub fn gic(&self) -> Option<u8> {
        Some(self.header.gic).filter(|&version| version != 0)
    }

    /// Digest of the hypervisor that the package was made for, and how many of its bytes it covers,
    /// counted from the end of the arm64 header. `None` if the tool knew none.
    pub fn hypervisor(&self) -> Option<(Digest, usize)> {
        let length = self.header.hypervisor_length.get() as usize;
        (length > 0).then_some((Digest(self.header.hypervisor), length))
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

    /// Registers that VMs drive themselves.
    pub fn devices(&self) -> impl ExactSizeIterator<Item = Device> + Clone + use<'a> {
        self.devices.iter().map(DeviceEntry::decode)
    }

    /// Interrupts of those devices.
    pub fn interrupts(&self) -> impl ExactSizeIterator<Item = Interrupt> + Clone + use<'a> {
        self.interrupts
            .iter()
            .map(|entry| entry.decode().expect("parse has decoded this entry once"))
    }

    /// Memory that is set aside for VMs to allocate from.
    pub fn heaps(&self) -> impl ExactSizeIterator<Item = Heap> + Clone + use<'a> {
        self.heaps.iter().map(HeapEntry::decode)
    }

    /// The program of a VM of this package ([`Vm::image`]).
    pub fn image(&self, vm: &Vm) -> &'a [u8] {
        self.contents(vm.image)
    }

    /// The bytes of what a VM of this package starts with.
    pub fn contents(&self, image: u32) -> &'a [u8] {
        check::section(self.bytes, self.sections, wire::KIND_IMAGE, image).unwrap_or(&[])
    }

    /// Everything that lies in a VM's memory when it starts: program, device tree, initial RAM disk.
    pub fn loads(&self, vm: &Vm) -> impl Iterator<Item = (u64, &'a [u8])> + use<'a> {
        let package = *self;
        vm.loads().map(move |load| (load.at, package.contents(load.image)))
    }
}
