//! A list of fixed-size records that grows into frames of the pool.
//!
//! Most parcels have one extent and most borrowers one address, so the first few records live in the
//! list itself and a small parcel takes no frame. Longer lists chain frames through their last word;
//! they are only ever walked in order, with a [`Cursor`], because every call handles extents in
//! order, and so a step costs the same at the end of a list as at its beginning.

use crate::address::VmIndex;
use crate::frame_pool::NoFrame;
use crate::machine::{Frame, FrameIndex, FrameUse, Machine};
use crate::operation::budget::{Budget, weight};
use crate::stage2::{Memory, Stage2};

/// The word of a frame that names the next one: its index plus one, zero at the end.
const LINK: usize = 511;

/// A list of records of `W` words, the first `INLINE` of them outside the pool.
#[derive(Debug)]
pub(crate) struct Words<const W: usize, const INLINE: usize> {
    inline: [[u64; W]; INLINE],
    len: u32,
    first: Option<FrameIndex>,
    last: Option<FrameIndex>,
    /// The last frame holds no record yet.
    spare: bool,
}

/// A place in a [`Words`] list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cursor {
    index: u32,
    /// The frame that holds the record before, if that one is in a frame.
    behind: Option<FrameIndex>,
}

impl Cursor {
    /// Before the first record.
    pub(crate) const START: Self = Self { index: 0, behind: None };

    /// The number of the record that the cursor stands at.
    pub(crate) const fn index(self) -> u32 {
        self.index
    }
}

impl<const W: usize, const INLINE: usize> Words<W, INLINE> {
    const PER_FRAME: u32 = (LINK / W) as u32;

    pub(crate) const fn new() -> Self {
        Self { inline: [[0; W]; INLINE], len: 0, first: None, last: None, spare: false }
    }

    pub(crate) const fn len(&self) -> u32 {
        self.len
    }

    /// The place of record `index` in its frame; `None` while it is inline.
    fn place(index: u32) -> Option<u32> {
        index.checked_sub(INLINE as u32).map(|behind| behind % Self::PER_FRAME)
    }

    /// Makes sure that the next [`Words::push`] needs no frame. The VM of `payer` is charged for one.
    pub(crate) fn reserve<M: Machine>(
        &mut self,
        mem: Memory<'_, '_, M>,
        payer: &mut Stage2,
    ) -> Result<(), NoFrame> {
        if self.spare || Self::place(self.len) != Some(0) {
            return Ok(());
        }
        let frame = payer.take_frame(mem, FrameUse::Data)?;
        match self.last {
            Some(last) => frame_at(mem, last).write(LINK, u64::from(frame.0) + 1),
            None => self.first = Some(frame),
        }
        self.last = Some(frame);
        self.spare = true;
        Ok(())
    }

    /// Appends a record for which [`Words::reserve`] made room.
    pub(crate) fn push<M: Machine>(&mut self, mem: Memory<'_, '_, M>, record: [u64; W]) {
        match (Self::place(self.len), self.last) {
            (None, _) => self.inline[self.len as usize] = record,
            (Some(place), Some(frame)) => {
                let frame = frame_at(mem, frame);
                for (word, value) in record.into_iter().enumerate() {
                    frame.write(place as usize * W + word, value);
                }
                self.spare = false;
            }
            (Some(_), None) => panic!("G7: a record was pushed without a reservation"),
        }
        self.len += 1;
    }

    /// Whether it has no record, and no frame to return.
    pub(crate) const fn is_clear(&self) -> bool {
        self.len == 0 && self.first.is_none()
    }

    /// Puts another record in the place of the one at `cursor`.
    pub(crate) fn replace<M: Machine>(
        &mut self,
        mem: Memory<'_, '_, M>,
        cursor: Cursor,
        record: [u64; W],
    ) {
        let (_, frame) = self.find(mem, cursor).expect("G7: a record is replaced that is there");
        match (Self::place(cursor.index), frame) {
            (Some(place), Some(frame)) => {
                let words = frame_at(mem, frame);
                for (word, value) in record.into_iter().enumerate() {
                    words.write(place as usize * W + word, value);
                }
            }
            _ => self.inline[cursor.index as usize] = record,
        }
    }

    /// The first record, of a list that has one.
    pub(crate) const fn first(&self) -> [u64; W] {
        self.inline[0]
    }

    /// The record at `cursor` and the place behind it; `None` at the end.
    pub(crate) fn read<M: Machine>(
        &self,
        mem: Memory<'_, '_, M>,
        cursor: Cursor,
    ) -> Option<([u64; W], Cursor)> {
        let (record, behind) = self.find(mem, cursor)?;
        Some((record, Cursor { index: cursor.index + 1, behind }))
    }

    /// The record at `cursor`; `None` at the end.
    pub(crate) fn peek<M: Machine>(
        &self,
        mem: Memory<'_, '_, M>,
        cursor: Cursor,
    ) -> Option<[u64; W]> {
        self.find(mem, cursor).map(|(record, _)| record)
    }

    /// The record at `cursor`, which moves on; `None` at the end.
    pub(crate) fn next<M: Machine>(
        &self,
        mem: Memory<'_, '_, M>,
        cursor: &mut Cursor,
    ) -> Option<[u64; W]> {
        let (record, behind) = self.read(mem, *cursor)?;
        *cursor = behind;
        Some(record)
    }

    fn find<M: Machine>(
        &self,
        mem: Memory<'_, '_, M>,
        cursor: Cursor,
    ) -> Option<([u64; W], Option<FrameIndex>)> {
        if cursor.index >= self.len {
            return None;
        }
        let Some(place) = Self::place(cursor.index) else {
            return Some((self.inline[cursor.index as usize], None));
        };
        let frame = match cursor.behind {
            None => self.first,
            Some(behind) if place == 0 => next_of(mem, behind),
            Some(behind) => Some(behind),
        };
        let frame = frame.expect("G7: a list has a frame for each of its records");
        let words = frame_at(mem, frame);
        let record = core::array::from_fn(|word| words.read(place as usize * W + word));
        Some((record, Some(frame)))
    }

    /// The place behind the last record: where the next one will be. No frame waits for a record.
    pub(crate) fn end(&self) -> Cursor {
        assert!(!self.spare, "G7: a list at rest has no frame to spare");
        Cursor { index: self.len, behind: self.last }
    }

    /// The end of the list, to come back to with [`Words::rewind`].
    pub(crate) const fn mark(&self) -> Mark {
        Mark { len: self.len, last: self.last, spare: self.spare }
    }

    /// Drops what was appended since `mark`, one frame for each unit of work. `true` at the end.
    pub(crate) fn rewind<M: Machine>(
        &mut self,
        mem: Memory<'_, '_, M>,
        payer: VmIndex,
        mark: Mark,
        budget: &mut Budget,
    ) -> bool {
        self.len = mark.len;
        loop {
            let surplus = match mark.last {
                Some(last) => next_of(mem, last),
                None => self.first,
            };
            let Some(frame) = surplus else { break };
            if !budget.spend(weight::TABLE) {
                return false;
            }
            let behind = frame_at(mem, frame).read(LINK);
            match mark.last {
                Some(last) => frame_at(mem, last).write(LINK, behind),
                None => self.first = next_of(mem, frame),
            }
            erase(mem, frame);
            mem.pool.put(mem.machine, payer, frame);
        }
        (self.last, self.spare) = (mark.last, mark.spare);
        true
    }

    /// Empties a list that has no frame, and says how long it was.
    pub(crate) fn forget(&mut self) -> u32 {
        assert!(self.first.is_none(), "G8: a list was forgotten with its frames");
        core::mem::take(&mut self.len)
    }

    /// Empties the list, one frame for each unit of work. `true` at the end.
    pub(crate) fn clear<M: Machine>(
        &mut self,
        mem: Memory<'_, '_, M>,
        payer: VmIndex,
        budget: &mut Budget,
    ) -> bool {
        self.rewind(mem, payer, Mark::EMPTY, budget)
    }
}

/// A length that a list had.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    len: u32,
    last: Option<FrameIndex>,
    spare: bool,
}

impl Mark {
    /// No record, no frame.
    pub(crate) const EMPTY: Self = Self { len: 0, last: None, spare: false };

    /// How many records the list had.
    pub(crate) const fn len(self) -> u32 {
        self.len
    }
}

/// Fills a data frame with zeros, as the pool wants it back.
pub(crate) fn erase<M: Machine>(mem: Memory<'_, '_, M>, frame: FrameIndex) {
    let words = frame_at(mem, frame);
    (0..512).for_each(|word| words.write(word, 0));
}

fn next_of<M: Machine>(mem: Memory<'_, '_, M>, frame: FrameIndex) -> Option<FrameIndex> {
    // The link was written from a 32-bit index plus one.
    frame_at(mem, frame).read(LINK).checked_sub(1).map(|index| FrameIndex(index as u32))
}

fn frame_at<'a, M: Machine>(mem: Memory<'a, '_, M>, frame: FrameIndex) -> &'a Frame {
    &mem.machine.frames()[frame.0 as usize]
}
