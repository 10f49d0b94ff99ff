//! Thirty-two interrupts and the registers that show them.
//!
//! The distributor's registers for INTIDs 32 to 63 and a redistributor's for INTIDs 0 to 31 have one
//! layout (IHI 0069H, 12.9 and 12.11), so both are a `Bank`. While an interrupt stands in a list
//! register of a running vCPU, the hardware moves its state on. Then `pending` and `active` hold only
//! what arrived since, and `listed_pending` and `listed_active` what the list register last said.

/// What one of a bank's registers is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Group,
    Enable {
        set: bool,
    },
    Pending {
        set: bool,
    },
    Active {
        set: bool,
    },
    /// Priorities of four interrupts, from this one on.
    Priority(usize),
    /// Triggers of sixteen interrupts, from this one on.
    Trigger(u32),
}

/// Where the registers of bank `bank` lie in a register block.
fn decode(bank: u64, offset: u64) -> Option<Word> {
    let bits = |base: u64| base + 4 * bank;
    let (priorities, triggers) = (0x400 + 32 * bank, 0xc00 + 8 * bank);
    Some(match offset {
        o if o == bits(0x080) => Word::Group,
        o if o == bits(0x100) => Word::Enable { set: true },
        o if o == bits(0x180) => Word::Enable { set: false },
        o if o == bits(0x200) => Word::Pending { set: true },
        o if o == bits(0x280) => Word::Pending { set: false },
        o if o == bits(0x300) => Word::Active { set: true },
        o if o == bits(0x380) => Word::Active { set: false },
        o if (priorities..priorities + 32).contains(&o) => {
            Word::Priority((o - priorities) as usize & !3)
        }
        o if o == triggers => Word::Trigger(0),
        o if o == triggers + 4 => Word::Trigger(16),
        _ => return None,
    })
}

/// The priority bits that this GIC implements, as many as the smallest virtual CPU interface has.
const PRIORITY_BITS: u8 = 0xf8;

/// State of thirty-two interrupts; bit or index `n` is interrupt `32 * bank + n`.
#[derive(Clone, Debug)]
pub(super) struct Bank {
    /// Interrupts that exist. The registers of all others read as zero and ignore writes.
    present: u32,
    /// Interrupts that software may make pending. A line alone decides over the others.
    pulsed: u32,
    /// Interrupts whose trigger software may choose.
    configurable: u32,
    enabled: u32,
    edge: u32,
    pending: u32,
    active: u32,
    /// Interrupts that stand in a list register of a running vCPU.
    listed: u32,
    listed_pending: u32,
    listed_active: u32,
    /// Listed interrupts whose active state the guest cleared meanwhile.
    ended: u32,
    priority: [u8; 32],
}

/// Which interrupts a bank has.
pub(super) struct Wiring {
    pub(super) present: u32,
    pub(super) pulsed: u32,
    pub(super) configurable: u32,
    pub(super) edge: u32,
}

impl Bank {
    pub(super) const fn new(wiring: Wiring) -> Self {
        Self {
            present: wiring.present,
            pulsed: wiring.pulsed,
            configurable: wiring.configurable,
            edge: wiring.edge,
            enabled: 0,
            pending: 0,
            active: 0,
            listed: 0,
            listed_pending: 0,
            listed_active: 0,
            ended: 0,
            priority: [0; 32],
        }
    }

    /// Reads the word at `offset` of a register block that shows this bank as number `bank`.
    pub(super) fn read(&self, bank: u64, offset: u64) -> u32 {
        match decode(bank, offset) {
            // Every interrupt of a VM is in group 1.
            Some(Word::Group) => self.present,
            Some(Word::Enable { .. }) => self.enabled,
            Some(Word::Pending { .. }) => self.pending | self.listed_pending,
            Some(Word::Active { .. }) => self.active | self.listed_active,
            Some(Word::Priority(first)) => {
                u32::from_le_bytes(core::array::from_fn(|n| self.priority[first + n]))
            }
            Some(Word::Trigger(first)) => {
                (0..16).fold(0, |word, n| word | (self.edge >> (first + n) & 1) << (2 * n + 1))
            }
            None => 0,
        }
    }

    /// Writes those bits of the word at `offset` that `mask` names.
    pub(super) fn write(&mut self, bank: u64, offset: u64, value: u32, mask: u32) {
        let bits = value & mask & self.present;
        match decode(bank, offset) {
            Some(Word::Enable { set: true }) => self.enabled |= bits,
            Some(Word::Enable { set: false }) => self.enabled &= !bits,
            Some(Word::Pending { set: true }) => self.pending |= bits & self.pulsed,
            Some(Word::Pending { set: false }) => self.withdraw(bits & self.pulsed),
            Some(Word::Active { set: true }) => self.active |= bits,
            Some(Word::Active { set: false }) => self.end(bits),
            Some(Word::Priority(first)) => self.set_priorities(first, value, mask),
            Some(Word::Trigger(first)) => self.set_triggers(first, value, mask),
            Some(Word::Group) | None => {}
        }
    }

    fn set_priorities(&mut self, first: usize, value: u32, mask: u32) {
        let lanes = value.to_le_bytes().into_iter().zip(mask.to_le_bytes());
        for (n, (priority, mask)) in lanes.enumerate() {
            if mask != 0 && self.present >> (first + n) & 1 == 1 {
                self.priority[first + n] = priority & PRIORITY_BITS;
            }
        }
    }

    fn set_triggers(&mut self, first: u32, value: u32, mask: u32) {
        for n in 0..16 {
            let (bit, interrupt) = (1 << (2 * n + 1), 1 << (first + n));
            if mask & bit != 0 && self.configurable & interrupt != 0 {
                self.edge =
                    if value & bit == 0 { self.edge & !interrupt } else { self.edge | interrupt };
            }
        }
    }

    /// Makes an interrupt pending, as its line or a message does.
    pub(super) fn raise(&mut self, n: u32) {
        self.pending |= 1 << n & self.present;
    }

    /// Makes an interrupt pending unless it is being served: for a line that is still high then.
    pub(super) fn raise_unless_active(&mut self, n: u32) {
        self.pending |= 1 << n & self.present & !self.active;
    }

    /// Takes the pending state away, in a list register too once that is next read back.
    pub(super) fn withdraw(&mut self, bits: u32) {
        self.pending &= !bits;
        self.listed_pending &= !bits;
    }

    /// Takes the active state away, in a list register too once that is next read back.
    pub(super) fn end(&mut self, bits: u32) {
        self.active &= !bits;
        self.listed_active &= !bits;
        self.ended |= bits & self.listed;
    }

    /// Hands an interrupt's state over to a list register: (pending, active).
    pub(super) fn list(&mut self, n: u32, with_pending: bool) -> (bool, bool) {
        let bit = 1 << n;
        let taken = (with_pending && self.pending & bit != 0, self.active & bit != 0);
        self.listed |= bit;
        self.listed_active |= self.active & bit;
        self.active &= !bit;
        if with_pending {
            self.listed_pending |= self.pending & bit;
            self.pending &= !bit;
        }
        taken
    }

    /// Takes an interrupt's state back from a list register.
    pub(super) fn unlist(&mut self, n: u32, pending: bool, active: bool) {
        let bit = 1 << n;
        if pending {
            self.pending |= self.listed_pending & bit;
        }
        if active {
            self.active |= bit & !self.ended;
        }
        for state in
            [&mut self.listed, &mut self.listed_pending, &mut self.listed_active, &mut self.ended]
        {
            *state &= !bit;
        }
    }

    pub(super) fn priority(&self, n: u32) -> u8 {
        self.priority[n as usize]
    }

    /// Interrupts that could be delivered now: pending, enabled, neither active nor listed.
    pub(super) fn deliverable(&self) -> u32 {
        self.pending & self.enabled & !self.active & !self.listed
    }

    /// Active interrupts that no list register holds.
    pub(super) fn active(&self) -> u32 {
        self.active & !self.listed
    }

    /// Interrupts that are pending and enabled, in a list register or out of it.
    pub(super) fn waiting(&self) -> u32 {
        (self.pending | self.listed_pending) & self.enabled
    }

    /// Whether an interrupt is pending or active outside of list registers.
    pub(super) fn is_busy(&self, n: u32) -> bool {
        (self.pending | self.active) >> n & 1 == 1
    }

    pub(super) fn is_listed(&self, n: u32) -> bool {
        self.listed >> n & 1 == 1
    }

    pub(super) fn is_enabled(&self, n: u32) -> bool {
        self.enabled >> n & 1 == 1
    }
}
