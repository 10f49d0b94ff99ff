//! The original's handles and ours.
//!
//! The original counts from 0, and a failed creation uses up a number; ours have a generation. So
//! each handle that both gave for the same request is noted, and requests, replies and notifications
//! of the original are rewritten before they are sent or compared.

use rm_abi::{Header, Kind, message};

/// More handles than any boot gave.
const ROOM: usize = 256;
/// A handle that neither side ever gives.
const NEVER: u32 = 0xffff_fffe;
/// The handle that is always invalid.
const INVALID: u32 = u32::MAX;
/// Where the handle stands in a request or notification that begins with one.
const FIRST: usize = Header::SIZE;
/// Where a reply has its first word of data.
const DATA: usize = Header::SIZE + 4;

/// The handles of one boot.
#[derive(Clone, Debug)]
pub struct Handles {
    ours: [Option<u32>; ROOM],
}

impl Handles {
    /// None given yet.
    pub const fn new() -> Self {
        Self { ours: [None; ROOM] }
    }

    /// Our name for the original's handle; one that was never given stays so.
    pub fn ours(&self, theirs: u32) -> u32 {
        match self.ours.get(theirs as usize) {
            Some(Some(ours)) => *ours,
            _ if theirs == INVALID => INVALID,
            _ => NEVER,
        }
    }

    /// All of ours.
    pub fn given(&self) -> impl Iterator<Item = u32> {
        self.ours.iter().filter_map(|ours| *ours)
    }

    /// Rewrites the first packet of a request.
    pub fn rewrite_request(&self, packet: &mut [u8]) {
        let names_a_handle = |header: &Header| {
            matches!(
                header.message,
                message::MEM_APPEND
                    | message::MEM_ACCEPT
                    | message::MEM_RELEASE
                    | message::MEM_RECLAIM
                    | message::MEM_NOTIFY
            ) && header.kind == Kind::Request
        };
        if header_of(packet).is_some_and(|header| names_a_handle(&header)) {
            self.rewrite(packet, FIRST);
        }
    }

    /// Rewrites a captured answer, and the number of a notification, which is `sequence` of ours. A
    /// reply that gives a new handle takes it from `actual`.
    pub fn rewrite_answer(&self, packet: &mut [u8], actual: &[u8], sequence: u16) {
        let Some(header) = header_of(packet) else { return };
        if is_news(&header) {
            packet[2..4].copy_from_slice(&sequence.to_le_bytes());
            if header.kind == Kind::Notification {
                self.rewrite(packet, FIRST);
            }
        }
        if let Some(theirs) = given(packet) {
            match (self.ours.get(theirs as usize), given(actual)) {
                (Some(None), Some(ours)) => self.check_new(ours, packet),
                _ => self.rewrite(packet, DATA),
            }
        }
    }

    /// Notes what both sides gave.
    pub fn learn(&mut self, captured: &[u8], actual: &[u8]) {
        if let (Some(theirs), Some(ours)) = (given(captured), given(actual))
            && self.ours[theirs as usize].is_none()
        {
            self.ours[theirs as usize] = Some(ours);
        }
    }

    /// A new handle is not one that was given before, nor one that never is.
    fn check_new(&self, ours: u32, packet: &mut [u8]) {
        let new = ours != 0 && ours != INVALID && !self.ours.contains(&Some(ours));
        if new {
            packet[DATA..DATA + 4].copy_from_slice(&ours.to_le_bytes());
        }
    }

    fn rewrite(&self, packet: &mut [u8], at: usize) {
        if let Some(word) = word_at(packet, at) {
            packet[at..at + 4].copy_from_slice(&self.ours(word).to_le_bytes());
        }
    }
}

impl Default for Handles {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether a packet is part of a notification: one, or the continuation of one.
pub fn is_news(header: &Header) -> bool {
    match header.kind {
        Kind::Notification => true,
        Kind::Continuation => header.message >> 20 & 0xf == 1,
        Kind::Request | Kind::Reply => false,
    }
}

fn header_of(packet: &[u8]) -> Option<Header> {
    Header::decode(packet)
}

fn word_at(packet: &[u8], at: usize) -> Option<u32> {
    packet.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

/// The handle that a reply gives.
fn given(packet: &[u8]) -> Option<u32> {
    let header = header_of(packet)?;
    let gives = matches!(
        header.message,
        message::MEM_DONATE | message::MEM_LEND | message::MEM_SHARE | message::MEM_LOOKUP
    );
    (gives && header.kind == Kind::Reply && word_at(packet, FIRST) == Some(0))
        .then(|| word_at(packet, DATA))?
}
