//! `cargo bench`: the same as `cargo run -- bench`.

use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    qemu::verb::bench::run()
}
