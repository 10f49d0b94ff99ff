//! The captured text, line by line.

use crate::{BOOTS, Vm, hex};

/// One boot of the original.
#[derive(Clone, Copy, Debug)]
pub struct Boot {
    /// Its name, with which the ids of its exchanges begin.
    pub name: &'static str,
    pub(crate) text: &'static str,
}

/// One line of a boot.
#[derive(Clone, Copy, Debug)]
pub struct Exchange {
    /// Its name.
    pub id: Id<'static>,
    /// Who sent it.
    pub vm: Vm,
    /// What was tried.
    pub case: &'static str,
    /// What went to and fro.
    pub what: What,
}

/// What was done, and what came of it. Lists are separated by blanks, those of a batch by commas.
#[derive(Clone, Copy, Debug)]
pub enum What {
    /// Packets, and all that anybody received before the next exchange.
    Message {
        /// The packets sent.
        request: &'static str,
        /// Packets of the reply; none for a silent drop.
        reply: &'static str,
        /// Notifications, each the name of the VM that got it, a colon, and the packet.
        news: &'static str,
        /// The order in the sender's own queue: `n` a notification, `r` a reply.
        arrival: &'static str,
    },
    /// One hypercall and its registers.
    Hypercall {
        /// The instruction's opcode.
        instruction: u32,
        /// X0 and up; the others held [`crate::registers::FILL`] and their number.
        regs_in: &'static str,
        /// X0 to X17 afterwards.
        regs_out: &'static str,
        /// The registers among X0 to X18 and X21 to X28 that were changed.
        changed: &'static str,
    },
    /// Commands run back to back in the guest, and what they printed.
    Batch {
        /// The commands.
        commands: &'static str,
        /// The lines that they printed.
        output: &'static str,
    },
}

/// The name of an exchange: a boot, a number, and a letter for what VMs did after that exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Id<'a> {
    /// The boot.
    pub boot: &'a str,
    /// The number in it, from 1.
    pub number: u16,
    /// The letter.
    pub letter: Option<char>,
}

impl<'a> Id<'a> {
    /// The id that is written so.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (boot, rest) = text.split_once('-')?;
        let letter = rest.chars().last().filter(char::is_ascii_lowercase);
        let digits = rest.trim_end_matches(|c: char| c.is_ascii_lowercase());
        Some(Self { boot, number: digits.parse().ok()?, letter })
    }
}

impl core::fmt::Display for Id<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}-{:03}", self.boot, self.number)?;
        self.letter.map_or(Ok(()), |letter| write!(f, "{letter}"))
    }
}

impl Boot {
    /// The exchanges, in time order.
    pub fn exchanges(&self) -> impl Iterator<Item = Exchange> + use<> {
        self.text.lines().skip(1).map(|line| match Exchange::parse(line) {
            Some(exchange) => exchange,
            None => panic!("a line of the captured text that means nothing: {line}"),
        })
    }

    /// Whether it was captured, and so begins with the calls that bring up the secondaries.
    pub fn is_captured(&self) -> bool {
        is_captured(self.name)
    }

    /// The capability by which `vm` named its send queue (`tx`) or its receive queue (`rx`).
    pub fn capability(&self, queue: &str, vm: Vm) -> Option<u64> {
        let named = |(name, id)| {
            let (end, whose) = str::split_once(name, '.')?;
            (end == queue && whose == vm.name()).then(|| hex::word(id))
        };
        self.text
            .lines()
            .next()?
            .split('\t')
            .filter_map(|field| field.split_once('='))
            .find_map(named)
    }
}

/// Whether a boot of this name was captured.
pub(crate) fn is_captured(name: &str) -> bool {
    BOOTS.iter().any(|boot| boot.name == name)
}

impl Exchange {
    fn parse(line: &'static str) -> Option<Self> {
        let mut fields = line.split('\t');
        let (id, vm, case) = (fields.next()?, fields.next()?, fields.next()?);
        let value = |name| {
            let named = |field| str::split_once(field, '=').filter(|(key, _)| *key == name);
            fields.clone().find_map(named).map(|(_, value)| value)
        };
        let what = if let Some(commands) = value("do") {
            What::Batch { commands, output: value("said")? }
        } else if let Some(instruction) = value("insn") {
            What::Hypercall {
                instruction: hex::word(instruction) as u32,
                regs_in: value("in")?,
                regs_out: value("out")?,
                changed: value("changed")?,
            }
        } else {
            What::Message {
                request: value("request")?,
                reply: value("reply").unwrap_or_default(),
                news: value("news").unwrap_or_default(),
                arrival: value("arrival").unwrap_or_default(),
            }
        };
        Some(Self { id: Id::parse(id)?, vm: Vm::named(vm)?, case, what })
    }
}

#[cfg(test)]
mod tests {
    use crate::{BOOTS, STORY, Vm, What};

    #[test]
    fn every_line_is_an_exchange_of_its_boot_and_in_order() {
        let mut captured = 0;
        for boot in BOOTS {
            let mut before = 0;
            for exchange in boot.exchanges() {
                assert_eq!(exchange.id.boot, boot.name);
                let next = if exchange.id.letter.is_some() { before } else { before + 1 };
                assert_eq!(exchange.id.number, next, "{}", exchange.id);
                before = next;
                captured += usize::from(exchange.id.letter.is_none());
            }
        }
        assert_eq!(captured, 1627);
        assert_eq!(STORY.exchanges().count(), 10);
    }

    #[test]
    fn a_boot_tells_the_capabilities_of_its_vms() {
        let hyp = BOOTS.iter().find(|boot| boot.name == "hyp").unwrap();
        assert_eq!(hyp.capability("tx", Vm::Primary), Some(0x3c98_1734_d1cd_d94c));
        assert_eq!(hyp.capability("rx", Vm::Secondary), Some(0x98f6_4d41_2a12_ee48));
    }

    #[test]
    fn a_message_has_a_request() {
        for exchange in BOOTS.iter().flat_map(|boot| boot.exchanges()) {
            if let What::Message { request, .. } = exchange.what {
                assert!(!request.is_empty(), "{}", exchange.id);
            }
        }
    }
}
