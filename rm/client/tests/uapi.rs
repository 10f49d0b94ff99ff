//! The UAPI of the four families, against numbers and bytes written down from their headers.

use std::collections::HashMap;

use rm_client::front::dmaheap::{self, AllocationData, Command, FeaturesData};
use rm_client::front::gntdev::{self, CopySegment, CopySide, GrantPlace, GrantRef, MapGrantRef};
use rm_client::front::membuf::{self, AllocArg};
use rm_client::front::sized::{self, Tail};
use rm_client::front::{Direction, Errno, dmabuf, ioctl_number, size_of_number};
use rm_client::{Error, ErrorCode, Rights, TransportError};
use zerocopy::{FromBytes, IntoBytes};

/// Every number as it is made of its parts, and as its header's macro expands.
const NUMBERS: [(u32, u32); 33] = [
    (membuf::ALLOC, 0xc048_4d00),
    (membuf::EXPORT, 0xc030_4d01),
    (membuf::IMPORT, 0xc030_4d02),
    (membuf::EXCLUSIVE_OWNER, 0xc008_4d02),
    (membuf::LEND, 0xc030_4d03),
    (membuf::RECLAIM, 0xc020_4d03),
    (membuf::RETRIEVE, 0xc038_4d04),
    (membuf::SHARE, 0xc030_4d06),
    (gntdev::MAP_GRANT_REF, 0x0018_4700),
    (gntdev::UNMAP_GRANT_REF, 0x0010_4701),
    (gntdev::GET_OFFSET_FOR_VADDR, 0x0018_4702),
    (gntdev::SET_MAX_GRANTS, 0x0004_4703),
    (gntdev::SET_UNMAP_NOTIFY, 0x0010_4707),
    (gntdev::GRANT_COPY, 0x0010_4708),
    (gntdev::GRANT_COPY_32, 0x0008_4708),
    (gntdev::EXP_FROM_REFS, 0x0014_4709),
    (gntdev::EXP_WAIT_RELEASED, 0x0008_470a),
    (gntdev::IMP_TO_REFS, 0x0014_470b),
    (gntdev::IMP_RELEASE, 0x0008_470c),
    (gntdev::GNTALLOC_ALLOC, 0x0018_4705),
    (gntdev::GNTALLOC_DEALLOC, 0x0010_4706),
    (gntdev::GNTALLOC_SET_UNMAP_NOTIFY, 0x0010_4707),
    (dmabuf::SYNC, 0x4008_6200),
    (dmabuf::SET_NAME_A, 0x4004_6201),
    (dmabuf::SET_NAME_B, 0x4008_6201),
    (dmabuf::INFO, 0xc010_6202),
    (dmabuf::EXPORT_SYNC_FILE, 0xc008_6202),
    (dmabuf::IMPORT_SYNC_FILE, 0x4008_6203),
    (dmaheap::GET_FEATURES_V14, 0x8008_4800),
    (dmaheap::ALLOC_V14, 0xc018_4801),
    (dmaheap::ALLOC, 0xc018_4800),
    // Shapes of other lengths, as programs of another age send them.
    (ioctl_number(Direction::Both, b'H', 1, 16), 0xc010_4801),
    (ioctl_number(Direction::Both, b'H', 0, 32), 0xc020_4800),
];

#[test]
fn every_number_is_the_header_s() {
    for (made, written) in NUMBERS {
        assert_eq!(made, written, "{made:#010x} is not {written:#010x}");
    }
    assert_eq!(size_of_number(membuf::ALLOC), size_of::<AllocArg>());
}

#[test]
fn a_whole_number_means_one_call_of_one_device() {
    let mut seen = HashMap::new();
    for (number, _) in NUMBERS {
        *seen.entry(number).or_insert(0) += 1;
    }
    seen.retain(|_, count| *count > 1);
    assert_eq!(seen, HashMap::from([(gntdev::SET_UNMAP_NOTIFY, 2)]), "gntdev's and gntalloc's");
}

#[test]
fn the_bytes_of_an_allocation_are_the_header_s() {
    let words: [u64; 9] = [
        0x50_0000,
        0xffff_8000_1234_5678,
        0x0000_0000_0000_0002,
        0xffff_8000_0000_1000,
        0x0000_0007_0000_0000,
        0xffff_8000_0000_2000,
        1,
        2,
        3,
    ];
    let alloc = AllocArg::read_from_bytes(words.as_bytes()).unwrap();
    let expected = AllocArg {
        size: 0x50_0000,
        acl_list: 0xffff_8000_1234_5678,
        nr_acl_entries: 2,
        src_mem_type: membuf::ION_MEM_TYPE,
        src_data: 0xffff_8000_0000_1000,
        dst_mem_type: membuf::ION_MEM_TYPE,
        mem_buf_fd: 7,
        dst_data: 0xffff_8000_0000_2000,
        reserved: [1, 2, 3],
    };
    assert_eq!(alloc, expected);
    assert_eq!(alloc.as_bytes(), words.as_bytes());
}

#[test]
fn an_allocation_is_checked_field_by_field() {
    let good = AllocArg {
        size: 1,
        acl_list: 8,
        nr_acl_entries: 16,
        src_mem_type: 0,
        src_data: 0,
        dst_mem_type: 0,
        mem_buf_fd: 0,
        dst_data: 0,
        reserved: [0; 3],
    };
    assert_eq!(good.check(), Ok(()));
    let wrong = [
        AllocArg { size: 0, ..good },
        AllocArg { acl_list: 0, ..good },
        AllocArg { nr_acl_entries: 0, ..good },
        AllocArg { nr_acl_entries: 17, ..good },
        AllocArg { src_mem_type: 1, ..good },
        AllocArg { dst_mem_type: 1, ..good },
        AllocArg { reserved: [1, 0, 0], ..good },
        AllocArg { reserved: [0, 1, 0], ..good },
        AllocArg { reserved: [0, 0, 1], ..good },
    ];
    for arg in wrong {
        assert_eq!(arg.check(), Err(Errno::EINVAL), "{arg:?}");
    }
}

#[test]
fn permissions_change_the_order_of_their_bits() {
    let (r, w, x) = (Rights::R, Rights::W, Rights::X);
    let none = Rights::empty();
    let table = [none, r, w, r | w, x, r | x, w | x, r | w | x];
    for (perms, expected) in (0..).zip(table) {
        assert_eq!(membuf::rights(perms), Ok(expected), "{perms}");
    }
    for perms in [8, 9, 15, 1 << 31, u32::MAX] {
        assert_eq!(membuf::rights(perms), Err(Errno::EINVAL), "{perms:#x}");
    }
}

#[test]
fn a_side_of_a_copy_is_an_address_or_a_grant() {
    let place = GrantPlace { grant: 0x1122_3344, offset: 0x5566, domid: 0x7788 };
    let bytes = [0x44, 0x33, 0x22, 0x11, 0x66, 0x55, 0x88, 0x77];
    assert_eq!(CopySide::of_grant(place).as_bytes(), bytes);
    assert_eq!(CopySide::read_from_bytes(&bytes).unwrap().grant(), place);
    assert_eq!(CopySide(0xffff_8000_0000_1000).address(), 0xffff_8000_0000_1000);
    let segment = CopySegment {
        source: CopySide::of_grant(place),
        dest: CopySide(0),
        len: 0x0102,
        flags: gntdev::COPY_SOURCE_GRANT,
        status: -3,
        pad: 0,
    };
    let tail = [2, 1, 1, 0, 0xfd, 0xff, 0, 0];
    assert_eq!(segment.as_bytes(), [&bytes[..], &[0; 8], &tail].concat());
}

#[test]
fn flags_that_a_header_does_not_define_are_refused() {
    let notify = |action| gntdev::UnmapNotify { index: 0, action, event_channel_port: 0 }.check();
    assert_eq!([0, 1, 2, 3].map(notify), [Ok(()); 4]);
    assert_eq!([4, 7, 1 << 31].map(notify), [Err(Errno::EINVAL); 3]);
    let export = |flags| gntdev::ExportFromRefs { flags, count: 1, fd: 0, domid: 0 }.check();
    assert_eq!([0, 1, 2].map(export), [Ok(()); 3]);
    assert_eq!([3, 4, 8].map(export), [Err(Errno::EINVAL); 3]);
    let import = |reserved| gntdev::ImportToRefs { fd: 0, count: 1, domid: 0, reserved }.check();
    assert_eq!((import(0), import(1)), (Ok(()), Err(Errno::EINVAL)));
    let release = |reserved| gntdev::ImportRelease { fd: 0, reserved }.check();
    assert_eq!((release(0), release(1)), (Ok(()), Err(Errno::EINVAL)));
    let sync = |flags| dmabuf::Sync { flags }.check();
    assert_eq!([1, 2, 3, 5, 6, 7].map(sync), [Ok(()); 6]);
    assert_eq!([0, 4, 8, 9, 1 << 63].map(sync), [Err(Errno::EINVAL); 5]);
}

#[test]
fn heap_numbers_of_both_versions_and_every_length_are_told_apart() {
    let features = [0x8008_4800, 0x8010_4800, 0x8004_4800];
    let allocations =
        [0xc018_4801, 0xc018_4800, 0xc010_4801, 0xc038_4801, 0xc010_4800, 0xc020_4800, 0xc038_4800];
    assert_eq!(features.map(Command::of), [Ok(Command::Features); 3]);
    assert_eq!(allocations.map(Command::of), [Ok(Command::Alloc); 7]);
    let not_calls = [0xc018_4802, 0x0018_4800, 0x4018_4801, 0x8018_4801];
    assert_eq!(not_calls.map(Command::of), [Err(Errno::EINVAL); 4]);
    assert_eq!([0xc018_4900, dmabuf::INFO].map(Command::of), [Err(Errno::ENOTTY); 2]);
}

const WISH: AllocationData = AllocationData { len: 4097, fd: 0, fd_flags: 0, heap_flags: 0 };

#[test]
fn a_wish_for_memory_is_in_whole_pages() {
    let bytes = |len| AllocationData { len, ..WISH }.bytes();
    assert_eq!([1, 4096, 4097].map(bytes), [Ok(4096), Ok(4096), Ok(8192)]);
    assert_eq!(bytes(u64::MAX - 4095), Ok(u64::MAX - 4095));
    assert_eq!([0, u64::MAX, u64::MAX - 4094].map(bytes), [Err(Errno::EINVAL); 3]);
    let flags = |fd_flags| AllocationData { fd_flags, ..WISH }.bytes();
    assert_eq!([0, 1, 2, 0x8_0002].map(flags), [Ok(8192); 4]);
    assert_eq!([4, 0x80, 0x10_0000].map(flags), [Err(Errno::EINVAL); 3]);
    assert_eq!(AllocationData { heap_flags: 1, ..WISH }.bytes(), Err(Errno::EINVAL));
    assert_eq!(AllocationData { fd: 5, ..WISH }.bytes(), Err(Errno::EINVAL));
}

/// A program's struct of `size` bytes: the wish with flags that are not zero, and an end.
fn program(size: usize, end: u8) -> Vec<u8> {
    let wish = AllocationData { len: 4097, fd: 0, fd_flags: 2, heap_flags: 3 };
    let mut bytes = wish.as_bytes().to_vec();
    bytes.resize(size, end);
    bytes
}

const SHAPES: [usize; 4] = [16, 24, 32, 56];

#[test]
fn an_older_struct_goes_on_with_zeros_and_gets_back_its_own_length() {
    for tail in [Tail::MustBeZero, Tail::Ignored] {
        let mut bytes = program(16, 0);
        let read: AllocationData = sized::read(&bytes, tail).unwrap();
        assert_eq!(read, AllocationData { fd_flags: 2, ..WISH });
        sized::write(&AllocationData { fd: 9, heap_flags: u64::MAX, ..read }, &mut bytes);
        assert_eq!(bytes.len(), 16);
        assert_eq!(bytes[8..12], [9, 0, 0, 0]);
    }
    assert_eq!(sized::read::<AllocationData>(&[], Tail::MustBeZero).unwrap().len, 0);
}

#[test]
fn a_newer_struct_is_served_if_its_end_asks_for_nothing() {
    let known: AllocationData = sized::read(&program(24, 0), Tail::MustBeZero).unwrap();
    for size in SHAPES.into_iter().filter(|&size| size >= 24) {
        let mut bytes = program(size, 0);
        assert_eq!(sized::read(&bytes, Tail::MustBeZero), Ok(known));
        sized::write(&AllocationData { fd: 9, ..known }, &mut bytes);
        assert_eq!(bytes[8], 9);
        assert!(bytes[24..].iter().all(|&byte| byte == 0));
    }
}

#[test]
fn a_newer_struct_whose_end_asks_for_something_is_refused_but_by_heaps() {
    let known: AllocationData = sized::read(&program(24, 0), Tail::MustBeZero).unwrap();
    for size in [25, 32, 56] {
        let mut last = program(size, 0);
        last[size - 1] = 1;
        let refused = sized::read::<AllocationData>(&last, Tail::MustBeZero);
        assert_eq!(refused, Err(Errno::E2BIG), "{size}");
        assert_eq!(sized::read(&last, Tail::Ignored), Ok(known));
        sized::write(&known, &mut last);
        assert_eq!(last[size - 1], 1, "what is not known stays as it was");
    }
}

#[test]
fn features_are_written_whatever_the_program_s_buffer_held() {
    let mut bytes = [0xa5; 16];
    sized::write(&FeaturesData { features: 0 }, &mut bytes);
    assert_eq!(bytes, [[0; 8], [0xa5; 8]].concat()[..]);
}

#[test]
fn an_array_is_as_long_as_its_count_and_no_longer() {
    let mut bytes = MapGrantRef { count: 3, pad: 0, index: 0 }.as_bytes().to_vec();
    let refs = [1, 2, 3].map(|grant| GrantRef { domid: grant + 10, grant });
    bytes.extend_from_slice(refs.as_bytes());
    bytes.extend_from_slice(&[0xff; 5]);
    let read = |bytes: &[u8], limit| {
        let parts = sized::read_array(bytes, |head: &MapGrantRef| head.count, limit);
        parts.map(|(head, refs)| (head.count, refs.collect::<Vec<GrantRef>>()))
    };
    assert_eq!(read(&bytes, gntdev::MAX_PAGES), Ok((3, refs.to_vec())));
    assert_eq!(read(&bytes, 2), Err(Errno::EINVAL), "above the limit");
    assert_eq!(read(&bytes[..39], 64), Err(Errno::EFAULT), "the last entry is cut");
    assert_eq!(read(&bytes[..15], 64), Err(Errno::EFAULT), "the fixed part is cut");
    let nothing = MapGrantRef { count: 0, pad: 0, index: 0 };
    assert_eq!(read(nothing.as_bytes(), 64), Err(Errno::EINVAL));
    let most = MapGrantRef { count: u32::MAX, pad: 0, index: 0 };
    assert_eq!(read(most.as_bytes(), u32::MAX), Err(Errno::EFAULT));
    assert_eq!(sized::array_size::<[u8; usize::MAX / 8]>(9, 9), Err(Errno::EINVAL), "overflow");
}

#[test]
fn every_refusal_has_the_errno_that_programs_expect() {
    let table = [
        (ErrorCode::NoMemory, 12, "ENOMEM"),
        (ErrorCode::NoResource, 28, "ENOSPC"),
        (ErrorCode::Denied, 1, "EPERM"),
        (ErrorCode::MessageInvalid, 22, "EINVAL"),
        (ErrorCode::Busy, 16, "EBUSY"),
        (ErrorCode::ArgumentInvalid, 22, "EINVAL"),
        (ErrorCode::HandleInvalid, 2, "ENOENT"),
        (ErrorCode::ValidateFailed, 22, "EINVAL"),
        (ErrorCode::MapFailed, 12, "ENOMEM"),
        (ErrorCode::MemoryInvalid, 22, "EINVAL"),
        (ErrorCode::MemoryInUse, 16, "EBUSY"),
        (ErrorCode::MemoryReleased, 2, "ENOENT"),
        (ErrorCode::VmidInvalid, 22, "EINVAL"),
        (ErrorCode::Unimplemented, 95, "EOPNOTSUPP"),
    ];
    for (code, number, name) in table {
        let errno = Errno::from(Error::Refused(code));
        assert_eq!((errno.0, errno.name()), (number, Some(name)), "{code:?}");
    }
    assert_eq!(Errno::from(Error::Transport(TransportError::Malformed)), Errno::EIO);
    assert_eq!(Errno::from(Error::RefusedUnknown(99)), Errno::EINVAL);
    let rest = [Errno::E2BIG, Errno::EBADF, Errno::EFAULT, Errno::ENOTTY, Errno::ENOSYS];
    assert_eq!(rest.map(|errno| errno.0), [7, 9, 14, 25, 38]);
    assert_eq!(Errno::EACCES.0, 13);
    let rest = [Errno::EOVERFLOW, Errno::EADDRNOTAVAIL, Errno::ETIMEDOUT, Errno::ENOTSUPP];
    assert_eq!(rest.map(|errno| errno.0), [75, 99, 110, 524]);
    assert_eq!(format!("{} {:?}", Errno::EBUSY, Errno(1234)), "EBUSY errno 1234");
}
