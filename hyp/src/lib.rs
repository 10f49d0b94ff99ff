//! EL2 mechanism: boot, traps, vCPUs, interrupts and the stage-2 hardware. No policy.
#![no_std]
