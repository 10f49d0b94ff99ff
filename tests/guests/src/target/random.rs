//! Numbers that look random. The order in which VMs come to their turns is the machine's, so a seed
//! gives each vCPU the same choices, not the same run.

/// A xorshift generator (Marsaglia's, 64 bits).
#[derive(Clone, Debug)]
pub struct Random(u64);

/// What all sequences of a run begin with: `GUESTS_SEED` when the programs are built, or one that is
/// always the same.
pub const SEED: u64 = match option_env!("GUESTS_SEED") {
    Some(text) => match u64::from_str_radix(text, 10) {
        Ok(seed) => seed,
        Err(_) => panic!("GUESTS_SEED is a decimal number"),
    },
    None => 2026,
};

impl Random {
    /// The sequence of somebody with this number, other than anybody else's.
    pub const fn of(who: u64) -> Self {
        let mixed = (SEED ^ who << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self((mixed ^ mixed >> 29) | 1)
    }

    /// 64 bits.
    pub fn word(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        (self.word() >> 8) % bound
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// An index of a list of this length, which is not empty.
    pub fn index(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// One of `choices`.
    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.index(choices.len())]
    }
}
