//! mem-buf's calls, made of the manager's.
//!
//! Every check that needs no call comes first, in the order of the fields; what the manager refuses
//! comes back as its [`Errno`], and nothing has changed then. Two of its refusals have an `errno` of their
//! own: `EOPNOTSUPP` if the configuration of this VM keeps it from supplying or from consuming, and
//! `EADDRNOTAVAIL` of a parcel with a page that cannot be vouched for: its pages stay away for good.

use rm_abi::extension::{LastRefusal, PageState, ParcelFlags, Rule};
use rm_abi::{AclEntry as Grant, ErrorCode, Handle, Rights, Sanitize, SglEntry, Transfer, Vmid};

use super::{
    AclEntry, ExclusiveOwnerArg, ExportArg, ImportArg, LendArg, MAX_ACL, ReclaimArg, RetrieveArg,
    rights,
};
use crate::error::Error;
use crate::front::Errno;
use crate::front::dmaheap::FD_FLAGS;
use crate::parcel::{Acceptance, NewParcel, PAGE_SIZE, grant};
use crate::session::Session;
use crate::supplier::{self, Offer};
use crate::transport::Transport;

/// What the driver knows of a dma-buf that is to be lent or shared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Buffer<'a> {
    /// Its pages.
    pub ranges: &'a [SglEntry],
    /// A program or a device of this VM has it mapped.
    pub is_mapped: bool,
    /// This VM maps it cached. Another is not lent: who accepts it would map it cached.
    pub is_cached: bool,
    /// What the program's descriptor of it allows. Others are granted no more.
    pub rights: Rights,
}

/// What a driver has to make a dma-buf of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Imported {
    /// What it is released by.
    pub parcel: Handle,
    /// Where it is: one range, as `MAP_CONTIGUOUS` has it.
    pub place: SglEntry,
    /// What this VM may do with it. A descriptor must not promise more.
    pub rights: Rights,
}

/// One VM's `/dev/membuf`.
///
/// The driver passes each struct with what it points at: `acl` is the copy of `acl_list`, and must have
/// `nr_acl_entries` entries. `vm_of` says which VM an entry names.
///
/// ```
/// use rm_client::front::membuf::{self, AclEntry, Buffer, LendArg, MemBuf, VMID_TRUSTED};
/// use rm_client::front::{Errno, sized};
/// use rm_client::{Rights, Session, SglEntry, Transport, Vmid};
///
/// /// What `ioctl(fd, LEND, arg)` does, when the driver has found the pages of `arg.dma_buf_fd`.
/// fn lend<T: Transport>(
///     session: &mut Session<T>,
///     arg: &mut [u8],
///     acl: &[AclEntry],
///     ranges: &[SglEntry],
/// ) -> Result<(), Errno> {
///     let lend: LendArg = sized::read(arg, sized::Tail::MustBeZero)?;
///     // Of a descriptor for reading and writing that no program has mapped.
///     let (is_mapped, is_cached, rights) = (false, true, Rights::RWX);
///     let buffer = Buffer { ranges, is_mapped, is_cached, rights };
///     let vm_of = |name| (name == VMID_TRUSTED).then_some(Vmid(4));
///     let lent = MemBuf::new(session)?.lend(lend, acl, vm_of, &buffer)?;
///     sized::write(&lent, arg);
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct MemBuf<'s, T, const N: usize> {
    session: &'s mut Session<T, N>,
    own: Vmid,
}

/// An access list in the manager's terms: one entry more than a program may name, for the owner.
pub(super) struct Acl {
    entries: [Grant; MAX_ACL + 1],
    len: usize,
}

impl Acl {
    /// `EINVAL` for a list without entries or with too many, an unknown VM, and unknown permissions.
    pub(super) fn new(
        count: u32,
        acl: &[AclEntry],
        vm_of: impl Fn(u32) -> Option<Vmid>,
    ) -> Result<Self, Errno> {
        if acl.is_empty() || acl.len() > MAX_ACL || acl.len() != count as usize {
            return Err(Errno::EINVAL);
        }
        let mut list =
            Self { entries: [grant(Vmid(0), Rights::empty()); MAX_ACL + 1], len: acl.len() };
        for (into, entry) in list.entries.iter_mut().zip(acl) {
            let vmid = vm_of(entry.vmid).ok_or(Errno::EINVAL)?;
            *into = grant(vmid, rights(entry.perms)?);
        }
        Ok(list)
    }

    pub(super) fn entries(&self) -> &[Grant] {
        &self.entries[..self.len]
    }

    /// What it grants a VM, if it names it.
    fn of(&self, vm: Vmid) -> Option<Rights> {
        self.entries().iter().find(|entry| entry.vmid == vm).map(|entry| entry.rights)
    }

    /// How a parcel of this owner changes hands: an owner that keeps something shares.
    pub(super) fn transfer(&self, owner: Vmid) -> Transfer {
        match self.of(owner) {
            Some(rights) if !rights.is_empty() => Transfer::Share,
            _ => Transfer::Lend,
        }
    }
}

/// A handle of the later header's width. None has more than 32 bits.
fn narrow(handle: u64) -> Result<Handle, Errno> {
    u32::try_from(handle).map(Handle).map_err(|_| Errno::ENOENT)
}

fn all_zero(reserved: &[u64]) -> Result<(), Errno> {
    if reserved.iter().all(|&word| word == 0) { Ok(()) } else { Err(Errno::EINVAL) }
}

impl<'s, T: Transport, const N: usize> MemBuf<'s, T, N> {
    /// A front end over this session. Asks the manager which VM this is.
    pub fn new(session: &'s mut Session<T, N>) -> Result<Self, Errno> {
        let own = session.vmid()?;
        Ok(Self { session, own })
    }

    /// EXPORT: shares the buffer if the list leaves this VM some access, lends it otherwise. `install`
    /// makes the descriptor that stands for the loan, whose close is [`MemBuf::close_export`]; if it
    /// cannot, the buffer is taken back.
    ///
    /// `EINVAL` for a reserved field that is not zero, a list or a buffer that cannot be lent; `EBUSY` if
    /// this VM would lose access to a buffer that it has mapped; `EACCES` if a VM would be granted more than
    /// the program's descriptor allows.
    pub fn export(
        &mut self,
        arg: ExportArg,
        acl: &[AclEntry],
        vm_of: impl Fn(u32) -> Option<Vmid>,
        buffer: &Buffer<'_>,
        install: impl FnOnce(Handle) -> Result<u32, Errno>,
    ) -> Result<ExportArg, Errno> {
        all_zero(&arg.reserved)?;
        let acl = Acl::new(arg.nr_acl_entries, acl, vm_of)?;
        let parcel = self.give(acl.transfer(self.own), &acl, buffer)?;
        match install(parcel) {
            Ok(export_fd) => Ok(ExportArg { export_fd, memparcel_hdl: parcel.0, ..arg }),
            // Nobody was told the handle, so nobody should hold it. If somebody guessed it, the pages stay
            // away, and are not lost: the manager lists them as this VM's.
            Err(errno) => match self.session.reclaim(parcel, Sanitize::empty()) {
                Ok(()) => Err(errno),
                Err(_) => Err(Errno::EADDRNOTAVAIL),
            },
        }
    }

    /// What to tell a peer of an export, over the channel to it: [`Offer`].
    pub fn offer(
        &self,
        exported: &ExportArg,
        acl: &[AclEntry],
        vm_of: impl Fn(u32) -> Option<Vmid>,
        buffer: &Buffer<'_>,
    ) -> Result<Offer, Errno> {
        let acl = Acl::new(exported.nr_acl_entries, acl, vm_of)?;
        Ok(Offer {
            handle: Handle(exported.memparcel_hdl),
            label: 0,
            size: buffer.ranges.iter().map(|range| range.size).sum(),
            transfer: acl.transfer(self.own),
            acl: supplier::Acl::new(acl.entries())?,
        })
    }

    /// As [`MemBuf::import`], of what `sender` has offered. All that the offer says must be true: `EINVAL`
    /// otherwise, or `ENOENT` for a parcel that this VM may not know of; nothing is mapped then.
    pub fn import_offer(
        &mut self,
        sender: Vmid,
        offer: &Offer,
        install: impl FnOnce(Imported) -> Result<u32, Errno>,
    ) -> Result<u32, Errno> {
        let size = self.session.info(offer.handle)?.pages.checked_mul(PAGE_SIZE);
        if size != Some(offer.size) {
            return Err(Errno::EINVAL);
        }
        let mut acl = Acl { entries: [grant(Vmid(0), Rights::empty()); MAX_ACL + 1], len: 0 };
        for (into, entry) in acl.entries.iter_mut().zip(offer.acl.entries()) {
            *into = *entry;
            acl.len += 1;
        }
        if acl.transfer(sender) != offer.transfer {
            return Err(Errno::EINVAL);
        }
        self.take(offer.handle, Some(sender), Some(offer.label), &acl, install)
    }

    /// IMPORT: maps the parcel, if its access list is this one, in this order, and calls `install` to make
    /// a dma-buf of it, whose close is [`MemBuf::close_import`]. If that fails, the parcel is released.
    ///
    /// `EINVAL` for a reserved field that is not zero and for a parcel that differs; `ENOENT` if there is
    /// none that this VM may know of; `ENOSPC` or `ENOMEM` if there is no room for it.
    pub fn import(
        &mut self,
        arg: ImportArg,
        acl: &[AclEntry],
        vm_of: impl Fn(u32) -> Option<Vmid>,
        install: impl FnOnce(Imported) -> Result<u32, Errno>,
    ) -> Result<ImportArg, Errno> {
        all_zero(&arg.reserved)?;
        all_zero(&[arg.reserved0.into()])?;
        let acl = Acl::new(arg.nr_acl_entries, acl, vm_of)?;
        let parcel = Handle(arg.memparcel_hdl);
        let dma_buf_import_fd = self.take(parcel, None, None, &acl, install)?;
        Ok(ImportArg { dma_buf_import_fd, ..arg })
    }

    /// LEND: as [`MemBuf::export`], of a list that must not name this VM (`EINVAL`), and without a
    /// descriptor: [`MemBuf::reclaim`] takes the buffer back.
    pub fn lend(
        &mut self,
        arg: LendArg,
        acl: &[AclEntry],
        vm_of: impl Fn(u32) -> Option<Vmid>,
        buffer: &Buffer<'_>,
    ) -> Result<LendArg, Errno> {
        all_zero(&arg.reserved)?;
        let acl = Acl::new(arg.nr_acl_entries, acl, vm_of)?;
        if acl.of(self.own).is_some() {
            return Err(Errno::EINVAL);
        }
        let parcel = self.give(Transfer::Lend, &acl, buffer)?;
        Ok(LendArg { memparcel_hdl: parcel.0.into(), ..arg })
    }

    /// SHARE: as [`MemBuf::lend`], and this VM keeps what the list says, or all if it does not name it; its
    /// entry is the last one then.
    pub fn share(
        &mut self,
        arg: LendArg,
        acl: &[AclEntry],
        vm_of: impl Fn(u32) -> Option<Vmid>,
        buffer: &Buffer<'_>,
    ) -> Result<LendArg, Errno> {
        all_zero(&arg.reserved)?;
        let mut acl = Acl::new(arg.nr_acl_entries, acl, vm_of)?;
        if acl.of(self.own).is_none() {
            acl.entries[acl.len] = grant(self.own, Rights::RWX);
            acl.len += 1;
        }
        let parcel = self.give(Transfer::Share, &acl, buffer)?;
        Ok(LendArg { memparcel_hdl: parcel.0.into(), ..arg })
    }

    /// RETRIEVE: as [`MemBuf::import`], of a parcel that `sender` must own, which is the VM that
    /// [`RetrieveArg::sender_vm_fd`] stands for.
    pub fn retrieve(
        &mut self,
        arg: RetrieveArg,
        acl: &[AclEntry],
        vm_of: impl Fn(u32) -> Option<Vmid>,
        sender: Vmid,
        install: impl FnOnce(Imported) -> Result<u32, Errno>,
    ) -> Result<RetrieveArg, Errno> {
        all_zero(&arg.reserved)?;
        if arg.fd_flags & !FD_FLAGS != 0 {
            return Err(Errno::EINVAL);
        }
        let acl = Acl::new(arg.nr_acl_entries, acl, vm_of)?;
        let parcel = narrow(arg.memparcel_hdl)?;
        let dma_buf_import_fd = self.take(parcel, Some(sender), None, &acl, install)?;
        Ok(RetrieveArg { dma_buf_import_fd, ..arg })
    }

    /// RECLAIM: takes back the buffer, which the driver knows to be lent or shared as `lent`.
    ///
    /// `EINVAL` for a reserved field that is not zero and for another buffer's handle; `EBUSY` while
    /// somebody has it: it can be asked again when that VM has released it.
    pub fn reclaim(&mut self, arg: ReclaimArg, lent: Handle) -> Result<ReclaimArg, Errno> {
        all_zero(&arg.reserved)?;
        all_zero(&[arg.reserved0.into()])?;
        if narrow(arg.memparcel_hdl)? != lent {
            return Err(Errno::EINVAL);
        }
        self.close_export(lent)?;
        Ok(arg)
    }

    /// EXCLUSIVE_OWNER, of a buffer that the driver knows to be in `parcel`, or in none. The manager is
    /// asked in both cases: about the parcel, or about the pages, if the configuration lets this VM look
    /// at its own tables (role *inspect*); otherwise a driver that says "in none" is believed.
    ///
    /// `ENOENT` if the manager knows of no such parcel: the buffer was taken from this VM, if it ever was
    /// there. `EADDRNOTAVAIL` if it is known and will never come home.
    pub fn exclusive_owner(
        &mut self,
        arg: ExclusiveOwnerArg,
        buffer: &Buffer<'_>,
        parcel: Option<Handle>,
    ) -> Result<ExclusiveOwnerArg, Errno> {
        let is_exclusive = match parcel {
            Some(parcel) => {
                if self.session.info(parcel)?.flags.contains(ParcelFlags::POISONED) {
                    return Err(Errno::EADDRNOTAVAIL);
                }
                false
            }
            None => self.owns(buffer)?,
        };
        Ok(ExclusiveOwnerArg { is_exclusive_owner: is_exclusive.into(), ..arg })
    }

    /// Whether the manager knows of nobody who might have a part of the buffer.
    fn owns(&mut self, buffer: &Buffer<'_>) -> Result<bool, Errno> {
        let mut is_owned = true;
        let looked = self.session.map(self.own, |run| {
            let end = run.ipa.saturating_add(run.pages.saturating_mul(PAGE_SIZE));
            let touches = |range: &SglEntry| {
                run.ipa < range.ipa.saturating_add(range.size) && range.ipa < end
            };
            is_owned &= run.state == PageState::Owned || !buffer.ranges.iter().any(touches);
        });
        match looked {
            Err(Error::Refused(ErrorCode::Denied | ErrorCode::Unimplemented)) => Ok(true),
            looked => Ok(looked.map(|()| is_owned)?),
        }
    }

    /// The last close of the descriptor of an export. `EBUSY` while somebody has the buffer: it stays
    /// lent, and the pages must not be used for anything else.
    pub fn close_export(&mut self, parcel: Handle) -> Result<(), Errno> {
        let closed = self.session.reclaim(parcel, Sanitize::empty());
        closed.map_err(|error| self.errno(error))
    }

    /// The last close of an imported dma-buf, when nothing of this VM has it mapped any more.
    pub fn close_import(&mut self, parcel: Handle) -> Result<(), Errno> {
        Ok(self.session.release(parcel, Sanitize::empty())?)
    }

    fn give(&mut self, how: Transfer, acl: &Acl, buffer: &Buffer<'_>) -> Result<Handle, Errno> {
        if !buffer.is_cached {
            return Err(Errno::EINVAL);
        }
        let keeps = acl.of(self.own).unwrap_or(Rights::empty());
        if buffer.is_mapped && !keeps.contains(Rights::RW) {
            return Err(Errno::EBUSY);
        }
        let others = acl.entries().iter().filter(|entry| entry.vmid != self.own);
        if others.into_iter().any(|entry| !buffer.rights.contains(entry.rights)) {
            return Err(Errno::EACCES);
        }
        let parcel = NewParcel::new(buffer.ranges, acl.entries());
        self.session.create_all(how, &parcel).map_err(|error| self.errno(error))
    }

    /// What a refusal is to a program: for two of them the code does not tell, and the rule does.
    fn errno(&mut self, error: Error) -> Errno {
        if let Error::Refused(ErrorCode::Denied | ErrorCode::MemoryInvalid) = error
            && let Ok(LastRefusal { rule, .. }) = self.session.last_refusal()
        {
            if rule == Rule::Role as u16 {
                return Errno::EOPNOTSUPP;
            }
            if rule == Rule::Poisoned as u16 {
                return Errno::EADDRNOTAVAIL;
            }
        }
        error.into()
    }

    fn take(
        &mut self,
        parcel: Handle,
        sender: Option<Vmid>,
        label: Option<u32>,
        acl: &Acl,
        install: impl FnOnce(Imported) -> Result<u32, Errno>,
    ) -> Result<u32, Errno> {
        let owner = self.session.info(parcel)?.owner;
        if sender.is_some_and(|sender| sender != owner) {
            return Err(Errno::EINVAL);
        }
        let mut wanted = Acceptance::new(parcel, acl.transfer(owner))
            .contiguous()
            .expect_acl(acl.entries(), &[]);
        if let Some(label) = label {
            wanted = wanted.expect_label(label);
        }
        let place = match self.session.accept(&wanted) {
            Ok(mut places) => places.next().ok_or(Error::Malformed)?,
            Err(error) => return Err(self.errno(error)),
        };
        let rights = acl.of(self.own).unwrap_or(Rights::empty());
        install(Imported { parcel, place, rights }).inspect_err(|_| {
            // What cannot be released either stays accepted, and is listed as this VM's.
            let _ = self.session.release(parcel, Sanitize::empty());
        })
    }
}
