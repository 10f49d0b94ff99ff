//! Makes a package, on the host.

use std::vec::Vec;

use zerocopy::{FromBytes, IntoBytes};

use crate::digest::Digest;
use crate::place::{Channel, Device, Heap, Interrupt};
use crate::vm::{Amounts, Name, Vm};
use crate::wire::{
    self, ChannelEntry, ConfigHeader, DeviceEntry, Header, HeapEntry, InterruptEntry, SectionEntry,
    VmEntry,
};
use crate::{Board, END, MAGIC, Package, PackageError, VERSION, check};

/// Images start on a page, so that EL2 may copy them page by page.
const PAGE: usize = 4096;

/// Everything that goes into a package.
#[derive(Clone, Debug)]
pub struct Writer {
    /// The board it is for.
    pub board: Board,
    /// Whether EL2 may use semihosting.
    pub hlt_allowed: bool,
    /// The version of the interrupt controller that the device trees describe; 0 if there are none.
    pub gic: u8,
    /// How many CPUs the VMs are placed on.
    pub cpus: u8,
    /// A number that nobody can guess.
    pub nonce: [u8; 16],
    /// What the VMs share beyond their guarantees: [`Amounts::enough_for`] them, or less where memory is
    /// short.
    pub shared: Amounts,
    /// The VMs.
    pub vms: Vec<Vm>,
    /// Memory that they share from boot on.
    pub channels: Vec<Channel>,
    /// Registers that they drive themselves.
    pub devices: Vec<Device>,
    /// Interrupts of those devices.
    pub interrupts: Vec<Interrupt>,
    /// Memory to allocate from.
    pub heaps: Vec<Heap>,
    /// Digest of the hypervisor that goes before the package, and how many bytes behind its arm64 header it
    /// covers.
    pub hypervisor: Option<(Digest, u32)>,
    /// What they start with: programs, device trees, initial RAM disks. [`Vm::image`] counts from 0.
    pub images: Vec<Vec<u8>>,
}

impl Writer {
    /// A package without VMs.
    pub fn new(board: Board, cpus: u8, nonce: [u8; 16]) -> Self {
        Self {
            board,
            hlt_allowed: false,
            gic: 0,
            cpus,
            nonce,
            shared: Amounts::default(),
            vms: Vec::new(),
            channels: Vec::new(),
            devices: Vec::new(),
            interrupts: Vec::new(),
            heaps: Vec::new(),
            hypervisor: None,
            images: Vec::new(),
        }
    }

    /// The package, which EL2 would accept: it has been parsed once.
    pub fn write(&self) -> Result<Vec<u8>, PackageError> {
        let config = self.config();
        let parts = core::iter::once((wire::KIND_BOOT_CONFIG, config.as_slice()))
            .chain(self.images.iter().map(|image| (wire::KIND_IMAGE, image.as_slice())));
        let count = self.images.len() + 1;
        let mut body = vec![0; size_of::<Header>() + count * size_of::<SectionEntry>()];
        let mut table = Vec::new();
        for (kind, contents) in parts {
            body.resize(body.len().next_multiple_of(PAGE), 0);
            table.push(SectionEntry {
                kind: kind.into(),
                reserved: 0.into(),
                offset: (body.len() as u64).into(),
                length: (contents.len() as u64).into(),
                digest: [0; 32],
            });
            body.extend_from_slice(contents);
        }
        body.extend_from_slice(&END);
        let header = self.header(body.len(), count);
        let (head, rest) = body.split_at_mut(size_of::<Header>());
        head.copy_from_slice(header.as_bytes());
        rest[..size_of_val(table.as_slice())].copy_from_slice(table.as_bytes());
        seal(&mut body)?;
        Package::parse(&body)?;
        Ok(body)
    }

    fn header(&self, length: usize, sections: usize) -> Header {
        let (hypervisor, covered) = self.hypervisor.unwrap_or((Digest([0; 32]), 0));
        Header {
            magic: MAGIC,
            version: VERSION.into(),
            board: self.board.id().into(),
            flags: (if self.hlt_allowed { wire::FLAG_HLT } else { 0 }).into(),
            cpus: self.cpus,
            gic: self.gic,
            reserved: [0; 2],
            nonce: self.nonce,
            length: (length as u64).into(),
            section_table: (size_of::<Header>() as u32).into(),
            section_count: (sections as u32).into(),
            hypervisor_length: covered.into(),
            reserved_end: [0; 4],
            hypervisor: hypervisor.0,
            board_name: Name::new(self.board.name()).0,
            digest: [0; 32],
        }
    }

    fn config(&self) -> Vec<u8> {
        let count = |length: usize| (length as u32).into();
        let header = ConfigHeader {
            vms: count(self.vms.len()),
            channels: count(self.channels.len()),
            devices: count(self.devices.len()),
            interrupts: count(self.interrupts.len()),
            heaps: count(self.heaps.len()),
            reserved: 0.into(),
            shared: (&self.shared).into(),
        };
        let mut bytes = header.as_bytes().to_vec();
        append::<_, VmEntry>(&mut bytes, &self.vms);
        append::<_, ChannelEntry>(&mut bytes, &self.channels);
        append::<_, DeviceEntry>(&mut bytes, &self.devices);
        append::<_, InterruptEntry>(&mut bytes, &self.interrupts);
        append::<_, HeapEntry>(&mut bytes, &self.heaps);
        bytes
    }
}

/// Appends what `things` are as bytes.
fn append<'a, T, E>(bytes: &mut Vec<u8>, things: &'a [T])
where
    E: From<&'a T> + IntoBytes + zerocopy::Immutable,
{
    things.iter().for_each(|thing| bytes.extend_from_slice(E::from(thing).as_bytes()));
}

/// Writes the digests of a package anew, after a change of its bytes.
///
/// # Errors
///
/// There is no header, or a section does not lie inside the package.
pub fn seal(bytes: &mut [u8]) -> Result<(), PackageError> {
    let (header, _) = Header::read_from_prefix(bytes).map_err(|_| PackageError::Truncated)?;
    let (start, count) = (header.section_table.get() as usize, header.section_count.get() as usize);
    let table = start..start.saturating_add(count.saturating_mul(size_of::<SectionEntry>()));
    let mut sections = Vec::new();
    for at in table.clone().step_by(size_of::<SectionEntry>()) {
        let entry = bytes.get(at..).ok_or(PackageError::SectionTable)?;
        let (mut entry, _) =
            SectionEntry::read_from_prefix(entry).map_err(|_| PackageError::SectionTable)?;
        let number = sections.len() as u32;
        let contents = check::contents(bytes, &entry).ok_or(PackageError::Section(number))?;
        entry.digest = Digest::of(contents).0;
        sections.push(entry);
    }
    let digest = check::header_digest(&header, &sections);
    let table = bytes.get_mut(table).ok_or(PackageError::SectionTable)?;
    table.copy_from_slice(sections.as_bytes());
    Header { digest: digest.0, ..header }
        .write_to_prefix(bytes)
        .map_err(|_| PackageError::Truncated)
}
