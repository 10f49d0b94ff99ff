//! Who claims which addresses, and whether two claim the same.

use std::fmt::Write as _;
use std::ops::Range;

use crate::report::{Problem, Problems, Span};

/// Bytes of a page.
pub(crate) const PAGE: u64 = 4096;

/// A range of addresses and what it is for.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The addresses.
    pub range: Range<u64>,
    /// What they are for.
    pub what: String,
    /// Where the manifest says so.
    pub(crate) span: Option<Span>,
}

/// The claims on one address space.
#[derive(Clone, Debug, Default)]
pub struct Map {
    claims: Vec<Claim>,
}

impl Map {
    /// The claims in the order of their addresses.
    pub fn claims(&self) -> Vec<&Claim> {
        let mut claims: Vec<_> = self.claims.iter().collect();
        claims.sort_by_key(|claim| (claim.range.start, claim.range.end));
        claims
    }

    /// Adds what is there without being asked.
    pub(crate) fn keep(&mut self, range: Range<u64>, what: impl Into<String>) {
        self.claims.push(Claim { range, what: what.into(), span: None });
    }

    /// Adds what the manifest says at `span`; notes the first claim that it overlaps.
    pub(crate) fn claim(
        &mut self,
        range: Range<u64>,
        what: impl Into<String>,
        span: &Span,
        problems: &Problems,
    ) -> bool {
        let what = what.into();
        let other = self.claims.iter().find(|claim| meet(&claim.range, &range));
        if let Some(other) = other {
            let message = format!(
                "{what} ({}) overlaps {} ({})",
                text(&range),
                other.what,
                text(&other.range)
            );
            let elsewhere = other.span.as_ref().filter(|other| *other != span);
            problems.add(Problem::new(span, message).also(elsewhere, "the other one"));
            return false;
        }
        self.claims.push(Claim { range, what, span: Some(span.clone()) });
        true
    }

    /// The lowest free `size` bytes inside of `within`.
    pub(crate) fn lowest(&self, within: Range<u64>, size: u64, align: u64) -> Option<u64> {
        let mut at = within.start.checked_next_multiple_of(align)?;
        for claim in self.claims() {
            if meet(&claim.range, &(at..at.checked_add(size)?)) {
                at = claim.range.end.checked_next_multiple_of(align)?;
            }
        }
        (at.checked_add(size)? <= within.end).then_some(at)
    }

    /// The highest free `size` bytes inside of `within`.
    pub(crate) fn highest(&self, within: Range<u64>, size: u64, align: u64) -> Option<u64> {
        let down = |end: u64| end.checked_sub(size).map(|start| start - start % align);
        let mut at = down(within.end)?;
        for claim in self.claims().into_iter().rev() {
            if meet(&claim.range, &range(at, size)) {
                at = down(claim.range.start)?;
            }
        }
        (at >= within.start).then_some(at)
    }
}

/// Whether two ranges have an address in common.
pub(crate) fn meet(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

/// So many bytes from here on; up to the last address at most.
pub(crate) fn range(start: u64, size: u64) -> Range<u64> {
    start..start.saturating_add(size)
}

/// The pages that a range touches.
pub(crate) fn pages(range: Range<u64>) -> Range<u64> {
    let end = range.end.checked_next_multiple_of(PAGE).unwrap_or(range.end);
    range.start - range.start % PAGE..end
}

/// An address in groups of four digits, at least two of them.
pub(crate) fn hex(address: u64) -> String {
    let digits = format!("{address:08x}");
    let lead = digits.len() % 4;
    let mut text = format!("0x{}", &digits[..lead]);
    for (n, group) in digits.as_bytes()[lead..].chunks(4).enumerate() {
        let separator = if n == 0 && lead == 0 { "" } else { "_" };
        let _ = write!(text, "{separator}{}", String::from_utf8_lossy(group));
    }
    text
}

/// A range as messages show it: both ends, the second one excluded.
pub(crate) fn text(range: &Range<u64>) -> String {
    format!("{}..{}", hex(range.start), hex(range.end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_in_groups() {
        let written = [0, 0x900_0000, 0x4_0000_0000, u64::MAX].map(hex);
        assert_eq!(
            written,
            ["0x0000_0000", "0x0900_0000", "0x4_0000_0000", "0xffff_ffff_ffff_ffff"]
        );
    }

    #[test]
    fn an_overlap_is_noted_with_both_ranges() {
        let (mut map, problems) = (Map::default(), Problems::default());
        map.keep(0x1000..0x2000, "the console");
        assert!(map.claim(0..0x1000, "below", &(0..1), &problems));
        assert!(!map.claim(0xfff..0x1001, "between", &(1..2), &problems));
        let message = problems.into_vec()[0].message().to_owned();
        assert_eq!(
            message,
            "between (0x0000_0fff..0x0000_1001) overlaps the console (0x0000_1000..0x0000_2000)"
        );
    }

    #[test]
    fn room_is_found_beside_what_is_there() {
        let mut map = Map::default();
        map.keep(0x1000..0x2000, "a");
        map.keep(0x8000..0x9000, "b");
        assert_eq!(map.lowest(0..0xa000, 0x1000, 0x1000), Some(0));
        assert_eq!(map.lowest(0..0xa000, 0x2000, 0x1000), Some(0x2000));
        assert_eq!(map.lowest(0x1800..0xa000, 0x1000, 0x4000), Some(0x4000));
        assert_eq!(map.lowest(0..0xa000, 0x7000, 0x1000), None);
        assert_eq!(map.highest(0..0xa000, 0x1000, 0x1000), Some(0x9000));
        assert_eq!(map.highest(0..0xa000, 0x1800, 0x1000), Some(0x6000));
        assert_eq!(map.highest(0..0x2000, 0x1800, 0x1000), None);
        assert_eq!(map.highest(0..0x800, 0x1000, 1), None);
    }
}
