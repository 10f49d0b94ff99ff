//! The boot image: hypervisor, package behind it, and the header patched to say so.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use package::{Amounts, Board, Digest, Vm, Writer};

use crate::build::Programs;
use crate::elf::{self, Flat};
use crate::scenario::{Damage, Scenario};

/// Where the arm64 boot protocol keeps the distance of the image from the start of RAM, modulo 2 MiB.
const TEXT_OFFSET: usize = 8;
/// Where it keeps the size of the image: boot loaders put nothing below
/// load address + this.
const IMAGE_SIZE: usize = 16;
/// Bytes of the header.
const ARM64_HEADER: usize = 64;
/// "ARM\x64" at this offset marks an image.
const IMAGE_MAGIC: usize = 56;

/// An image and the secret that its run must show.
#[derive(Clone, Debug)]
pub struct Image {
    /// What firmware loads.
    pub bytes: Vec<u8>,
    /// The package's nonce as EL2 writes it: 32 hexadecimal digits.
    pub nonce: String,
}

/// Puts a scenario's programs together, with a nonce of its own.
pub fn compose(scenario: &Scenario, programs: &Programs) -> Result<Image> {
    let hypervisor = programs.path(&scenario.el2_program())?;
    let mut image = assemble(hypervisor, writer(scenario, programs)?)
        .with_context(|| format!("scenario {} cannot be packed", scenario.name))?;
    place(&mut image.bytes, scenario.load_at);
    let package_at = elf::flatten(hypervisor)?.bytes.len();
    damage(&mut image.bytes, package_at, scenario.damage);
    Ok(image)
}

/// Puts a hypervisor and what a package is made of together, with a nonce of its own.
pub fn assemble(program: &Path, writer: Writer) -> Result<Image> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).ok().context("the system gives no random numbers")?;
    let hypervisor = elf::flatten(program)?;
    let linked_end = elf::symbol(program, "__image_end")?;
    ensure!(
        hypervisor.base + hypervisor.bytes.len() as u64 == linked_end,
        "{} does not end at __image_end, so EL2 would miss the package",
        program.display()
    );
    let constants_end = (elf::symbol(program, "__rodata_end")? - hypervisor.base) as usize;
    let covered = hypervisor.bytes.get(ARM64_HEADER..constants_end);
    let covered = covered.context("__rodata_end does not lie in the hypervisor")?;
    let digest = writer.hypervisor.unwrap_or((Digest::of(covered), covered.len() as u32));
    let package = Writer { nonce, hypervisor: Some(digest), ..writer }.write()?;
    Ok(Image { bytes: join(hypervisor, &package)?, nonce: hex(&nonce) })
}

/// What a scenario's package is made of.
fn writer(scenario: &Scenario, programs: &Programs) -> Result<Writer> {
    let mut writer = Writer {
        hlt_allowed: scenario.semihosting,
        channels: scenario.channels.to_vec(),
        heaps: scenario.heaps.to_vec(),
        devices: scenario.devices.to_vec(),
        interrupts: scenario.interrupts.to_vec(),
        ..Writer::new(scenario.machine.board, scenario.machine.cpus, [0; 16])
    };
    let mut names: Vec<&str> = Vec::new();
    for guest in scenario.guests {
        let known = names.iter().position(|name| *name == guest.program);
        let image = known.unwrap_or(names.len()) as u32;
        let flat = elf::flatten(programs.path(guest.program)?)?;
        writer.vms.push(Vm { image, load: flat.base, entry: flat.entry, ..guest.vm });
        if known.is_none() {
            names.push(guest.program);
            writer.images.push(flat.bytes);
        }
    }
    writer.shared = Amounts::enough_for(&writer.vms);
    match scenario.damage {
        Damage::OtherBuild => writer.hypervisor = Some((Digest::of(b"another build"), 4096)),
        Damage::OtherBoard => writer.board = Board::ZCU102,
        Damage::OtherGic => writer.gic = 2,
        Damage::None | Damage::Cut | Damage::Changed => {}
    }
    Ok(writer)
}

/// Appends the package and writes the new size into the arm64 header.
fn join(hypervisor: Flat, package: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = hypervisor.bytes;
    ensure!(
        bytes.get(IMAGE_MAGIC..IMAGE_MAGIC + 4) == Some(b"ARM\x64"),
        "the hypervisor does not start with an arm64 image header"
    );
    ensure!(bytes.len().is_multiple_of(4096), "__image_end is not on a page boundary");
    bytes.extend_from_slice(package);
    bytes.resize(bytes.len().next_multiple_of(4096), 0);
    let size = bytes.len() as u64;
    bytes[IMAGE_SIZE..IMAGE_SIZE + 8].copy_from_slice(&size.to_le_bytes());
    Ok(bytes)
}

/// Asks for another place in memory: the boot protocol adds this to the start of RAM.
fn place(image: &mut [u8], load_at: u64) {
    image[TEXT_OFFSET..TEXT_OFFSET + 8].copy_from_slice(&load_at.to_le_bytes());
}

/// Does to an image what happens to images on their way.
fn damage(image: &mut Vec<u8>, package_at: usize, damage: Damage) {
    const PAGE: usize = 4096;
    match damage {
        Damage::Cut => image.truncate(image.len() - PAGE),
        // Header, boot configuration, first program.
        Damage::Changed => image[package_at + 2 * PAGE + 64] ^= 1,
        Damage::None | Damage::OtherBuild | Damage::OtherBoard | Damage::OtherGic => {}
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hypervisor() -> Flat {
        let mut bytes = vec![0; 8192];
        bytes[IMAGE_MAGIC..IMAGE_MAGIC + 4].copy_from_slice(b"ARM\x64");
        Flat { base: 0x4020_0000, entry: 0x4020_0000, bytes }
    }

    #[test]
    fn the_package_follows_and_the_header_counts_it() {
        let image = join(hypervisor(), b"package").unwrap();
        assert_eq!(&image[8192..8199], b"package");
        assert_eq!(image[16..24], (3 * 4096u64).to_le_bytes());
        assert_eq!(image.len(), 3 * 4096);
    }

    #[test]
    fn a_program_without_the_header_is_no_hypervisor() {
        let mut program = hypervisor();
        program.bytes[IMAGE_MAGIC] = 0;
        assert!(join(program, b"package").is_err());
    }

    #[test]
    fn a_nonce_is_written_as_el2_prints_it() {
        assert_eq!(hex(&[0, 0xab, 0x01]), "00ab01");
    }
}
