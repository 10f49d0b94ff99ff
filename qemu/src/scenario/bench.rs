//! The benchmark: two VMs take turns on one CPU whose clock counts instructions.

use guests::layout::{BENCH_MEMORY, LINK_AB, RESIDENCY_MEMORY, VMID_A, VMID_B};
use package::{Amounts, EndOfLife, Quotas, Vm};

use super::{Guest, Machine, Scenario, guest, link};

/// What `cargo bench` runs.
pub const BENCH: Scenario = Scenario {
    name: "bench",
    about: "counts the instructions of calls and of whole share cycles",
    guests: &[
        Guest { program: "bench_a", vm: Vm { memory: BENCH_MEMORY, ..guest("A", VMID_A) } },
        Guest { program: "bench_b", vm: Vm { memory: BENCH_MEMORY, ..guest("B", VMID_B) } },
    ],
    channels: &[link(0, 1, LINK_AB)],
    machine: Machine::BENCH,
    seconds: 600,
    ..Scenario::USUAL
};

/// What `cargo bench` runs for the worst entry and the longest lock hold: one story, with requests of
/// three sizes.
pub const RESIDENCY: &[Scenario] = &[RESIDENCY_SMALL, RESIDENCY_MEDIUM, RESIDENCY_LARGE];

const RESIDENCY_SMALL: Scenario = Scenario {
    name: "residency-small",
    guests: &[owner("residency_small"), BORROWER],
    ..RESIDENCY_USUAL
};

const RESIDENCY_MEDIUM: Scenario = Scenario {
    name: "residency-medium",
    guests: &[owner("residency_medium"), BORROWER],
    ..RESIDENCY_USUAL
};

const RESIDENCY_LARGE: Scenario = Scenario {
    name: "residency-large",
    guests: &[owner("residency_large"), BORROWER],
    ..RESIDENCY_USUAL
};

const RESIDENCY_USUAL: Scenario = Scenario {
    about: "an owner lends, takes back and leaves behind parcels, and EL2 times its entries",
    channels: &[link(0, 1, LINK_AB)],
    log: &["parcels behind", "conservation holds"],
    ..BENCH
};

const fn owner(program: &'static str) -> Guest {
    let memory = RESIDENCY_MEMORY;
    Guest {
        program,
        vm: Vm { memory, end_of_life: EndOfLife::Reset, quotas: MUCH, ..guest("A", VMID_A) },
    }
}

const BORROWER: Guest =
    Guest { program: "residency_peer", vm: Vm { quotas: much(8), ..guest("B", VMID_B) } };

/// Room for the largest of the three.
const MUCH: Quotas = much(4200);

const fn much(parcels: u32) -> Quotas {
    let all = Amounts {
        parcels,
        extents: 1 << 18,
        frames: 3000,
        pages_lent: 1 << 18,
        pages_accepted: 1 << 18,
        ..Quotas::USUAL.limit
    };
    Quotas { guaranteed: all, limit: all }
}
