//! What ESR_EL2 says of a guest's abort: which access, and how to do it in the guest's place.

use rm::stage2::Access;

use crate::exception::Cause;

/// An abort as ESR_EL2.ISS describes it (EC 0x20 and 0x24).
#[derive(Clone, Copy)]
pub(crate) struct Syndrome {
    iss: u64,
    fetch: bool,
}

impl Syndrome {
    /// An instruction abort.
    pub(crate) const fn fetch(iss: u64) -> Self {
        Self { iss, fetch: true }
    }

    /// A data abort.
    pub(crate) const fn data(iss: u64) -> Self {
        Self { iss, fetch: false }
    }

    pub(crate) const fn bit(self, at: u32) -> bool {
        self.iss >> at & 1 == 1
    }

    pub(crate) const fn status(self) -> u64 {
        self.iss & 0x3F
    }

    /// The access was made by a walk of the guest's own tables.
    pub(crate) const fn on_walk(self) -> bool {
        self.bit(7)
    }

    /// What the guest gets for it if nothing explains it.
    pub(crate) const fn cause(self, virtual_address: u64) -> Cause {
        match self.fetch {
            true => Cause::InstructionAbort(virtual_address),
            false => Cause::DataAbort(virtual_address),
        }
    }

    pub(crate) const fn is_write(self) -> bool {
        !self.fetch && self.bit(6)
    }

    /// DFSC 0b0001LL, 0b0010LL, 0b0011LL: translation, access flag, permission. What our tables say.
    pub(crate) const fn by_our_tables(self) -> bool {
        matches!(self.status() >> 2, 1..=3)
    }

    pub(crate) const fn is_permission(self) -> bool {
        self.status() >> 2 == 3
    }

    /// What the guest wanted.
    pub(crate) fn access(self) -> Access {
        // Cache maintenance is reported as a write, but only a permission fault means it as one.
        let maintenance = !self.fetch && self.bit(8) && !self.is_permission();
        match () {
            () if self.fetch && !self.on_walk() => Access::Execute,
            () if self.is_write() && !maintenance => Access::Write,
            () => Access::Read,
        }
    }

    /// The load or store, if the CPU describes it (ISV) and it goes to the address itself.
    pub(crate) fn transfer(self) -> Option<Transfer> {
        let described = !self.fetch && self.bit(24) && !self.on_walk();
        described.then_some(Transfer {
            size: 1 << (self.iss >> 22 & 3),
            sign_extend: self.bit(21),
            register: (self.iss >> 16 & 31) as usize,
            wide: self.bit(15),
            write: self.is_write(),
        })
    }
}

/// A load or store of one general register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transfer {
    pub(crate) size: u8,
    pub(crate) sign_extend: bool,
    pub(crate) register: usize,
    pub(crate) wide: bool,
    pub(crate) write: bool,
}

impl Transfer {
    pub(crate) fn mask(&self) -> u64 {
        u64::MAX >> (64 - 8 * u32::from(self.size))
    }

    /// What the register holds after a load of `value`.
    pub(crate) fn loaded(&self, value: u64) -> u64 {
        let value = value & self.mask();
        let sign = value >> (8 * u32::from(self.size) - 1) & 1 == 1;
        let extended = if self.sign_extend && sign { value | !self.mask() } else { value };
        if self.wide { extended } else { extended & 0xFFFF_FFFF }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: u64 = 1 << 24;
    const BYTE: u64 = VALID;
    const WORD: u64 = VALID | 2 << 22;
    const WRITE: u64 = 1 << 6;
    const SIGN: u64 = 1 << 21;
    const WIDE: u64 = 1 << 15;
    const TRANSLATION: u64 = 0b000_111;
    const PERMISSION: u64 = 0b001_111;

    fn loaded(iss: u64, value: u64) -> u64 {
        Syndrome::data(iss | TRANSLATION).transfer().unwrap().loaded(value)
    }

    #[test]
    fn a_load_is_cut_and_extended_as_the_instruction_says() {
        assert_eq!(loaded(BYTE, 0x1280), 0x80);
        assert_eq!(loaded(BYTE | SIGN, 0x1280), 0xFFFF_FF80);
        assert_eq!(loaded(BYTE | SIGN | WIDE, 0x1280), 0xFFFF_FFFF_FFFF_FF80);
        assert_eq!(loaded(WORD, u64::MAX), 0xFFFF_FFFF);
        assert_eq!(loaded(VALID | 3 << 22 | WIDE, u64::MAX), u64::MAX);
    }

    #[test]
    fn an_access_that_the_cpu_does_not_describe_is_not_emulated() {
        assert_eq!(Syndrome::data(TRANSLATION).transfer(), None);
        let on_walk = 1 << 7;
        assert_eq!(Syndrome::data(WORD | TRANSLATION | on_walk).transfer(), None);
        assert_eq!(Syndrome::fetch(WORD | TRANSLATION).transfer(), None);
    }

    #[test]
    fn the_access_is_what_the_guest_wanted() {
        let (on_walk, maintenance) = (1 << 7, 1 << 8);
        assert_eq!(Syndrome::data(TRANSLATION).access(), Access::Read);
        assert_eq!(Syndrome::data(TRANSLATION | WRITE).access(), Access::Write);
        assert_eq!(Syndrome::fetch(TRANSLATION).access(), Access::Execute);
        assert_eq!(Syndrome::fetch(TRANSLATION | on_walk).access(), Access::Read);
        assert_eq!(Syndrome::data(TRANSLATION | WRITE | maintenance).access(), Access::Read);
        assert_eq!(Syndrome::data(PERMISSION | WRITE | maintenance).access(), Access::Write);
    }

    #[test]
    fn only_translation_flag_and_permission_faults_are_asked_of_our_tables() {
        let ours = |&status: &u64| Syndrome::data(status).by_our_tables();
        assert!((0..64).filter(ours).eq(4..16));
        assert_eq!(Syndrome::fetch(0).cause(4), Cause::InstructionAbort(4));
        assert_eq!(Syndrome::data(0).cause(4), Cause::DataAbort(4));
    }
}
