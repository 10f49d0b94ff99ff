//! A secondary: it does what it is told.

use super::deed::{Deed, Room, act};
use crate::channel::Channel;
use crate::cpu;
use crate::layout::Link;

/// Serves until told to end. It sleeps meanwhile, since two secondaries share a CPU.
pub(super) fn serve(link: Link) {
    let channel = Channel::peer(link).with_naps(cpu::frequency() / 20_000);
    let room = Room::in_page(link.peer);
    loop {
        let deed = Deed::of(channel.hear());
        act(deed, room);
        channel.say(deed as u64);
        if deed == Deed::End {
            return;
        }
    }
}
