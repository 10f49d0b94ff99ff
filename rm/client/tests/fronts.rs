//! The front ends over the manager and the strict fake: what a program's struct does to the pages.

mod common;

use common::Vcpu;
use rm::address::{Ipa, VmIndex};
use rm::audit::AuditReport;
use rm::config::{Roles, VmConfig};
use rm::machine::fake::world::{RAM, World, vm};
use rm::stage2::Access;
use rm_client::front::membuf::{
    AclEntry, Buffer, ExclusiveOwnerArg, ExportArg, ImportArg, Imported, LendArg, MemBuf,
    PERM_EXEC, PERM_READ, PERM_WRITE, ReclaimArg, RetrieveArg, VMID_PRIMARY, VMID_TRUSTED,
};
use rm_client::front::{Errno, dmabuf};
use rm_client::supplier::{self, Body, Message, Offer};
use rm_client::{
    Attribute, AttributeEntry, Handle, LARGEST, NewParcel, Rights, Sanitize, Session, SglEntry,
    Transfer, Vmid, grant, pages,
};

const A: VmIndex = VmIndex(0);
const B: VmIndex = VmIndex(1);
const C: VmIndex = VmIndex(2);
const PAGE: u64 = RAM.0 + 0x7000;

type Client<'a> = Session<Vcpu<'a>, LARGEST>;

/// VM 3 is the primary VM of the headers, VM 4 the trusted one, and VM 5 has no name there.
fn world() -> World {
    World::new(&[vm(3), vm(4), vm(5)])
}

fn session(world: &World, vm: VmIndex) -> Client<'_> {
    Session::with_capacity(Vcpu(world.caller(vm)))
}

/// All pages and frames, once tables that can be blocks again are.
fn settled(world: &World) -> AuditReport {
    while world.manager.idle(A) {}
    world.check()
}

fn vm_of(name: u32) -> Option<Vmid> {
    match name {
        VMID_PRIMARY => Some(Vmid(3)),
        VMID_TRUSTED => Some(Vmid(4)),
        _ => None,
    }
}

const fn to(vmid: u32, perms: u32) -> AclEntry {
    AclEntry { vmid, perms }
}

const RW: u32 = PERM_READ | PERM_WRITE;
const TWO_RUNS: [SglEntry; 2] = [pages(PAGE + 0x1_0000, 2), pages(PAGE, 1)];
const BUFFER: Buffer<'_> =
    Buffer { ranges: &TWO_RUNS, is_mapped: false, is_cached: true, rights: Rights::RWX };

const fn export_arg(count: usize) -> ExportArg {
    ExportArg {
        dma_buf_fd: 3,
        nr_acl_entries: count as u32,
        acl_list: 0x1000,
        export_fd: 0,
        memparcel_hdl: 0,
        reserved: [0; 3],
    }
}

const fn import_arg(parcel: u32, count: usize) -> ImportArg {
    ImportArg {
        memparcel_hdl: parcel,
        nr_acl_entries: count as u32,
        acl_list: 0x1000,
        dma_buf_import_fd: 0,
        reserved0: 0,
        reserved: [0; 3],
    }
}

const fn lend_arg(count: usize) -> LendArg {
    LendArg {
        dma_buf_fd: 3,
        nr_acl_entries: count as u32,
        acl_list: 0x1000,
        memparcel_hdl: 0,
        reserved: [0; 3],
    }
}

const fn retrieve_arg(parcel: u64, count: usize) -> RetrieveArg {
    RetrieveArg {
        sender_vm_fd: 8,
        nr_acl_entries: count as u32,
        acl_list: 0x1000,
        memparcel_hdl: parcel,
        dma_buf_import_fd: 0,
        fd_flags: 0o2_000_002,
        reserved: [0; 3],
    }
}

const fn reclaim_arg(parcel: u64) -> ReclaimArg {
    ReclaimArg { memparcel_hdl: parcel, dma_buf_fd: 3, reserved0: 0, reserved: [0; 2] }
}

fn front<'s, 'a>(session: &'s mut Client<'a>) -> MemBuf<'s, Vcpu<'a>, LARGEST> {
    MemBuf::new(session).unwrap()
}

/// Exports the buffer, and returns its handle.
fn export(session: &mut Client<'_>, acl: &[AclEntry]) -> Result<u32, Errno> {
    let done = front(session).export(export_arg(acl.len()), acl, vm_of, &BUFFER, |_| Ok(40))?;
    assert_eq!(done, ExportArg { memparcel_hdl: done.memparcel_hdl, export_fd: 40, ..done });
    Ok(done.memparcel_hdl)
}

/// Imports a parcel, and says where it is.
fn import(session: &mut Client<'_>, parcel: u32, acl: &[AclEntry]) -> Result<Imported, Errno> {
    let mut made = None;
    let done = front(session).import(import_arg(parcel, acl.len()), acl, vm_of, |imported| {
        made = Some(imported);
        Ok(41)
    })?;
    assert_eq!(done, ImportArg { dma_buf_import_fd: 41, ..import_arg(parcel, acl.len()) });
    Ok(made.unwrap())
}

#[test]
fn an_export_without_the_owner_is_a_loan_that_an_import_maps_and_a_close_gives_back() {
    let world = world();
    let (mut a, mut b) = (session(&world, A), session(&world, B));
    world.cpu(A).write(Ipa(PAGE), 7).unwrap();
    let acl = [to(VMID_TRUSTED, RW)];
    let parcel = export(&mut a, &acl).unwrap();
    assert!(world.cpu(A).read(Ipa(PAGE)).is_err());
    let imported = import(&mut b, parcel, &acl).unwrap();
    assert_eq!((imported.place.size, imported.rights), (3 * 4096, Rights::RW));
    assert_eq!(world.cpu(B).read(Ipa(imported.place.ipa + 0x2000)), Ok(7), "the second run");
    assert_eq!(front(&mut a).close_export(Handle(parcel)), Err(Errno::EBUSY));
    assert_eq!(world.cpu(B).read(Ipa(imported.place.ipa + 0x2000)), Ok(7), "nothing changed");
    front(&mut b).close_import(imported.parcel).unwrap();
    assert!(world.cpu(B).read(Ipa(imported.place.ipa)).is_err());
    front(&mut a).close_export(Handle(parcel)).unwrap();
    assert_eq!(world.cpu(A).read(Ipa(PAGE)), Ok(7));
    world.check();
}

#[test]
fn an_export_that_names_the_owner_is_a_share() {
    let world = world();
    let (mut a, mut b) = (session(&world, A), session(&world, B));
    let acl = [to(VMID_PRIMARY, RW), to(VMID_TRUSTED, PERM_READ)];
    let parcel = export(&mut a, &acl).unwrap();
    let imported = import(&mut b, parcel, &acl).unwrap();
    assert_eq!(imported.rights, Rights::R);
    world.cpu(A).write(Ipa(PAGE), 5).unwrap();
    let there = Ipa(imported.place.ipa + 0x2000);
    assert_eq!(world.cpu(B).read(there), Ok(5));
    for access in [Access::Write, Access::Execute] {
        assert_eq!(world.manager.allows(B, there, access), None, "{access:?}");
    }
}

#[test]
fn only_lists_that_can_be_granted_pass_and_a_refused_one_changes_nothing() {
    let world = world();
    let mut a = session(&world, A);
    let before = settled(&world);
    for perms in 0..16 {
        let made = export(&mut a, &[to(VMID_TRUSTED, perms)]);
        if matches!(perms, 1 | 3 | 5 | 7) {
            front(&mut a).close_export(Handle(made.unwrap())).unwrap();
        } else {
            assert_eq!(made, Err(Errno::EINVAL), "{perms}");
        }
        assert_eq!(settled(&world), before);
    }
    let acls: [&[AclEntry]; 4] = [
        &[],
        &[to(VMID_TRUSTED, PERM_READ); 17],
        &[to(2, PERM_READ)],
        &[to(VMID_TRUSTED, PERM_READ), to(VMID_TRUSTED, PERM_READ)],
    ];
    for acl in acls {
        assert_eq!(export(&mut a, acl), Err(Errno::EINVAL), "{acl:?}");
    }
    let acl = [to(VMID_TRUSTED, PERM_READ)];
    let mut refuse = |arg, buffer| {
        let made = front(&mut a).export(arg, &acl, vm_of, &buffer, |_| panic!("not reached"));
        made.unwrap_err()
    };
    for index in 0..3 {
        let mut reserved = [0; 3];
        reserved[index] = 1;
        assert_eq!(refuse(ExportArg { reserved, ..export_arg(1) }, BUFFER), Errno::EINVAL);
    }
    assert_eq!(refuse(export_arg(2), BUFFER), Errno::EINVAL, "the count is not the list's");
    assert_eq!(refuse(export_arg(1), Buffer { is_cached: false, ..BUFFER }), Errno::EINVAL);
    assert_eq!(refuse(export_arg(1), Buffer { is_mapped: true, ..BUFFER }), Errno::EBUSY);
    assert_eq!(settled(&world), before);
}

#[test]
fn what_is_mapped_can_be_shared_if_its_owner_keeps_reading_and_writing() {
    let world = world();
    let mut a = session(&world, A);
    let mapped = Buffer { is_mapped: true, ..BUFFER };
    let mut share = |acl: &[AclEntry]| {
        let done = front(&mut a).share(lend_arg(acl.len()), acl, vm_of, &mapped)?;
        front(&mut a).reclaim(reclaim_arg(done.memparcel_hdl), Handle(done.memparcel_hdl as u32))
    };
    assert!(share(&[to(VMID_TRUSTED, RW)]).is_ok(), "it keeps all if it is not named");
    assert!(share(&[to(VMID_TRUSTED, RW), to(VMID_PRIMARY, RW)]).is_ok());
    let read_only = share(&[to(VMID_TRUSTED, RW), to(VMID_PRIMARY, PERM_READ)]);
    assert_eq!(read_only, Err(Errno::EBUSY));
}

#[test]
fn the_same_pages_are_not_exported_twice() {
    let world = world();
    let mut a = session(&world, A);
    let acl = [to(VMID_TRUSTED, RW)];
    let parcel = export(&mut a, &acl).unwrap();
    assert_eq!(export(&mut a, &acl), Err(Errno::EINVAL));
    front(&mut a).close_export(Handle(parcel)).unwrap();
    assert_eq!(front(&mut a).close_export(Handle(parcel)), Err(Errno::ENOENT));
}

#[test]
fn a_descriptor_that_cannot_be_made_leaves_nothing_behind() {
    let world = world();
    let (mut a, mut b) = (session(&world, A), session(&world, B));
    let before = settled(&world);
    let acl = [to(VMID_TRUSTED, RW)];
    let full = Errno(24);
    let made = front(&mut a).export(export_arg(1), &acl, vm_of, &BUFFER, |_| Err(full));
    assert_eq!(made, Err(full));
    assert_eq!(settled(&world), before);
    let parcel = export(&mut a, &acl).unwrap();
    let made = front(&mut b).import(import_arg(parcel, 1), &acl, vm_of, |_| Err(full));
    assert_eq!(made, Err(full));
    front(&mut a).close_export(Handle(parcel)).unwrap();
    world.check();
}

#[test]
fn an_import_of_anything_but_what_was_exported_is_refused_and_takes_no_addresses() {
    let world = world();
    let (mut a, mut b, mut c) = (session(&world, A), session(&world, B), session(&world, C));
    let acl = [to(VMID_PRIMARY, RW), to(VMID_TRUSTED, RW)];
    let parcel = export(&mut a, &acl).unwrap();
    let first = import(&mut b, parcel, &acl).unwrap();
    front(&mut b).close_import(first.parcel).unwrap();
    let acls: [&[AclEntry]; 5] = [
        &[acl[1], acl[0]],
        &[acl[0], to(VMID_TRUSTED, PERM_READ)],
        &[acl[0], to(VMID_TRUSTED, RW | PERM_EXEC)],
        // Without its owner it would be a loan, which it is not.
        &[acl[1]],
        &[to(VMID_PRIMARY, 0), acl[1]],
    ];
    for other in acls {
        assert_eq!(import(&mut b, parcel, other).map(drop), Err(Errno::EINVAL), "{other:?}");
    }
    let arg = import_arg(parcel, 2);
    for wrong in [ImportArg { reserved0: 1, ..arg }, ImportArg { reserved: [0, 0, 1], ..arg }] {
        let made = front(&mut b).import(wrong, &acl, vm_of, |_| panic!("not reached"));
        assert_eq!(made, Err(Errno::EINVAL));
    }
    let outside = import(&mut c, parcel, &acl).map(drop);
    assert_eq!(outside, Err(Errno::ENOENT));
    assert_eq!(import(&mut c, parcel + 1, &acl).map(drop), outside, "as if there were none");
    assert_eq!(import(&mut b, parcel, &acl), Ok(first), "at the same place as before");
}

#[test]
fn every_reserved_bit_of_an_export_and_an_import_must_be_zero() {
    let world = world();
    let (mut a, mut b) = (session(&world, A), session(&world, B));
    let acl = [to(VMID_TRUSTED, RW)];
    let before = settled(&world);
    for bit in 0..192 {
        let mut reserved = [0; 3];
        reserved[bit / 64] = 1 << (bit % 64);
        let arg = ExportArg { reserved, ..export_arg(1) };
        let made = front(&mut a).export(arg, &acl, vm_of, &BUFFER, |_| panic!("not reached"));
        assert_eq!(made, Err(Errno::EINVAL), "export, bit {bit}");
    }
    assert_eq!(settled(&world), before);
    let parcel = export(&mut a, &acl).unwrap();
    for bit in 0..224 {
        let mut arg = import_arg(parcel, 1);
        if bit < 32 {
            arg.reserved0 = 1 << bit;
        } else {
            arg.reserved[(bit - 32) / 64] = 1 << (bit % 64);
        }
        let made = front(&mut b).import(arg, &acl, vm_of, |_| panic!("not reached"));
        assert_eq!(made, Err(Errno::EINVAL), "import, bit {bit}");
    }
    assert_eq!(front(&mut b).close_import(Handle(parcel)), Err(Errno::ENOENT), "not accepted");
    import(&mut b, parcel, &acl).unwrap();
}

/// The offer of an export, as it comes out of the channel.
fn offered(session: &mut Client<'_>, acl: &[AclEntry]) -> Offer {
    let exported =
        ExportArg { memparcel_hdl: export(session, acl).unwrap(), ..export_arg(acl.len()) };
    let offer = front(session).offer(&exported, acl, vm_of, &BUFFER).unwrap();
    let packet = Message { transaction: 1, body: Body::Offer(offer) }.encode().unwrap();
    match Message::decode(&packet).unwrap().body {
        Body::Offer(heard) => heard,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_offer_says_what_an_import_needs_and_is_believed_in_nothing() {
    let world = world();
    let (mut a, mut b, mut c) = (session(&world, A), session(&world, B), session(&world, C));
    let lists: [&[AclEntry]; 2] =
        [&[to(VMID_TRUSTED, RW)], &[to(VMID_PRIMARY, RW), to(VMID_TRUSTED, PERM_READ)]];
    for acl in lists {
        let offer = offered(&mut a, acl);
        let before = settled(&world);
        let swapped: Vec<_> = offer.acl.entries().iter().rev().copied().collect();
        let more = [offer.acl.entries(), &[grant(Vmid(5), Rights::R)]].concat();
        let list = |entries: &[_]| supplier::Acl::new(entries).unwrap();
        let kinds = [Transfer::Donate, Transfer::Lend, Transfer::Share];
        let other_kinds = kinds.into_iter().filter(|kind| *kind != offer.transfer);
        let mut lies = vec![
            Offer { size: offer.size + 4096, ..offer },
            Offer { label: 1, ..offer },
            Offer { acl: list(&more), ..offer },
            Offer { acl: list(&[grant(Vmid(4), Rights::RX)]), ..offer },
        ];
        lies.extend(other_kinds.map(|transfer| Offer { transfer, ..offer }));
        lies.extend((swapped.len() > 1).then(|| Offer { acl: list(&swapped), ..offer }));
        for lie in lies {
            let made = front(&mut b).import_offer(Vmid(3), &lie, |_| panic!("not reached"));
            assert_eq!(made, Err(Errno::EINVAL), "{lie:?}");
        }
        let mut import =
            |sender, offer| front(&mut b).import_offer(Vmid(sender), offer, |_| Ok(41));
        assert_eq!(import(5, &offer), Err(Errno::EINVAL), "from another VM");
        let unknown = Offer { handle: Handle(offer.handle.0 + 1), ..offer };
        assert_eq!(import(3, &unknown), Err(Errno::ENOENT));
        let outside = front(&mut c).import_offer(Vmid(3), &offer, |_| panic!("not reached"));
        assert_eq!(outside, Err(Errno::ENOENT), "offered to another VM");
        assert_eq!(settled(&world), before);
        assert_eq!(import(3, &offer), Ok(41));
        front(&mut b).close_import(offer.handle).unwrap();
        front(&mut a).close_export(offer.handle).unwrap();
    }
}

#[test]
fn a_vm_without_the_role_is_told_so_and_not_that_it_lacks_a_right() {
    let world = World::new(&[
        VmConfig { may_consume: false, ..vm(3) },
        VmConfig { may_supply: false, ..vm(4) },
        vm(5),
    ]);
    let (mut a, mut b) = (session(&world, A), session(&world, B));
    let made = export(&mut b, &[to(VMID_PRIMARY, RW)]);
    assert_eq!(made, Err(Errno::EOPNOTSUPP), "no supplier");
    let lent = front(&mut b).lend(lend_arg(1), &[to(VMID_PRIMARY, RW)], vm_of, &BUFFER);
    assert_eq!(lent, Err(Errno::EOPNOTSUPP));
    let range = [pages(PAGE, 1)];
    let to_a = [grant(Vmid(3), Rights::RW)];
    let parcel = session(&world, C).lend(&NewParcel::new(&range, &to_a)).unwrap();
    let taken = import(&mut a, parcel.0, &[to(VMID_PRIMARY, RW)]).map(drop);
    assert_eq!(taken, Err(Errno::EOPNOTSUPP), "no consumer");
    let acl = [to(VMID_TRUSTED, RW)];
    let parcel = export(&mut a, &acl).unwrap();
    import(&mut b, parcel, &acl).unwrap();
}

#[test]
fn a_buffer_with_a_page_that_cannot_be_vouched_for_never_comes_home_and_says_so() {
    let world = world();
    let (mut a, mut b) = (session(&world, A), session(&world, B));
    let acl = [to(VMID_TRUSTED, RW)];
    let parcel = export(&mut a, &acl).unwrap();
    import(&mut b, parcel, &acl).unwrap();
    world.manager.machine().spoil(rm::address::Pa(World::pa_of(A).0 + 0x7000));
    front(&mut b).close_import(Handle(parcel)).unwrap();
    for _ in 0..2 {
        let closed = front(&mut a).close_export(Handle(parcel));
        assert_eq!(closed, Err(Errno::EADDRNOTAVAIL));
    }
    let ask = ExclusiveOwnerArg { dma_buf_fd: 3, is_exclusive_owner: 9 };
    let answer = front(&mut a).exclusive_owner(ask, &BUFFER, Some(Handle(parcel)));
    assert_eq!(answer, Err(Errno::EADDRNOTAVAIL));
    assert_eq!(export(&mut a, &acl), Err(Errno::EINVAL), "nor is it lent again");
    assert_eq!(import(&mut b, parcel, &acl).map(drop), Err(Errno::ENOENT));
}

#[test]
fn whether_a_buffer_is_exclusive_is_asked_of_the_manager_where_this_vm_may_ask() {
    let ask = ExclusiveOwnerArg { dma_buf_fd: 3, is_exclusive_owner: 9 };
    for roles in [Roles::INSPECT, Roles::empty()] {
        let world = World::new(&[VmConfig { roles, ..vm(3) }, vm(4), vm(5)]);
        let mut a = session(&world, A);
        let exclusive = |a: &mut Client<'_>| {
            front(a).exclusive_owner(ask, &BUFFER, None).unwrap().is_exclusive_owner
        };
        assert_eq!(exclusive(&mut a), 1);
        // Pages beside it are no matter.
        let (list, beside) = ([grant(Vmid(4), Rights::R)], [pages(PAGE + 0x1000, 1)]);
        let other = a.lend(&NewParcel::new(&beside, &list)).unwrap();
        assert_eq!(exclusive(&mut a), 1);
        a.reclaim(other, Sanitize::empty()).unwrap();
        // Another part of this VM lends one of its pages, and tells the driver nothing.
        let behind = a.lend(&NewParcel::new(&[pages(PAGE, 1)], &list)).unwrap();
        assert_eq!(exclusive(&mut a), u32::from(roles.is_empty()), "{roles:?}");
        a.reclaim(behind, Sanitize::empty()).unwrap();
        assert_eq!(exclusive(&mut a), 1);
    }
}

#[test]
fn a_buffer_is_lent_retrieved_and_reclaimed() {
    let world = world();
    let (mut a, mut b) = (session(&world, A), session(&world, B));
    let acl = [to(VMID_TRUSTED, RW)];
    let named = [to(VMID_PRIMARY, RW), to(VMID_TRUSTED, RW)];
    let lend = front(&mut a).lend(lend_arg(2), &named, vm_of, &BUFFER);
    assert_eq!(lend, Err(Errno::EINVAL), "a loan leaves its owner nothing");
    let lent = front(&mut a).lend(lend_arg(1), &acl, vm_of, &BUFFER).unwrap();
    let handle = lent.memparcel_hdl;
    let ask = ExclusiveOwnerArg { dma_buf_fd: 3, is_exclusive_owner: 9 };
    let mut exclusive = |parcel| {
        let answer = front(&mut a).exclusive_owner(ask, &BUFFER, parcel);
        answer.map(|done| done.is_exclusive_owner)
    };
    let parcel = Handle(handle as u32);
    assert_eq!((exclusive(None), exclusive(Some(parcel))), (Ok(1), Ok(0)));
    assert_eq!(exclusive(Some(Handle(parcel.0 + 1))), Err(Errno::ENOENT));

    let mut retrieve = |arg, sender| {
        let mut size = 0;
        let done = front(&mut b).retrieve(arg, &acl, vm_of, sender, |imported| {
            size = imported.place.size;
            Ok(41)
        })?;
        assert_eq!((done.dma_buf_import_fd, size), (41, 3 * 4096));
        Ok(())
    };
    let arg = retrieve_arg(handle, 1);
    assert_eq!(retrieve(arg, Vmid(5)), Err(Errno::EINVAL), "another VM's parcel");
    assert_eq!(retrieve(RetrieveArg { fd_flags: 4, ..arg }, Vmid(3)), Err(Errno::EINVAL));
    assert_eq!(retrieve(RetrieveArg { reserved: [1, 0, 0], ..arg }, Vmid(3)), Err(Errno::EINVAL));
    let wide = RetrieveArg { memparcel_hdl: handle | 1 << 32, ..arg };
    assert_eq!(retrieve(wide, Vmid(3)), Err(Errno::ENOENT));
    assert_eq!(retrieve(arg, Vmid(3)), Ok(()));

    let mut reclaim = |arg| front(&mut a).reclaim(arg, parcel);
    let arg = reclaim_arg(handle);
    assert_eq!(reclaim(arg), Err(Errno::EBUSY));
    front(&mut b).close_import(parcel).unwrap();
    assert_eq!(reclaim(reclaim_arg(handle + 1)), Err(Errno::EINVAL), "another buffer's");
    assert_eq!(reclaim(reclaim_arg(handle | 1 << 40)), Err(Errno::ENOENT));
    assert_eq!(reclaim(ReclaimArg { reserved0: 1, ..arg }), Err(Errno::EINVAL));
    assert_eq!(reclaim(ReclaimArg { reserved: [0, 1], ..arg }), Err(Errno::EINVAL));
    assert_eq!(reclaim(arg), Ok(arg));
    assert_eq!(reclaim(arg), Err(Errno::ENOENT));
    world.check();
}

#[test]
fn a_share_names_its_owner_last_if_the_program_does_not() {
    let world = world();
    let (mut a, mut b) = (session(&world, A), session(&world, B));
    let acl = [to(VMID_TRUSTED, PERM_READ)];
    let shared = front(&mut a).share(lend_arg(1), &acl, vm_of, &BUFFER).unwrap();
    let whole = [acl[0], to(VMID_PRIMARY, RW | PERM_EXEC)];
    let mut retrieve = |acl: &[AclEntry]| {
        let arg = retrieve_arg(shared.memparcel_hdl, acl.len());
        front(&mut b).retrieve(arg, acl, vm_of, Vmid(3), |_| Ok(41)).map(drop)
    };
    assert_eq!(retrieve(&acl), Err(Errno::EINVAL), "without it, it would be a loan");
    assert_eq!(retrieve(&whole), Ok(()));
    world.cpu(A).write(Ipa(PAGE), 1).unwrap();
}

#[test]
fn a_dma_buf_says_how_a_vm_is_to_map_it() {
    let world = world();
    let (mut a, mut b, mut c) = (session(&world, A), session(&world, B), session(&world, C));
    let acl = [grant(Vmid(4), Rights::RW)];
    let uncached = [AttributeEntry { attribute: Attribute::Uncached as u16, vmid: Vmid(4) }];
    let (one, other) = ([pages(PAGE, 1)], [pages(PAGE + 0x4000, 1)]);
    let cached = a.lend(&NewParcel::new(&one, &acl)).unwrap();
    let combined = a.lend(&NewParcel::new(&other, &acl).attributes(&uncached)).unwrap();
    let ask = |param| dmabuf::Info { param, pad: 0, value: u64::MAX };
    for session in [&mut a, &mut b] {
        let mut value = |parcel| dmabuf::info(session, ask(1), parcel).map(|done| done.value);
        assert_eq!(value(cached), Ok(dmabuf::VM_PROT_CACHED));
        assert_eq!(value(combined), Ok(dmabuf::VM_PROT_WC));
        for param in [0, 2, u32::MAX] {
            assert_eq!(dmabuf::info(session, ask(param), cached), Err(Errno::EINVAL));
        }
    }
    assert_eq!(dmabuf::info(&mut c, ask(1), cached), Err(Errno::ENOENT));
    a.reclaim(cached, Sanitize::empty()).unwrap();
    assert_eq!(dmabuf::info(&mut a, ask(1), cached), Err(Errno::ENOENT));
}

#[test]
fn a_dma_buf_has_a_name_of_up_to_31_bytes() {
    let world = world();
    let (mut a, mut b) = (session(&world, A), session(&world, B));
    let acl = [grant(Vmid(4), Rights::RW)];
    let parcel = a.lend(&NewParcel::new(&[pages(PAGE, 1)], &acl)).unwrap();
    let of = |length| [b"n".repeat(length), vec![0]].concat();
    let (longest, too_long) = (of(31), of(32));
    assert_eq!(dmabuf::set_name(&mut a, parcel, &longest), Ok(()));
    let name = b.info(parcel).unwrap().name;
    for refused in [&too_long[..], &too_long[..32], b"", b"no end", &[0xff, 0]] {
        assert_eq!(dmabuf::set_name(&mut a, parcel, refused), Err(Errno::EINVAL), "{refused:?}");
    }
    assert_eq!(b.info(parcel).unwrap().name, name, "nothing changed");
    assert_eq!(dmabuf::set_name(&mut a, parcel, b"frame\0 and more"), Ok(()));
    assert_eq!(b.info(parcel).unwrap().name.bytes(), b"frame");
    assert_eq!(dmabuf::set_name(&mut b, parcel, b"mine\0"), Err(Errno::EPERM));
}
