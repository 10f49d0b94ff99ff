//! The machine's memory as one axis: a row for each range that is one thing to every VM.
//!
//! Addresses rise from row to row. What no VM has is folded to a thin row, and a long range is only a
//! little higher than a short one, so that one page and a gigabyte fit one picture.

use std::collections::BTreeSet;

use super::{Map, PAGE, Run};

/// A range of the machine's memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its first address.
    pub pa: u64,
    /// Its length.
    pub pages: u64,
    /// No VM has any of it.
    pub is_gap: bool,
    /// Where it begins in the picture.
    pub top: f64,
    /// How much of the picture it takes.
    pub height: f64,
}

/// All rows, in the order of their addresses.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis(pub Vec<Row>);

/// Height of a gap.
const GAP: f64 = 16.0;

impl Axis {
    /// The rows of a map, from `top` on.
    pub fn new(map: &Map, top: f64) -> Self {
        let spans = spans(map);
        let edges: BTreeSet<u64> = spans.iter().flat_map(|&(start, end)| [start, end]).collect();
        let edges: Vec<u64> = edges.into_iter().collect();
        let (mut rows, mut next) = (Vec::new(), top);
        for pair in edges.windows(2) {
            let (pa, end) = (pair[0], pair[1]);
            let pages = (end - pa) / PAGE;
            let is_gap = !spans.iter().any(|&(first, behind)| first < end && pa < behind);
            let height = if is_gap { GAP } else { height(pages) };
            rows.push(Row { pa, pages, is_gap, top: next, height });
            next += height;
        }
        Self(rows)
    }

    /// Where an address is in the picture. Edges of runs and extents are exact.
    pub fn y(&self, pa: u64) -> f64 {
        let row = self.0.iter().rev().find(|row| row.pa <= pa).or(self.0.first());
        row.map_or(0.0, |row| {
            let part = pa.saturating_sub(row.pa) as f64 / (row.pages * PAGE) as f64;
            row.top + row.height * part.min(1.0)
        })
    }

    /// Where the picture of the memory ends.
    pub fn bottom(&self) -> f64 {
        self.0.last().map_or(0.0, |row| row.top + row.height)
    }
}

/// The machine addresses of all that a VM or a parcel has.
fn spans(map: &Map) -> Vec<(u64, u64)> {
    let runs = map.vms.iter().flat_map(|vm| &vm.runs).filter(|run| run.is_memory()).map(Run::span);
    let extents = map.parcels.iter().flat_map(|parcel| &parcel.extents);
    runs.chain(extents.map(|extent| extent.span())).collect()
}

/// Room for a line of text, and more for more pages.
fn height(pages: u64) -> f64 {
    (21.0 + 2.5 * (pages as f64).log2()).round()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::tests::map;

    #[test]
    fn addresses_rise_with_the_picture() {
        let axis = Axis::new(&map(), 100.0);
        assert_eq!(axis.0[0].top, 100.0);
        for pair in axis.0.windows(2) {
            assert!(pair[0].pa < pair[1].pa && pair[0].top < pair[1].top);
            assert_eq!(pair[0].pa + pair[0].pages * PAGE, pair[1].pa, "no address is left out");
            assert_eq!(pair[0].top + pair[0].height, pair[1].top);
        }
        let (first, last) = (axis.0[0].pa, axis.0.last().unwrap());
        let end = last.pa + last.pages * PAGE;
        let points: Vec<f64> =
            (0..=1000).map(|n| axis.y(first + (end - first) / 1000 * n)).collect();
        assert!(points.is_sorted());
        assert_eq!(axis.y(first), 100.0);
        assert_eq!(axis.y(end), axis.bottom());
    }

    #[test]
    fn more_pages_are_never_lower() {
        assert!((0..30).map(|power| height(1 << power)).is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn what_nobody_has_is_folded() {
        let axis = Axis::new(&map(), 0.0);
        let gaps: Vec<_> = axis.0.iter().filter(|row| row.is_gap).collect();
        assert_eq!(gaps.len(), 1, "between the memory of the two VMs");
        assert_eq!((gaps[0].pa, gaps[0].height), (0x1_4001_c000, GAP));
    }

    #[test]
    fn every_edge_of_a_run_is_an_edge_of_a_row() {
        let (map, axis) = (map(), Axis::new(&map(), 0.0));
        for run in map.vms.iter().flat_map(|vm| &vm.runs).filter(|run| run.is_memory()) {
            assert!(axis.0.iter().any(|row| row.pa == run.pa), "{run:x?}");
        }
    }
}
