//! Words from one VM to another, over a page that both have.
//!
//! Each direction holds one word at a time: how many were sent, the last one, how many were heard.
//! Only plain loads and stores, so it works whatever memory type either side maps the page with.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::layout::Link;
use crate::{cpu, gic, timer};

/// One direction, on a cache line of its own.
#[repr(C, align(64))]
struct Direction {
    sent: AtomicU64,
    word: AtomicU64,
    heard: AtomicU64,
}

/// One end of a link.
#[derive(Clone, Copy)]
pub struct Channel {
    out: &'static Direction,
    into: &'static Direction,
    /// Ticks to sleep between two looks; 0 is to look all the time.
    nap: u64,
}

/// Seconds after which a silent peer counts as dead.
const PATIENCE: u64 = 60;

impl Channel {
    /// The end of the VM that owns the page.
    pub fn owner(link: Link) -> Self {
        let [out, into] = directions(link.owner);
        Self { out, into, nap: 0 }
    }

    /// The end of the other VM.
    pub fn peer(link: Link) -> Self {
        let [into, out] = directions(link.peer);
        Self { out, into, nap: 0 }
    }

    /// Sleeps for `ticks` between two looks at the page, so that a waiting VM leaves the CPU to its peer.
    /// The virtual timer is the channel's then.
    #[must_use]
    pub fn with_naps(self, ticks: u64) -> Self {
        gic::enable();
        gic::unmask(timer::INTERRUPT);
        Self { nap: ticks, ..self }
    }

    /// Sends a word, when the last one has been heard.
    pub fn say(&self, word: u64) {
        let sent = self.out.sent.load(Ordering::Relaxed);
        self.wait(|| self.out.heard.load(Ordering::Acquire) == sent);
        self.out.word.store(word, Ordering::Relaxed);
        self.out.sent.store(sent + 1, Ordering::Release);
    }

    /// Whether a word has come.
    pub fn has_word(&self) -> bool {
        self.into.sent.load(Ordering::Acquire) != self.into.heard.load(Ordering::Relaxed)
    }

    /// The next word.
    pub fn hear(&self) -> u64 {
        self.wait(|| self.has_word());
        let heard = self.into.heard.load(Ordering::Relaxed);
        let word = self.into.word.load(Ordering::Relaxed);
        self.into.heard.store(heard + 1, Ordering::Release);
        word
    }

    /// Waits for a given word: both sides are then at the same place of their stories.
    pub fn expect(&self, word: u64) {
        let heard = self.hear();
        assert!(heard == word, "the peer says {heard:#x}, not {word:#x}");
    }

    fn wait(&self, until: impl Fn() -> bool) {
        let start = cpu::now();
        while !until() {
            self.rest();
            assert!(!cpu::passed(start, PATIENCE * cpu::frequency()), "the peer is silent");
        }
    }

    fn rest(&self) {
        if self.nap == 0 {
            cpu::relax();
        } else {
            // The interrupt stays masked in the CPU: it only wakes.
            timer::after(self.nap);
            cpu::wait_for_interrupt();
            timer::stop();
        }
    }
}

fn directions(page: u64) -> &'static [Direction; 2] {
    let page = page as *const [Direction; 2];
    // SAFETY: the boot configuration shares this page, zeroed and for nothing else, for as long as
    // either VM lives, and atomics may be shared.
    unsafe { &*page }
}
