//! Hypercalls, register by register.
//!
//! In the form of SMCCC a call writes its results and nothing else, and everything is compared. The
//! native form leaves X0 to X7 beyond the results and X8 to X17 undefined; the original clears the
//! first and uses some of the others. There the results are compared, and no register may change that
//! the original kept.

use rm_abi::hypercall;

use crate::{Boot, Vm, hex};

/// What the registers held that a call was not given; the register's number is added.
pub const FILL: u64 = 0xa5a5_0000_0000_0000;
/// X0 to X28.
pub const COUNT: usize = 29;
/// The registers whose values were captured.
pub const CAPTURED: usize = 18;
/// The immediate of an `hvc` or `smc` instruction.
const IMMEDIATE: u32 = 0xffff << 5;
const HVC: u32 = 0xd400_0002;

/// X0 to X28.
pub type Registers = [u64; COUNT];

/// A hypercall as the guest makes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    /// The opcode of the instruction.
    pub instruction: u32,
    /// Its number, if it is one of Gunyah's.
    pub number: Option<u16>,
    /// The number is in the instruction.
    pub native: bool,
}

impl Call {
    /// What an instruction asks for with these registers.
    pub const fn decode(instruction: u32, registers: &Registers) -> Self {
        let immediate = (instruction >> 5) as u16;
        let native = instruction & !IMMEDIATE == HVC && immediate != 0;
        let number = if native {
            hypercall::number_of_native(immediate)
        } else {
            hypercall::number_of_smccc(registers[0] as u32)
        };
        Self { instruction, number, native }
    }

    /// How many registers the results take.
    pub const fn results(&self) -> usize {
        match self.number {
            Some(hypercall::IDENTIFY) => 4,
            Some(hypercall::MSGQUEUE_RECEIVE) => 3,
            Some(
                hypercall::MSGQUEUE_SEND | hypercall::DOORBELL_SEND | hypercall::DOORBELL_RECEIVE,
            ) => 2,
            _ => 1,
        }
    }

    /// The register with the address of a buffer.
    pub const fn buffer(&self) -> Option<usize> {
        let first = !self.native as usize;
        match self.number {
            Some(hypercall::MSGQUEUE_SEND) => Some(first + 2),
            Some(hypercall::MSGQUEUE_RECEIVE) => Some(first + 1),
            _ => None,
        }
    }

    /// Whether the original kept register `index`, or its value afterwards means something.
    pub const fn defines(&self, index: usize) -> bool {
        let undefined = self.native && self.number.is_some();
        !undefined || index < self.results() || index > 17
    }
}

/// Registers with what a captured call was given.
pub fn filled(regs_in: impl Iterator<Item = u64>) -> Registers {
    let mut registers = core::array::from_fn(|index| FILL | index as u64);
    registers.iter_mut().zip(regs_in).for_each(|(register, value)| *register = value);
    registers
}

/// Our capability for what the original's `id` names to `vm`. One bit beside one of theirs is one
/// bit beside ours; any other id names nothing to either.
pub fn capability(boot: &Boot, vm: Vm, id: u64, ours: impl Fn(&str) -> u64) -> Option<u64> {
    let close = |queue| {
        let theirs = boot.capability(queue, vm)?;
        (id & !1 == theirs & !1).then(|| ours(queue) ^ (id ^ theirs))
    };
    close("tx").or_else(|| close("rx"))
}

/// Whether the captured list names register `index` as changed.
pub fn was_changed(changed: &str, index: usize) -> bool {
    let number = |name: &str| name.strip_prefix('x').map(|digits| digits.parse() == Ok(index));
    changed.split(' ').filter_map(number).any(|named| named)
}

/// The captured values, one after the other.
pub fn values(list: &'static str) -> impl Iterator<Item = u64> {
    list.split(' ').filter(|word| !word.is_empty()).map(hex::word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_and_its_registers_name_a_call() {
        let registers = filled([0xc600_801b].into_iter());
        assert_eq!(registers[1], 0xa5a5_0000_0000_0001);
        let native = Call::decode(0xd40c_0362, &registers);
        assert_eq!((native.number, native.native), (Some(hypercall::MSGQUEUE_SEND), true));
        assert_eq!((native.buffer(), native.results()), (Some(2), 2));
        for instruction in [0xd400_0002, 0xd400_0003] {
            let call = Call::decode(instruction, &registers);
            assert_eq!((call.number, call.native), (Some(hypercall::MSGQUEUE_SEND), false));
            assert_eq!(call.buffer(), Some(3));
        }
        assert_eq!(Call::decode(0xd400_0022, &registers).number, None);
    }

    #[test]
    fn changed_registers_are_named_whole() {
        assert!(was_changed("x0 x17", 17));
        assert!(!was_changed("x0 x17", 1));
        assert!(!was_changed("", 0));
    }
}
