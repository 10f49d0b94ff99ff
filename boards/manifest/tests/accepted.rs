//! What a good manifest becomes.

mod common;

use common::{FULL, read};
use package::{
    Board, EndOfLife, OnFault, OwnedParcels, Package, Placement, Quotas, Roles, Sanitize, Start,
};

#[test]
fn every_word_of_a_manifest_reaches_the_boot_configuration() {
    let manifest = read(FULL).unwrap_or_else(|report| panic!("{report}"));
    let bytes = manifest.into_writer([9; 16]).write().unwrap();
    let package = Package::parse(&bytes).unwrap();
    assert!(package.is_for(Board::QEMU_VIRT));
    assert_eq!((package.gic(), package.cpus()), (Some(3), 4));
    assert_eq!((package.nonce(), package.hlt_allowed()), ([9; 16], false));
    let vms: Vec<_> = package.vms().collect();
    let [linux, service, driver] = &vms[..] else { panic!("{vms:?}") };

    assert_eq!((linux.name.as_str(), linux.vmid, linux.cpus()), ("linux", 16, &[0, 1][..]));
    assert_eq!((linux.memory, linux.memory_at), (64 << 20, 0x4000_0000));
    assert_eq!((linux.load, linux.entry, linux.start), (0x4000_0000, 0x4000_0000, Start::First));
    assert_eq!((linux.roles, linux.end_of_life), (Roles::INSPECT, EndOfLife::Restart));
    let limit = linux.quotas.limit;
    let usual = Quotas::USUAL.limit;
    assert_eq!((limit.parcels, limit.pages_lent, limit.frames), (32, 4096, usual.frames));
    assert!(linux.initrd.is_some() && linux.device_tree.is_some());

    assert_eq!((service.vmid, service.memory, service.cpus()), (0x11, 8 << 20, &[0][..]));
    assert_eq!((service.load, service.entry), (0x4008_0000, 0x4008_0004));
    assert_eq!((service.sanitize, service.on_fault), (Sanitize::Always, OnFault::Stop));
    assert_eq!((service.owned_parcels, service.start), (OwnedParcels::Keep, Start::All));

    assert_eq!((driver.placement, driver.trusted_dma), (Placement::Identity, true));
    assert_eq!((driver.load, driver.entry), (driver.memory_at + 0x8_0000, driver.load));
    assert_eq!(driver.roles, Roles::INSPECT | Roles::MANAGE);
    assert_eq!((driver.may_supply, driver.may_consume), (true, false));
    assert_eq!((linux.may_supply, linux.may_consume), (true, true));

    let devices: Vec<_> = package.devices().map(|it| (it.vm, it.pa, it.ipa, it.pages)).collect();
    assert_eq!(devices, [(1, 0x901_0000, 0xa00_0000, 1), (2, 0xa00_0000, 0xa00_0000, 1)]);
    let interrupts = package.interrupts().map(|it| (it.vm, it.physical, it.virtual_, it.edge));
    let interrupts: Vec<_> = interrupts.collect();
    assert_eq!(interrupts, [(1, 34, 43, false), (2, 48, 50, true), (2, 49, 43, false)]);
    let heaps: Vec<_> =
        package.heaps().map(|it| (it.size, it.guaranteed, it.limit, it.vms)).collect();
    assert_eq!(heaps, [(16 << 20, 4 << 20, 10 << 20, 0b11)]);
    let channels: Vec<_> = package.channels().collect();
    let ends = channels.iter().map(|it| (it.owner, it.peer, it.label, it.pages, it.peer_ipa));
    let behind_service = 0x4000_0000 + (8 << 20);
    let ends: Vec<_> = ends.collect();
    assert_eq!(ends, [(0, 1, 7, 16, behind_service), (2, 0, 0, 1, 0x7000_0000)]);
}

#[test]
fn what_the_tool_places_lies_in_memory_and_beside_everything_else() {
    let manifest = read(FULL).unwrap_or_else(|report| panic!("{report}"));
    for vm in manifest.vms() {
        for map in [&vm.space, &vm.contents] {
            let claims = map.claims();
            for pair in claims.windows(2) {
                assert!(pair[0].range.end <= pair[1].range.start, "{pair:?}");
            }
        }
    }
}

#[test]
fn a_direct_vm_gets_the_highest_free_ram() {
    let manifest = read(FULL).unwrap_or_else(|report| panic!("{report}"));
    let driver = &manifest.configuration().vms[2];
    assert_eq!(driver.memory_at, 0x8000_0000 - (4 << 20));
}

#[test]
fn the_same_program_is_packed_once() {
    let text = |name: &str, vmid: u16| {
        format!(
            "[[vm]]\nname = \"{name}\"\nvmid = {vmid}\nmemory = \"2M\"\nprogram = \"raw.bin\"\ndevice_tree = false\n"
        )
    };
    let manifest = read(&format!("board = \"qemu-virt\"\n{}{}", text("a", 1), text("b", 2)));
    let manifest = manifest.unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(manifest.configuration().images.len(), 1);
}
