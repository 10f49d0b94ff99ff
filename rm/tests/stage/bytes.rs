//! Bytes that a VM gives the manager, in each of the three ways that lead in, and stories made of them.

use std::fmt;
use std::sync::OnceLock;

use rm::life::VmState;
use rm::machine::fake::world::{Guest, Turn, World};
use rm::operation::STEP;
use rm_abi::PACKET;

use super::states::{STATES, Scene};
use super::{Role, end_all, settle, world};

/// How bytes come in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// As a request that was made directly.
    Requests,
    /// As packets of the message queue.
    Packets,
    /// As number and arguments of a hypercall.
    Hypercalls,
}

impl fmt::Display for Way {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Self::Requests => "requests",
            Self::Packets => "packets",
            Self::Hypercalls => "hypercalls",
        })
    }
}

/// A parcel that a borrower has accepted, and a doorbell between it and the owner.
pub fn held() -> Scene {
    let state = STATES.iter().find(|state| state.name == "held").expect("there is such a state");
    connected((state.make)())
}

fn connected(scene: Scene) -> Scene {
    scene.world.manager.connect_doorbells((Role::Owner.vm(), 0), (Role::Borrower.vm(), 0));
    scene
}

/// Gives bytes to the manager in one of the ways.
pub fn play(guest: &Guest<'_>, way: Way, bytes: &[u8]) {
    match way {
        Way::Requests => {
            let mut turn = guest.send_bytes(bytes);
            for _ in 0..3 {
                let Turn::More(token) = turn else { break };
                turn = guest.resume(token);
            }
        }
        Way::Packets => {
            for packet in bytes.chunks(PACKET) {
                guest.queue_send(packet, bytes.len().is_multiple_of(2));
            }
            guest.packets();
        }
        Way::Hypercalls => {
            guest.put_request(bytes);
            let word = |index: usize| {
                let mut word = [0; 8];
                for (to, from) in word.iter_mut().zip(bytes.iter().skip(2 + index * 8)) {
                    *to = *from;
                }
                u64::from_le_bytes(word)
            };
            let number = bytes.iter().take(2).fold(0, |all, byte| all << 8 | u16::from(*byte));
            let args = std::array::from_fn(word);
            let _ = guest.hypercall(number, args);
        }
    }
}

/// All VMs end, and all is where boot put it.
pub fn all_is_back(used: &World) {
    static FRESH: OnceLock<u64> = OnceLock::new();
    settle(used);
    end_all(used, true);
    let report = used.check();
    assert_eq!((report.parcels, report.borrowed), (0, 0), "G8: a parcel is left");
    let fresh = FRESH.get_or_init(|| world().check().total());
    assert_eq!(report.total(), *fresh, "G8: a page is left, or lost");
}

/// How many inputs of a story are played.
const LONGEST: usize = 12;

/// Of a poisoned parcel something is left when all VMs have ended: no story is told of it.
const FOR_EVER: &str = "poisoned";

/// Plays a story, for which any bytes will do: the first is the state in which a parcel is, and then come
/// inputs: a byte that says who makes it and in how large steps, its length in two bytes, and so many bytes
/// or those that are left. It is audited when it is over, and when all VMs have ended.
pub fn story(way: Way, bytes: &[u8]) {
    let Some((&state, mut rest)) = bytes.split_first() else { return };
    let state = &STATES[usize::from(state) % STATES.len()];
    if state.name == FOR_EVER {
        return;
    }
    let scene = connected((state.make)());
    for _ in 0..LONGEST {
        let &[head, low, high, ref inputs @ ..] = rest else { break };
        let length = usize::from(u16::from_le_bytes([low, high])).min(inputs.len());
        let (input, others) = inputs.split_at(length);
        rest = others;
        let (role, step) =
            (Role::ALL[usize::from(head % 6)], [1, 40, STEP][usize::from(head / 6 % 3)]);
        // Whoever has ended says nothing more.
        if scene.world.manager.state(role.vm()) == VmState::Running {
            let guest = scene.caller(role);
            guest.step.set(step);
            play(&guest, way, input);
        }
    }
    settle(&scene.world);
    scene.world.check();
    all_is_back(&scene.world);
}
