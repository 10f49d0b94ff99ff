//! The map as a picture.
//!
//! Machine memory goes down the page, and each VM has a lane. The same pages are at the same height in
//! every lane, so what is lent or shared lies beside what is borrowed, and an arrow joins the two. At the
//! right a bracket gathers the pieces of each parcel and says what it is.

use std::fmt::Write;

use super::layout::{Axis, Row};
use super::table::{pages, what};
use super::{Kind, Map, Parcel, Policy, Run, State, Vm, size};

const MARGIN: f64 = 24.0;
/// Where lanes begin: left of them are the machine's addresses.
const LANES: f64 = 190.0;
const LANE: f64 = 216.0;
/// A lane's boxes are narrower than the lane, for the arrows.
const BOX: f64 = 176.0;
/// Above the memory: title, legend, names of the VMs.
const TOP: f64 = 208.0;
/// Room for the brackets, and for what they say.
const BRACKETS: f64 = 70.0;
const CARD: f64 = 330.0;
const CARD_HEIGHT: f64 = 50.0;

const INK: &str = "#1d2530";
const FAINT: &str = "#5d6b7a";

/// Draws a map of the run of a scenario.
pub fn svg(map: &Map, scenario: &str) -> String {
    Picture::new(map).draw(scenario)
}

struct Picture<'a> {
    map: &'a Map,
    axis: Axis,
    text: String,
}

/// The text with what XML takes for markup replaced, and without what it forbids.
fn escaped(text: &str) -> String {
    let mut safe = String::new();
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            letter if letter.is_control() => safe.push('\u{fffd}'),
            letter => safe.push(letter),
        }
    }
    safe
}

/// Fill and outline of a state.
const fn colours(state: State) -> (&'static str, &'static str) {
    match state {
        State::Owned => ("#d6e4f0", "#7f9db8"),
        State::Claimed => ("#efe3b8", "#a58b2e"),
        State::Shared => ("#a9dcae", "#2e8540"),
        State::Borrowed => ("#f7cf8f", "#b86e00"),
        State::Device => ("#dddddd", "#777777"),
        State::Lent => ("#ffffff", "#c0392b"),
        State::Held => ("#eeeeee", "#999999"),
    }
}

const fn colour(kind: Kind) -> &'static str {
    match kind {
        Kind::Share => "#2e8540",
        Kind::Lend => "#c0392b",
        Kind::Donate => "#7b3fa0",
    }
}

impl<'a> Picture<'a> {
    fn new(map: &'a Map) -> Self {
        Self { map, axis: Axis::new(map, TOP), text: String::new() }
    }

    fn draw(mut self, scenario: &str) -> String {
        let cards = self.cards();
        let ends = cards.iter().map(|card| card + CARD_HEIGHT);
        let bottom = ends.fold(self.axis.bottom(), f64::max);
        let (width, height) = (self.brackets() + BRACKETS + CARD + MARGIN, bottom + MARGIN);
        let _ = writeln!(
            self.text,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" font-family=\"DejaVu Sans, Verdana, sans-serif\" \
             font-size=\"13\" fill=\"{INK}\">"
        );
        self.definitions();
        let _ = writeln!(self.text, "<rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>");
        self.title(scenario);
        self.legend();
        self.addresses();
        let map = self.map;
        for (lane, vm) in map.vms.iter().enumerate() {
            self.lane(lane, vm);
        }
        for parcel in &map.parcels {
            self.arrows(parcel);
        }
        for (lane, vm) in map.vms.iter().enumerate() {
            for run in vm.runs.iter().filter(|run| run.is_memory()) {
                self.run(lane, run);
            }
        }
        for (parcel, top) in map.parcels.iter().zip(&cards) {
            let above = cards.iter().filter(|other| *other < top).count();
            self.bracket(parcel, above, *top);
        }
        self.text.push_str("</svg>\n");
        self.text
    }

    fn definitions(&mut self) {
        self.text.push_str(
            "<defs>\n<pattern id=\"uncached\" width=\"8\" height=\"8\" \
             patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
             <rect width=\"2.5\" height=\"8\" fill=\"#1d2530\" fill-opacity=\"0.22\"/></pattern>\n",
        );
        for kind in [Kind::Share, Kind::Lend, Kind::Donate] {
            let _ = writeln!(
                self.text,
                "<marker id=\"{}\" viewBox=\"0 0 10 10\" refX=\"9\" refY=\"5\" markerWidth=\"7\" \
                 markerHeight=\"7\" orient=\"auto-start-reverse\"><path d=\"M0 0L10 5L0 10z\" \
                 fill=\"{}\"/></marker>",
                kind.word(),
                colour(kind)
            );
        }
        self.text.push_str("</defs>\n");
    }

    /// Writes text at a place; `style` is more attributes.
    fn say(&mut self, (x, y): (f64, f64), style: &str, text: &str) {
        let text = escaped(text);
        let _ = writeln!(self.text, "<text x=\"{x}\" y=\"{y}\" {style}>{text}</text>");
    }

    fn title(&mut self, scenario: &str) {
        let title =
            format!("Who owns, lends, borrows and maps which memory: scenario “{scenario}”");
        self.say((MARGIN, 38.0), "font-size=\"20\" font-weight=\"bold\"", &title);
        let explanation = "Down the page: the machine's memory by address, folded where no VM has \
                           any. Across: the VMs, each with the address at which it has the pages.";
        self.say((MARGIN, 62.0), &format!("fill=\"{FAINT}\""), explanation);
    }

    fn legend(&mut self) {
        let mut x = MARGIN;
        for (state, policy, text) in [
            (State::Owned, Policy::Cached, "owned, nobody else reaches it"),
            (State::Shared, Policy::Cached, "shared: owner and others"),
            (State::Lent, Policy::Cached, "lent: owner has no access"),
            (State::Borrowed, Policy::Cached, "borrowed, with these rights"),
            (State::Shared, Policy::Uncached, "hatched: not cached (WC, device)"),
        ] {
            self.frame((x, 78.0), (26.0, 16.0), state, policy);
            self.say((x + 33.0, 91.0), "", text);
            x += 33.0 + 7.4 * text.chars().count() as f64 + 22.0;
        }
        let mut x = MARGIN;
        for (kind, text) in [
            (Kind::Share, "a share: from its owner (dot) to who has mapped it"),
            (Kind::Lend, "a loan"),
            (Kind::Donate, "a donation that nobody has accepted yet"),
        ] {
            self.arrow((x, x + 34.0), 113.0, kind);
            self.say((x + 43.0, 118.0), "", text);
            x += 43.0 + 7.4 * text.chars().count() as f64 + 22.0;
        }
    }

    /// A box in the colours of a state.
    fn frame(&mut self, at: (f64, f64), size: (f64, f64), state: State, policy: Policy) {
        let ((x, y), (width, height)) = (at, size);
        let (fill, line) = colours(state);
        let dashes = if state == State::Lent { " stroke-dasharray=\"5 3\"" } else { "" };
        let place = format!("x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"2\"");
        let _ = writeln!(
            self.text,
            "<rect {place} fill=\"{fill}\" stroke=\"{line}\" stroke-width=\"1.2\"{dashes}/>"
        );
        if policy != Policy::Cached {
            let _ = writeln!(self.text, "<rect {place} fill=\"url(#uncached)\"/>");
        }
    }

    fn arrow(&mut self, (from, to): (f64, f64), y: f64, kind: Kind) {
        let (colour, name) = (colour(kind), kind.word());
        let _ = writeln!(
            self.text,
            "<circle cx=\"{from}\" cy=\"{y}\" r=\"3.2\" fill=\"{colour}\"/>\
             <line x1=\"{from}\" y1=\"{y}\" x2=\"{to}\" y2=\"{y}\" stroke=\"{colour}\" \
             stroke-width=\"1.8\" marker-end=\"url(#{name})\"/>"
        );
    }

    fn addresses(&mut self) {
        let (left, right) = (MARGIN, self.brackets() - 8.0);
        self.say((MARGIN, TOP - 14.0), "font-weight=\"bold\"", "machine address");
        for Row { pa, pages, is_gap, top, height } in self.axis.0.clone() {
            let line = top + height / 2.0;
            if is_gap {
                let _ = writeln!(
                    self.text,
                    "<rect x=\"{left}\" y=\"{top}\" width=\"{}\" height=\"{height}\" \
                     fill=\"#f3f4f6\"/>",
                    right - left
                );
                let text = format!("⋮ {} of no VM", size(pages));
                self.say(
                    (left + 4.0, line + 4.0),
                    &format!("font-size=\"11\" fill=\"{FAINT}\""),
                    &text,
                );
                continue;
            }
            let _ = writeln!(
                self.text,
                "<line x1=\"{left}\" y1=\"{top}\" x2=\"{right}\" y2=\"{top}\" stroke=\"#e3e7eb\"/>"
            );
            let mono = "font-family=\"DejaVu Sans Mono, monospace\" font-size=\"12\"";
            self.say((left, line + 4.5), mono, &format!("{pa:#x}"));
            let small = format!("text-anchor=\"end\" font-size=\"12\" fill=\"{FAINT}\"");
            self.say((LANES - 16.0, line + 4.5), &small, &size(pages));
        }
    }

    /// Where a lane's boxes begin.
    fn left(lane: usize) -> f64 {
        LANES + LANE * lane as f64
    }

    /// Where the last lane ends.
    fn brackets(&self) -> f64 {
        LANES + LANE * self.map.vms.len() as f64
    }

    fn lane(&mut self, lane: usize, vm: &Vm) {
        let x = Self::left(lane);
        let bottom = self.axis.bottom();
        let _ = writeln!(
            self.text,
            "<rect x=\"{x}\" y=\"{TOP}\" width=\"{BOX}\" height=\"{}\" fill=\"#f8fafb\"/>",
            bottom - TOP
        );
        let name = self.map.name(vm.vmid);
        self.say((x, TOP - 56.0), "font-size=\"16\" font-weight=\"bold\"", &name);
        let mut about = format!("VMID {:#x}, {}", vm.vmid, vm.state);
        let roles = [
            (vm.inspects, ", inspects"),
            (vm.manages, ", manages"),
            (vm.trusted_dma, ", DMA unconfined"),
        ];
        for (has, role) in roles {
            about.push_str(if has { role } else { "" });
        }
        let faint = format!("font-size=\"12\" fill=\"{FAINT}\"");
        self.say((x, TOP - 40.0), &faint, &about);
        let own = [State::Owned, State::Claimed, State::Shared, State::Lent];
        let own: u64 = own.iter().map(|&state| pages(vm, state)).sum();
        let away = pages(vm, State::Lent);
        let borrowed = pages(vm, State::Borrowed);
        let mut has = format!("has {}", size(own));
        if away > 0 {
            let _ = write!(has, ", {} of it lent", size(away));
        }
        self.say((x, TOP - 24.0), &faint, &has);
        if borrowed > 0 {
            self.say((x, TOP - 9.0), &faint, &format!("borrows {}", size(borrowed)));
        }
    }

    fn run(&mut self, lane: usize, run: &Run) {
        let (start, end) = run.span();
        let (top, bottom) = (self.axis.y(start), self.axis.y(end));
        let x = Self::left(lane);
        self.frame((x, top + 1.0), (BOX, bottom - top - 2.0), run.state, run.policy);
        let line = (top + bottom) / 2.0 + 4.5;
        self.say((x + 7.0, line), "font-size=\"12.5\"", &what(run));
        let mono = "text-anchor=\"end\" font-family=\"DejaVu Sans Mono, monospace\" \
                    font-size=\"11\" fill=\"#3c4856\"";
        self.say((x + BOX - 6.0, line), mono, &format!("{:x}", run.ipa));
    }

    /// From the owner to everybody who has mapped the parcel, at each of its pieces.
    fn arrows(&mut self, parcel: &Parcel) {
        let map = self.map;
        let lane = |vmid| map.vms.iter().position(|vm| vm.vmid == vmid);
        let Some(owner) = lane(parcel.owner) else { return };
        for holder in &parcel.holders {
            let Some(to) = lane(holder.vmid) else { continue };
            let runs = map.vms[to].runs.iter().filter(|run| run.state == State::Borrowed);
            for run in runs {
                if !parcel.extents.iter().any(|extent| extent.covers(run)) {
                    continue;
                }
                let (start, end) = run.span();
                let y = (self.axis.y(start) + self.axis.y(end)) / 2.0;
                let ends = if to > owner {
                    (Self::left(owner) + BOX, Self::left(to))
                } else {
                    (Self::left(owner), Self::left(to) + BOX)
                };
                self.arrow(ends, y, parcel.kind);
            }
        }
    }

    /// Where the cards begin, one below the other and as near to their parcels as they can be.
    fn cards(&self) -> Vec<f64> {
        let first = |parcel: &Parcel| {
            let tops = parcel.extents.iter().map(|extent| self.axis.y(extent.pa));
            tops.fold(f64::INFINITY, f64::min)
        };
        let mut order: Vec<usize> = (0..self.map.parcels.len()).collect();
        let tops: Vec<f64> = self.map.parcels.iter().map(first).collect();
        order.sort_by(|&a, &b| tops[a].total_cmp(&tops[b]));
        let mut cards = vec![0.0; tops.len()];
        let mut next = TOP;
        for index in order {
            cards[index] = if tops[index].is_finite() { tops[index].max(next) } else { next };
            next = cards[index] + CARD_HEIGHT + 8.0;
        }
        cards
    }

    /// Gathers the pieces of a parcel and says what it is.
    fn bracket(&mut self, parcel: &Parcel, above: usize, top: f64) {
        let (colour, start) = (colour(parcel.kind), self.brackets());
        // Cards are below their parcels or beside them, so lines of the upper ones go further out.
        let spine = start + 50.0 - 7.0 * (above % 7) as f64;
        let card = start + BRACKETS;
        let middle = top + CARD_HEIGHT / 2.0;
        let spans = parcel.extents.iter().map(super::Extent::span);
        let spans: Vec<_> =
            spans.map(|(start, end)| (self.axis.y(start) + 2.0, self.axis.y(end) - 2.0)).collect();
        let mut path = String::new();
        for (first, last) in &spans {
            let _ = write!(path, "M{} {first}H{spine}V{last}H{}", start - 20.0, start - 20.0);
        }
        let ends = spans.iter().flat_map(|&(first, last)| [first, last]).chain([middle]);
        let (low, high) = ends
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), y| (low.min(y), high.max(y)));
        let _ = write!(path, "M{spine} {low}V{high}M{spine} {middle}H{card}");
        let _ = writeln!(
            self.text,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.3\"/>"
        );
        let _ = writeln!(
            self.text,
            "<rect x=\"{card}\" y=\"{top}\" width=\"{CARD}\" height=\"{CARD_HEIGHT}\" rx=\"4\" \
             fill=\"#fff\" stroke=\"{colour}\" stroke-width=\"1.3\"/>"
        );
        let head = format!(
            "{:#x} {} “{}”, {}",
            parcel.handle,
            parcel.kind.word(),
            parcel.title(),
            match parcel.pages {
                1 => "1 page".into(),
                pages => format!("{pages} pages"),
            }
        );
        let bold = format!("font-weight=\"bold\" font-size=\"12.5\" fill=\"{colour}\"");
        self.say((card + 9.0, top + 19.0), &bold, &head);
        let to = match &parcel.holders[..] {
            [] => "nobody yet".to_owned(),
            holders => {
                let name = |holder: &super::Holder| {
                    format!("{} ({})", self.map.name(holder.vmid), holder.rights)
                };
                holders.iter().map(name).collect::<Vec<_>>().join(", ")
            }
        };
        let text = format!("{} → {to}; label {:#x}", self.map.name(parcel.owner), parcel.label);
        self.say((card + 9.0, top + 38.0), "font-size=\"12\"", &text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::tests::map;

    /// Checks that tags are closed in their order and that no text looks like markup, and gives all text.
    fn texts(xml: &str) -> Vec<String> {
        let (mut open, mut texts, mut rest) = (vec![], vec![], xml);
        while let Some(start) = rest.find('<') {
            let (text, behind) = rest.split_at(start);
            assert!(!text.contains('>'), "{text:?}");
            for entity in text.split('&').skip(1) {
                let known = ["amp;", "lt;", "gt;", "quot;"];
                assert!(known.iter().any(|name| entity.starts_with(name)), "{text:?}");
            }
            texts.push(text.to_owned());
            let end = behind.find('>').expect("a tag ends");
            let tag = &behind[1..end];
            assert!(!tag.contains('<') && tag.matches('"').count().is_multiple_of(2), "{tag:?}");
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name));
            } else if !tag.ends_with('/') {
                open.push(tag.split(' ').next().unwrap());
            }
            rest = &behind[end + 1..];
        }
        assert!(open.is_empty() && rest.trim().is_empty(), "{open:?} {rest:?}");
        texts
    }

    #[test]
    fn the_picture_is_well_formed_whatever_the_names_are() {
        let mut map = map();
        map.parcels[0].name = "<script> & \"quotes\" \u{1}".into();
        let texts = texts(&svg(&map, "a & b"));
        assert!(texts.iter().any(|text| text.contains("&lt;script&gt; &amp; &quot;quotes&quot;")));
    }

    #[test]
    fn every_vm_parcel_and_run_is_in_the_picture() {
        let map = map();
        let texts = texts(&svg(&map, "map"));
        let has = |wanted: &str| texts.iter().any(|text| text.contains(&escaped(wanted)));
        for vm in &map.vms {
            assert!(has(&vm.name), "{}", vm.name);
            let line = texts.iter().find(|text| text.contains(&format!("VMID {:#x}", vm.vmid)));
            assert_eq!(line.unwrap().contains("DMA unconfined"), vm.trusted_dma);
            for run in vm.runs.iter().filter(|run| run.is_memory()) {
                assert!(has(&format!("{:x}", run.ipa)), "{run:x?}");
            }
        }
        for parcel in &map.parcels {
            assert!(has(&format!("{:#x} {}", parcel.handle, parcel.kind.word())));
        }
        assert!(has("camera → nobody yet; label 0xff"));
    }

    #[test]
    fn the_same_map_gives_the_same_picture() {
        assert_eq!(svg(&map(), "map"), svg(&map(), "map"));
    }

    #[test]
    fn uncached_memory_is_hatched_and_arrows_end_at_borrowers() {
        let picture = svg(&map(), "map");
        // One in the legend, and the two ends of the share.
        assert_eq!(picture.matches("fill=\"url(#uncached)\"").count(), 1 + 2);
        // In the legend, and one for the share, two for the loan.
        assert_eq!(picture.matches("url(#share)").count(), 1 + 1);
        assert_eq!(picture.matches("url(#lend)").count(), 1 + 2);
        assert_eq!(picture.matches("url(#donate)").count(), 1);
    }

    #[test]
    fn cards_do_not_overlap() {
        let map = map();
        let mut cards = Picture::new(&map).cards();
        cards.sort_by(f64::total_cmp);
        assert!(cards.windows(2).all(|pair| pair[0] + CARD_HEIGHT < pair[1]));
    }
}
