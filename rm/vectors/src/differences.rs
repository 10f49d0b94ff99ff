//! The table of what differs on purpose.
//!
//! `data/differences.txt` has one line for each difference: the ids of the exchanges that show it,
//! the reason, the rule that asks for it, and what we say instead.

use crate::exchange::{Id, is_captured};

const TEXT: &str = include_str!("../data/differences.txt");

/// Why an answer may differ from the original's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// Who is no party to a parcel is told that there is none.
    Party,
    /// All aliases of a page have one cache policy.
    UnequalAttributes,
    /// A parcel that is not finished cannot be accepted.
    AcceptInInit,
    /// What the original does by mistake.
    Defect,
    /// Sending nothing is refused.
    SizeZero,
    /// Requests are served within their SEND, and none is lost when nobody reads.
    Served,
    /// Calls on VMs that we do not build.
    VmManagement,
    /// A row of our list of corrections, or a property of our VMs.
    Correction,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Party,
        Self::UnequalAttributes,
        Self::AcceptInInit,
        Self::Defect,
        Self::SizeZero,
        Self::Served,
        Self::VmManagement,
        Self::Correction,
    ];

    /// Its name in the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Party => "party check",
            Self::UnequalAttributes => "unequal attributes",
            Self::AcceptInInit => "accept in INIT",
            Self::Defect => "defect",
            Self::SizeZero => "size 0",
            Self::Served => "served within SEND",
            Self::VmManagement => "VM management",
            Self::Correction => "correction",
        }
    }
}

/// One line of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Line {
    /// The exchanges: ids and ranges of ids, separated by commas; `*` for every boot.
    pub ids: &'static str,
    /// Why.
    pub reason: Reason,
    /// What asks for it.
    pub rule: &'static str,
    /// What we say, as `name=value` separated by semicolons.
    pub ours: &'static str,
}

/// The lines of the table.
pub fn lines() -> impl Iterator<Item = Line> {
    let lines = TEXT.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| match Line::parse(line) {
        Some(line) => line,
        None => panic!("a line of the table that means nothing: {line}"),
    })
}

/// The line about an exchange.
pub fn about(id: &Id<'_>) -> Option<Line> {
    lines().find(|line| line.names(id))
}

impl Line {
    fn parse(line: &'static str) -> Option<Self> {
        let mut fields = line.split('\t');
        let (ids, reason) = (fields.next()?, fields.next()?);
        let reason = Reason::ALL.into_iter().find(|known| known.name() == reason)?;
        Some(Self { ids, reason, rule: fields.next()?, ours: fields.next()? })
    }

    /// Whether the line is about `id`.
    pub fn names(&self, id: &Id<'_>) -> bool {
        self.parts().any(|part| part.contains(id))
    }

    /// Its ids, each a range.
    pub fn parts(&self) -> impl Iterator<Item = Range> + use<> {
        self.ids.split(',').map(|part| match Range::parse(part.trim()) {
            Some(range) => range,
            None => panic!("no ids in the table: {part}"),
        })
    }

    /// What we say in one respect; nothing where we say what the original says.
    pub fn value(&self, name: &str) -> Option<&'static str> {
        let fields = self.ours.split(';').filter_map(|field| field.trim().split_once('='));
        fields.filter(|(key, _)| *key == name).map(|(_, value)| value).next()
    }
}

/// Consecutive exchanges of a boot.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    first: Id<'static>,
    last: u16,
}

impl Range {
    fn parse(text: &'static str) -> Option<Self> {
        match text.split_once("..") {
            Some((first, last)) => {
                Some(Self { first: Id::parse(first)?, last: last.parse().ok()? })
            }
            None => Id::parse(text).map(|first| Self { first, last: first.number }),
        }
    }

    /// Whether the exchange is one of these.
    pub fn contains(&self, id: &Id<'_>) -> bool {
        (self.everywhere() && is_captured(id.boot) || self.first.boot == id.boot)
            && (self.first.number..=self.last).contains(&id.number)
            && self.first.letter == id.letter
    }

    /// How many exchanges of one boot these are.
    pub const fn len(&self) -> usize {
        (self.last + 1 - self.first.number) as usize
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether they are in every captured boot.
    pub fn everywhere(&self) -> bool {
        self.first.boot == "*"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BOOTS, STORY};

    #[test]
    fn an_id_stands_in_one_line_and_names_exchanges() {
        let all = || BOOTS.iter().chain([&STORY]).flat_map(|boot| boot.exchanges());
        for exchange in all() {
            let found = lines().filter(|line| line.names(&exchange.id)).count();
            assert!(found <= 1, "{} stands in {found} lines", exchange.id);
        }
        for (line, range) in lines().flat_map(|line| line.parts().map(move |part| (line, part))) {
            let named = all().filter(|exchange| range.contains(&exchange.id));
            let boots = if range.everywhere() { BOOTS.len() } else { 1 };
            assert_eq!(named.count(), range.len() * boots, "{}", line.ids);
        }
    }
}
