//! Files that tests make by hand.

/// An ELF file for 64-bit Arm with these segments: address, bytes in the file, bytes in memory.
pub(crate) fn elf_file(entry: u64, segments: &[(u64, &[u8], u64)]) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend([2u16, 183].map(u16::to_le_bytes).concat());
    file.extend(1u32.to_le_bytes());
    file.extend([entry, 64, 0].map(u64::to_le_bytes).concat());
    file.extend(0u32.to_le_bytes());
    file.extend([64u16, 56, segments.len() as u16, 64, 0, 0].map(u16::to_le_bytes).concat());
    let mut offset = 64 + 56 * segments.len() as u64;
    for (at, bytes, in_memory) in segments {
        let in_file = bytes.len() as u64;
        file.extend([1u32, 5].map(u32::to_le_bytes).concat());
        file.extend([offset, *at, *at, in_file, *in_memory, 4].map(u64::to_le_bytes).concat());
        offset += in_file;
    }
    segments.iter().for_each(|(_, bytes, _)| file.extend_from_slice(bytes));
    file
}

/// The header of an arm64 Linux image, and little behind it.
pub(crate) fn linux_image(text_offset: u64, image_size: u64) -> Vec<u8> {
    let mut file = vec![0; 128];
    file[8..16].copy_from_slice(&text_offset.to_le_bytes());
    file[16..24].copy_from_slice(&image_size.to_le_bytes());
    file[56..60].copy_from_slice(b"ARM\x64");
    file
}
