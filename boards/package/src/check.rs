//! The rules of a package, in the order in which [`Package::parse`] applies them.

use core::ops::Range;

use zerocopy::{FromBytes, IntoBytes};

use crate::digest::Digest;
use crate::error::Part;
use crate::place::{Channel, Device, Interrupt};
use crate::vm::{Load, Name, Vm};
use crate::wire::{
    self, AmountsEntry, ChannelEntry, ConfigHeader, DeviceEntry, Header, HeapEntry, InterruptEntry,
    SectionEntry, VmEntry,
};
use crate::{
    DEVICE_INTERRUPTS, EMULATED, END, MAGIC, MAX_CHANNELS, MAX_DEVICES, MAX_HEAPS, MAX_VCPUS,
    MAX_VMS, MEMORY_GRANULE, Package, PackageError, SHARED_INTERRUPTS, VERSION,
};

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
    if !Name(header.board_name).is_valid() {
        return Err(PackageError::Board(header.board.get()));
    }
    if header.flags.get() & !wire::FLAGS != 0 {
        return Err(PackageError::Flags(header.flags.get()));
    }
    if !(1..=MAX_CPUS).contains(&header.cpus) {
        return Err(PackageError::Cpus(header.cpus));
    }
    if !matches!(header.gic, 0 | 2 | 3) {
        return Err(PackageError::Gic(header.gic));
    }
    usize::try_from(header.length.get())
        .ok()
        .filter(|&length| (size_of::<Header>() + END.len()..=available).contains(&length))
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
    if !bytes.ends_with(&END) {
        return Err(PackageError::Truncated);
    }
    if header_digest(header, sections).0 != header.digest {
        return Err(PackageError::Digest(Part::Header));
    }
    for (at, section) in (0..).zip(sections) {
        let known = matches!(section.kind.get(), wire::KIND_BOOT_CONFIG | wire::KIND_IMAGE);
        let contents = contents(bytes, section).filter(|_| known);
        let contents = contents.ok_or(PackageError::Section(at))?;
        if Digest::of(contents).0 != section.digest {
            return Err(PackageError::Digest(Part::Section(at)));
        }
    }
    Ok(sections)
}

/// The digest over header and section table.
pub(crate) fn header_digest(header: &Header, sections: &[SectionEntry]) -> Digest {
    let bytes = header.as_bytes();
    let covered = bytes.len() - header.digest.len();
    Digest::of_parts(&[&bytes[..covered], sections.as_bytes()])
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

pub(crate) fn contents<'a>(bytes: &'a [u8], section: &SectionEntry) -> Option<&'a [u8]> {
    let start = usize::try_from(section.offset.get()).ok()?;
    let length = usize::try_from(section.length.get()).ok()?;
    bytes.get(start..start.checked_add(length)?)
}

/// The parts of a boot configuration.
pub(crate) struct Config<'a> {
    pub(crate) shared: &'a AmountsEntry,
    pub(crate) vms: &'a [VmEntry],
    pub(crate) channels: &'a [ChannelEntry],
    pub(crate) devices: &'a [DeviceEntry],
    pub(crate) interrupts: &'a [InterruptEntry],
    pub(crate) heaps: &'a [HeapEntry],
}

/// Splits the boot configuration into its parts.
pub(crate) fn config(bytes: &[u8]) -> Result<Config<'_>, PackageError> {
    let short = PackageError::BootConfig;
    let (header, rest) = ConfigHeader::ref_from_prefix(bytes).map_err(|_| short)?;
    let count = |found: u32, most: usize| usize::try_from(found).ok().filter(|&n| n <= most);
    let vms = header.vms.get();
    let vms = count(vms, MAX_VMS).ok_or(PackageError::VmCount(vms))?;
    let [channels, devices, interrupts, heaps] = [
        (header.channels, MAX_CHANNELS),
        (header.devices, MAX_DEVICES),
        (header.interrupts, MAX_DEVICES),
        (header.heaps, MAX_HEAPS),
    ]
    .map(|(found, most)| count(found.get(), most).ok_or(PackageError::TooMany(found.get())));
    let (vms, rest) = <[VmEntry]>::ref_from_prefix_with_elems(rest, vms).map_err(|_| short)?;
    let (channels, rest) =
        <[ChannelEntry]>::ref_from_prefix_with_elems(rest, channels?).map_err(|_| short)?;
    let (devices, rest) =
        <[DeviceEntry]>::ref_from_prefix_with_elems(rest, devices?).map_err(|_| short)?;
    let (interrupts, rest) =
        <[InterruptEntry]>::ref_from_prefix_with_elems(rest, interrupts?).map_err(|_| short)?;
    let heaps = <[HeapEntry]>::ref_from_bytes_with_elems(rest, heaps?).map_err(|_| short)?;
    Ok(Config { shared: &header.shared, vms, channels, devices, interrupts, heaps })
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
    devices(package)?;
    interrupts(package)?;
    heaps(package)
}

/// Devices against the VMs they belong to and against each other.
fn devices(package: &Package<'_>) -> Result<(), PackageError> {
    for (index, device) in package.devices().enumerate() {
        let refused = PackageError::Device(index);
        let vm = vm_of(package, device.vm).ok_or(refused)?;
        let Some((pa, ipa)) = ranges(&device) else { return Err(refused) };
        let memory = vm.memory_at..vm.memory_at + vm.memory;
        let taken = package.devices().take(index).any(|other| {
            ranges(&other).is_none_or(|(other_pa, other_ipa)| {
                meet(&pa, &other_pa) || other.vm == device.vm && meet(&ipa, &other_ipa)
            })
        });
        let outside = ipa.end > 1 << vm.ipa_bits;
        if taken || outside || meet(&ipa, &memory) || meet(&ipa, &EMULATED) {
            return Err(refused);
        }
    }
    Ok(())
}

/// A device's machine and guest addresses, if it has any and they are pages.
fn ranges(device: &Device) -> Option<(Range<u64>, Range<u64>)> {
    let bytes = u64::from(device.pages) * PAGE;
    let aligned = device.pa.is_multiple_of(PAGE) && device.ipa.is_multiple_of(PAGE);
    let range = |start: u64| Some(start..start.checked_add(bytes)?);
    Some((range(device.pa)?, range(device.ipa)?)).filter(|_| aligned && bytes > 0)
}

fn interrupts(package: &Package<'_>) -> Result<(), PackageError> {
    for (index, entry) in package.interrupts.iter().enumerate() {
        let refused = PackageError::Interrupt(index);
        let interrupt = entry.decode().ok_or(refused)?;
        let Interrupt { vm, physical, virtual_, .. } = interrupt;
        vm_of(package, vm).ok_or(refused)?;
        let mut earlier = package.interrupts[..index].iter().filter_map(InterruptEntry::decode);
        let taken = earlier.any(|other| {
            other.physical == physical || (other.vm, other.virtual_) == (vm, virtual_)
        });
        let known = SHARED_INTERRUPTS.contains(&physical) && DEVICE_INTERRUPTS.contains(&virtual_);
        if taken || !known {
            return Err(refused);
        }
    }
    Ok(())
}

fn heaps(package: &Package<'_>) -> Result<(), PackageError> {
    for (index, heap) in package.heaps().enumerate() {
        let taken = package.heaps().take(index).any(|other| other.name == heap.name);
        let sized = heap.size > 0 && heap.size.is_multiple_of(MEMORY_GRANULE);
        let known = u64::from(heap.vms) < 1 << package.vms.len();
        let sure = heap.guaranteed.checked_mul(heap.vms.count_ones().into());
        let fits = heap.guaranteed <= heap.limit && heap.limit <= heap.size;
        let paged = (heap.guaranteed | heap.limit).is_multiple_of(PAGE);
        let shares = fits && paged && sure.is_some_and(|sure| sure <= heap.size);
        if !heap.name.is_valid() || taken || !sized || !known || !shares {
            return Err(PackageError::Heap(index));
        }
    }
    Ok(())
}

fn vm_of(package: &Package<'_>, index: u16) -> Option<Vm> {
    package.vms.get(usize::from(index)).and_then(VmEntry::decode)
}

fn meet(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
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
    let granules = [vm.memory, vm.memory_at].iter().all(|size| size.is_multiple_of(MEMORY_GRANULE));
    let end = vm.memory_at.checked_add(vm.memory).filter(|&end| end <= 1 << vm.ipa_bits);
    let Some(memory) = end.map(|end| vm.memory_at..end).filter(|_| granules && vm.memory > 0)
    else {
        return Err(PackageError::Memory(index));
    };
    if meet(&memory, &EMULATED) {
        return Err(PackageError::Memory(index));
    }
    let image = image(package, vm, Load { image: vm.image, at: vm.load })
        .ok_or(PackageError::Image(index))?;
    let offset = vm.entry.wrapping_sub(vm.load);
    if offset >= image.len() as u64 || !vm.entry.is_multiple_of(4) {
        return Err(PackageError::Entry(index));
    }
    loads(package, index, vm)?;
    if !vm.quotas.guaranteed.fits(&vm.quotas.limit) {
        return Err(PackageError::Quotas(index));
    }
    Ok(())
}

/// What a VM starts with lies in its memory, and nothing of it lies on something else.
fn loads(package: &Package<'_>, index: usize, vm: &Vm) -> Result<(), PackageError> {
    let range = |load: Load| {
        let length = image(package, vm, load)?.len() as u64;
        Some(load.at..load.at + length)
    };
    for (n, load) in vm.loads().enumerate() {
        let place = range(load).ok_or(PackageError::Image(index))?;
        let mut earlier = vm.loads().take(n).filter_map(range);
        if earlier.any(|other| meet(&place, &other)) {
            return Err(PackageError::Image(index));
        }
    }
    // A kernel finds its tree at a multiple of 8 (Linux, Documentation/arch/arm64/booting.rst).
    let aligned = vm.device_tree.is_none_or(|tree| tree.at.is_multiple_of(8));
    if aligned { Ok(()) } else { Err(PackageError::Image(index)) }
}

/// The bytes that lie at `load`, if the VM has so much memory there.
fn image<'a>(package: &Package<'a>, vm: &Vm, load: Load) -> Option<&'a [u8]> {
    section(package.bytes, package.sections, wire::KIND_IMAGE, load.image)
        .filter(|image| !image.is_empty() && vm.contains(load.at, image.len() as u64))
}

fn fits(channel: &Channel, owner: &Vm, peer: &Vm) -> bool {
    let aligned = channel.owner_ipa.is_multiple_of(PAGE) && channel.peer_ipa.is_multiple_of(PAGE);
    let Some(bytes) = channel.pages.checked_mul(PAGE) else { return false };
    let Some(end) = channel.peer_ipa.checked_add(bytes) else { return false };
    let beside = end <= peer.memory_at || channel.peer_ipa >= peer.memory_at + peer.memory;
    let inside = end <= 1 << peer.ipa_bits;
    aligned && bytes > 0 && owner.contains(channel.owner_ipa, bytes) && beside && inside
}
