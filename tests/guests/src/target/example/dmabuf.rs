//! Buffers as dma-buf has them: with names, a cache policy, brackets around a CPU's use, a list and a count
//! of references; and a device, which no machine here could keep to a buffer.
//!
//! The buffers are shares with nobody but the VM itself, which is how a VM gives memory to its own device.

use rm_client::front::Errno;
use rm_client::front::dmabuf::{
    self, Buffer, INFO_VM_PROT, Info, SYNC_END, SYNC_READ, SYNC_START, SYNC_WRITE, Sync,
    VM_PROT_CACHED,
};
use rm_client::hvc::Hvc;
use rm_client::{
    AttachFlags, Attribute, AttributeEntry, Counter, Error, ErrorCode, ListFlags, NewParcel,
    Rights, Rule, Session, Stream, Vmid, grant, pages,
};

use super::OWNER;
use crate::demo::{granted, refused};
use crate::layout::{PAGE, PAGES};
use crate::{life, memory};

/// The buffers: name as a program gives it, pages, and whether they are cached.
const CAMERA: (&[u8], u64, bool) = (b"camera frames\0", 4, true);
const SCREEN: (&[u8], u64, bool) = (b"screen\0", 2, false);
/// A device that this VM might have.
const DEVICE: Stream = Stream(0x10);

/// What an ioctl came to.
#[track_caller]
fn served<T>(what: &str, outcome: Result<T, Errno>) -> T {
    outcome.unwrap_or_else(|errno| panic!("{what} failed: {errno}"))
}

/// Makes a buffer and names it.
fn export(
    session: &mut Session<Hvc>,
    at: u64,
    (name, count, cached): (&[u8], u64, bool),
) -> Buffer {
    let (ranges, acl) = ([pages(at, count)], [grant(OWNER, Rights::RW)]);
    let uncached = [AttributeEntry { attribute: Attribute::Uncached as u16, vmid: OWNER }];
    let attributes = if cached { &[][..] } else { &uncached };
    let new = NewParcel::new(&ranges, &acl).attributes(attributes);
    let parcel = granted("sharing", session.share(&new));
    served("SET_NAME", dmabuf::set_name(session, parcel, name));
    Buffer::exported(parcel, ranges[0], Rights::RW)
}

/// How many pages the manager has cleaned for this VM.
fn cleaned(session: &mut Session<Hvc>) -> u64 {
    let counters = granted("asking for my counters", session.counters(Vmid(0)));
    counters.of(Counter::PagesCleaned).expect("every manager of this version counts them")
}

/// Writes into a buffer between the brackets, and says what they cost.
fn write(session: &mut Session<Hvc>, buffer: &Buffer) -> u64 {
    let before = cleaned(session);
    let sync = |flags| Sync { flags: SYNC_READ | SYNC_WRITE | flags };
    served("SYNC", dmabuf::sync(session, sync(SYNC_START), buffer.parcel()));
    let place = served("mmap", buffer.map(0, buffer.size(), true, Rights::RW));
    memory::fill(place.ipa, place.size / PAGE, 0xd);
    served("SYNC", dmabuf::sync(session, sync(SYNC_END), buffer.parcel()));
    cleaned(session) - before
}

/// The program.
pub fn main() {
    let mut session = life::session();
    let mut buffers =
        [export(&mut session, PAGES, CAMERA), export(&mut session, PAGES + 8 * PAGE, SCREEN)];
    granted(
        "listing",
        session.list_parcels(ListFlags::empty(), |entry| {
            let name = entry.name.as_str().expect("the manager takes no other names");
            println!(
                "my buffer \"{name}\" has {} pages and {} holders",
                entry.pages, entry.holders
            );
        }),
    );

    for (buffer, (name, count, is_cached)) in buffers.iter().zip([CAMERA, SCREEN]) {
        let question = Info { param: INFO_VM_PROT, pad: 0, value: 0 };
        let info = served("INFO", dmabuf::info(&mut session, question, buffer.parcel()));
        assert!((info.value == VM_PROT_CACHED) == is_cached && buffer.size() == count * PAGE);
        let how = if is_cached { "cached" } else { "write-combined, past the caches" };
        let cost = write(&mut session, buffer);
        let name = core::str::from_utf8(&name[..name.len() - 1]).expect("a name is text");
        println!("\"{name}\" is to be mapped {how}; {cost} pages were cleaned around my write");
        assert!(cost == if is_cached { 0 } else { 2 * count });
    }

    let [camera, _] = &mut buffers;
    let parcel = camera.parcel();
    let ended = dmabuf::sync(&mut session, Sync { flags: SYNC_READ | SYNC_END }, parcel);
    println!("ending a CPU access that has not begun: {}", ended.expect_err("nothing to end"));
    let beyond = camera.map(PAGE, camera.size(), false, Rights::R);
    println!("mapping a page more than there is: {}", beyond.expect_err("beyond the end"));

    let attached = session.attach(parcel, DEVICE, AttachFlags::empty());
    refused("attaching a device", attached, ErrorCode::Unimplemented);
    let why = granted("asking why", session.last_refusal());
    let why = Rule::from_wire(why.rule).expect("a rule of this version");
    println!("a device is not attached here: {why}");
    assert!(why == Rule::NoSmmu);
    assert!(granted("asking for my devices", session.devices()).count() == 0);
    let info = served("bufinfo", dmabuf::buffer_info(&mut session, parcel, |_| ()));
    assert!((info.holders, info.attachments) == (0, 0));

    served("dup", camera.get());
    let left = served("close", camera.put(&mut session));
    println!("one descriptor closed, {left} is left, and the buffer with it");
    for buffer in &mut buffers {
        let left = served("close", buffer.put(&mut session));
        assert!(left == 0);
        let gone = session.info(buffer.parcel()).map(drop);
        assert!(gone == Err(Error::Refused(ErrorCode::HandleInvalid)));
    }
    memory::check(PAGES, CAMERA.1, 0xd);
    println!("the last ones closed: both buffers are gone, and my pages are mine again");
}
