//! From the finished image to a card that a board starts from.
//!
//! ```text
//! script       a U-Boot boot script, wrapped as `source` wants it
//! card         an SD card as a file: partition table and FAT32
//! device       which disks and cards this computer has, and what uses them
//! permission   which of them may be written
//! write        writing, and reading back
//! ```
//!
//! What the board's maker gives (boot loaders, firmware) is not part of this project: it is copied
//! from a folder of the user's.
#![forbid(unsafe_code)]

pub mod card;
pub mod device;
pub mod permission;
pub mod script;
pub mod write;

#[cfg(test)]
mod fake;
