//! One parcel in every state that it can be in, every call about it, and a picture of all that there is:
//! what the tests of every cell, every failure and every end share.
#![allow(dead_code, unreachable_pub, reason = "each test has its own copy and uses a part of it")]

pub mod bytes;
pub mod calls;
pub mod picture;
pub mod set;
pub mod states;

use rm::address::VmIndex;
use rm::config::{Roles, StreamConfig, VmConfig};
use rm::machine::Stream;
use rm::machine::fake::world::{Guest, RAM, Turn, World, vm};
use rm::operation::budget::Budget;
use rm::quota::Quotas;
use rm_abi::extension::Rule;
use rm_abi::{Bytes, HypercallError, Transfer};

/// Who calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Made the parcel.
    Owner,
    /// Is in its access list; where a state speaks of a borrower, it is this one.
    Borrower,
    /// Is in the list of a lend or share too, and has never done anything.
    Other,
    /// As the one before, but it has had the parcel, has died and was started again.
    Reborn,
    /// Has nothing to do with the parcel.
    Outsider,
    /// An outsider whose configuration lets it look at others.
    Inspector,
}

impl Role {
    pub const ALL: [Self; 6] =
        [Self::Owner, Self::Borrower, Self::Other, Self::Reborn, Self::Outsider, Self::Inspector];

    pub const fn vm(self) -> VmIndex {
        VmIndex(self as u8)
    }

    pub const fn vmid(self) -> u16 {
        self as u16 + 3
    }

    /// The device of its VM.
    pub const fn stream(self) -> Stream {
        Stream(self.vmid() as u32)
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Borrower => "borrower",
            Self::Other => "other borrower",
            Self::Reborn => "restarted borrower",
            Self::Outsider => "outsider",
            Self::Inspector => "inspector",
        }
    }
}

/// Where the parcel's pages are: two runs, of two pages and of one. The owner of a longer one has it in
/// runs of one page each in as many blocks.
pub const PAGE: u64 = RAM.0 + 0x10_0000;
pub const RUNS: [(u64, u64); 2] = [(PAGE, 2), (PAGE + 0x4000, 1)];
pub const PAGES: u64 = 3;
/// A page that can be appended.
pub const SPARE: u64 = PAGE + 0x8000;
/// Where borrowers map.
pub const WINDOW: u64 = 0x9000_0000;
/// What the owner calls the parcel when it tells of it.
pub const TAG: u32 = 0x7a6;

/// The VMs of all roles.
pub fn world() -> World {
    world_of(config)
}

/// The VMs of all roles, configured so.
pub fn world_of(config: impl Fn(Role) -> VmConfig) -> World {
    let world = World::small(&Role::ALL.map(config));
    picture::mark(&world);
    world
}

/// The configuration of a role's VM.
pub fn config(role: Role) -> VmConfig {
    let parcels = if role == Role::Owner { 5 } else { 3 };
    let quotas = Quotas { frames: 40, frames_reserved: 20, parcels, ..vm(3).quotas };
    let roles = if role == Role::Inspector { Roles::INSPECT } else { Roles::empty() };
    let mut config = VmConfig { roles, quotas, ..vm(role.vmid()) };
    let device = StreamConfig { stream: role.stream(), address_bits: 40, is_coherent: true };
    config.streams[0] = Some(device);
    config
}

/// The access list of a parcel of this kind.
pub fn acl(transfer: Transfer) -> Vec<(u16, u8)> {
    let borrowers = [(4, 6), (5, 4), (6, 6)];
    match transfer {
        Transfer::Donate => vec![(4, 7)],
        Transfer::Lend => borrowers.to_vec(),
        Transfer::Share => [&[(3, 6)], &borrowers[..]].concat(),
    }
}

/// What a call came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The data of its reply.
    Done(Vec<u8>),
    /// Its error word, and the number of the rule.
    Refused(u32, u16),
    /// Another call of the VM has the operation slot.
    Busy,
    /// There is no room for its request, or for its reply.
    NoMemory,
}

impl Outcome {
    /// Something had run out.
    pub fn wants(&self) -> bool {
        let wants = [Rule::Quota, Rule::SharedQuota, Rule::NoFrame];
        match self {
            Self::Refused(1 | 2, rule) => wants.iter().any(|&wanted| wanted as u16 == *rule),
            Self::NoMemory => true,
            _ => false,
        }
    }
}

/// Makes a call and follows it to its end.
pub fn make(guest: &Guest<'_>, (message, payload): &(u32, Vec<u8>)) -> Outcome {
    let mut turn = guest.send(*message, payload);
    for _ in 0..100_000 {
        match turn {
            Turn::More(token) => turn = guest.resume(token),
            Turn::Error(HypercallError::BUSY, 0) => return Outcome::Busy,
            Turn::Error(HypercallError::NOMEM, 0) => return Outcome::NoMemory,
            Turn::Reply(reply) => {
                let error = reply[..].u32_at(0);
                if error == 0 {
                    return Outcome::Done(reply[4..].to_vec());
                }
                let why = guest.last_refusal();
                assert_eq!((why.message, why.error), (*message, error));
                return Outcome::Refused(error, why.rule);
            }
            other => panic!("{message:#x} ended with {other:?}"),
        }
    }
    panic!("G7: {message:#x} does not end")
}

/// Lets every VM's work come to its end.
pub fn settle(world: &World) {
    while world.vms().any(|vm| world.manager.pending(vm)) {
        for vm in world.vms() {
            world.manager.step(vm, &mut Budget::new(1000));
        }
    }
}

/// Ends all VMs, the last one first or the first one first, and takes them apart in small steps.
pub fn end_all(world: &World, backwards: bool) {
    let mut vms: Vec<_> = world.vms().collect();
    if backwards {
        vms.reverse();
    }
    for vm in vms {
        world.end(vm);
    }
    settle(world);
}
