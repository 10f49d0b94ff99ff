//! The demo: three VMs on two CPUs share, lend and take back memory.

use package::{Channel, Name, Vm};

use super::{Guest, Scenario};

/// What `cargo run` boots.
pub const DEMO: Scenario = Scenario {
    name: "demo",
    about: "three VMs share, lend and take back memory under real stage-2 tables",
    ..Scenario::USUAL
};
