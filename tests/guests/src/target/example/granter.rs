//! A VM that grants pages, and hears when its peer has let them go: whether it wanted to or not.

use rm_client::hvc::Hvc;
use rm_client::{
    ErrorCode, Handle, NewParcel, Rights, Sanitize, Session, WindowFlags, grant, pages,
};

use super::grantee::{ALIVE, ALIVE_AT, FLAG, GRANTS, ROUNDS};
use super::{OWNER, PARTNER};
use crate::channel::Channel;
use crate::demo::{granted, refused};
use crate::doorbells::{BELL, read, sleep_until_rung};
use crate::layout::{LINK_AB, PAGE, PAGES};
use crate::{cpu, gic, life, memory};

/// The page that is granted to be read, and the one of which only some bytes are.
pub(crate) const READABLE: u64 = GRANTS;
pub(crate) const WINDOWED: u64 = GRANTS + 1;
/// What is to be read.
pub(crate) const TEXT: u64 = 0xc;
/// Those bytes.
pub(crate) const WINDOW_AT: (u64, u64) = (100, 100);

/// The program.
pub fn main() {
    gic::enable();
    gic::unmask(BELL);
    cpu::unmask_interrupts();
    let (mut session, peer) = (life::session(), Channel::owner(LINK_AB));
    memory::fill(PAGES, GRANTS, 0xa);
    memory::fill(PAGES + READABLE * PAGE, 1, TEXT);
    let handles: [Handle; GRANTS as usize] =
        core::array::from_fn(|n| give(&mut session, n as u64, Rights::RW));
    handles.iter().for_each(|&handle| peer.say_handle(handle));
    println!("I have granted {GRANTS} pages to my peer; each is a parcel of its own");

    for round in 0..ROUNDS {
        memory::write(PAGES + PAGE + ALIVE_AT, ALIVE);
        peer.say(round);
        peer.expect(round);
        assert!(memory::read(PAGES + PAGE + ALIVE_AT) == ALIVE, "nothing has ended yet");
        peer.say(round);
        match round {
            0 => {
                sleep_until_rung(1);
                println!("my doorbell rings, and the byte is zero: my peer has unmapped the page");
            }
            1 => {
                granted("revoking", session.revoke(handles[1]));
                // Not a moment later: the call has answered.
                assert!(memory::read(PAGES + PAGE + ALIVE_AT) == ALIVE & !0xff);
                granted("reclaiming", session.reclaim(handles[1], Sanitize::empty()));
                sleep_until_rung(2);
                println!("I have revoked it: the byte is zero, and the doorbell has rung");
                peer.say_handle(give(&mut session, 1, Rights::RW));
                copies(&mut session, &peer);
            }
            _ => {
                sleep_until_rung(3);
                println!("my peer has died; it had no time to clear the byte, and it is zero");
            }
        }
        assert!(memory::read(PAGES + PAGE + ALIVE_AT) == ALIVE & !0xff, "one byte, and no other");
        assert!(read() == 1 << FLAG, "one flag, once");
    }
}

/// Grants a page of this VM's.
fn give(session: &mut Session<Hvc>, page: u64, rights: Rights) -> Handle {
    let acl = [grant(OWNER, Rights::RWX), grant(PARTNER, rights)];
    let range = [pages(PAGES + page * PAGE, 1)];
    granted("granting", session.share(&NewParcel::new(&range, &acl)))
}

/// What the peer copies without mapping it.
fn copies(session: &mut Session<Hvc>, peer: &Channel) {
    let readable = give(session, READABLE, Rights::R);
    let acl = [grant(OWNER, Rights::RWX), grant(PARTNER, Rights::RW)];
    let range = [pages(PAGES + WINDOWED * PAGE, 1)];
    let parcel = NewParcel::new(&range, &acl).unfinished();
    let windowed = granted("beginning a parcel", session.share(&parcel));
    let window = session.set_window(windowed, PARTNER, WINDOW_AT, WindowFlags::END);
    granted("giving a window", window);
    peer.say_handle(readable);
    peer.say_handle(windowed);
    peer.expect(0);
    memory::check(PAGES + READABLE * PAGE, 1, TEXT);
    println!("my peer has copied what I let it copy, and mapped nothing");
    for handle in [readable, windowed] {
        granted("reclaiming", session.reclaim(handle, Sanitize::empty()));
    }
    let gone = session.reclaim(readable, Sanitize::empty());
    refused("reclaiming it twice", gone, ErrorCode::HandleInvalid);
}
