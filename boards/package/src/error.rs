//! Why a package was refused.

use core::fmt;

use crate::Name;

/// A part of an image that has a digest of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Code and constants of the hypervisor.
    Hypervisor,
    /// The header and the section table.
    Header,
    /// The section of this number: 0 is the boot configuration, then the images follow.
    Section(u32),
}

/// The first rule that a package broke. Numbers are indices of VMs or channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackageError {
    /// Fewer bytes than the header says, or other bytes where its end should be.
    Truncated,
    /// The first bytes are not [`crate::MAGIC`]: no package was appended.
    Magic,
    /// Made by a tool of another version.
    Version(u32),
    /// Made for a board of this number, whose name is none.
    Board(u32),
    /// Made for this board, which is not the hypervisor's.
    OtherBoard(Name),
    /// Its device trees describe an interrupt controller of this version, which the machine lacks.
    Gic(u8),
    /// The part is not what the tool wrote: it was changed on its way, or comes from another image.
    Digest(Part),
    /// A flag that this version does not know.
    Flags(u32),
    /// No CPU, or more than VMs can be placed on.
    Cpus(u8),
    /// The section table does not lie inside the package.
    SectionTable,
    /// A section does not lie inside the package or has an unknown kind.
    Section(u32),
    /// There is no boot configuration.
    NoBootConfig,
    /// More channels, devices, interrupts or heaps than there is room for.
    TooMany(u32),
    /// The boot configuration's length does not fit its counts.
    BootConfig,
    /// More than [`crate::MAX_VMS`].
    VmCount(u32),
    /// The name is empty, not printable ASCII, or another VM's.
    VmName(usize),
    /// The VMID is 0, reserved for the resource manager (255) or another VM's.
    Vmid(usize),
    /// No vCPU, too many, or a CPU that the board does not have or that is named twice.
    Vcpus(usize),
    /// The memory is empty, no multiple of [`crate::MEMORY_GRANULE`], beyond the IPA space or where the VM's
    /// interrupt controller and console are.
    Memory(usize),
    /// The size of the IPA space is not one of 32 to 40 bits.
    IpaBits(usize),
    /// Program, device tree or initial RAM disk is missing, does not fit the VM's memory where it is to be
    /// loaded, or lies on another of the three.
    Image(usize),
    /// The entry point is not a word of the program's memory.
    Entry(usize),
    /// A policy has a value that this version does not know.
    Policy(usize),
    /// A quota that contradicts another (guarantee above limit).
    Quotas(usize),
    /// A channel names a VM that does not exist or the same VM twice, or is empty or unaligned.
    Channel(usize),
    /// A device names a VM that does not exist, is no pages, or lies where something else is.
    Device(usize),
    /// An interrupt that does not exist, or is somebody else's.
    Interrupt(usize),
    /// A heap whose name is taken, that is no multiple of [`crate::MEMORY_GRANULE`], names other VMs, or
    /// promises more than it has.
    Heap(usize),
}

impl fmt::Display for PackageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Truncated => {
                write!(f, "the image is cut short: the end of its package is missing")
            }
            Self::Magic => write!(f, "there is no package behind the hypervisor"),
            Self::Version(found) => {
                write!(f, "the package has version {found}, not {}", crate::VERSION)
            }
            Self::Board(found) => write!(f, "the package is for an unknown board, number {found}"),
            Self::OtherBoard(found) => write!(f, "the package is for the board {}", found.as_str()),
            Self::Gic(found) => {
                write!(f, "the VMs' device trees are for a GICv{found}, which this machine lacks")
            }
            Self::Digest(Part::Hypervisor) => {
                write!(
                    f,
                    "the package was made for another build of the hypervisor, or that is damaged"
                )
            }
            Self::Digest(Part::Header) => {
                write!(f, "the package's header does not fit its digest: it is damaged or mixed")
            }
            Self::Digest(Part::Section(at)) => {
                write!(f, "section {at} does not fit its digest: it is damaged, cut short or mixed")
            }
            Self::Flags(found) => write!(f, "the package has unknown flags {found:#x}"),
            Self::Cpus(found) => write!(f, "the package counts on {found} CPUs"),
            Self::SectionTable => write!(f, "the section table is outside of the package"),
            Self::Section(at) => write!(f, "section {at} is unknown or outside of the package"),
            Self::NoBootConfig => write!(f, "there is no boot configuration"),
            Self::TooMany(found) => write!(f, "{found} channels, devices or heaps are too many"),
            Self::BootConfig => write!(f, "the boot configuration is cut short"),
            Self::VmCount(found) => {
                write!(f, "there are {found} VMs, more than {}", crate::MAX_VMS)
            }
            Self::VmName(vm) => write!(f, "VM {vm}: the name is empty, unprintable or taken"),
            Self::Vmid(vm) => write!(f, "VM {vm}: the VMID is reserved or taken"),
            Self::Vcpus(vm) => write!(f, "VM {vm}: the vCPUs do not fit the board's CPUs"),
            Self::Memory(vm) => {
                write!(f, "VM {vm}: the memory is no multiple of 2 MiB or lies where it may not")
            }
            Self::IpaBits(vm) => write!(f, "VM {vm}: the IPA space is not one of 32 to 40 bits"),
            Self::Image(vm) => write!(f, "VM {vm}: what it starts with is missing or does not fit"),
            Self::Entry(vm) => write!(f, "VM {vm}: the entry point is outside of the program"),
            Self::Policy(vm) => write!(f, "VM {vm}: a policy has an unknown value"),
            Self::Quotas(vm) => write!(f, "VM {vm}: a guarantee is above its limit"),
            Self::Channel(at) => write!(f, "channel {at} names a wrong VM or a wrong range"),
            Self::Device(at) => write!(f, "device {at} names a wrong VM or a wrong range"),
            Self::Interrupt(at) => write!(f, "interrupt {at} does not exist or is taken"),
            Self::Heap(at) => write!(f, "heap {at} has a wrong name, size, share or VM"),
        }
    }
}

impl core::error::Error for PackageError {}
