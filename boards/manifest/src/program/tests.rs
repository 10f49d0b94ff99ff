use super::*;
use crate::testing::{elf_file, linux_image};

fn reason(file: Vec<u8>) -> String {
    Program::read(file).unwrap_err().reason
}

#[test]
fn segments_stand_at_their_distances_and_bss_is_zero() {
    // Two segments: 4 bytes at 0x1000 and 2 bytes at 0x1008 that take 8 in memory.
    let file = elf_file(0x1004, &[(0x1000, &[1, 2, 3, 4], 4), (0x1008, &[5, 6], 8)]);
    let program = Program::read(file).unwrap();
    assert_eq!(program.place, Place::Fixed { load: 0x1000, entry: 0x1004 });
    assert_eq!(program.bytes, [1, 2, 3, 4, 0, 0, 0, 0, 5, 6, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn a_kernel_takes_the_memory_that_its_header_says() {
    let program = Program::read(linux_image(0, 0x20_0000)).unwrap();
    assert_eq!((program.place, program.room), (Place::Offset(0), 0x20_0000));
    assert!(program.is_kernel() && program.bytes.len() < 4096);
}

#[test]
fn a_kernel_that_says_nothing_lies_where_old_ones_do() {
    assert_eq!(Program::read(linux_image(7, 0)).unwrap().place, Place::Offset(0x8_0000));
}

#[test]
fn raw_bytes_may_lie_anywhere() {
    let program = Program::read(vec![1; 4]).unwrap();
    assert_eq!((program.place, program.room), (Place::Anywhere, 4));
}

#[test]
fn what_cannot_run_is_refused_with_its_reason() {
    let mut x86 = elf_file(0, &[(0, &[1], 1)]);
    x86[18] = 62;
    assert_eq!(reason(x86), "the ELF file is not for 64-bit Arm");
    assert_eq!(reason(b"\x7fELF".to_vec()), "the ELF file is not for 64-bit Arm");
    assert_eq!(reason(elf_file(0, &[])), "nothing in the ELF file is to be loaded");
    assert_eq!(reason(elf_file(0, &[(0, &[1, 2], 1)])), "a segment of the ELF file is cut short");
    assert_eq!(
        reason(elf_file(0, &[(0, &[], 1), (1 << 40, &[], 1)])),
        "the ELF file spans 0x10000000001 bytes"
    );
    assert_eq!(
        reason(elf_file(0, &[(8, &[], u64::MAX), (0, &[], 1)])),
        "the ELF file spans 0xffffffffffffffff bytes"
    );
    assert_eq!(reason(linux_image(0x20_0000, 1)), "the kernel's text_offset is 0x200000");
    assert_eq!(reason(linux_image(0, 1 << 50)), "the kernel takes 0x4000000000000 bytes");
    assert_eq!(reason(vec![0x1f, 0x8b, 8]), "the file is compressed by gzip");
    assert_eq!(reason(b"MZ\0\0zimg".to_vec()), "the file is a compressed EFI image");
    assert_eq!(reason(Vec::new()), "the file is empty");
}

#[test]
fn an_elf_file_that_is_cut_anywhere_is_refused_or_read_but_never_a_panic() {
    let file = elf_file(0x1004, &[(0x1000, &[1, 2, 3, 4], 4), (0x1008, &[5, 6], 8)]);
    for length in 4..file.len() {
        assert!(Program::read(file[..length].to_vec()).is_err(), "{length}");
    }
}
