//! Exchanges captured from the running original, and their replay.
//!
//! A client written for Gunyah's resource manager must not be able to tell ours from the original
//! where it matters. So whole conversations with the original are kept here as text, in time order,
//! and [`Replay`] holds them with any [`System`]: the manager on the host, or the running image seen
//! from its guests. Both read the same text, so there is nothing to keep in step.
//!
//! Answers must be the same to the byte, after handles and the numbers of notifications are mapped.
//! What differs on purpose is one line of one table ([`differences`]), with the reason and our bytes.
//! A difference without a line fails, and so does a line without a difference.

#![no_std]
#![forbid(unsafe_code)]

pub mod batch;
pub mod differences;
pub mod exchange;
pub mod handles;
pub mod hex;
pub mod inbox;
pub mod registers;
pub mod replay;

pub use exchange::{Boot, Exchange, What};
pub use replay::{Replay, System, Verdict};

/// A VM of the captured system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Vm {
    /// VMID 3, identity mapped.
    Primary,
    /// VMID 0x80, the first that the primary made.
    Secondary,
    /// VMID 0x81.
    Secondary2,
}

impl Vm {
    /// All of them, by index.
    pub const ALL: [Self; 3] = [Self::Primary, Self::Secondary, Self::Secondary2];

    /// The VM with this name in the text.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|vm| vm.name() == name)
    }

    /// Its name in the text.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Secondary => "secondary",
            Self::Secondary2 => "secondary2",
        }
    }

    /// Its name on the wire.
    pub const fn vmid(self) -> u16 {
        match self {
            Self::Primary => 3,
            Self::Secondary => 0x80,
            Self::Secondary2 => 0x81,
        }
    }
}

/// The worked examples of our specification of the interface: one story, never captured. Handles are
/// those of the text. The primary's memory lies at 0x880000000, 0x890000000, 0xa0000000 and
/// 0x100000000.
pub const STORY: Boot = Boot { name: "story", text: include_str!("../data/story.txt") };

/// The boots, each a conversation of its own from the first message on.
pub const BOOTS: [Boot; 9] = [
    Boot { name: "append", text: include_str!("../data/append.txt") },
    Boot { name: "accept", text: include_str!("../data/accept.txt") },
    Boot { name: "create", text: include_str!("../data/create.txt") },
    Boot { name: "notify", text: include_str!("../data/notify.txt") },
    Boot { name: "transport", text: include_str!("../data/transport.txt") },
    Boot { name: "hyp", text: include_str!("../data/hyp.txt") },
    Boot { name: "fuzz1", text: include_str!("../data/fuzz1.txt") },
    Boot { name: "irq", text: include_str!("../data/irq.txt") },
    Boot { name: "mem", text: include_str!("../data/mem.txt") },
];
