//! A program and the gntdev that it uses, as Linux's programs do, in one VM.

use rm_client::front::Errno;
use rm_client::front::gntdev::{
    Buffers, Done, GntDev, GrantRef, MAP_GRANT_REF, MapGrantRef, Place, Program, UNMAP_GRANT_REF,
    UnmapGrantRef,
};
use rm_client::{Handle, Session, Transport};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::layout::{PAGE, VMID_A, WINDOW};

/// Where the program's struct is, in addresses of its own.
pub(crate) const ARG: u64 = 0xffff_0000_0000;
/// The program's one descriptor of a buffer.
pub(crate) const FD: u32 = 3;
/// Grants that one call names here at most.
const MOST: usize = 8;

/// A program that calls the driver: its struct, and memory that it has where the VM has it.
pub(crate) struct Task {
    bytes: [u8; 256],
    /// Address and pages of the buffer of [`FD`], whose pages lie side by side.
    pub(crate) buffer: Option<(u64, u32)>,
}

impl Task {
    fn part(&mut self, at: u64, length: usize) -> Result<&mut [u8], Errno> {
        let first = at.checked_sub(ARG).ok_or(Errno::EFAULT)? as usize;
        let end = first.checked_add(length).ok_or(Errno::EFAULT)?;
        self.bytes.get_mut(first..end).ok_or(Errno::EFAULT)
    }

    /// A struct that the driver has left behind the first `at` bytes.
    pub(crate) fn answer<S: FromBytes + KnownLayout + Immutable>(&self, at: usize) -> S {
        S::read_from_prefix(&self.bytes[at..]).expect("the buffer is longer").0
    }
}

impl Program for Task {
    fn read(&mut self, at: u64, into: &mut [u8]) -> Result<(), Errno> {
        into.copy_from_slice(self.part(at, into.len())?);
        Ok(())
    }

    fn write(&mut self, at: u64, from: &[u8]) -> Result<(), Errno> {
        self.part(at, from.len())?.copy_from_slice(from);
        Ok(())
    }

    fn address(&mut self, at: u64, _: bool) -> Result<u64, Errno> {
        Ok(at)
    }
}

/// There is one buffer at most, and it is made at [`WINDOW`].
impl Buffers for Task {
    fn room(&mut self, _: u32) -> Result<u64, Errno> {
        if self.buffer.is_none() { Ok(WINDOW) } else { Err(Errno::ENOMEM) }
    }

    fn free(&mut self, _: u64, _: u32) {
        self.buffer = None;
    }

    fn install(&mut self, at: u64, pages: u32) -> Result<u32, Errno> {
        self.buffer = Some((at, pages));
        Ok(FD)
    }

    fn size(&mut self, fd: u32) -> Result<u64, Errno> {
        match self.buffer {
            Some((_, pages)) if fd == FD => Ok(u64::from(pages) * PAGE),
            _ => Err(Errno::EBADF),
        }
    }

    fn page(&mut self, fd: u32, number: u32) -> Result<u64, Errno> {
        match self.buffer {
            Some((at, pages)) if fd == FD && number < pages => Ok(at + u64::from(number) * PAGE),
            _ => Err(Errno::EBADF),
        }
    }
}

/// The device, and who uses it.
pub(crate) struct Open<T> {
    pub(crate) session: Session<T>,
    pub(crate) device: GntDev<MOST>,
    pub(crate) task: Task,
}

impl<T: Transport> Open<T> {
    pub(crate) fn new(session: Session<T>) -> Self {
        Self { session, device: GntDev::new(), task: Task { bytes: [0; 256], buffer: None } }
    }

    /// An ioctl whose struct consists of these parts.
    pub(crate) fn ask(&mut self, number: u32, parts: &[&[u8]]) -> Result<Done, Errno> {
        let mut at = 0;
        for part in parts {
            self.task.bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        self.device.ioctl(&mut self.session, &mut self.task, number, ARG)
    }

    /// As [`Open::ask`], of one that nobody waits for.
    pub(crate) fn ioctl(&mut self, number: u32, parts: &[&[u8]]) -> Result<(), Errno> {
        let done = self.ask(number, parts)?;
        assert!(done == Done::Now);
        Ok(())
    }

    /// An index for grants of A's.
    pub(crate) fn reserve(&mut self, handles: &[Handle]) -> Result<u64, Errno> {
        let mut refs = [GrantRef { domid: VMID_A.into(), grant: 0 }; MOST];
        refs.iter_mut().zip(handles).for_each(|(place, handle)| place.grant = handle.0);
        let head = MapGrantRef { count: handles.len() as u32, pad: 0, index: 0 };
        self.ioctl(MAP_GRANT_REF, &[head.as_bytes(), refs[..handles.len()].as_bytes()])?;
        Ok(self.task.answer::<MapGrantRef>(0).index)
    }

    /// Maps grants of A's side by side at [`WINDOW`].
    pub(crate) fn map(&mut self, handles: &[Handle]) -> Result<u64, Errno> {
        let (index, count) = (self.reserve(handles)?, handles.len() as u32);
        let place = Place { vaddr: WINDOW, ipa: WINDOW, writable: true };
        let mapped = self.device.map(&mut self.session, (index, count), place);
        mapped.map(|()| index).inspect_err(|_| {
            let back = self.unreserve(index, count);
            assert!(back.is_ok());
        })
    }

    pub(crate) fn unreserve(&mut self, index: u64, count: u32) -> Result<(), Errno> {
        self.ioctl(UNMAP_GRANT_REF, &[UnmapGrantRef { index, count, pad: 0 }.as_bytes()])
    }
}

/// What an ioctl is to do, and does.
pub(crate) fn done<T>(what: &str, outcome: Result<T, Errno>) -> T {
    outcome.unwrap_or_else(|errno| panic!("{what}: {errno}"))
}
