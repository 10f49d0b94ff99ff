//! What exists only on the target: the runtime, then the programs.

#[macro_use]
pub mod console;

pub mod channel;
pub mod cpu;
pub mod gic;
pub(crate) mod gntdev;
pub mod instruction;
pub mod life;
pub mod mailbox;
pub mod memory;
pub mod mmu;
pub mod probe;
pub mod random;
pub mod raw;
pub mod start;
pub mod timer;
pub mod vectors;

pub mod ask;
pub mod bench;
pub mod cache_policy;
pub mod canaries;
pub mod demo;
pub mod doorbells;
pub mod echo;
pub mod example;
pub mod forge;
pub mod fp;
pub mod grant_buffers;
pub mod hostile;
pub mod inspector;
pub mod interrupts;
pub mod kicks;
pub mod lives;
pub mod map;
pub mod preempt;
pub mod queues;
pub mod registers;
pub mod replay;
pub mod residency;
pub mod revoke;
pub mod rtc;
pub mod second_life;
pub mod secrets;
pub mod smp;
pub mod steady;
pub mod stress;
pub mod trim;
pub mod wild;
