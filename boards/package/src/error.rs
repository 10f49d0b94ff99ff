//! Why a package was refused.

use core::fmt;

/// The first rule that a package broke. Numbers are indices of VMs or channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackageError {
    /// Fewer bytes than the header says, or than a header has.
    Truncated,
    /// The first bytes are not [`crate::MAGIC`]: no package was appended.
    Magic,
    /// Made by a tool of another version.
    Version(u32),
    /// Made for another board.
    Board(u32),
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
    /// The memory is empty, no multiple of [`crate::MEMORY_GRANULE`] or beyond the IPA space.
    Memory(usize),
    /// The size of the IPA space is not one of 32 to 40 bits.
    IpaBits(usize),
    /// The program is missing, or does not fit the VM's memory where it is to be loaded.
    Image(usize),
    /// The entry point is not a word of the program's memory.
    Entry(usize),
    /// A policy has a value that this version does not know.
    Policy(usize),
    /// A quota that contradicts another (guarantee above limit).
    Quotas(usize),
    /// A channel names a VM that does not exist or the same VM twice, or is empty or unaligned.
    Channel(usize),
}

impl fmt::Display for PackageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Truncated => write!(f, "the package is cut short"),
            Self::Magic => write!(f, "there is no package behind the hypervisor"),
            Self::Version(found) => {
                write!(f, "the package has version {found}, not {}", crate::VERSION)
            }
            Self::Board(found) => write!(f, "the package is for board {found}"),
            Self::Flags(found) => write!(f, "the package has unknown flags {found:#x}"),
            Self::Cpus(found) => write!(f, "the package counts on {found} CPUs"),
            Self::SectionTable => write!(f, "the section table is outside of the package"),
            Self::Section(at) => write!(f, "section {at} is unknown or outside of the package"),
            Self::NoBootConfig => write!(f, "there is no boot configuration"),
            Self::BootConfig => write!(f, "the boot configuration is cut short"),
            Self::VmCount(found) => {
                write!(f, "there are {found} VMs, more than {}", crate::MAX_VMS)
            }
            Self::VmName(vm) => write!(f, "VM {vm}: the name is empty, unprintable or taken"),
            Self::Vmid(vm) => write!(f, "VM {vm}: the VMID is reserved or taken"),
            Self::Vcpus(vm) => write!(f, "VM {vm}: the vCPUs do not fit the board's CPUs"),
            Self::Memory(vm) => write!(f, "VM {vm}: the memory size is not a multiple of 2 MiB"),
            Self::IpaBits(vm) => write!(f, "VM {vm}: the IPA space is not one of 32 to 40 bits"),
            Self::Image(vm) => write!(f, "VM {vm}: the program is missing or does not fit"),
            Self::Entry(vm) => write!(f, "VM {vm}: the entry point is outside of the program"),
            Self::Policy(vm) => write!(f, "VM {vm}: a policy has an unknown value"),
            Self::Quotas(vm) => write!(f, "VM {vm}: a guarantee is above its limit"),
            Self::Channel(at) => write!(f, "channel {at} names a wrong VM or a wrong range"),
        }
    }
}

impl core::error::Error for PackageError {}
