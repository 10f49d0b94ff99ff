//! What other hypervisors cost, in the unit and by the method of our own benchmark.
//!
//! Measured under QEMU 10.0.2 on `-cpu cortex-a57,cntfrq=1000000000 -icount shift=0,sleep=off`, so that
//! one tick of the virtual counter is one instruction, by bare-metal programs at EL1 that read the
//! results back: Xen 4.17 (Debian 12), Gunyah of December 2023 with its resource manager and without
//! its assertions, Hafnium 21bfbdc1 of July 2026 (normal world, without the table walk with which it
//! defragments at every change, except for the last row), pKVM of Linux 6.1 (nVHE).
//!
//! Ranges: Gunyah and Hafnium share, accept, release and reclaim, as ours does. Xen maps and unmaps a
//! grant, pKVM shares with its hypervisor and takes back: two calls a page, nothing accepted. Gunyah has
//! only its queues, so its rows stand beside both of ours.
//!
//! An instruction count is not time: a TLB invalidation, a barrier and a trap count one each and cache
//! misses nothing.

/// A case of the benchmark and what each peer needs for it.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its name in the guest's report.
    pub name: &'static str,
    /// What it is.
    pub title: &'static str,
    /// In the order of [`PEERS`]; none where the peer has no such thing.
    pub peers: [Option<u64>; PEERS.len()],
}

/// The peers.
pub const PEERS: [&str; 4] = ["Gunyah", "Hafnium", "Xen", "pKVM"];

/// All cases, in the order of the table.
pub const CASES: [Case; 14] = [
    Case {
        name: "null_hypercall",
        title: "null hypercall",
        peers: [Some(165), Some(754), Some(422), Some(88)],
    },
    Case {
        name: "trivial_call",
        title: "trivial call to the resource manager",
        peers: [Some(7_705), None, None, None],
    },
    Case {
        name: "queue_call",
        title: "the same through the queues, polling",
        peers: [Some(7_705), None, None, None],
    },
    Case {
        name: "queue_call_asleep",
        title: "and asleep until the interrupt",
        peers: [Some(9_831), None, None, None],
    },
    Case { name: "notices", title: "notice to a sleeping VM and one back", peers: [None; 4] },
    Case {
        name: "doorbells",
        title: "doorbell ping-pong of two sleeping VMs",
        peers: [None, None, Some(11_848), None],
    },
    Case {
        name: "1_page",
        title: "share cycle, 1 page",
        peers: [Some(112_266), Some(86_833), Some(5_185), Some(4_947)],
    },
    Case {
        name: "16_contiguous",
        title: "16 pages, contiguous",
        peers: [Some(153_357), Some(99_943), Some(69_737), Some(68_992)],
    },
    Case {
        name: "16_scattered",
        title: "16 pages, scattered",
        peers: [Some(340_405), Some(276_729), Some(69_737), Some(68_992)],
    },
    Case {
        name: "512_contiguous",
        title: "512 pages, contiguous",
        peers: [Some(728_867), Some(534_781), Some(2_205_243), Some(2_163_712)],
    },
    Case {
        name: "1_page_queued",
        title: "1 page, through the queues",
        peers: [Some(112_266), None, None, None],
    },
    Case {
        name: "512_contiguous_queued",
        title: "512 contiguous, through the queues",
        peers: [Some(728_867), None, None, None],
    },
    Case { name: "block_2m", title: "one block of 2 MiB", peers: [None; 4] },
    Case {
        name: "512_scattered",
        title: "512 pages, scattered",
        peers: [Some(8_011_029), Some(10_702_877), Some(2_205_243), Some(2_163_712)],
    },
];

impl Case {
    /// The peer that needs least.
    pub fn best(&self) -> Option<(&'static str, u64)> {
        let counts = PEERS.into_iter().zip(self.peers);
        counts.filter_map(|(peer, count)| Some((peer, count?))).min_by_key(|&(_, count)| count)
    }
}
