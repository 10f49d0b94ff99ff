//! Address maps as columns of boxes, low addresses above.
//!
//! ```text
//! 0x4000_0000 +------------------------------------------+
//!             | program                            4 MiB |
//! 0x4040_0000 +------------------------------------------+
//!             | .                                 60 MiB |
//! 0x4400_0000 +------------------------------------------+
//! ```

use std::fmt::Write as _;
use std::ops::Range;

use crate::Manifest;
use crate::map::{Map, hex, meet};
use crate::size;

/// Characters between the bars.
const WIDTH: usize = 48;

/// The machine, then each VM.
pub(super) fn all(manifest: &Manifest) -> String {
    let sure = manifest.ram.iter().map(|bank| (bank.clone(), "RAM"));
    let more = manifest.more_ram.iter().map(|bank| (bank.clone(), "RAM, if the board has so much"));
    let banks: Vec<_> = sure.chain(more).collect();
    let mut text = format!("The machine\n{}", draw(&entries(&manifest.machine), &banks));
    for (planned, vm) in manifest.vms.iter().zip(&manifest.writer.vms) {
        let memory = vm.memory_at..vm.memory_at + vm.memory;
        let mut claims = entries(&planned.space);
        claims.retain(|(range, _)| *range != memory);
        claims.extend(entries(&planned.contents));
        let picture = draw(&claims, &[(memory, "memory")]);
        let _ = write!(text, "\nWhat {} sees\n{picture}", planned.name);
    }
    text
}

fn entries(map: &Map) -> Vec<(Range<u64>, &str)> {
    map.claims().into_iter().map(|claim| (claim.range.clone(), &*claim.what)).collect()
}

/// Boxes for the claims, and for what they leave of the areas.
fn draw(claims: &[(Range<u64>, &str)], areas: &[(Range<u64>, &str)]) -> String {
    let mut boxes: Vec<(Range<u64>, &str)> = claims.to_vec();
    for (area, what) in areas {
        let mut inside: Vec<_> = claims.iter().filter(|(range, _)| meet(range, area)).collect();
        inside.sort_by_key(|(range, _)| range.start);
        let mut from = area.start;
        for (range, _) in inside {
            boxes.push((from..range.start.max(from), *what));
            from = from.max(range.end);
        }
        boxes.push((from..area.end.max(from), *what));
    }
    boxes.retain(|(range, _)| !range.is_empty());
    boxes.sort_by_key(|(range, _)| (range.start, range.end));
    let (mut text, mut end) = (String::new(), None);
    for (range, what) in &boxes {
        // A gap: the box above is closed, and nothing is drawn.
        if let Some(end) = end.filter(|&end| end != range.start) {
            border(&mut text, end);
            text.push('\n');
        }
        border(&mut text, range.start);
        let size = size::text(range.end - range.start);
        let room = WIDTH.saturating_sub(size.chars().count() + 1);
        let what: String = what.chars().take(room).collect();
        let _ = writeln!(text, "{:15} | {what:<room$} {size} |", "");
        end = Some(range.end);
    }
    end.into_iter().for_each(|end| border(&mut text, end));
    text
}

fn border(text: &mut String, at: u64) {
    let _ = writeln!(text, "{:>15} +{}+", hex(at), "-".repeat(WIDTH + 2));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_claims_leave_of_an_area_is_drawn_and_gaps_are_not() {
        let claims = [(0x1000..0x2000, "a device"), (0x9000..0xa000, "a channel")];
        let text = draw(&claims, &[(0x8000..0xb000, "memory")]);
        let shown: Vec<_> = text.lines().map(|line| line.replace(['-', ' '], "")).collect();
        let wanted = [
            "0x0000_1000++",
            "|adevice4KiB|",
            "0x0000_2000++",
            "",
            "0x0000_8000++",
            "|memory4KiB|",
            "0x0000_9000++",
            "|achannel4KiB|",
            "0x0000_a000++",
            "|memory4KiB|",
            "0x0000_b000++",
        ];
        assert_eq!(shown, wanted);
    }

    #[test]
    fn all_lines_of_boxes_are_equally_long() {
        let long = "a name that is far longer than there is room for in any box of the picture";
        let text = draw(&[(0..4096, long), (4096..1 << 39, "b")], &[]);
        let lengths: Vec<_> = text.lines().map(|line| line.chars().count()).collect();
        assert!(lengths.iter().all(|&length| length == lengths[0]), "{text}");
    }
}
