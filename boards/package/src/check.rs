//! The rules of a package, in the order in which [`Package::parse`] applies them.

use zerocopy::FromBytes;

use crate::vm::{Channel, Vm};
use crate::wire::{self, AmountsEntry, ChannelEntry, ConfigHeader, Header, SectionEntry, VmEntry};
use crate::{Board, MAGIC, MAX_VCPUS, MAX_VMS, MEMORY_GRANULE, Package, PackageError};
use crate::{VERSION, VM_MEMORY_BASE};

const PAGE: u64 = 4096;
/// The most CPUs that a header may count on: what `Vm::cpus` can name with sense.
const MAX_CPUS: u8 = 64;
/// The VMID of the resource manager itself.
const RESOURCE_MANAGER: u16 = 255;

/// Checks the header; gives the length of the package.
pub(crate) fn header(header: &Header, available: usize) -> Result<usize, PackageError> {
    if header.magic != MAGIC {
        return Err(PackageError::Magic);
    }
    if header.version.get() != VERSION {
        return Err(PackageError::Version(header.version.get()));
    }
    if header.board.get() != Board::QemuVirt as u32 {
        return Err(PackageError::Board(header.board.get()));
    }
    if header.flags.get() & !wire::FLAGS != 0 {
        return Err(PackageError::Flags(header.flags.get()));
    }
    if !(1..=MAX_CPUS).contains(&header.cpus) {
        return Err(PackageError::Cpus(header.cpus));
    }
    usize::try_from(header.length.get())
        .ok()
        .filter(|&length| (size_of::<Header>()..=available).contains(&length))
        .ok_or(PackageError::Truncated)
}

/// The section table; every section in it lies inside the package.
pub(crate) fn sections<'a>(
    header: &Header,
    bytes: &'a [u8],
) -> Result<&'a [SectionEntry], PackageError> {
    let (start, count) = (header.section_table.get() as usize, header.section_count.get());
    let table = bytes.get(start..).ok_or(PackageError::SectionTable)?;
    let (sections, _) = <[SectionEntry]>::ref_from_prefix_with_elems(table, count as usize)
        .map_err(|_| PackageError::SectionTable)?;
    for (at, section) in (0..).zip(sections) {
        let known = matches!(section.kind.get(), wire::KIND_BOOT_CONFIG | wire::KIND_IMAGE);
        if !known || contents(bytes, section).is_none() {
            return Err(PackageError::Section(at));
        }
    }
    Ok(sections)
}

/// The bytes of the section number `index` among those of one kind.
pub(crate) fn section<'a>(
    bytes: &'a [u8],
    sections: &[SectionEntry],
    kind: u32,
    index: u32,
) -> Option<&'a [u8]> {
    let mut of_kind = sections.iter().filter(|section| section.kind.get() == kind);
    contents(bytes, of_kind.nth(index as usize)?)
}

fn contents<'a>(bytes: &'a [u8], section: &SectionEntry) -> Option<&'a [u8]> {
    let start = usize::try_from(section.offset.get()).ok()?;
    let length = usize::try_from(section.length.get()).ok()?;
    bytes.get(start..start.checked_add(length)?)
}

/// What is shared, the VMs and the channels of a boot configuration.
type Config<'a> = (&'a AmountsEntry, &'a [VmEntry], &'a [ChannelEntry]);

/// Splits the boot configuration into its parts.
pub(crate) fn config(bytes: &[u8]) -> Result<Config<'_>, PackageError> {
    let (header, rest) =
        ConfigHeader::ref_from_prefix(bytes).map_err(|_| PackageError::BootConfig)?;
    let vms = header.vms.get();
    if vms as usize > MAX_VMS {
        return Err(PackageError::VmCount(vms));
    }
    let (vms, rest) = <[VmEntry]>::ref_from_prefix_with_elems(rest, vms as usize)
        .map_err(|_| PackageError::BootConfig)?;
    let channels = header.channels.get() as usize;
    let channels = <[ChannelEntry]>::ref_from_bytes_with_elems(rest, channels)
        .map_err(|_| PackageError::BootConfig)?;
    Ok((&header.shared, vms, channels))
}

/// What the VMs and channels say, against each other and against the images.
pub(crate) fn semantics(package: &Package<'_>) -> Result<(), PackageError> {
    let decode = |entry: &VmEntry| entry.decode();
    for (index, entry) in package.vms.iter().enumerate() {
        let vm = entry.decode().ok_or(PackageError::Policy(index))?;
        let earlier = || package.vms[..index].iter().filter_map(decode);
        if !vm.name.is_valid() || earlier().any(|other| other.name == vm.name) {
            return Err(PackageError::VmName(index));
        }
        let reserved = vm.vmid == 0 || vm.vmid == RESOURCE_MANAGER;
        if reserved || earlier().any(|other| other.vmid == vm.vmid) {
            return Err(PackageError::Vmid(index));
        }
        self::vm(package, index, &vm)?;
    }
    for (index, channel) in package.channels().enumerate() {
        let end = |at: u16| package.vms.get(usize::from(at)).and_then(decode);
        let (Some(owner), Some(peer)) = (end(channel.owner), end(channel.peer)) else {
            return Err(PackageError::Channel(index));
        };
        if channel.owner == channel.peer || !fits(&channel, &owner, &peer) {
            return Err(PackageError::Channel(index));
        }
    }
    Ok(())
}

/// What one VM says, by itself.
fn vm(package: &Package<'_>, index: usize, vm: &Vm) -> Result<(), PackageError> {
    let on_board = |&cpu: &u8| usize::from(cpu) < package.cpus();
    let count = usize::from(vm.vcpus);
    let twice = count == MAX_VCPUS && vm.cpus[0] == vm.cpus[1];
    if !(1..=MAX_VCPUS).contains(&count) || !vm.cpus().iter().all(on_board) || twice {
        return Err(PackageError::Vcpus(index));
    }
    if !(32..=40).contains(&vm.ipa_bits) {
        return Err(PackageError::IpaBits(index));
    }
    let room = (1u64 << vm.ipa_bits) - VM_MEMORY_BASE;
    if vm.memory == 0 || !vm.memory.is_multiple_of(MEMORY_GRANULE) || vm.memory > room {
        return Err(PackageError::Memory(index));
    }
    let image = section(package.bytes, package.sections, wire::KIND_IMAGE, vm.image)
        .filter(|image| !image.is_empty() && vm.contains(vm.load, image.len() as u64))
        .ok_or(PackageError::Image(index))?;
    let offset = vm.entry.wrapping_sub(vm.load);
    if offset >= image.len() as u64 || !vm.entry.is_multiple_of(4) {
        return Err(PackageError::Entry(index));
    }
    if !vm.quotas.guaranteed.fits(&vm.quotas.limit) {
        return Err(PackageError::Quotas(index));
    }
    Ok(())
}

fn fits(channel: &Channel, owner: &Vm, peer: &Vm) -> bool {
    let aligned = channel.owner_ipa.is_multiple_of(PAGE) && channel.peer_ipa.is_multiple_of(PAGE);
    let Some(bytes) = channel.pages.checked_mul(PAGE) else { return false };
    let Some(end) = channel.peer_ipa.checked_add(bytes) else { return false };
    let beside = end <= VM_MEMORY_BASE || channel.peer_ipa >= VM_MEMORY_BASE + peer.memory;
    let inside = end <= 1 << peer.ipa_bits;
    aligned && bytes > 0 && owner.contains(channel.owner_ipa, bytes) && beside && inside
}
