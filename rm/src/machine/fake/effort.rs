//! How much is tried of what there is no end of: more with `RM_EFFORT`, and little under Miri, an interpreter that is
//! thousands of times slower. `RUSTFLAGS="--cfg miri -A explicit_builtin_cfgs_in_flags" cargo test -p rm` tries as little
//! without it, and tells in seconds whether a test does with so little.

use core::iter::StepBy;

/// What `RM_EFFORT` says, 1 if it says nothing.
pub fn effort<T: From<u16>>() -> T {
    let said = std::env::var("RM_EFFORT").ok().and_then(|effort| effort.parse::<u16>().ok());
    said.unwrap_or(1).into()
}

/// So many, and under Miri so few.
pub const fn few<T: Copy>(many: T, few: T) -> T {
    if cfg!(miri) { few } else { many }
}

/// All of these, and under Miri every `stride`th.
pub fn some<I: IntoIterator>(all: I, stride: usize) -> StepBy<I::IntoIter> {
    all.into_iter().step_by(few(1, stride))
}
