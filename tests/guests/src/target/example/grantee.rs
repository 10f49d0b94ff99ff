//! A VM that maps grants as gntdev has it, has something done for the moment when it no longer does, copies
//! without mapping, and dies with a page mapped.

use rm_client::Handle;
use rm_client::front::Errno;
use rm_client::front::gntdev::{
    COPY_DEST_GRANT, COPY_SOURCE_GRANT, CopySegment, CopySide, GRANT_COPY, GrantCopy, GrantPlace,
    NOTIFY_CLEAR_BYTE, NOTIFY_SEND_EVENT, SET_UNMAP_NOTIFY, UnmapNotify,
};
use rm_client::hvc::Hvc;
use rm_client::{Acceptance, ErrorCode, Transfer, pages};
use zerocopy::IntoBytes;

use super::granter::{READABLE, TEXT, WINDOW_AT, WINDOWED};
use crate::channel::Channel;
use crate::demo::refused;
use crate::gntdev::{ARG, Open, done};
use crate::layout::{LINK_AB, PAGE, PAGES, VMID_A, WINDOW};
use crate::{life, memory, probe};

/// Pages of the window.
pub(crate) const GRANTS: u64 = 3;
/// Times that it is mapped: it ends by an unmap, by the owner, and with this VM.
pub(crate) const ROUNDS: u64 = 3;
/// A word of the second page, and where it is. Its lowest byte says that this VM has it.
pub(crate) const ALIVE: u64 = 0x0102_0304_0506_0708;
pub(crate) const ALIVE_AT: u64 = 0x7f8;
/// The flag of the granter's doorbell.
pub(crate) const FLAG: u32 = 5;

/// Copies segments one after the other; the status of each.
fn copy<const N: usize>(
    open: &mut Open<Hvc>,
    segments: [CopySegment; N],
) -> Result<[i16; N], Errno> {
    let head = GrantCopy { count: N as u32, pad: 0, segments: ARG + 16 };
    open.ioctl(GRANT_COPY, &[head.as_bytes(), segments.as_bytes()])?;
    let segment = |n| open.task.answer::<CopySegment>(16 + n * size_of::<CopySegment>());
    Ok(core::array::from_fn(|n| segment(n).status))
}

/// The program.
pub fn main() {
    let peer = Channel::peer(LINK_AB);
    let mut open = Open::new(life::session());
    let mut handles: [Handle; GRANTS as usize] = core::array::from_fn(|_| peer.hear_handle());
    let mut wrong = handles;
    wrong[2] = Handle(wrong[2].0 ^ 1 << 20);
    assert!(open.map(&wrong) == Err(Errno::EINVAL));
    (0..GRANTS).for_each(|page| probe::expect_no_access(WINDOW + page * PAGE));
    println!("a window with one grant that is none: nothing of it was mapped");

    for round in 0..ROUNDS {
        peer.expect(round);
        let index = done("mapping", open.map(&handles));
        assert!(memory::read(WINDOW + PAGE + ALIVE_AT) == ALIVE);
        let arg = UnmapNotify {
            index: index + PAGE + ALIVE_AT,
            action: NOTIFY_CLEAR_BYTE | NOTIFY_SEND_EVENT,
            event_channel_port: FLAG,
        };
        done("asking for a notification", open.ioctl(SET_UNMAP_NOTIFY, &[arg.as_bytes()]));
        println!(
            "{GRANTS} grants are one window; when I lose the second page, a byte of it is cleared"
        );
        peer.say(round);
        peer.expect(round);
        if round == 0 {
            assert!(open.unreserve(index, 0) == Err(Errno::EBUSY), "it is mapped");
            done("unmapping", open.device.unmap(&mut open.session, WINDOW));
            println!("I have unmapped the window");
        } else if round == 1 {
            while probe::write(WINDOW + PAGE, ALIVE).is_ok() {}
            println!("the second page was taken from me; its neighbours are still mine");
            memory::write(WINDOW, 1);
            memory::write(WINDOW + 2 * PAGE, 1);
            done("unmapping", open.device.unmap(&mut open.session, WINDOW));
            handles[1] = peer.hear_handle();
            copies(&mut open, &peer);
        } else {
            println!("I end, and have not unmapped anything");
            return;
        }
        done("giving the index back", open.unreserve(index, 0));
    }
}

/// What the peer lets this VM copy, and what it does not.
fn copies(open: &mut Open<Hvc>, peer: &Channel) {
    let (readable, windowed) = (peer.hear_handle(), peer.hear_handle());
    let own = PAGES + READABLE * PAGE;
    let of = |handle: Handle, offset: u64| {
        let (grant, offset) = (handle.0, offset as u16);
        CopySide::of_grant(GrantPlace { grant, offset, domid: VMID_A })
    };
    let segment = |source, dest, len: u64, flags| {
        let len = len as u16;
        CopySegment { source, dest, len, flags, status: 1, pad: 0 }
    };
    let (first, size) = WINDOW_AT;
    let statuses = done(
        "copying",
        copy(
            open,
            [
                segment(of(readable, 0), CopySide(own), PAGE, COPY_SOURCE_GRANT),
                segment(CopySide(own), of(readable, 0), 8, COPY_DEST_GRANT),
                segment(of(windowed, first), CopySide(own + PAGE), size, COPY_SOURCE_GRANT),
                segment(of(windowed, first - 1), CopySide(own + PAGE), size, COPY_SOURCE_GRANT),
                segment(of(windowed, first), CopySide(own + PAGE), size + 1, COPY_SOURCE_GRANT),
                segment(CopySide(own), of(windowed, first), size, COPY_DEST_GRANT),
            ],
        ),
    );
    println!("six copies without a mapping, each with a status of its own: {statuses:?}");
    assert!(statuses == [0, -8, 0, -10, -10, 0]);
    memory::check(own, 1, TEXT);
    probe::expect_no_access(WINDOW);
    let wanted = Acceptance::new(windowed, Transfer::Share);
    let mapped = open.session.accept_at(&wanted, &[pages(WINDOW + WINDOWED * PAGE, 1)]);
    refused("mapping a page of which I may copy some bytes", mapped, ErrorCode::Denied);
    peer.say(0);
}
