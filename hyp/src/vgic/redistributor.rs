//! The virtual redistributors: what one vCPU has for itself.
//!
//! A redistributor is two frames of 64 KiB: control (who it is, whether its CPU is awake) and the
//! registers of INTIDs 0 to 31, of which a vCPU has the sixteen SGIs and the virtual timer.

use super::TIMER;
use super::bank::{Bank, Wiring};
use super::distributor::{PIDR2, PIDR2_GICV3};
use super::lists::Listed;

/// Bytes of a vCPU's two frames.
pub(super) const STRIDE: u64 = 0x2_0000;
/// Where the registers of the vCPU's own interrupts start.
pub(super) const SGI_FRAME: u64 = 0x1_0000;

const TYPER: u64 = 0x0008;
const TYPER_AFFINITY: u64 = 0x000c;
const WAKER: u64 = 0x0014;
const TYPER_LAST: u32 = 1 << 4;
const WAKER_PROCESSOR_SLEEP: u32 = 1 << 1;
const WAKER_CHILDREN_ASLEEP: u32 = 1 << 2;

const SGIS: u32 = 0xffff;

/// State of one vCPU's own interrupts and of its CPU interface.
#[derive(Clone, Debug)]
pub(super) struct Interface {
    pub(super) bank: Bank,
    asleep: bool,
    /// INTIDs in the list registers, while the vCPU is loaded on a CPU.
    pub(super) listed: Listed,
    /// The physical timer interrupt came and waits to be taken into the bank.
    pub(super) timer_fired: bool,
    /// The physical timer interrupt is active on behalf of the virtual one.
    pub(super) timer_in_flight: bool,
    /// ICH_VMCR_EL2 of the vCPU when it last left its CPU or was asked about.
    pub(super) control: u64,
}

impl Interface {
    pub(super) fn new() -> Self {
        let timer = 1 << TIMER;
        let wiring = Wiring { present: SGIS | timer, pulsed: SGIS, configurable: 0, edge: SGIS };
        Self {
            bank: Bank::new(wiring),
            asleep: true,
            listed: Listed::default(),
            timer_fired: false,
            timer_in_flight: false,
            control: 0,
        }
    }

    /// Reads the word at `offset` of the frames of vCPU `vcpu`.
    pub(super) fn read(&self, vcpu: usize, is_last: bool, offset: u64) -> u32 {
        match offset {
            TYPER => (vcpu as u32) << 8 | if is_last { TYPER_LAST } else { 0 },
            TYPER_AFFINITY => vcpu as u32,
            WAKER if self.asleep => WAKER_PROCESSOR_SLEEP | WAKER_CHILDREN_ASLEEP,
            PIDR2 => PIDR2_GICV3,
            SGI_FRAME.. => self.bank.read(0, offset - SGI_FRAME),
            _ => 0,
        }
    }

    /// Writes those bits of the word at `offset` that `mask` names.
    pub(super) fn write(&mut self, offset: u64, value: u32, mask: u32) {
        match offset {
            WAKER if mask & WAKER_PROCESSOR_SLEEP != 0 => {
                self.asleep = value & WAKER_PROCESSOR_SLEEP != 0;
            }
            SGI_FRAME.. => self.bank.write(0, offset - SGI_FRAME, value, mask),
            _ => {}
        }
    }
}
