//! Every call about a parcel, with and without its flags, and what it changes when it is done.

use rm::machine::fake::world::{LABEL, accept, append, by_handle, offer};
use rm_abi::extension::{
    ATTACH, COPY, CPU_ACCESS, CopyRequest, CopySegment, CopySide, DETACH, DMA_MAP, DMA_UNMAP,
    HOLDERS, HolderStage, INFO, LIST, ListFlags, ListRequest, MAP, MapRequest, NOTIFY_SET, Name,
    NameRequest, NotifyActions, NotifySetRequest, Policy, REVOKE, RevokeFlags, SET_NAME,
    SET_POLICY, SET_WINDOW, TRIM, TrimFlags, TrimRequest, WindowFlags, WindowRequest,
};
use rm_abi::memparcel::accept::Accept;
use rm_abi::memparcel::lookup::Lookup;
use rm_abi::{
    AcceptFlags, AclEntry, AppendFlags, CreateFlags, EncodeError, Handle, MemoryKind, Rights,
    SglEntry, Transfer, Vmid, message,
};

use super::picture::View;
use super::states::Scene;
use super::{PAGE, PAGES, RUNS, Role, SPARE, TAG, WINDOW, acl};

/// A request, as a VM in a role makes it.
type Request = fn(&Scene, Role) -> (u32, Vec<u8>);

/// One call in one way.
pub struct Call {
    /// Its column in the table.
    pub name: &'static str,
    pub request: Request,
    pub effect: Effect,
}

/// What a call that is done changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Nothing at all.
    None,
    /// There is another parcel, which its owner may append to.
    New {
        open: bool,
    },
    /// The parcel grows by a page, for the last time or not.
    Append {
        last: bool,
    },
    /// The caller maps it, or gives its units addresses.
    Accept {
        maps: bool,
        wipes: bool,
    },
    Release {
        wipes: bool,
    },
    Reclaim,
    /// A page leaves the parcel, or the caller's mapping.
    Trim,
    /// Everybody loses it, or is asked to let it go.
    Revoke,
    Recall,
    Policy(Policy),
    /// The caller's device gets a part in it, and all of it, and gives that up.
    Attach,
    Detach,
    DmaMap,
    DmaUnmap,
    Name,
    /// Nothing that a view shows: what is done when something ends, what was copied, who may copy what.
    Unseen,
    /// The parcel is complete.
    Complete,
    /// The borrower, or the owner, is told this.
    TellBorrower(u32),
    TellOwner(u32),
}

/// The stage of a holder that is a device with nothing mapped.
const ATTACHED: u8 = HolderStage::Attached as u8;

const fn call(name: &'static str, effect: Effect, request: Request) -> Call {
    Call { name, request, effect }
}

/// A bit that means nothing to any call.
const UNKNOWN: u8 = 0x80;

pub const CALLS: &[Call] = &[
    call("D", Effect::New { open: false }, |_, role| create(role, Transfer::Donate, 0)),
    call("L", Effect::New { open: false }, |_, role| create(role, Transfer::Lend, 0)),
    call("L+z", Effect::New { open: false }, |_, role| create(role, Transfer::Lend, 1)),
    call("L+o", Effect::New { open: true }, |_, role| create(role, Transfer::Lend, 2)),
    call("L+?", Effect::New { open: false }, |_, role| create(role, Transfer::Lend, UNKNOWN)),
    call("S", Effect::New { open: false }, |_, role| create(role, Transfer::Share, 0)),
    call("A", Effect::Append { last: false }, |scene, _| grow(scene, 0)),
    call("A+e", Effect::Append { last: true }, |scene, _| grow(scene, 1)),
    call("A+?", Effect::Append { last: false }, |scene, _| grow(scene, UNKNOWN)),
    call("a", MAPS, |scene, _| take(scene, scene.transfer, 0x90, LABEL)),
    call("a+z", Effect::Accept { maps: true, wipes: true }, |scene, _| {
        take(scene, scene.transfer, 0xb0, LABEL)
    }),
    call("a+vz", MAPS, |scene, _| take(scene, scene.transfer, 0x91, LABEL)),
    call("a+vl", MAPS, |scene, _| take(scene, scene.transfer, 0x94, LABEL + 1)),
    call("a+o", MAPS, |scene, _| take(scene, scene.transfer, 0x98, LABEL)),
    call("a+k", MAPS, |scene, _| take(scene, other(scene.transfer), 0x90, LABEL)),
    call("a-d", Effect::Accept { maps: false, wipes: false }, |scene, _| {
        (message::MEM_ACCEPT, accept(scene.handle, scene.transfer, AcceptFlags::empty(), &[]))
    }),
    call("a+?", MAPS, |scene, _| take(scene, scene.transfer, 0xd0, LABEL)),
    call("r", Effect::Release { wipes: false }, |scene, _| handle(message::MEM_RELEASE, scene, 0)),
    call("r+z", Effect::Release { wipes: true }, |scene, _| handle(message::MEM_RELEASE, scene, 1)),
    call("r+?", Effect::Release { wipes: false }, |scene, _| {
        handle(message::MEM_RELEASE, scene, UNKNOWN)
    }),
    call("c", Effect::Reclaim, |scene, _| handle(message::MEM_RECLAIM, scene, 0)),
    call("c+z", Effect::Reclaim, |scene, _| handle(message::MEM_RECLAIM, scene, 1)),
    call("c+?", Effect::Reclaim, |scene, _| handle(message::MEM_RECLAIM, scene, UNKNOWN)),
    call("n+s", Effect::TellBorrower(message::MEM_SHARED), |scene, _| notify(scene, 1, Some(4))),
    call("n+r", Effect::TellBorrower(message::MEM_RECALL), |scene, _| notify(scene, 8, Some(4))),
    call("n+x", Effect::None, |scene, _| notify(scene, 8, Some(7))),
    call("n+a", Effect::TellOwner(message::MEM_ACCEPTED), |scene, _| notify(scene, 4, None)),
    call("n+f", Effect::TellOwner(message::MEM_RELEASED), |scene, _| notify(scene, 2, None)),
    call("n+?", Effect::None, |scene, _| notify(scene, UNKNOWN, None)),
    call("l", Effect::None, |scene, _| (message::MEM_LOOKUP, describe(scene))),
    call("t", Effect::Trim, |scene, _| (TRIM, trim(scene.handle, 0, 1, 0))),
    call("t+z", Effect::Trim, |scene, _| {
        (TRIM, trim(scene.handle, 0, 1, TrimFlags::SANITIZE.bits()))
    }),
    call("t+?", Effect::Trim, |scene, _| (TRIM, trim(scene.handle, 0, 1, UNKNOWN.into()))),
    call("v", Effect::Revoke, |scene, _| handle(REVOKE, scene, 0)),
    call("v+r", Effect::Recall, |scene, _| handle(REVOKE, scene, RevokeFlags::RECALL.bits() as u8)),
    call("v+?", Effect::Revoke, |scene, _| handle(REVOKE, scene, UNKNOWN)),
    call("p=c", Effect::Policy(Policy::Cached), |scene, _| policy(scene.handle, 1)),
    call("p=u", Effect::Policy(Policy::Uncached), |scene, _| policy(scene.handle, 2)),
    call("p=d", Effect::Policy(Policy::Device), |scene, _| policy(scene.handle, 4)),
    call("p=?", Effect::None, |scene, _| policy(scene.handle, UNKNOWN.into())),
    call("i", Effect::None, |scene, _| handle(INFO, scene, 0)),
    call("i+?", Effect::None, |scene, _| handle(INFO, scene, UNKNOWN)),
    call("h", Effect::None, |scene, _| handle(HOLDERS, scene, 0)),
    call("h+?", Effect::None, |scene, _| handle(HOLDERS, scene, UNKNOWN)),
    call("N", Effect::Name, |scene, _| name(scene.handle)),
    call("m", Effect::None, |scene, _| map(scene.handle)),
    call("w", Effect::Unseen, |scene, _| will(scene, NotifyActions::empty().bits())),
    call("w+c", Effect::Unseen, |scene, _| will(scene, NotifyActions::CLEAR_BYTE.bits())),
    call("w+?", Effect::Unseen, |scene, _| will(scene, UNKNOWN.into())),
    call("y", Effect::Unseen, |scene, _| copy(scene)),
    call("W", Effect::Unseen, |scene, _| window(scene, WindowFlags::empty().bits())),
    call("W+e", Effect::Complete, |scene, _| window(scene, WindowFlags::END.bits())),
    call("W+?", Effect::Unseen, |scene, _| window(scene, UNKNOWN.into())),
    call("x", Effect::Attach, |scene, role| device(ATTACH, scene, role, 0)),
    call("x+f", Effect::Attach, |scene, role| {
        let other = if role == Role::Outsider { Role::Inspector } else { Role::Outsider };
        device(ATTACH, scene, other, 0)
    }),
    call("x+?", Effect::Attach, |scene, role| device(ATTACH, scene, role, UNKNOWN.into())),
    call("d", Effect::Detach, |scene, role| device(DETACH, scene, role, 0)),
    call("z", Effect::DmaMap, |scene, role| device(DMA_MAP, scene, role, 1)),
    call("z=w", Effect::DmaMap, |scene, role| device(DMA_MAP, scene, role, 2)),
    call("z=n", Effect::DmaMap, |scene, role| device(DMA_MAP, scene, role, 0)),
    call("u", Effect::DmaUnmap, |scene, role| device(DMA_UNMAP, scene, role, 1)),
    call("u=w", Effect::DmaUnmap, |scene, role| device(DMA_UNMAP, scene, role, 2)),
    call("b", Effect::Unseen, |scene, _| handle(CPU_ACCESS, scene, 1)),
    call("b=w", Effect::Unseen, |scene, _| handle(CPU_ACCESS, scene, 2)),
    call("b=n", Effect::None, |scene, _| handle(CPU_ACCESS, scene, 0)),
    call("e=w", Effect::Unseen, |scene, _| handle(CPU_ACCESS, scene, 6)),
    call("e", Effect::Unseen, |scene, _| handle(CPU_ACCESS, scene, 5)),
    call("s", Effect::None, |_, _| list(ListFlags::empty())),
    call("s+a", Effect::None, |_, _| list(ListFlags::ALL)),
];

const MAPS: Effect = Effect::Accept { maps: true, wipes: false };

/// The name that the parcel is given.
pub const NAME: &str = "cells";

fn encoded(encode: impl FnOnce(&mut [u8]) -> Result<usize, EncodeError>) -> Vec<u8> {
    let mut payload = vec![0; 240];
    let length = encode(&mut payload).expect("a request of a test fits a packet");
    payload.truncate(length);
    payload
}

fn other(transfer: Transfer) -> Transfer {
    if transfer == Transfer::Share { Transfer::Lend } else { Transfer::Share }
}

/// The caller's own page at the parcel's first address, for a VM that has nothing to do with the parcel.
fn create(role: Role, transfer: Transfer, flags: u8) -> (u32, Vec<u8>) {
    let to = if role == Role::Outsider { Role::Inspector } else { Role::Outsider };
    let acl = match transfer {
        Transfer::Donate => vec![(to.vmid(), 7)],
        Transfer::Lend => vec![(to.vmid(), 6)],
        Transfer::Share => vec![(role.vmid(), 6), (to.vmid(), 6)],
    };
    let flags = CreateFlags::from_bits_retain(flags);
    (transfer.message(), offer(flags, &acl, &[(PAGE, 1)], &[]))
}

fn grow(scene: &Scene, flags: u8) -> (u32, Vec<u8>) {
    let flags = AppendFlags::from_bits_retain(flags);
    (message::MEM_APPEND, append(scene.handle, flags, &[(SPARE + 0x8000, 1)]))
}

fn take(scene: &Scene, transfer: Transfer, flags: u8, label: u32) -> (u32, Vec<u8>) {
    let request = Accept {
        handle: Handle(scene.handle),
        memory: MemoryKind::NORMAL,
        transfer,
        flags: AcceptFlags::from_bits_retain(flags),
        label,
        acl: &[],
        sgl: &[SglEntry { ipa: WINDOW + 0x10_0000, size: PAGES * 4096 }],
        attributes: &[],
    };
    (message::MEM_ACCEPT, encoded(|into| request.encode(into)))
}

fn handle(message: u32, scene: &Scene, flags: u8) -> (u32, Vec<u8>) {
    (message, by_handle(scene.handle, flags))
}

fn notify(scene: &Scene, flag: u8, target: Option<u16>) -> (u32, Vec<u8>) {
    let mut payload = [scene.handle, flag.into(), TAG].map(u32::to_le_bytes).concat();
    if let Some(vmid) = target {
        payload.extend([1, 0, 0, 0]);
        payload.extend(u32::from(vmid).to_le_bytes());
    }
    (message::MEM_NOTIFY, payload)
}

/// The description of the parcel as it was made.
fn describe(scene: &Scene) -> Vec<u8> {
    let entry = |(vmid, rights)| AclEntry { vmid: Vmid(vmid), rights: Rights(rights) };
    let request = Lookup {
        memory: MemoryKind::NORMAL,
        label: LABEL,
        acl: &acl(scene.transfer).into_iter().map(entry).collect::<Vec<_>>(),
        sgl: &RUNS.map(|(ipa, pages)| SglEntry { ipa, size: pages * 4096 }),
        attributes: &[],
    };
    encoded(|into| request.encode(into))
}

/// The payload of a trim of `pages` from the parcel's page `first` on.
pub fn trim(handle: u32, first: u64, pages: u64, flags: u32) -> Vec<u8> {
    let flags = TrimFlags::from_bits_retain(flags);
    let (offset, size) = (first * 4096, pages * 4096);
    encoded(|into| TrimRequest { handle: Handle(handle), flags, offset, size }.encode(into))
}

pub fn policy(handle: u32, policy: u32) -> (u32, Vec<u8>) {
    (SET_POLICY, [handle, policy].map(u32::to_le_bytes).concat())
}

fn name(handle: u32) -> (u32, Vec<u8>) {
    let request = NameRequest { handle: Handle(handle), name: Name::new(NAME) };
    (SET_NAME, encoded(|into| request.encode(into)))
}

fn map(parcel: u32) -> (u32, Vec<u8>) {
    let (vmid, parcel) = (Vmid(Role::Owner.vmid()), Handle(parcel));
    (MAP, encoded(|into| MapRequest { vmid, most: 4, parcel, cursor: 0 }.encode(into)))
}

fn will(scene: &Scene, actions: u32) -> (u32, Vec<u8>) {
    let actions = NotifyActions::from_bits_retain(actions);
    let handle = Handle(scene.handle);
    let request = NotifySetRequest { handle, actions, offset: 0, doorbell: 0, flag: 0 };
    (NOTIFY_SET, encoded(|into| request.encode(into)))
}

/// What its one segment is answered is in the reply: the call itself is done.
fn copy(scene: &Scene) -> (u32, Vec<u8>) {
    let source = CopySide::Parcel(Handle(scene.handle), 0);
    let segment = CopySegment { source, dest: CopySide::Own(SPARE + 0x9000), length: 1 };
    (COPY, encoded(|into| CopyRequest::encode(&[segment], into)))
}

fn window(scene: &Scene, flags: u16) -> (u32, Vec<u8>) {
    let (handle, flags) = (Handle(scene.handle), WindowFlags::from_bits_retain(flags));
    let vmid = Vmid(Role::Borrower.vmid());
    let request = WindowRequest { handle, vmid, flags, offset: 0, size: 8 };
    (SET_WINDOW, encoded(|into| request.encode(into)))
}

/// A call on the device of a VM.
pub fn device(message: u32, scene: &Scene, of: Role, last: u32) -> (u32, Vec<u8>) {
    let mut payload = [scene.handle, of.stream().0, last].map(u32::to_le_bytes).concat();
    if message == DETACH {
        payload.truncate(8);
    }
    (message, payload)
}

fn list(flags: ListFlags) -> (u32, Vec<u8>) {
    (LIST, encoded(|into| ListRequest { cursor: 0, most: 4, flags }.encode(into)))
}

impl Effect {
    /// What there is to see after the call, by what there was before it.
    pub fn on(self, before: &View, role: Role) -> View {
        let mut view = before.clone();
        let used = &mut view.used[role as usize];
        match self {
            Self::None | Self::Unseen => {}
            Self::Complete => {
                used.unfinished -= 1;
                view.parcel.phase = 2;
            }
            Self::New { open } => {
                used.parcels += 1;
                used.lent += 1;
                used.extents += 1;
                used.unfinished += u64::from(open);
            }
            Self::Append { last } => {
                used.lent += 1;
                used.extents += 1;
                used.unfinished -= u64::from(last);
                view.parcel.pages += 1;
                if last {
                    view.parcel.phase = 2;
                }
            }
            Self::Accept { maps: true, .. } if before.parcel.is_donation => {
                view.used[0].forget();
                view.parcel = super::picture::ParcelView::default();
            }
            Self::Accept { maps, wipes } => {
                used.accepted = before.used[0].lent;
                view.parcel.wiped |= wipes;
                let stage = if maps { (2, used.accepted) } else { (1, 0) };
                view.parcel.holders.retain(|(vmid, _, _)| *vmid != role.vmid());
                view.parcel.holders.push((role.vmid(), stage.0, stage.1));
                view.parcel.holders.sort();
            }
            Self::Release { wipes } => {
                used.accepted = 0;
                view.parcel.wiped |= wipes;
                view.parcel.holders.retain(|(vmid, _, _)| *vmid != role.vmid());
            }
            Self::Reclaim => {
                used.forget();
                view.parcel = super::picture::ParcelView::default();
            }
            Self::Trim => {
                if role == Role::Owner {
                    used.lent -= 1;
                } else {
                    used.accepted -= 1;
                    let own = |holder: &&mut (u16, u8, u64)| holder.0 == role.vmid();
                    view.parcel.holders.iter_mut().find(own).expect("it holds").2 -= 1;
                }
            }
            Self::Revoke => {
                if view.parcel.phase == 1 {
                    return view;
                }
                view.parcel.phase = 3;
                let holders = core::mem::take(&mut view.parcel.holders);
                view.parcel.wiped |= view.parcel.is_lend && !holders.is_empty();
                let (own, others): (Vec<_>, Vec<_>) =
                    holders.into_iter().partition(|(vmid, _, _)| *vmid == Role::Owner.vmid());
                view.parcel.holders = own;
                for (vmid, _, _) in others.into_iter().filter(|(_, stage, _)| *stage < ATTACHED) {
                    view.used[usize::from(vmid) - 3].accepted = 0;
                    view.heard[usize::from(vmid) - 3].push(message::MEM_RECALL);
                }
            }
            Self::Recall => {
                if view.parcel.phase == 1 {
                    return view;
                }
                view.parcel.recalled = true;
                let holders = view.parcel.holders.iter();
                for (vmid, _, _) in holders.filter(|(_, stage, _)| *stage < ATTACHED) {
                    view.heard[usize::from(*vmid) - 3].push(message::MEM_RECALL);
                }
            }
            Self::Attach => {
                view.parcel.holders.push((role.vmid(), ATTACHED, 0));
                view.parcel.holders.sort_unstable();
            }
            Self::Detach => {
                view.parcel.holders.retain(|holder| *holder != (role.vmid(), ATTACHED, 0));
            }
            Self::DmaMap => {
                let pages = if role == Role::Owner { used.lent } else { used.accepted };
                let own = |holder: &&mut (u16, u8, u64)| **holder == (role.vmid(), ATTACHED, 0);
                let device = view.parcel.holders.iter_mut().find(own).expect("it is attached");
                (device.1, device.2) = (HolderStage::DeviceMapped as u8, pages);
            }
            Self::DmaUnmap => {
                let mapped = HolderStage::DeviceMapped as u8;
                let own =
                    |holder: &&mut (u16, u8, u64)| (holder.0, holder.1) == (role.vmid(), mapped);
                let device = view.parcel.holders.iter_mut().find(own).expect("it is mapped");
                (device.1, device.2) = (ATTACHED, 0);
            }
            Self::Policy(policy) => view.parcel.policy = policy as u16,
            Self::Name => view.parcel.name = NAME.into(),
            Self::TellBorrower(what) => {
                view.heard[Role::Borrower as usize].push(what);
                if what == message::MEM_SHARED {
                    view.parcel.tag = TAG;
                }
            }
            Self::TellOwner(what) => view.heard[Role::Owner as usize].push(what),
        }
        view
    }
}
