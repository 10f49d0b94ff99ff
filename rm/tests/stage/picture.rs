//! What there is to see of the whole system: tables, accounts, parcels, queues, memory.

use rm::address::Pa;
use rm::audit::{AuditReport, Broken};
use rm::machine::fake::world::{Guest, RAM, World, by_handle};
use rm_abi::extension::{
    HOLDERS, Holder, INFO, LIMITS, LIST, Limit, LimitsRequest, ListFlags, ListRequest, MAP,
    MapRequest, ParcelEntry, ParcelFlags, ParcelInfo, Resource,
};
use rm_abi::{Bytes, Handle, Header, Transfer, Vmid};

use super::states::Scene;
use super::{Outcome, PAGE, Role, make};

/// How many pages from [`PAGE`] on hold marks, by which one sees whether they were wiped.
const MARKED: u64 = 20;

/// Everything. Two of these are equal where no VM could tell a difference, not even one that may look at
/// all others.
#[derive(PartialEq, Debug)]
pub struct Picture {
    /// What every VM has where.
    maps: Vec<Vec<u8>>,
    /// What it uses of what it may.
    limits: Vec<Vec<u8>>,
    /// All parcels, and who holds the one of the scene.
    list: Vec<u8>,
    holders: Outcome,
    /// What it is to each VM that runs.
    info: Vec<Option<Outcome>>,
    /// The pages that the parcel was made of.
    memory: Vec<Vec<u8>>,
    /// The bookkeeping agrees with the tables; not asked while a call is at work.
    audit: Option<AuditReport>,
    /// The messages that every VM was sent since the last picture, which took them away.
    heard: Vec<Vec<u32>>,
}

/// What calls change, read off a picture.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct View {
    pub parcel: ParcelView,
    /// What each VM uses.
    pub used: Vec<Used>,
    pub heard: Vec<Vec<u32>>,
}

/// A parcel, all zeros if there is none.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ParcelView {
    pub is_lend: bool,
    pub is_donation: bool,
    pub phase: u8,
    pub pages: u64,
    pub recalled: bool,
    /// It is wiped before its owner has it back.
    pub wiped: bool,
    pub policy: u16,
    pub tag: u32,
    pub name: String,
    /// VMID, stage and pages of who holds it.
    pub holders: Vec<(u16, u8, u64)>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Used {
    pub parcels: u64,
    pub lent: u64,
    pub accepted: u64,
    pub extents: u64,
    pub unfinished: u64,
}

impl Used {
    /// Its only parcel is gone.
    pub fn forget(&mut self) {
        *self = Self { accepted: self.accepted, ..Self::default() };
    }
}

/// Writes a mark into every page that a parcel of a scene may have.
pub fn mark(world: &World) {
    for vm in world.vms() {
        for page in 0..MARKED {
            let pa = Pa(World::pa_of(vm).0 + (PAGE - RAM.0) + page * 4096);
            world.manager.machine().edit_page(pa, |bytes| bytes.fill(0xa0 | vm.0));
        }
    }
}

/// The messages that a VM was sent and has not read.
pub fn heard(guest: &Guest<'_>) -> Vec<u32> {
    let message = |packet: &Vec<u8>| Header::decode(&packet[..]).expect("a message").message;
    guest.packets().iter().map(message).collect()
}

/// The messages that every VM was sent and has not read.
pub fn heard_by_all(scene: &Scene) -> Vec<Vec<u32>> {
    let heard = |role: Role| {
        // To receive is to enter EL2, which goes on with what the VM has at work.
        let listens = scene.runs(role) && !scene.world.manager.pending(role.vm());
        if listens { heard(&scene.caller(role)) } else { vec![] }
    };
    Role::ALL.map(heard).into()
}

fn data(guest: &Guest<'_>, message: u32, payload: Vec<u8>) -> Vec<u8> {
    match make(guest, &(message, payload)) {
        Outcome::Done(data) => data,
        other => panic!("the inspector may look, but {message:#x}: {other:?}"),
    }
}

fn encoded<E: core::fmt::Debug>(encode: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Vec<u8> {
    let mut payload = vec![0; 64];
    let length = encode(&mut payload).expect("a question fits");
    payload.truncate(length);
    payload
}

impl Picture {
    /// Looks at everything. Tables that can be merged are, for whether they are is nobody's business.
    pub fn of(scene: &Scene) -> Self {
        let (world, eye) = (&scene.world, scene.caller(Role::Inspector));
        for vm in world.vms() {
            while world.manager.idle(vm) {}
        }
        let machine = world.manager.machine();
        machine.check_no_stale();
        machine.check_caches();
        let map = |role: Role| {
            let (mut whole, mut cursor) = (vec![], 0);
            loop {
                let vmid = Vmid(role.vmid());
                let request = MapRequest { vmid, most: 400, parcel: Handle(0), cursor };
                let part = data(&eye, MAP, encoded(|into| request.encode(into)));
                cursor = part[..].u64_at(0);
                whole.extend_from_slice(&part[16..]);
                if cursor == 0 {
                    return whole;
                }
            }
        };
        let limits = |role: Role| {
            let request = LimitsRequest { vmid: Vmid(role.vmid()) };
            let mut limits = data(&eye, LIMITS, encoded(|into| request.encode(into)));
            // How many more handles the VM can make. A creation that is refused late has used one up.
            limits[4..8].fill(0);
            limits
        };
        let list = ListRequest { cursor: 0, most: 50, flags: ListFlags::ALL };
        let about = by_handle(scene.handle, 0);
        let info = |role: Role| {
            scene.runs(role).then(|| make(&scene.caller(role), &(INFO, about.clone())))
        };
        let page = |page: u64| Pa(World::pa_of(Role::Owner.vm()).0 + (PAGE - RAM.0) + page * 4096);
        Self {
            maps: Role::ALL.map(map).into(),
            limits: Role::ALL.map(limits).into(),
            list: data(&eye, LIST, encoded(|into| list.encode(into))),
            holders: make(&eye, &(HOLDERS, about.clone())),
            info: Role::ALL.map(info).into(),
            memory: (0..MARKED).map(|at| machine.page(page(at)).to_vec()).collect(),
            audit: match world.manager.audit() {
                Err(Broken::Busy) => None,
                report => Some(report.expect("G8: nothing is lost")),
            },
            heard: heard_by_all(scene),
        }
    }

    /// The parts in which two pictures differ.
    pub fn differs(&self, other: &Self) -> Vec<&'static str> {
        let parts = [
            ("maps", self.maps == other.maps),
            ("limits", self.limits == other.limits),
            ("the list of parcels", self.list == other.list),
            ("holders", self.holders == other.holders),
            ("what is known of the parcel", self.info == other.info),
            ("memory", self.memory == other.memory),
            ("the bookkeeping", self.audit == other.audit),
            ("messages", self.heard == other.heard),
        ];
        parts.iter().filter(|(_, same)| !same).map(|(name, _)| *name).collect()
    }

    /// What calls change.
    pub fn view(&self, scene: &Scene) -> View {
        let used = |limits: &Vec<u8>| {
            let of = |resource: Resource| {
                let all = (0..Limit::COUNT)
                    .map(|n| Limit::decode(&limits[..], Limit::HEAD + n * Limit::SIZE).unwrap());
                all.into_iter().find(|limit| limit.resource == resource as u16).unwrap().used
            };
            Used {
                parcels: of(Resource::Parcels),
                lent: of(Resource::PagesLent),
                accepted: of(Resource::PagesAccepted),
                extents: of(Resource::Extents),
                unfinished: of(Resource::Unfinished),
            }
        };
        let count = usize::from(self.list[..].u16_at(4));
        let entry = |n| {
            let at = ParcelEntry::HEAD + n * ParcelEntry::SIZE;
            ParcelEntry::decode(&self.list[..], at).expect("a list has its length")
        };
        let parcel = (0..count).map(entry).find(|entry| entry.handle.0 == scene.handle);
        View {
            parcel: parcel.map_or_else(ParcelView::default, |entry| self.parcel(&entry)),
            used: self.limits.iter().map(used).collect(),
            heard: self.heard.clone(),
        }
    }

    fn parcel(&self, entry: &ParcelEntry) -> ParcelView {
        let info = match &self.info[Role::Owner as usize] {
            Some(Outcome::Done(data)) => ParcelInfo::decode(&data[..]),
            _ => None,
        };
        let Outcome::Done(data) = &self.holders else { panic!("a parcel in the list has holders") };
        let count = data[..].u32_at(0) as usize;
        let holder = |n| {
            let at = Holder::HEAD + n * Holder::SIZE;
            let holder = Holder::decode(&data[..], at).expect("a list has its length");
            (holder.vmid.0, holder.stage as u8, holder.pages)
        };
        let mut holders: Vec<_> = (0..count).map(holder).collect();
        holders.sort_unstable();
        ParcelView {
            is_lend: entry.transfer == Transfer::Lend,
            is_donation: entry.transfer == Transfer::Donate,
            phase: entry.phase as u8,
            pages: entry.pages,
            recalled: entry.flags.contains(ParcelFlags::RECALLED),
            wiped: entry.flags.contains(ParcelFlags::SANITIZE),
            policy: info.map_or(0, |info| info.policy.0),
            tag: info.map_or(0, |info| info.tag),
            name: entry.name.as_str().expect("a name is text").into(),
            holders,
        }
    }
}
