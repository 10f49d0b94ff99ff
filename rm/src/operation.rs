//! Calls as state machines that are stepped with a budget.

pub mod budget;
