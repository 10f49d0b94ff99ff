//! Holding a conversation with a system as the original's guests had it.

use core::fmt::Arguments;

use rm_abi::{Header, Kind, PACKET, message};

use crate::batch::{self, Text};
use crate::differences::{self, Line};
use crate::exchange::{Exchange, What};
use crate::handles::{Handles, is_news};
use crate::hex::{self, Hex};
use crate::inbox::{Inbox, is_notification};
use crate::registers::{self, CAPTURED, COUNT, Call, Registers};
use crate::{Boot, Vm};

/// How often an answer is waited for.
const PATIENCE: u32 = 2000;

/// What serves the calls, seen from its VMs.
pub trait System {
    /// `vm` sends one packet. The result is the error and whether there is room for another.
    fn send(&mut self, vm: Vm, packet: &[u8]) -> (i64, bool);
    /// `vm` receives one packet, if there is one, and tells its length.
    fn receive(&mut self, vm: Vm, into: &mut [u8; PACKET]) -> Option<usize>;
    /// An answer to `vm` is awaited: time passes.
    fn wait(&mut self, vm: Vm);
    /// The capability of a VM's send queue (`tx`) or receive queue (`rx`).
    fn capability(&self, queue: &str) -> u64;
    /// Where the original's address is in `vm`: of a buffer, or where a parcel was mapped.
    fn address(&self, vm: Vm, theirs: u64) -> u64 {
        let _ = vm;
        theirs
    }
    /// Whether the system has what an exchange is about, and what those before it left behind.
    fn has(&self, exchange: &Exchange) -> bool {
        let _ = exchange;
        true
    }
    /// `vm` executes a hypercall. `false`: that needs a CPU, and here is none.
    fn hypercall(&mut self, vm: Vm, call: &Call, registers: &mut Registers) -> bool;
    /// `vm` writes into its own memory, at an address of the original's.
    fn write(&mut self, vm: Vm, at: u64, bytes: &[u8]);
    /// Acknowledges the interrupt of the send queue (0) or receive queue (1), if it is pending.
    fn acknowledge(&mut self, vm: Vm, queue: usize) -> bool;
    /// `vm` loads 32 bits of a device, or stores them. `None`: there are no such registers.
    fn registers(&mut self, vm: Vm, at: u64, value: Option<u64>) -> Option<u64>;
    /// `vm` loads 64 bits at an address of the original's, or stores them. `None`: it cannot.
    fn access(&mut self, vm: Vm, at: u64, value: Option<u64>) -> Option<Access>;
    /// The original started `vm` here, and had accepted the parcels of its mailbox and its image on
    /// its behalf, at the addresses 0x40001000 and 0x80000000.
    fn start(&mut self, vm: Vm, mailbox: u32, image: u32);
    /// Tells how an exchange went wrong.
    fn report(&mut self, exchange: &Exchange, what: Arguments<'_>);
}

/// What came of a load or store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// It was allowed, and this was loaded.
    Done {
        /// The 64 bits.
        value: u64,
    },
    /// It was not.
    Fault {
        /// ESR_EL1 and FAR_EL1, if the system can tell.
        at: Option<(u64, u64)>,
    },
}

/// How an exchange went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// As with the original.
    Same,
    /// As this line of the table says.
    Differs(Line),
    /// It needs what this system has not.
    NotHere,
    /// Otherwise.
    Failed,
}

/// A conversation that is being held.
#[derive(Debug)]
pub struct Replay {
    boot: Boot,
    handles: Handles,
    /// The number of each VM's next notification.
    sequences: [u16; 3],
    inboxes: [Inbox; 3],
    text: Text,
}

/// What is expected of an exchange of messages.
struct Expected {
    reply: Reply,
    /// Notifications as in the captured text.
    news: &'static str,
}

enum Reply {
    /// These packets.
    Packets(&'static str),
    /// One packet with this error word.
    Error(u32),
}

impl Replay {
    /// A conversation before its first exchange.
    pub const fn new(boot: Boot) -> Self {
        Self {
            boot,
            handles: Handles::new(),
            sequences: [0; 3],
            inboxes: [const { Inbox::new() }; 3],
            text: Text::new(),
        }
    }

    /// Begins another boot with the same system, whose VMs go on counting their notifications.
    pub fn begin(&mut self, boot: Boot) {
        self.boot = boot;
        self.handles = Handles::new();
    }

    /// The handles that were given in this boot.
    pub fn handles(&self) -> impl Iterator<Item = u32> {
        self.handles.given()
    }

    /// Holds the next exchange of the boot.
    pub fn exchange<S: System>(&mut self, system: &mut S, exchange: &Exchange) -> Verdict {
        if !system.has(exchange) {
            return Verdict::NotHere;
        }
        let line = differences::about(&exchange.id);
        let verdict = match exchange.what {
            What::Message { .. } => self.message(system, exchange, line),
            What::Hypercall { .. } => self.hypercall(system, exchange, line),
            What::Batch { .. } => self.batch(system, exchange, line),
        };
        self.start_vm(system, exchange);
        verdict
    }

    /// A VM starts with its mailbox and image: the two parcels before its three calls.
    fn start_vm<S: System>(&self, system: &mut S, exchange: &Exchange) {
        let handle = |theirs| self.handles.ours(theirs);
        match (exchange.id.number, exchange.id.letter) {
            _ if !self.boot.is_captured() => {}
            (8, None) => system.start(Vm::Secondary, handle(0), handle(1)),
            (13, None) => system.start(Vm::Secondary2, handle(2), handle(3)),
            _ => {}
        }
    }

    fn message<S: System>(
        &mut self,
        system: &mut S,
        exchange: &Exchange,
        line: Option<Line>,
    ) -> Verdict {
        let What::Message { request, reply, news, arrival } = exchange.what else {
            return Verdict::Failed;
        };
        let captured = Expected { reply: Reply::Packets(reply), news };
        let ours = line.map(|line| Expected {
            reply: match (line.value("error"), line.value("reply")) {
                (Some(error), _) => Reply::Error(hex::word(error) as u32),
                (None, Some(packets)) => Reply::Packets(packets),
                (None, None) => Reply::Packets(reply),
            },
            news: line.value("news").unwrap_or(news),
        });
        self.inboxes.iter_mut().for_each(Inbox::clear);
        let due = ours.as_ref().unwrap_or(&captured).packets_for(exchange.vm);
        self.converse(system, exchange.vm, request, due);
        let agrees =
            |expected: &Expected| self.agrees(system, exchange, expected, request, arrival);
        let verdict = judge(line, agrees(&captured), ours.as_ref().is_some_and(agrees));
        self.learn(exchange.vm, reply);
        for (sequence, inbox) in self.sequences.iter_mut().zip(&self.inboxes) {
            *sequence += inbox.notifications() as u16;
        }
        self.report_messages(system, exchange, verdict, line);
        if let Some(more) = line.and_then(|line| line.value("then")) {
            self.keep_in_step(system, more);
        }
        verdict
    }

    /// Sends a request and collects what everybody receives.
    fn converse<S: System>(&mut self, system: &mut S, vm: Vm, request: &str, due: usize) {
        for digits in request.split(' ') {
            let mut packet = [0; PACKET];
            let length = hex::bytes(digits, &mut packet);
            self.handles.rewrite_request(&mut packet[..length]);
            let mut patience = PATIENCE;
            while system.send(vm, &packet[..length]).0 != 0 && patience > 0 {
                self.drain(system, vm);
                system.wait(vm);
                patience -= 1;
            }
        }
        self.drain(system, vm);
        let mut patience = PATIENCE;
        while self.inboxes[vm as usize].len() < due && patience > 0 {
            system.wait(vm);
            self.drain(system, vm);
            patience -= 1;
        }
        Vm::ALL.into_iter().for_each(|vm| self.drain(system, vm));
    }

    fn drain<S: System>(&mut self, system: &mut S, vm: Vm) {
        while self.inboxes[vm as usize].take(|into| system.receive(vm, into)) {}
    }

    /// Whether everybody received what is expected, in that order.
    fn agrees<S: System>(
        &self,
        system: &S,
        exchange: &Exchange,
        expected: &Expected,
        request: &str,
        arrival: &str,
    ) -> bool {
        Vm::ALL.into_iter().all(|vm| {
            let mut news = expected.news_for(vm);
            let asked = vm == exchange.vm;
            let mut place = Place { index: 0, next: self.sequences[vm as usize], sequence: 0 };
            let inbox = &self.inboxes[vm as usize];
            let address = |theirs| system.address(vm, theirs);
            let mut matches = |digits: &str| self.packet(inbox, &mut place, digits, &address);
            let reply = |matches: &mut dyn FnMut(&str) -> bool| match expected.reply {
                Reply::Packets(packets) => words(packets).all(matches),
                Reply::Error(error) => {
                    let mut digits = Text::new();
                    write_error(&mut digits, request, error);
                    matches(digits.as_str())
                }
            };
            let fits = if asked && arrival.starts_with('r') {
                reply(&mut matches) && news.all(matches)
            } else {
                news.all(&mut matches) && (!asked || reply(&mut matches))
            };
            fits && place.index == inbox.len()
        })
    }

    /// Whether the packet at `place` is the captured one, with our handles and numbers.
    fn packet(
        &self,
        inbox: &Inbox,
        place: &mut Place,
        digits: &str,
        address: &dyn Fn(u64) -> u64,
    ) -> bool {
        let mut expected = [0; PACKET];
        let length = hex::bytes(digits, &mut expected);
        let expected = &mut expected[..length];
        let Some(actual) = inbox.get(place.index) else { return false };
        if is_notification(expected) {
            (place.sequence, place.next) = (place.next, place.next + 1);
        }
        self.handles.rewrite_answer(expected, actual, place.sequence);
        rewrite_ranges(expected, address);
        place.index += 1;
        expected == actual
    }

    fn learn(&mut self, vm: Vm, reply: &str) {
        let replies = self.inboxes[vm as usize].iter().filter(|packet| !in_news(packet));
        for (digits, actual) in words(reply).zip(replies) {
            let mut captured = [0; PACKET];
            let length = hex::bytes(digits, &mut captured);
            self.handles.learn(&captured[..length], actual);
        }
    }

    fn report_messages<S: System>(
        &self,
        system: &mut S,
        exchange: &Exchange,
        verdict: Verdict,
        line: Option<Line>,
    ) {
        if verdict != Verdict::Failed {
            return;
        }
        let What::Message { reply, news, .. } = exchange.what else { return };
        system.report(exchange, format_args!("captured reply {reply}, news {news}"));
        for vm in Vm::ALL {
            for packet in self.inboxes[vm as usize].iter() {
                system.report(exchange, format_args!("{} got {}", vm.name(), Hex(packet)));
            }
        }
        report_line(system, exchange, line);
    }

    /// Makes up for an answer that the original gave otherwise: packets that are sent besides.
    fn keep_in_step<S: System>(&mut self, system: &mut S, more: &str) {
        for (vm, packet) in words(more).filter_map(|word| word.split_once(':')) {
            if let Some(vm) = Vm::named(vm) {
                self.inboxes.iter_mut().for_each(Inbox::clear);
                self.converse(system, vm, packet, 1);
            }
        }
    }

    fn hypercall<S: System>(
        &mut self,
        system: &mut S,
        exchange: &Exchange,
        line: Option<Line>,
    ) -> Verdict {
        let What::Hypercall { instruction, regs_in, regs_out, changed } = exchange.what else {
            return Verdict::Failed;
        };
        let before = registers::filled(registers::values(regs_in));
        let made = batch::make(system, &self.boot, exchange.vm, instruction, &before);
        let Some((call, after)) = made else { return Verdict::NotHere };
        let given = |list: &'static str| {
            registers::values(list)
                .zip(after)
                .enumerate()
                .all(|(index, (theirs, ours))| theirs == ours || !call.defines(index))
        };
        let kept =
            |index: usize| before[index] == after[index] || registers::was_changed(changed, index);
        // Of X18 and up only the kept ones were captured.
        let rest = (CAPTURED..COUNT).all(|index| before[index] == after[index]);
        let same = given(regs_out) && (0..CAPTURED).all(kept) && rest;
        let ours = line.and_then(|line| line.value("out")).is_some_and(|list| given(list) && rest);
        let verdict = judge(line, same, ours);
        if verdict == Verdict::Failed {
            system.report(exchange, format_args!("captured {regs_out}, changed {changed}"));
            system.report(exchange, format_args!("we say {after:x?}"));
            report_line(system, exchange, line);
        }
        verdict
    }

    fn batch<S: System>(
        &mut self,
        system: &mut S,
        exchange: &Exchange,
        line: Option<Line>,
    ) -> Verdict {
        let What::Batch { commands, output } = exchange.what else { return Verdict::Failed };
        if batch::run(system, &self.boot, exchange.vm, commands, &mut self.text).is_none() {
            return Verdict::NotHere;
        }
        let printed = self.text.as_str();
        let ours = line.and_then(|line| line.value("said"));
        let ours = ours.is_some_and(|expected| batch::agrees(printed, expected));
        let verdict = judge(line, batch::agrees(printed, output), ours);
        if verdict == Verdict::Failed {
            system.report(exchange, format_args!("captured {output}"));
            system.report(exchange, format_args!("we say   {printed}"));
            report_line(system, exchange, line);
        }
        verdict
    }
}

/// A place among what a VM received.
struct Place {
    index: usize,
    /// The number of the notification there, and of the one after it.
    sequence: u16,
    next: u16,
}

impl Expected {
    /// The notifications to `vm`.
    fn news_for(&self, vm: Vm) -> impl Iterator<Item = &'static str> + use<> {
        words(self.news)
            .filter_map(|word| word.split_once(':'))
            .filter(move |(to, _)| *to == vm.name())
            .map(|(_, packet)| packet)
    }

    /// How many packets `vm` receives if it asked.
    fn packets_for(&self, vm: Vm) -> usize {
        let reply = match self.reply {
            Reply::Packets(packets) => words(packets).count(),
            Reply::Error(_) => 1,
        };
        reply + self.news_for(vm).count()
    }
}

/// A difference needs a line, and a line a difference.
fn judge(line: Option<Line>, same: bool, ours: bool) -> Verdict {
    match line {
        None if same => Verdict::Same,
        Some(line) if ours && !same => Verdict::Differs(line),
        _ => Verdict::Failed,
    }
}

fn report_line<S: System>(system: &mut S, exchange: &Exchange, line: Option<Line>) {
    match line {
        Some(line) => system.report(exchange, format_args!("the table says {}", line.ours)),
        None => system.report(exchange, format_args!("the table says nothing")),
    }
}

/// The parts of a list.
fn words(list: &str) -> impl Iterator<Item = &str> {
    list.split(' ').filter(|word| !word.is_empty())
}

/// Whether a packet is part of a notification.
fn in_news(packet: &[u8]) -> bool {
    Header::decode(packet).is_some_and(|header| is_news(&header))
}

/// Rewrites the addresses in the reply to an accept that named none.
fn rewrite_ranges(packet: &mut [u8], address: impl Fn(u64) -> u64) {
    let Some(header) = Header::decode(packet) else { return };
    if header.message != message::MEM_ACCEPT || header.kind != Kind::Reply {
        return;
    }
    let Some(ranges) = packet.get_mut(Header::SIZE + 8..) else { return };
    let (ranges, _) = ranges.as_chunks_mut::<16>();
    for range in ranges {
        let (at, _) = range.as_chunks_mut::<8>();
        at[0] = address(u64::from_le_bytes(at[0])).to_le_bytes();
    }
}

/// The reply to a request, with nothing but an error word.
fn write_error(into: &mut Text, request: &str, error: u32) {
    use core::fmt::Write;
    let mut packet = [0; PACKET];
    let length = hex::bytes(words(request).next().unwrap_or_default(), &mut packet);
    if let Some(header) = Header::decode(&packet[..length]) {
        let _ = write!(into, "{}{}", Hex(&header.reply().encode()), Hex(&error.to_le_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_needs_a_line_and_a_line_a_difference() {
        let line = differences::lines().next();
        assert_eq!(judge(None, true, false), Verdict::Same);
        assert_eq!(judge(None, false, false), Verdict::Failed, "nothing explains it");
        assert_eq!(judge(line, false, true), line.map_or(Verdict::Failed, Verdict::Differs));
        assert_eq!(judge(line, true, false), Verdict::Failed, "the line is stale");
        assert_eq!(judge(line, false, false), Verdict::Failed, "the line says something else");
    }

    #[test]
    fn only_the_addresses_of_an_accept_are_mapped() {
        let mut reply = [0; 48];
        let length = hex::bytes(
            "2102010011000051000000000100000000100240000000000010000000000000",
            &mut reply,
        );
        let mut expected = reply;
        expected[16..24].copy_from_slice(&0x8000_0000u64.to_le_bytes());
        rewrite_ranges(&mut reply[..length], |_| 0x8000_0000);
        assert_eq!(reply, expected);
        let mut refusal = [0; 12];
        hex::bytes("210202001100005103000000", &mut refusal);
        let before = refusal;
        rewrite_ranges(&mut refusal, |_| 1);
        assert_eq!(refusal, before);
    }
}
