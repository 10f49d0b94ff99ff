//! Makes a package, on the host.

use std::vec::Vec;

use zerocopy::IntoBytes;

use crate::vm::{Amounts, Channel, Vm};
use crate::wire::{self, ChannelEntry, ConfigHeader, Header, SectionEntry, VmEntry};
use crate::{Board, MAGIC, Package, PackageError, VERSION};

/// Images start on a page, so that EL2 may copy them page by page.
const PAGE: usize = 4096;

/// Everything that goes into a package.
#[derive(Clone, Debug)]
pub struct Writer {
    /// The board it is for.
    pub board: Board,
    /// Whether EL2 may use semihosting.
    pub hlt_allowed: bool,
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
    /// Their programs; [`Vm::image`] counts from 0.
    pub images: Vec<Vec<u8>>,
}

impl Writer {
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
            });
            body.extend_from_slice(contents);
        }
        let header = self.header(body.len(), count);
        let (head, rest) = body.split_at_mut(size_of::<Header>());
        head.copy_from_slice(header.as_bytes());
        rest[..size_of_val(table.as_slice())].copy_from_slice(table.as_bytes());
        Package::parse(&body)?;
        Ok(body)
    }

    fn header(&self, length: usize, sections: usize) -> Header {
        Header {
            magic: MAGIC,
            version: VERSION.into(),
            board: (self.board as u32).into(),
            flags: (if self.hlt_allowed { wire::FLAG_HLT } else { 0 }).into(),
            cpus: self.cpus,
            reserved: [0; 3],
            nonce: self.nonce,
            length: (length as u64).into(),
            section_table: (size_of::<Header>() as u32).into(),
            section_count: (sections as u32).into(),
            reserved_end: [0; 8],
        }
    }

    fn config(&self) -> Vec<u8> {
        let header = ConfigHeader {
            vms: (self.vms.len() as u32).into(),
            channels: (self.channels.len() as u32).into(),
            shared: (&self.shared).into(),
        };
        let mut bytes = header.as_bytes().to_vec();
        for vm in &self.vms {
            bytes.extend_from_slice(VmEntry::from(vm).as_bytes());
        }
        for channel in &self.channels {
            bytes.extend_from_slice(ChannelEntry::from(channel).as_bytes());
        }
        bytes
    }
}
