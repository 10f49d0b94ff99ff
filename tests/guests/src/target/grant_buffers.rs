//! A VM whose buffer becomes grants, and a VM that makes a buffer of them: who waits for whose end.

use rm_client::front::Errno;
use rm_client::front::gntdev::{
    DMA_COHERENT, DMA_WC, Done, EXP_FROM_REFS, EXP_WAIT_RELEASED, ExportFromRefs,
    ExportWaitReleased, IMP_RELEASE, IMP_TO_REFS, ImportRelease, ImportToRefs, SET_MAX_GRANTS,
    SetMaxGrants,
};
use rm_client::hvc::{Hvc, HvcQueues, Native};
use rm_client::{Events, Handle, Notice, ParcelEvent, Poll, Queues, Session};
use zerocopy::IntoBytes;

use crate::channel::Channel;
use crate::demo::granted;
use crate::gntdev::{FD, Open, done};
use crate::layout::{LINK_AB, PAGE, PAGES, VMID_A, VMID_B, WINDOW};
use crate::{cpu, life, memory, timer};

/// Pages of the buffer.
const COUNT: u32 = 4;
/// What its owner writes there, and what its user does.
const BEFORE: u64 = 0xb;
const AFTER: u64 = 0xc;
/// How long a program waits in vain.
const WAIT_MS: u32 = 3;

/// The VM that has the buffer.
pub fn owner() {
    let session = Session::new(Queues::new(Native, Poll));
    let (mut open, peer) = (Open::<HvcQueues<Poll>>::new(session), Channel::owner(LINK_AB));
    granted("asking to hear of releases", open.session.subscribe(Events::RELEASED));
    memory::fill(PAGES, COUNT.into(), BEFORE);
    open.task.buffer = Some((PAGES, COUNT));
    let head = ImportToRefs { fd: FD, count: COUNT, domid: VMID_B.into(), reserved: 0 };
    let refs = [0u32; COUNT as usize];
    done("granting a buffer", open.ioctl(IMP_TO_REFS, &[head.as_bytes(), refs.as_bytes()]));
    let refs: [u32; COUNT as usize] = open.task.answer(size_of::<ImportToRefs>());
    refs.iter().for_each(|&handle| peer.say_handle(Handle(handle)));
    println!("my buffer of {COUNT} pages is {COUNT} grants");

    peer.expect(0);
    let end = ImportRelease { fd: FD, reserved: 0 };
    done("ending the grants", open.ioctl(IMP_RELEASE, &[end.as_bytes()]));
    assert!(open.ioctl(IMP_RELEASE, &[end.as_bytes()]) == Err(Errno::ENOENT), "once");
    assert!(pages().all(|page| open.device.is_ending(page)), "my peer has them all");
    println!("I have ended the grants, and waited for nobody; my peer has every page still");
    peer.say(0);

    let mut left = COUNT;
    while left > 0 {
        let notice = granted("asking for news", open.session.poll_notice());
        let Some(Notice::Event(ParcelEvent { handle, .. })) = notice else {
            cpu::relax();
            continue;
        };
        let home = done("taking a page back", open.device.released(&mut open.session, handle));
        if let Some(page) = home {
            assert!(pages().any(|one| one == page));
            left -= 1;
        }
    }
    assert!(!pages().any(|page| open.device.is_ending(page)));
    memory::check(PAGES, COUNT.into(), AFTER);
    println!("each page came home as soon as my peer had released it, with what it wrote");
    peer.say(1);
}

fn pages() -> impl Iterator<Item = u64> {
    (0..COUNT).map(|page| PAGES + u64::from(page) * PAGE)
}

/// The VM that uses it.
pub fn user() {
    let (mut open, peer) = (Open::new(life::session()), Channel::peer(LINK_AB));
    let handles: [Handle; COUNT as usize] = core::array::from_fn(|_| peer.hear_handle());
    limits(&mut open, &handles);

    assert!(export(&mut open, DMA_WC, &handles) == Err(Errno::EINVAL), "they are cached");
    let fd = done("making a buffer", export(&mut open, DMA_COHERENT, &handles));
    memory::check(WINDOW, COUNT.into(), BEFORE);
    memory::fill(WINDOW, COUNT.into(), AFTER);
    println!("{COUNT} grants are one buffer");
    peer.say(0);
    peer.expect(0);
    memory::check(WINDOW, COUNT.into(), AFTER);

    let arg = ExportWaitReleased { fd, wait_to_ms: WAIT_MS };
    let Ok(Done::Wait(waiting)) = open.ask(EXP_WAIT_RELEASED, &[arg.as_bytes()]) else {
        panic!("the buffer is there")
    };
    let begin = cpu::now();
    let waited = || ((cpu::now() - begin) / timer::microseconds(1000)) as u32;
    let outcome = loop {
        match open.device.poll_released(waiting, waited()) {
            Some(outcome) => break outcome,
            None => cpu::relax(),
        }
    };
    assert!(outcome == Err(Errno::ETIMEDOUT) && waited() >= WAIT_MS);
    println!("I waited {WAIT_MS} ms for the buffer to be closed, in vain");
    let closed = open.device.close_buffer(&mut open.session, &mut open.task, fd);
    done("closing the buffer", closed);
    assert!(open.device.poll_released(waiting, 0) == Some(Ok(())));
    assert!(open.ask(EXP_WAIT_RELEASED, &[arg.as_bytes()]) == Err(Errno::ENOENT));
    println!("it is closed, and who waits for that is told");
    peer.expect(1);
    assert!(open.map(&handles) == Err(Errno::EINVAL), "the grants are over");
}

/// What a context may have: set before all else, and no more than the VM may have.
fn limits(open: &mut Open<Hvc>, handles: &[Handle]) {
    let mut most = |count| open.ioctl(SET_MAX_GRANTS, &[SetMaxGrants { count }.as_bytes()]);
    assert!(most(u32::MAX) == Err(Errno::E2BIG));
    done("setting a limit", most(COUNT));
    let too_many: [Handle; COUNT as usize + 1] =
        core::array::from_fn(|n| handles[n % handles.len()]);
    assert!(open.reserve(&too_many) == Err(Errno::ENOSPC));
    let index = done("reserving", open.reserve(handles));
    let late = open.ioctl(SET_MAX_GRANTS, &[SetMaxGrants { count: COUNT + 1 }.as_bytes()]);
    assert!(late == Err(Errno::EBUSY), "not the first call");
    done("giving the index back", open.unreserve(index, COUNT));
    println!("no more grants than my limit, which is set first and is no more than the VM's");
}

fn export(open: &mut Open<Hvc>, flags: u32, handles: &[Handle]) -> Result<u32, Errno> {
    let mut refs = [0; COUNT as usize];
    refs.iter_mut().zip(handles).for_each(|(place, handle)| *place = handle.0);
    let head = ExportFromRefs { flags, count: COUNT, fd: 0, domid: VMID_A.into() };
    open.ioctl(EXP_FROM_REFS, &[head.as_bytes(), refs.as_bytes()])?;
    Ok(open.task.answer::<ExportFromRefs>(0).fd)
}
