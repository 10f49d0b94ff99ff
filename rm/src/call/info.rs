//! INFO, HOLDERS, LIMITS, DEVICES and SET_NAME: one look at one thing, in one step.

use rm_abi::extension::{
    self, DeviceInfo, Holder, HolderStage, Limit, LimitsRequest, Name, NameRequest, ParcelFlags,
    ParcelInfo, ParcelPhase, ParcelRequest, Policies, Resource, Stream,
};
use rm_abi::{Bytes, EncodeError, Handle, Rights, Vmid};

use crate::address::VmIndex;
use crate::call::{Caller, extension as replies};
use crate::config::{MAX_STREAMS, Roles};
use crate::machine::Machine;
use crate::memparcel::attachment::{self, MAX_ATTACHMENTS};
use crate::memparcel::borrower::Stage;
use crate::memparcel::table::ParcelGuard;
use crate::memparcel::{MAX_ACL, Memparcel, Phase};
use crate::operation::message::Message;
use crate::operation::{Answer, Begun, Operation, Reply};
use crate::refusal::Refusal;
use crate::stage2::MemoryType;

/// A question at work. It changes nothing but a name.
#[derive(Debug)]
pub(crate) struct Ask(Question);

#[derive(Debug)]
enum Question {
    Info(Handle),
    Holders(Handle),
    Limits(VmIndex),
    Devices,
    Name(Handle, Name),
}

/// The most bytes of what HOLDERS tells.
pub(crate) const HOLDERS_SIZE: usize = Holder::HEAD + (MAX_ACL + MAX_ATTACHMENTS) * Holder::SIZE;
/// Bytes of what LIMITS tells.
pub(crate) const LIMITS_SIZE: usize = Limit::HEAD + Limit::COUNT * Limit::SIZE;
/// The most bytes of what DEVICES tells.
pub(crate) const DEVICES_SIZE: usize = DeviceInfo::HEAD + MAX_STREAMS * DeviceInfo::SIZE;
const _: () = assert!(DEVICES_SIZE <= LARGEST && DEVICES_SIZE <= rm_abi::PACKET_PAYLOAD);
const LARGEST: usize = if HOLDERS_SIZE > LIMITS_SIZE { HOLDERS_SIZE } else { LIMITS_SIZE };

pub(crate) fn begin<M: Machine>(
    caller: Caller<'_, '_, M>,
    message: u32,
    payload: &dyn Bytes,
    operation: &mut Option<Operation>,
) -> Result<Begun, Refusal> {
    let parcel = || ParcelRequest::decode(payload).map_err(replies::refusal);
    let question = match message {
        extension::INFO => Question::Info(parcel()?.handle),
        extension::HOLDERS => Question::Holders(parcel()?.handle),
        extension::LIMITS => {
            let LimitsRequest { vmid } =
                LimitsRequest::decode(payload).map_err(replies::refusal)?;
            Question::Limits(caller.inspected(vmid)?)
        }
        extension::DEVICES => {
            extension::decode_empty(payload).map_err(replies::refusal)?;
            Question::Devices
        }
        _ => {
            let request = NameRequest::decode(payload).map_err(replies::refusal)?;
            Question::Name(request.handle, request.name)
        }
    };
    let ask = Ask(question);
    let is_short = ask.data_size() <= rm_abi::PACKET_PAYLOAD;
    ask.check(caller)?;
    *operation = Some(Operation::Ask(ask));
    Ok(if is_short { Begun::Short } else { Begun::Long })
}

impl<M: Machine> Caller<'_, '_, M> {
    /// The VM that a request names: 0 is the caller, another one takes the role.
    pub(crate) fn inspected(&self, vmid: Vmid) -> Result<VmIndex, Refusal> {
        if vmid == Vmid(0) || vmid == self.vmid() {
            return Ok(self.vm);
        }
        self.check_role(Roles::INSPECT)?;
        self.manager.find(vmid).ok_or(Refusal::NoVm)
    }

    /// Whether the configuration gives the caller the role.
    pub(crate) fn check_role(&self, role: Roles) -> Result<(), Refusal> {
        if self.state().roles.contains(role) { Ok(()) } else { Err(Refusal::Role) }
    }
}

impl Ask {
    /// Bytes of the reply's data.
    pub(crate) const fn data_size(&self) -> usize {
        match self.0 {
            Question::Info(_) => ParcelInfo::SIZE,
            Question::Holders(_) => HOLDERS_SIZE,
            Question::Limits(_) => LIMITS_SIZE,
            Question::Devices => DEVICES_SIZE,
            Question::Name(..) => 0,
        }
    }

    /// Whether the caller may ask; asked again when the answer is given, for the parcel may go meanwhile.
    fn check<M: Machine>(&self, caller: Caller<'_, '_, M>) -> Result<(), Refusal> {
        let handle = match self.0 {
            Question::Info(handle) | Question::Holders(handle) | Question::Name(handle, _) => {
                handle
            }
            Question::Limits(_) | Question::Devices => return Ok(()),
        };
        self.find(caller, handle).map(drop)
    }

    /// The parcel, if the caller may ask this of it.
    fn find<'a, M: Machine>(
        &self,
        caller: Caller<'a, '_, M>,
        handle: Handle,
    ) -> Result<ParcelGuard<'a, M::Relax>, Refusal> {
        let inspects = caller.state().roles.contains(Roles::INSPECT);
        if inspects && matches!(self.0, Question::Holders(_)) {
            return Ok(caller.manager.parcels().get(caller.machine(), handle)?.1);
        }
        let (_, parcel) = caller.parcel(handle)?;
        match self.0 {
            Question::Holders(_) | Question::Name(..) if parcel.owner != caller.vm => {
                Err(Refusal::NotOwner)
            }
            _ => Ok(parcel),
        }
    }

    pub(crate) fn step<M: Machine>(&self, caller: Caller<'_, '_, M>, data: &mut Message) -> Answer {
        let mut bytes = [0; LARGEST];
        let written = match self.0 {
            Question::Limits(vm) => limits(caller, vm, &mut bytes),
            Question::Devices => devices(caller, &mut bytes),
            Question::Info(handle) | Question::Holders(handle) | Question::Name(handle, _) => {
                let mut parcel = self.find(caller, handle)?;
                match self.0 {
                    Question::Holders(_) => holders(&parcel, caller, &mut bytes),
                    Question::Name(_, name) => {
                        parcel.name = name;
                        return Ok(Reply::Empty);
                    }
                    _ => describe(&parcel, caller).encode(&mut bytes),
                }
            }
        };
        let length = written.expect("G7: the room is for the longest data");
        data.write(caller.mem(), 0, &bytes[..length]);
        Ok(Reply::Data { length: length as u16 })
    }
}

/// What the caller may know of a parcel that it is a party to.
fn describe<M: Machine>(parcel: &Memparcel, caller: Caller<'_, '_, M>) -> ParcelInfo {
    let mine = parcel.acl.position(caller.vmid()).filter(|_| parcel.owner != caller.vm);
    let address = mine.and_then(|entry| {
        let state = &parcel.borrowers[entry];
        (state.stage == Stage::Mapped && state.contiguous).then(|| state.addresses.first()[0])
    });
    let policy = policy(parcel);
    ParcelInfo {
        handle: parcel.handle,
        owner: caller.manager.vmid(parcel.owner),
        transfer: parcel.transfer,
        memory: parcel.memory,
        label: parcel.label,
        tag: parcel.tag.unwrap_or(0),
        flags: flags(parcel, caller),
        phase: phase(parcel),
        rights: parcel.acl.rights(caller.vmid()).unwrap_or(Rights::empty()),
        policy,
        is_forced: replies::forced(caller).contains(policy),
        pages: parcel.pages,
        extents: parcel.settled,
        acl: parcel.acl.len() as u16,
        address: address.unwrap_or(0),
        name: parcel.name,
    }
}

/// What else the caller may know.
pub(crate) fn flags<M: Machine>(parcel: &Memparcel, caller: Caller<'_, '_, M>) -> ParcelFlags {
    let mine = parcel.acl.position(caller.vmid()).filter(|_| parcel.owner != caller.vm);
    let mut flags = ParcelFlags::empty();
    flags.set(ParcelFlags::SANITIZED, parcel.sanitized);
    flags.set(ParcelFlags::SANITIZE, parcel.sanitize);
    flags.set(ParcelFlags::HELD, sees_holders(parcel, caller) && parcel.is_held());
    flags.set(ParcelFlags::MINE, mine.is_some_and(|entry| parcel.borrowers[entry].holds()));
    flags.set(ParcelFlags::RECALLED, parcel.recalled);
    flags.set(ParcelFlags::POISONED, parcel.poisoned);
    let sees = sees_holders(parcel, caller);
    let mut attached = parcel.attachments.iter();
    flags.set(ParcelFlags::ATTACHED, attached.any(|one| sees || one.vm == caller.vm));
    flags
}

/// Whether the caller may know who holds the parcel.
pub(crate) fn sees_holders<M: Machine>(parcel: &Memparcel, caller: Caller<'_, '_, M>) -> bool {
    parcel.owner == caller.vm || caller.state().roles.contains(Roles::INSPECT)
}

pub(crate) fn phase(parcel: &Memparcel) -> ParcelPhase {
    match parcel.phase {
        Phase::Initial => ParcelPhase::Initial,
        Phase::Offered => ParcelPhase::Offered,
        Phase::Closing => ParcelPhase::Closing,
        Phase::Appending
        | Phase::Retyping
        | Phase::Trimming
        | Phase::Creating
        | Phase::Reclaiming
        | Phase::Vacant => ParcelPhase::Changing,
    }
}

fn policy(parcel: &Memparcel) -> Policies {
    match parcel.acl.policy() {
        MemoryType::WriteBack => Policies::CACHED,
        MemoryType::NonCacheable => Policies::UNCACHED,
        MemoryType::Device => Policies::DEVICE,
    }
}

fn holders<M: Machine>(
    parcel: &Memparcel,
    caller: Caller<'_, '_, M>,
    into: &mut [u8],
) -> Result<usize, EncodeError> {
    let (mut count, mut length) = (0_u32, Holder::HEAD);
    for (entry, state) in parcel.acl.entries().iter().zip(&parcel.borrowers) {
        let stage = match state.stage {
            Stage::Away => continue,
            Stage::Assigned => HolderStage::Assigned,
            Stage::Mapped => HolderStage::Mapped,
            Stage::Revoking => HolderStage::Revoking,
            Stage::Assigning
            | Stage::Unassigning
            | Stage::Mapping
            | Stage::Cutting
            | Stage::Trimming
            | Stage::Releasing => HolderStage::Changing,
        };
        let pages = if stage == HolderStage::Mapped { state.pages } else { 0 };
        let (vmid, rights, stream) = (entry.vmid, entry.rights, Stream(0));
        length += Holder { vmid, stage, rights, stream, pages }.encode(&mut into[length..])?;
        count += 1;
    }
    for one in parcel.attachments.iter() {
        let vm = caller.manager.vm(one.vm);
        let (vmid, stream) = (vm.vmid, vm.devices[usize::from(one.device)].config.stream);
        let pages = one
            .entry
            .map_or(parcel.pages_left(), |entry| parcel.borrowers[usize::from(entry)].pages);
        let (stage, rights, pages) = match one.stage {
            attachment::Stage::Mapped => (HolderStage::DeviceMapped, one.rights(), pages),
            _ => (HolderStage::Attached, Rights::empty(), 0),
        };
        length += Holder { vmid, stage, rights, stream, pages }.encode(&mut into[length..])?;
        count += 1;
    }
    into[..Holder::HEAD].copy_from_slice(&count.to_le_bytes());
    Ok(length)
}

fn devices<M: Machine>(caller: Caller<'_, '_, M>, into: &mut [u8]) -> Result<usize, EncodeError> {
    let devices = &caller.state().devices;
    let mut length = DeviceInfo::HEAD;
    for device in devices {
        let (faults, last_fault) = device.faults();
        let info = DeviceInfo {
            stream: device.config.stream,
            address_bits: device.config.address_bits,
            is_coherent: device.config.is_coherent,
            faults,
            last_fault,
            attachments: device.attachments(),
        };
        length += info.encode(&mut into[length..])?;
    }
    into[..4].copy_from_slice(&(devices.len() as u32).to_le_bytes());
    Ok(length)
}

fn limits<M: Machine>(
    caller: Caller<'_, '_, M>,
    vm: VmIndex,
    into: &mut [u8],
) -> Result<usize, EncodeError> {
    let about = Caller { vm, ..caller };
    let mut length = Limit::HEAD;
    for &resource in Resource::ALL {
        length += about.limit(resource).encode(&mut into[length..])?;
    }
    let handles_left = about.state().account.lock(caller.machine()).handles_left();
    into[..4].copy_from_slice(&(Limit::COUNT as u32).to_le_bytes());
    into[4..Limit::HEAD].copy_from_slice(&handles_left.to_le_bytes());
    Ok(length)
}
