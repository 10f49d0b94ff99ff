//! Programs that run inside EL2.
#![no_std]
