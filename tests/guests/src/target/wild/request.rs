//! Requests that are right in most places.

use core::sync::atomic::Ordering;

use rm_abi::extension::{self, CopyRequest, CopySegment, CopySide};
use rm_abi::{Header, Kind, VmidEntry, Writer, message};
use rm_client::{AclEntry, AttributeEntry, Handle, Rights, Vmid};

use super::{OFFERED, Wild, spared};
use crate::layout::{PAGE, VMID_C};

/// Bytes of the longest request.
pub(super) const LONGEST: usize = 9 * 1024;
/// Ranges of the longest list, one more than there may be.
const RANGES: usize = 513;

/// The calls of Gunyah's, those that make something more often.
const CALLS: [u32; 24] = [
    message::MEM_LEND,
    message::MEM_LEND,
    message::MEM_SHARE,
    message::MEM_SHARE,
    message::MEM_DONATE,
    message::MEM_ACCEPT,
    message::MEM_ACCEPT,
    message::MEM_ACCEPT,
    message::MEM_RELEASE,
    message::MEM_RECLAIM,
    message::MEM_RECLAIM,
    message::MEM_RECLAIM,
    message::MEM_NOTIFY,
    message::MEM_NOTIFY,
    extension::REVOKE,
    extension::LIST,
    message::MEM_APPEND,
    message::MEM_LOOKUP,
    message::VM_GET_ID,
    message::VM_GET_STATE,
    message::VM_GET_PEERS,
    message::VM_START,
    message::VM_STOP,
    message::VM_RESET,
];
/// How many extension calls there are, and some more.
const EXTENSIONS: u64 = 30;

impl Wild {
    /// Writes a request; its length.
    pub(super) fn request(&mut self, into: &mut [u8; LONGEST]) -> usize {
        let message = match self.random.below(12) {
            0 => 0x5600_0000 + self.random.below(0x90) as u32,
            1 => 0x5100_0000 + self.random.below(0x20) as u32,
            2..=5 => extension::CALLS + self.random.below(EXTENSIONS) as u32,
            _ => self.random.one_of(&CALLS),
        };
        let header = Header::request(spared::message(message), self.random.word() as u16);
        let mut writer = Writer::new(into);
        writer.bytes(&header.encode());
        match message {
            message::MEM_DONATE | message::MEM_LEND | message::MEM_SHARE => {
                self.create(message, &mut writer);
            }
            message::MEM_ACCEPT => self.accept(&mut writer),
            message::MEM_APPEND => {
                writer.u32(self.own_handle().0).u8(self.number() as u8).u8(0).u16(0);
                self.ranges(&mut writer);
            }
            message::MEM_NOTIFY => {
                let flag = self.random.one_of(&[1, 1, 2, 4, 8]);
                writer.u32(self.own_handle().0).u32(flag).u32(self.number() as u32);
                let targets = [VmidEntry(self.vmid()), VmidEntry(self.vmid())];
                let count = if self.random.once_in(4) { self.random.index(3) } else { 1 };
                writer.list(&targets[..count], 0);
            }
            message::MEM_LOOKUP => {
                writer.u32(0).u32(self.number() as u32);
                self.access_list(message, &mut writer);
                self.ranges(&mut writer);
                writer.u32(0);
            }
            extension::COPY => self.copy(&mut writer),
            _ => self.fields(message, &mut writer),
        }
        let mut length = writer.finish().unwrap_or(LONGEST);
        if self.random.once_in(4) {
            length = self.damage(into, length);
        }
        spared::bytes(&mut into[..length]);
        length
    }

    fn create(&mut self, message: u32, writer: &mut Writer<'_>) {
        let kind = if self.random.once_in(32) { self.number() as u8 } else { 0 };
        let flags = if self.random.once_in(8) { self.number() as u8 } else { 0 };
        writer.u8(kind).u8(0).u8(flags).u8(0).u32(self.number() as u32);
        self.access_list(message, writer);
        self.ranges(writer);
        let attributes = usize::from(self.random.once_in(12));
        let entry = AttributeEntry { attribute: self.random.below(5) as u16, vmid: self.vmid() };
        writer.list(&[entry][..attributes], 0);
    }

    /// Who may use a parcel: with a share the VM itself, mostly.
    fn access_list(&mut self, message: u32, writer: &mut Writer<'_>) {
        let mut list: [AclEntry; 17] =
            core::array::from_fn(|_| AclEntry { vmid: self.vmid(), rights: self.rights() });
        let mut count = 1 + usize::from(self.random.once_in(4));
        if message == message::MEM_SHARE {
            list[0] = AclEntry { vmid: Vmid(VMID_C), rights: Rights::RWX };
            count += 1;
        } else if message == message::MEM_DONATE {
            (list[0].rights, count) = (Rights::RWX, 1);
        }
        if self.random.once_in(32) {
            count = self.random.index(list.len() + 1);
        }
        writer.list(&list[..count], 0);
    }

    /// Pages of the VM's own, mostly.
    fn ranges(&mut self, writer: &mut Writer<'_>) {
        let mut count = 1 + usize::from(self.random.once_in(3));
        if self.random.once_in(24) {
            count = self.random.index(RANGES + 1);
        }
        writer.u16(count as u16).u16(0);
        for _ in 0..count {
            let ipa = if self.random.once_in(12) { self.page() } else { self.own_page() };
            let size = if self.random.once_in(6) { self.size() } else { PAGE };
            writer.u64(ipa).u64(size);
        }
    }

    fn accept(&mut self, writer: &mut Writer<'_>) {
        let flags = self.random.one_of(&[0x80, 0x80, 0x90, 0xa0, 0x10, 0, 0x81, 0x82, 0x84, 0xff]);
        let (mut handle, mut transfer) = (self.handle(), 1 + self.random.below(2) as u8);
        if self.random.once_in(2) {
            let offer = OFFERED.load(Ordering::Relaxed);
            (handle, transfer) = (Handle(offer as u32), (offer >> 40) as u8);
        }
        writer.u32(handle.0).u8(0).u8(transfer).u8(flags).u8(0).u32(self.number() as u32);
        if self.random.once_in(8) {
            self.access_list(message::MEM_ACCEPT, writer);
        } else {
            writer.u32(0);
        }
        if self.random.once_in(4) {
            self.ranges(writer)
        } else {
            _ = writer.u32(0)
        }
        writer.u32(0);
    }

    fn copy(&mut self, writer: &mut Writer<'_>) {
        let segments: [CopySegment; 3] = core::array::from_fn(|_| CopySegment {
            source: self.side(),
            dest: self.side(),
            length: self.size() as u32 >> self.random.below(12),
        });
        let count = 1 + self.random.index(segments.len());
        let mut payload = [0; CopyRequest::HEAD + 3 * 32];
        let length = CopyRequest::encode(&segments[..count], &mut payload).unwrap_or(0);
        writer.bytes(&payload[..length]);
    }

    fn side(&mut self) -> CopySide {
        if self.random.once_in(2) {
            CopySide::Own(self.address())
        } else {
            CopySide::Parcel(self.handle(), self.size().wrapping_sub(1 + self.random.below(64)))
        }
    }

    /// Fields as many calls have them: about a VM, or about a parcel and a part of it.
    fn fields(&mut self, message: u32, writer: &mut Writer<'_>) {
        match message {
            0x5600_0000..0x5601_0000 => {
                writer.u16(self.vmid().0).u16(0);
                if message == message::VM_STOP {
                    writer.u32(self.number() as u32);
                }
            }
            extension::LIMITS => {
                writer.u16(self.vmid().0).u16(0);
            }
            extension::HEAP_ALLOC | extension::HEAP_FREE => {
                writer.u32(self.random.below(4) as u32).u32(0).u64(self.page()).u64(self.size());
            }
            _ => {
                let flags = self.random.one_of(&[0, 0, 0, 1, 1, 2, 3, 4, 0x10]);
                let short = matches!(
                    message,
                    message::MEM_RELEASE | message::MEM_RECLAIM | extension::REVOKE
                );
                let handle = if short { self.own_handle() } else { self.handle() };
                writer.u32(handle.0).u32(flags);
                let rest = [self.size() & !0xfff, self.size(), self.number()];
                let more = if short { 0 } else { self.random.index(rest.len() + 1) };
                rest[..more].iter().for_each(|field| _ = writer.u64(*field));
            }
        }
    }

    /// Spoils a request; its length.
    fn damage(&mut self, request: &mut [u8; LONGEST], length: usize) -> usize {
        let at = self.random.index(length);
        match self.random.below(6) {
            0 => request[at] ^= 1 << self.random.below(8),
            1 => request[at] = self.number() as u8,
            2 => return at,
            3 => return (length + self.random.index(64)).min(LONGEST),
            4 => {
                let count = (self.number() as u16).to_le_bytes();
                request[at..].iter_mut().zip(count).for_each(|(to, from)| *to = from);
            }
            _ => {
                let number = self.number().to_le_bytes();
                request[at & !3..].iter_mut().zip(number).for_each(|(to, from)| *to = from);
            }
        }
        length
    }

    /// Another header in place of a packet's, sometimes.
    pub(super) fn header(&mut self, header: Header) -> Header {
        match self.random.below(40) {
            0 => Header { fragments: self.random.below(63) as u8, ..header },
            1 => Header { sequence: self.random.word() as u16, ..header },
            2 => Header { message: spared::message(header.message ^ 1), ..header },
            3 => Header { kind: Kind::Continuation, ..header },
            4 => Header { kind: Kind::Request, ..header },
            5 => Header { kind: Kind::Reply, ..header },
            6 => Header { kind: Kind::Notification, ..header },
            _ => header,
        }
    }
}
