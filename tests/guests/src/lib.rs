//! Start-up code and helpers of the EL1 test programs.
#![no_std]
