//! The examples of `rm-client`: one owner for each way to call, and the same borrower each time; a VM
//! that asks another for memory; one that grants pages; two that allocate from heaps; and one with buffers.

use guests::layout::{LINK_AB, VMID_A, VMID_B};
use package::{EndOfLife, Heap, Name, Roles, Vm};

use super::{Guest, Scenario, guest, link};

/// All of them.
pub const ALL: &[Scenario] = &[DIRECT, POLLING, BLOCKING, MEMBUF, GRANTS, DMAHEAP, DMABUF];

const PARTNER: Guest =
    Guest { program: "example_partner", vm: Vm { cpus: [1, 0], ..guest("B", VMID_B) } };

const DIRECT: Scenario = Scenario {
    name: "example-direct",
    about: "a client that makes direct calls, and sees the answer in the memory it shares",
    guests: &[Guest { program: "example_direct", vm: guest("A", VMID_A) }, PARTNER],
    log: &["my partner answered 42", "conservation holds"],
    ..Scenario::USUAL
};

pub(super) const POLLING: Scenario = Scenario {
    name: "example-polling",
    about: "a client that looks into its message queue now and then",
    guests: &[Guest { program: "example_polling", vm: guest("A", VMID_A) }, PARTNER],
    log: &["my partner has accepted it", "it answered 42", "conservation holds"],
    ..Scenario::USUAL
};

const BLOCKING: Scenario = Scenario {
    name: "example-blocking",
    about: "clients that sleep on one CPU until their message queues interrupt",
    guests: &[
        Guest { program: "example_blocking", vm: guest("A", VMID_A) },
        Guest { program: "example_partner", vm: guest("B", VMID_B) },
    ],
    log: &["my partner has accepted it", "it answered 42", "conservation holds"],
    ..Scenario::USUAL
};

const MEMBUF: Scenario = Scenario {
    name: "example-membuf",
    about: "mem-buf: a VM asks another for memory of a heap, imports a buffer, and dies with some",
    guests: &[
        Guest { program: "example_supplier", vm: guest("A", VMID_A) },
        Guest { program: "example_consumer", vm: CONSUMER },
    ],
    channels: &[link(0, 1, LINK_AB)],
    log: &[
        "EXPORT lends 2 more pages",
        "IMPORT with the right to write: EINVAL",
        "I read what A wrote",
        "EXPORT: EOPNOTSUPP",
        "ALLOC of 5 pages lent me 6",
        "close while a program has some of it: EBUSY",
        "ALLOC from a heap that A does not have: EINVAL",
        "ALLOC of more than my share of the heap: ENOSPC",
        "comes too late: ETIMEDOUT",
        "A has confirmed it",
        "the manager says that my peer has ended",
        "all of it is home, and zero",
        "conservation holds",
    ],
    ..Scenario::USUAL
};

/// It may not give memory to others, and is taken apart as soon as it ends.
const CONSUMER: Vm =
    Vm { cpus: [1, 0], may_supply: false, end_of_life: EndOfLife::Reset, ..guest("B", VMID_B) };

const GRANTS: Scenario = Scenario {
    name: "example-grants",
    about: "what Xen's grants do: windows, a byte and a bell when one ends, copies without a mapping",
    guests: &[
        Guest { program: "example_granter", vm: guest("A", VMID_A) },
        Guest {
            program: "example_grantee",
            vm: Vm { cpus: [1, 0], end_of_life: EndOfLife::Reset, ..guest("B", VMID_B) },
        },
    ],
    channels: &[link(0, 1, LINK_AB)],
    log: &[
        "nothing of it was mapped",
        "my peer has unmapped the page",
        "I have revoked it: the byte is zero",
        "each with a status of its own: [0, -8, 0, -10, -10, 0]",
        "it had no time to clear the byte",
        "conservation holds",
    ],
    ..Scenario::USUAL
};

const DMAHEAP: Scenario = Scenario {
    name: "example-dmaheap",
    about: "VMs that allocate from named heaps, one finding zeros where the other left data, and share",
    guests: &[
        Guest {
            program: "example_dmaheap",
            vm: Vm { roles: Roles::INSPECT, end_of_life: EndOfLife::Reset, ..guest("A", VMID_A) },
        },
        Guest { program: "example_dmaheap_reader", vm: Vm { cpus: [1, 0], ..guest("B", VMID_B) } },
    ],
    channels: &[link(0, 1, LINK_AB)],
    heaps: &[
        Heap {
            name: Name::new("system"),
            size: 40 << 20,
            guaranteed: 4 << 20,
            limit: 34 << 20,
            vms: 0b11,
        },
        Heap { name: Name::new("video"), size: 2 << 20, guaranteed: 0, limit: 2 << 20, vms: 0b01 },
    ],
    log: &[
        "none that is called \"video\"",
        "32 buffers of 4 KiB from the same heap are zero",
        "32 buffers of 1024 KiB from the same heap are zero",
        "of both numbers are served",
        "is two blocks of 2 MiB",
        "and I still get my 4 MiB",
        "the heap's again, zero",
        "conservation holds",
    ],
    ..Scenario::USUAL
};

const DMABUF: Scenario = Scenario {
    name: "example-dmabuf",
    about: "a VM with buffers as dma-buf has them: names, caches, CPU access, a list, and why no device",
    guests: &[Guest { program: "example_dmabuf", vm: guest("A", VMID_A) }],
    log: &[
        "my buffer \"camera frames\" has 4 pages and 0 holders",
        "\"camera frames\" is to be mapped cached; 0 pages were cleaned around my write",
        "\"screen\" is to be mapped write-combined, past the caches; 4 pages were cleaned around my write",
        "ending a CPU access that has not begun: EINVAL",
        "a device is not attached here: the machine has no SMMU",
        "both buffers are gone, and my pages are mine again",
        "conservation holds",
    ],
    ..Scenario::USUAL
};
