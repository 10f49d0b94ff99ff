//! Every question that could tell a VM what is none of its business: what the program `secrets` asks.
//!
//! A question is a call with one name in it, of a parcel, a VM, a heap, or a place among such. The program
//! puts names there that mean something to another VM, and names that mean nothing to anybody, and compares
//! the answers. [`ELSEWHERE`] has all other calls of the ABI, each with the reason why it cannot be asked
//! this way; a test looks whether a call is missing.

use rm_abi::extension::{self, CopyRequest, CopySegment, CopySide};
use rm_abi::{ErrorCode, Handle, message};

use crate::layout::{PAGE, PAGES};

/// What is named.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Named {
    /// A parcel, by its handle.
    Parcel,
    /// A VM, by its VMID.
    Vm,
    /// A heap, by its number.
    Heap,
    /// The place from which a list goes on.
    Cursor,
    /// The first address of a parcel of the caller's.
    Address,
}

/// A side of a segment of a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The caller's own memory.
    Own,
    /// A parcel of the caller's own.
    Mine,
    /// The parcel that is named.
    Named,
}

/// A call's payload.
#[derive(Clone, Copy, Debug)]
pub enum Payload {
    /// Bytes, the name, bytes.
    Bytes(&'static [u8], &'static [u8]),
    /// The segments of a COPY: source and destination.
    Copy(&'static [(Side, Side)]),
}

/// A call that names something.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// What it is called in the log.
    pub name: &'static str,
    /// The call's message id.
    pub call: u32,
    /// What it names.
    pub named: Named,
    /// With which bytes around the name.
    pub payload: Payload,
    /// How it is refused; each segment of a copy that has to do with the parcel.
    pub code: ErrorCode,
}

/// The longest payload.
pub const LONGEST: usize = CopyRequest::HEAD + MOST_SEGMENTS * CopySegment::SIZE;
/// The most segments of a copy here: more than fit a packet.
const MOST_SEGMENTS: usize = 8;
/// Bytes that a segment copies.
const COPIED: u32 = 96;
/// Where copies read the caller's own memory, and where they write it.
const FROM: u64 = PAGES + 0x40 * PAGE;
const TO: u64 = FROM + PAGE;

impl Question {
    /// Writes the payload, and returns its length. `mine` is a parcel of the caller's own.
    pub fn write(&self, name: u64, mine: Handle, into: &mut [u8; LONGEST]) -> usize {
        match self.payload {
            Payload::Bytes(head, rest) => {
                let name = &name.to_le_bytes()[..self.named.size()];
                let mut length = 0;
                for part in [head, name, rest] {
                    into[length..length + part.len()].copy_from_slice(part);
                    length += part.len();
                }
                length
            }
            Payload::Copy(sides) => {
                let nothing = CopySegment {
                    source: CopySide::Own(FROM),
                    dest: CopySide::Own(TO),
                    length: COPIED,
                };
                let mut segments = [nothing; MOST_SEGMENTS];
                for (segment, &(source, dest)) in segments.iter_mut().zip(sides) {
                    segment.source = source.with(name, mine, FROM);
                    segment.dest = dest.with(name, mine, TO);
                }
                let length = CopyRequest::encode(&segments[..sides.len()], into);
                length.expect("there is room for the most segments")
            }
        }
    }

    /// The error words of the answer: the call's, or those of a copy's segments.
    pub fn words(&self) -> impl Iterator<Item = u32> {
        let code = self.code as u32;
        let (of_call, sides) = match self.payload {
            Payload::Bytes(..) => (Some(code), &[][..]),
            Payload::Copy(sides) => (None, sides),
        };
        let of_segment =
            move |&(source, dest): &(Side, Side)| match [source, dest].contains(&Side::Named) {
                true => code,
                false => 0,
            };
        of_call.into_iter().chain(sides.iter().map(of_segment))
    }
}

impl Named {
    /// Bytes of a name.
    const fn size(self) -> usize {
        match self {
            Self::Vm => 2,
            Self::Parcel | Self::Heap | Self::Cursor => 4,
            Self::Address => 8,
        }
    }
}

impl Side {
    fn with(self, name: u64, mine: Handle, own: u64) -> CopySide {
        match self {
            Self::Own => CopySide::Own(own),
            Self::Mine => CopySide::Parcel(mine, 0),
            Self::Named => CopySide::Parcel(Handle(name as u32), 0),
        }
    }
}

/// A call whose payload begins with a handle.
const fn of_parcel(name: &'static str, call: u32, rest: &'static [u8]) -> Question {
    let payload = Payload::Bytes(&[], rest);
    Question { name, call, named: Named::Parcel, payload, code: ErrorCode::HandleInvalid }
}

const fn of_vm(name: &'static str, call: u32, rest: &'static [u8], code: ErrorCode) -> Question {
    Question { name, call, named: Named::Vm, payload: Payload::Bytes(&[], rest), code }
}

const fn copy(name: &'static str, sides: &'static [(Side, Side)]) -> Question {
    let code = ErrorCode::HandleInvalid;
    let (call, payload) = (extension::COPY, Payload::Copy(sides));
    Question { name, call, named: Named::Parcel, payload, code }
}

/// All questions.
pub const QUESTIONS: &[Question] = &[
    of_parcel(
        "accept",
        message::MEM_ACCEPT,
        &[0, 1, 0x90, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ),
    of_parcel("release", message::MEM_RELEASE, &[0; 4]),
    of_parcel("reclaim", message::MEM_RECLAIM, &[0; 4]),
    of_parcel("append", message::MEM_APPEND, &APPEND),
    of_parcel(
        "notify shared",
        message::MEM_NOTIFY,
        &[1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0x11, 0, 0, 0],
    ),
    of_parcel("notify accepted", message::MEM_NOTIFY, &[4, 0, 0, 0, 0, 0, 0, 0]),
    of_parcel("info", extension::INFO, &[0; 4]),
    of_parcel("holders", extension::HOLDERS, &[0; 4]),
    of_parcel("set name", extension::SET_NAME, &[0; 36]),
    of_parcel(
        "trim",
        extension::TRIM,
        &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0],
    ),
    of_parcel("revoke", extension::REVOKE, &[0; 4]),
    of_parcel("recall", extension::REVOKE, &[1, 0, 0, 0]),
    of_parcel(
        "set window",
        extension::SET_WINDOW,
        &[0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0],
    ),
    of_parcel(
        "will",
        extension::NOTIFY_SET,
        &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ),
    of_parcel("set policy", extension::SET_POLICY, &[2, 0, 0, 0]),
    // Without an SMMU there is nothing to attach.
    Question {
        code: ErrorCode::Unimplemented,
        ..of_parcel("attach", extension::ATTACH, &[0x30, 0, 0, 0, 0, 0, 0, 0])
    },
    of_parcel("detach", extension::DETACH, &[0x30, 0, 0, 0]),
    of_parcel("dma map", extension::DMA_MAP, &[0x30, 0, 0, 0, 1, 0, 0, 0]),
    of_parcel("dma unmap", extension::DMA_UNMAP, &[0x30, 0, 0, 0, 1, 0, 0, 0]),
    of_parcel("cpu access", extension::CPU_ACCESS, &[1, 0, 0, 0]),
    Question {
        payload: Payload::Bytes(&[0, 0, 8, 0], &[0; 8]),
        code: ErrorCode::Denied,
        ..of_parcel("map of my parcel", extension::MAP, &[])
    },
    Question {
        payload: Payload::Bytes(&[0x12, 0, 8, 0], &[0; 8]),
        code: ErrorCode::Denied,
        ..of_parcel("map of C's parcel", extension::MAP, &[])
    },
    copy("copy from", &[(Side::Named, Side::Own)]),
    copy("copy to", &[(Side::Own, Side::Named)]),
    copy("copy from mine to", &[(Side::Mine, Side::Named)]),
    copy("copy from, to mine", &[(Side::Named, Side::Mine)]),
    copy("copy from and to", &[(Side::Named, Side::Named)]),
    copy("copy from, second", &[(Side::Mine, Side::Own), (Side::Named, Side::Own)]),
    copy("copy to, second", &[(Side::Mine, Side::Own), (Side::Own, Side::Named)]),
    copy("copy from, first of two", &[(Side::Named, Side::Own), (Side::Own, Side::Mine)]),
    copy("copy to, first of two", &[(Side::Own, Side::Named), (Side::Own, Side::Mine)]),
    // As much as a packet holds.
    copy(
        "copy, every second of seven",
        &[
            (Side::Named, Side::Own),
            (Side::Mine, Side::Own),
            (Side::Own, Side::Named),
            (Side::Own, Side::Mine),
            (Side::Named, Side::Mine),
            (Side::Mine, Side::Own),
            (Side::Mine, Side::Named),
        ],
    ),
    // In two packets.
    copy(
        "copy, every second of eight",
        &[
            (Side::Mine, Side::Own),
            (Side::Named, Side::Own),
            (Side::Own, Side::Mine),
            (Side::Own, Side::Named),
            (Side::Mine, Side::Own),
            (Side::Named, Side::Mine),
            (Side::Own, Side::Mine),
            (Side::Mine, Side::Named),
        ],
    ),
    of_vm("state of", message::VM_GET_STATE, &[0; 2], ErrorCode::NoResource),
    of_vm("name of", message::VM_GET_ID, &[0; 2], ErrorCode::NoResource),
    of_vm("start", message::VM_START, &[0; 2], ErrorCode::Denied),
    of_vm("ask to stop", message::VM_STOP, &[0; 6], ErrorCode::VmidInvalid),
    of_vm("stop", message::VM_STOP, &[1, 0, 0, 0, 0, 0], ErrorCode::VmidInvalid),
    of_vm("reset", message::VM_RESET, &[0; 2], ErrorCode::VmidInvalid),
    of_vm("limits of", extension::LIMITS, &[0; 6], ErrorCode::Denied),
    of_vm("counters of", extension::COUNTERS, &[0; 6], ErrorCode::Denied),
    of_vm(
        "leaf of",
        extension::LEAF,
        &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0x40, 0, 0, 0, 0],
        ErrorCode::Denied,
    ),
    of_vm("map of", extension::MAP, &[8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], ErrorCode::Denied),
    Question {
        name: "all VMs from",
        call: extension::VMS,
        named: Named::Cursor,
        payload: Payload::Bytes(&[], &[4, 0, 0, 0]),
        code: ErrorCode::Denied,
    },
    Question {
        name: "all parcels from",
        call: extension::LIST,
        named: Named::Cursor,
        payload: Payload::Bytes(&[], &[4, 0, 1, 0]),
        code: ErrorCode::Denied,
    },
    Question {
        name: "heap",
        call: extension::HEAP,
        named: Named::Heap,
        payload: Payload::Bytes(&[], &[0; 4]),
        code: ErrorCode::HandleInvalid,
    },
    Question {
        name: "allocate",
        call: extension::HEAP_ALLOC,
        named: Named::Heap,
        payload: Payload::Bytes(
            &[],
            &[0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255],
        ),
        code: ErrorCode::HandleInvalid,
    },
    Question {
        name: "look up",
        call: message::MEM_LOOKUP,
        named: Named::Address,
        payload: Payload::Bytes(&LOOKUP, &[0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        code: ErrorCode::LookupFailed,
    },
];

/// Flags, and a list of one range: a page of the caller's own.
const APPEND: [u8; 24] = {
    let mut bytes = [0; 24];
    bytes[4] = 1;
    let mut index = 0;
    while index < 8 {
        bytes[8 + index] = PAGES.to_le_bytes()[index];
        bytes[16 + index] = PAGE.to_le_bytes()[index];
        index += 1;
    }
    bytes
};

/// What A's first parcel is: RAM, for C to read and write, of one range.
const LOOKUP: [u8; 20] = [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0x12, 0, 6, 0, 1, 0, 0, 0];

/// Calls without a question, and why.
pub const ELSEWHERE: &[(u32, &str)] = &[
    (message::MEM_DONATE, NEW),
    (message::MEM_LEND, NEW),
    (message::MEM_SHARE, NEW),
    (message::VM_GET_VMID, OWN),
    (message::VM_GET_OWNER, OWN),
    (message::VM_GET_PEERS, OWN),
    (message::VM_EXIT, OWN),
    (message::VM_ALLOCATE, "is not served"),
    (extension::DISCOVER, "tells everybody the same"),
    (extension::LAST_REFUSAL, "is compared after each question"),
    (extension::SUBSCRIBE, OWN),
    (extension::DEVICES, OWN),
    (extension::HEAP_FREE, "names the caller's own addresses"),
];

const NEW: &str = "names the caller's own addresses, and VMs that are to know of the parcel";
const OWN: &str = "is about the caller and names nothing";
