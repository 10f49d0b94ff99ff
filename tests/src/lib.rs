//! Scenarios on the image that ships: `tests/qemu.rs` runs every table of `qemu::scenario` as a test.
//!
//! Behind one of them [`canary`] searches the machine's memory, behind those that draw a map [`exposure`]
//! searches the VMs' tables for EL2's.
//!
//! [`machine_code`] looks at what the compiler has made of the sources, for what no scenario can show.
//!
//! [`panics`] finds where a program can panic, [`proof`] looks whether tests exist that a document names.
//!
//! `guests/` holds the programs that the VMs run, `el2/` programs that take the hypervisor's place.

pub mod canary;
pub mod exposure;
pub mod machine_code;
pub mod panics;
pub mod proof;

/// The lines of a screen in the order in which they were begun: what a CPU has written last may be shown behind
/// what another wrote later. A line without a time stays behind the one before it.
pub fn by_time(screen: &str) -> String {
    let mut last = 0.0;
    let timed = screen.split_inclusive('\n').map(|line| {
        let time = line.split_whitespace().next().and_then(|word| word.parse().ok());
        last = time.unwrap_or(last);
        (last, line)
    });
    let mut timed: Vec<(f64, &str)> = timed.collect();
    timed.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    timed.into_iter().map(|(_, line)| line).collect()
}

#[cfg(test)]
mod tests {
    use super::by_time;

    #[test]
    fn lines_are_put_in_the_order_of_their_times() {
        let screen = "build\n  0.1  a\n  0.3  c\ngoes on\n  0.2  b\n";
        assert_eq!(by_time(screen), "build\n  0.1  a\n  0.2  b\n  0.3  c\ngoes on\n");
    }
}
