//! What a written package says when it is read, and which packages are refused.

use package::{Amounts, Board, Channel, Name, Package, PackageError, Quotas, Vm, Writer};
use proptest::prelude::*;

fn two_vms() -> Writer {
    let vm = |name: &str, vmid| Vm { name: Name::new(name), vmid, ..Vm::SMALL };
    let vms = vec![vm("a", 3), Vm { image: 1, vcpus: 2, cpus: [1, 0], ..vm("b", 4) }];
    Writer {
        board: Board::QemuVirt,
        hlt_allowed: true,
        cpus: 2,
        nonce: [7; 16],
        shared: Amounts::enough_for(&vms),
        vms,
        channels: vec![Channel {
            owner: 0,
            peer: 1,
            label: 9,
            owner_ipa: 0x4020_0000,
            peer_ipa: 0x8000_0000,
            pages: 2,
        }],
        images: vec![vec![0xaa; 100], vec![0xbb; 5000]],
    }
}

fn refused(change: impl FnOnce(&mut Writer)) -> PackageError {
    let mut writer = two_vms();
    change(&mut writer);
    writer.write().expect_err("this package must be refused")
}

#[test]
fn what_is_written_is_read() {
    let writer = two_vms();
    let mut bytes = writer.write().unwrap();
    let length = bytes.len();
    bytes.extend_from_slice(b"memory behind the package");
    let package = Package::parse(&bytes).unwrap();
    assert_eq!(package.length(), length);
    assert_eq!(package.board(), Board::QemuVirt);
    assert_eq!(package.nonce(), [7; 16]);
    assert_eq!(package.cpus(), 2);
    assert!(package.hlt_allowed());
    assert_eq!(package.shared(), writer.shared);
    assert_eq!(package.vms().collect::<Vec<_>>(), writer.vms);
    assert_eq!(package.channels().collect::<Vec<_>>(), writer.channels);
    for vm in package.vms() {
        assert_eq!(package.image(&vm), writer.images[vm.image as usize]);
    }
}

#[test]
fn programs_that_run_at_el2_alone_need_no_vm() {
    let mut writer = two_vms();
    (writer.vms, writer.channels, writer.images) = (vec![], vec![], vec![]);
    assert_eq!(Package::parse(&writer.write().unwrap()).unwrap().vms().len(), 0);
}

#[test]
fn a_package_can_lie_at_any_address() {
    let bytes = two_vms().write().unwrap();
    for shift in 0..8 {
        let mut shifted = vec![0; shift];
        shifted.extend_from_slice(&bytes);
        assert_eq!(Package::parse(&shifted[shift..]).unwrap().vms().len(), 2);
    }
}

#[test]
fn a_package_cut_short_is_refused() {
    let bytes = two_vms().write().unwrap();
    for length in 0..bytes.len() {
        assert!(Package::parse(&bytes[..length]).is_err(), "{length} bytes were accepted");
    }
}

#[test]
fn names_and_vmids_are_unique_and_usable() {
    assert_eq!(refused(|w| w.vms[1].name = Name::new("a")), PackageError::VmName(1));
    assert_eq!(refused(|w| w.vms[0].name = Name::new("")), PackageError::VmName(0));
    assert_eq!(refused(|w| w.vms[0].name = Name::new("a\nb")), PackageError::VmName(0));
    assert_eq!(refused(|w| w.vms[1].vmid = 3), PackageError::Vmid(1));
    assert_eq!(refused(|w| w.vms[1].vmid = 255), PackageError::Vmid(1));
    assert_eq!(refused(|w| w.vms[0].vmid = 0), PackageError::Vmid(0));
}

#[test]
fn vms_fit_the_machine() {
    assert_eq!(refused(|w| w.vms = vec![w.vms[0]; 33]), PackageError::VmCount(33));
    assert_eq!(refused(|w| w.cpus = 0), PackageError::Cpus(0));
    assert_eq!(refused(|w| w.vms[1].cpus = [0, 2]), PackageError::Vcpus(1));
    assert_eq!(refused(|w| w.vms[1].cpus = [1, 1]), PackageError::Vcpus(1));
    assert_eq!(refused(|w| w.vms[0].vcpus = 0), PackageError::Vcpus(0));
    assert_eq!(refused(|w| w.vms[0].vcpus = 3), PackageError::Vcpus(0));
    assert_eq!(refused(|w| w.vms[0].memory += 4096), PackageError::Memory(0));
    assert_eq!(refused(|w| w.vms[0].memory = 1 << 36), PackageError::Memory(0));
    assert_eq!(refused(|w| w.vms[0].ipa_bits = 48), PackageError::IpaBits(0));
    assert_eq!(refused(|w| w.vms[0].load = 0x1000), PackageError::Image(0));
    assert_eq!(refused(|w| w.vms[0].load = u64::MAX), PackageError::Image(0));
    assert_eq!(refused(|w| w.vms[0].image = 2), PackageError::Image(0));
    assert_eq!(refused(|w| w.vms[0].entry += 2), PackageError::Entry(0));
    assert_eq!(refused(|w| w.vms[0].entry += 4096), PackageError::Entry(0));
}

#[test]
fn no_guarantee_is_above_its_limit() {
    let raises: [fn(&mut Amounts); 7] = [
        |of| of.parcels += 1,
        |of| of.extents += 1,
        |of| of.unfinished += 1,
        |of| of.unread += 1,
        |of| of.frames += 1,
        |of| of.pages_lent += 1,
        |of| of.pages_accepted += 1,
    ];
    for raise in raises {
        let mut quotas = Quotas { guaranteed: Quotas::USUAL.limit, ..Quotas::USUAL };
        let mut writer = two_vms();
        writer.vms[1].quotas = quotas;
        assert!(writer.write().is_ok(), "all of it may be guaranteed");
        raise(&mut quotas.guaranteed);
        assert_eq!(refused(|w| w.vms[1].quotas = quotas), PackageError::Quotas(1));
    }
}

#[test]
fn what_is_enough_for_all_is_the_sum_of_what_each_may_have_beyond_its_guarantee() {
    let writer = two_vms();
    let Quotas { guaranteed, limit } = Quotas::USUAL;
    assert_eq!(writer.shared.parcels, 2 * (limit.parcels - guaranteed.parcels));
    assert_eq!(writer.shared.pages_lent, 2 * (limit.pages_lent - guaranteed.pages_lent));
    assert_eq!(Amounts::enough_for([]), Amounts::default());
}

#[test]
fn channels_lie_in_the_owner_and_beside_the_peer() {
    assert_eq!(refused(|w| w.channels[0].owner = 2), PackageError::Channel(0));
    assert_eq!(refused(|w| w.channels[0].peer = 0), PackageError::Channel(0));
    assert_eq!(refused(|w| w.channels[0].pages = 0), PackageError::Channel(0));
    assert_eq!(refused(|w| w.channels[0].pages = u64::MAX), PackageError::Channel(0));
    assert_eq!(refused(|w| w.channels[0].owner_ipa = 0x8000_0000), PackageError::Channel(0));
    assert_eq!(refused(|w| w.channels[0].peer_ipa = 0x4000_0000), PackageError::Channel(0));
    assert_eq!(refused(|w| w.channels[0].peer_ipa |= 1), PackageError::Channel(0));
}

#[test]
fn another_version_is_refused_by_name() {
    let mut bytes = two_vms().write().unwrap();
    bytes[8] = 2;
    assert_eq!(Package::parse(&bytes).unwrap_err(), PackageError::Version(2));
    bytes[0] = 0;
    assert_eq!(Package::parse(&bytes).unwrap_err(), PackageError::Magic);
}

/// Reads everything there is to read.
fn read_all(bytes: &[u8]) {
    if let Ok(package) = Package::parse(bytes) {
        for vm in package.vms() {
            assert!(!package.image(&vm).is_empty());
        }
        assert!(package.channels().all(|channel| channel.pages > 0));
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        read_all(&bytes);
    }

    #[test]
    fn no_damage_makes_the_reader_panic(
        damage in prop::collection::vec((0..16384usize, any::<u8>()), 1..8),
    ) {
        let mut bytes = two_vms().write().unwrap();
        let length = bytes.len();
        for (at, value) in damage {
            // The tables lie in the first bytes of the first two pages; aim there.
            let at = if at % 2 == 0 { at % 136 } else { (4096 + at % 300) % length };
            bytes[at] = value;
        }
        read_all(&bytes);
    }
}
