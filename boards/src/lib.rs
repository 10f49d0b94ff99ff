//! Boards: addresses and their sources.
#![no_std]
