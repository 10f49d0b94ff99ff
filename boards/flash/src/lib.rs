//! From the finished image to a card that a board starts from.
//!
//! ```text
//! image        header and package are checked once more
//! firmware     what each board's firmware wants, as a table
//! rpi4, uboot  what the firmware is told; script: wrapped as U-Boot wants it
//! bundle       all files of a board, as a folder or as a card
//! card         an SD card as a file: partition table and FAT32
//! device       which disks and cards this computer has, and what uses them
//! permission   which of them may be written
//! write        writing, and reading back
//! ```
//!
//! What the board's maker gives (boot loaders, firmware) is not part of this project: it is copied
//! from a folder of the user's.
#![forbid(unsafe_code)]

pub mod bundle;
pub mod card;
pub mod device;
pub mod firmware;
pub mod image;
pub mod permission;
mod rpi4;
pub mod script;
pub mod uboot;
pub mod write;

#[cfg(test)]
mod fake;
