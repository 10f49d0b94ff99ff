//! What a written package says when it is read, and which packages are refused.

mod common;

use common::{read_all, two_vms};
use package::{Amounts, Board, Load, Name, Package, PackageError, Part, Quotas, Vm, Writer, seal};
use proptest::prelude::*;

fn refused(change: impl FnOnce(&mut Writer)) -> PackageError {
    let mut writer = two_vms();
    change(&mut writer);
    writer.write().map(|bytes| bytes.len()).expect_err("this package must be refused")
}

#[test]
fn what_is_written_is_read() {
    let writer = two_vms();
    let mut bytes = writer.write().unwrap();
    let length = bytes.len();
    bytes.extend_from_slice(b"memory behind the package");
    let package = Package::parse(&bytes).unwrap();
    assert_eq!(package.length(), length);
    assert!(package.is_for(Board::QEMU_VIRT));
    assert!(!package.is_for(Board::RPI4) && !package.is_for(Board::new(1, "other")));
    assert_eq!(package.board_name().as_str(), "qemu-virt");
    assert_eq!(package.nonce(), [7; 16]);
    assert_eq!(package.cpus(), 2);
    assert!(package.hlt_allowed());
    assert_eq!(package.shared(), writer.shared);
    assert_eq!(package.vms().collect::<Vec<_>>(), writer.vms);
    assert_eq!(package.channels().collect::<Vec<_>>(), writer.channels);
    assert_eq!(package.devices().collect::<Vec<_>>(), writer.devices);
    assert_eq!(package.interrupts().collect::<Vec<_>>(), writer.interrupts);
    assert_eq!(package.heaps().collect::<Vec<_>>(), writer.heaps);
    assert_eq!(package.gic(), Some(3));
    assert_eq!(package.hypervisor(), None);
    for vm in package.vms() {
        assert_eq!(package.image(&vm), writer.images[vm.image as usize]);
    }
    let second = package.vms().nth(1).unwrap();
    let loads: Vec<_> = package.loads(&second).collect();
    assert_eq!(loads[1], (0x4000_0000, writer.images[2].as_slice()));
}

#[test]
fn programs_that_run_at_el2_alone_need_no_vm() {
    let writer = Writer::new(Board::RPI4, 2, [0; 16]);
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

fn on_the_program() -> Load {
    Load { image: 2, at: Vm::SMALL.load + 4096 }
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
    assert_eq!(refused(|w| w.vms[0].memory_at += 4096), PackageError::Memory(0));
    assert_eq!(refused(|w| w.vms[0].memory_at = 0x0800_0000), PackageError::Memory(0));
    assert_eq!(refused(|w| w.vms[0].load = 0x1000), PackageError::Image(0));
    assert_eq!(refused(|w| w.vms[1].device_tree = Some(on_the_program())), PackageError::Image(1));
    assert_eq!(
        refused(|w| w.vms[1].initrd = Some(Load { image: 9, at: 0 })),
        PackageError::Image(1)
    );
    assert_eq!(refused(|w| w.vms[0].load = u64::MAX), PackageError::Image(0));
    assert_eq!(refused(|w| w.vms[0].image = 3), PackageError::Image(0));
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
fn devices_lie_in_nobodys_memory_and_are_one_vms() {
    assert_eq!(refused(|w| w.devices[0].vm = 2), PackageError::Device(0));
    assert_eq!(refused(|w| w.devices[0].pages = 0), PackageError::Device(0));
    assert_eq!(refused(|w| w.devices[0].pa += 8), PackageError::Device(0));
    assert_eq!(refused(|w| w.devices[0].ipa = 0x4000_0000), PackageError::Device(0));
    assert_eq!(refused(|w| w.devices[0].ipa = 0x0900_0000), PackageError::Device(0));
    assert_eq!(refused(|w| w.devices[0].ipa = 1 << 36), PackageError::Device(0));
    assert_eq!(refused(|w| w.devices[1].pa = 0x0a00_0000), PackageError::Device(1));
    assert_eq!(refused(|w| w.devices[1].pa = !4095), PackageError::Device(1));
}

#[test]
fn an_interrupt_is_one_vms() {
    assert_eq!(refused(|w| w.interrupts[0].vm = 2), PackageError::Interrupt(0));
    assert_eq!(refused(|w| w.interrupts[0].physical = 31), PackageError::Interrupt(0));
    assert_eq!(refused(|w| w.interrupts[0].physical = 1020), PackageError::Interrupt(0));
    assert_eq!(refused(|w| w.interrupts[0].virtual_ = 42), PackageError::Interrupt(0));
    assert_eq!(refused(|w| w.interrupts[0].virtual_ = 64), PackageError::Interrupt(0));
    assert_eq!(refused(|w| w.interrupts[1].physical = 48), PackageError::Interrupt(1));
    assert_eq!(refused(|w| w.interrupts[1].vm = 0), PackageError::Interrupt(1));
}

#[test]
fn heaps_have_names_sizes_and_known_vms() {
    assert_eq!(refused(|w| w.heaps[0].size = 4096), PackageError::Heap(0));
    assert_eq!(refused(|w| w.heaps[0].size = 0), PackageError::Heap(0));
    assert_eq!(refused(|w| w.heaps[0].vms = 0b100), PackageError::Heap(0));
    assert_eq!(refused(|w| w.heaps.push(w.heaps[0])), PackageError::Heap(1));
    assert_eq!(refused(|w| w.heaps[0].limit = (8 << 20) + 4096), PackageError::Heap(0));
    assert_eq!(refused(|w| w.heaps[0].limit -= 1), PackageError::Heap(0));
    assert_eq!(refused(|w| w.heaps[0].guaranteed += 1), PackageError::Heap(0));
    assert_eq!(refused(|w| w.heaps[0].guaranteed += 4096), PackageError::Heap(0));
    assert_eq!(refused(|w| w.heaps[0].guaranteed = !0 << 12), PackageError::Heap(0));
    assert_eq!(refused(|w| w.heaps[0].limit = 1 << 20), PackageError::Heap(0));
}

#[test]
fn another_version_is_refused_by_name() {
    let mut bytes = two_vms().write().unwrap();
    assert_eq!(bytes[8], 6, "a heap says what each VM may have of it since this one");
    for other in [2, 4, 5, 7] {
        bytes[8] = other;
        let refused = Package::parse(&bytes).unwrap_err();
        assert_eq!(refused, PackageError::Version(other.into()));
    }
    bytes[0] = 0;
    assert_eq!(Package::parse(&bytes).unwrap_err(), PackageError::Magic);
}

#[test]
fn an_image_that_was_cut_when_it_was_loaded_says_so() {
    // The memory behind the part that came is not empty.
    let mut bytes = two_vms().write().unwrap();
    let length = bytes.len();
    bytes[length - 100..].fill(0x5a);
    assert_eq!(Package::parse(&bytes).unwrap_err(), PackageError::Truncated);
}

#[test]
fn a_changed_byte_is_refused_by_the_part_it_lies_in() {
    let whole = two_vms().write().unwrap();
    let changed = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        Package::parse(&bytes).unwrap_err()
    };
    assert_eq!(changed(24), PackageError::Digest(Part::Header), "the nonce");
    assert_eq!(changed(4096), PackageError::Digest(Part::Section(0)), "the boot configuration");
    assert_eq!(changed(8192), PackageError::Digest(Part::Section(1)), "the first program");
    assert_eq!(changed(12288), PackageError::Digest(Part::Section(2)), "the second program");
}

#[test]
fn two_packages_do_not_mix() {
    let one = two_vms().write().unwrap();
    let mut writer = two_vms();
    writer.images[0].fill(0xab);
    let other = writer.write().unwrap();
    let mixed = [&one[..8192], &other[8192..]].concat();
    assert_eq!(Package::parse(&mixed).unwrap_err(), PackageError::Digest(Part::Section(1)));
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = read_all(&bytes);
    }

    #[test]
    fn no_damage_makes_the_reader_panic(
        damage in prop::collection::vec((0..16384usize, any::<u8>()), 1..8),
    ) {
        let mut bytes = two_vms().write().unwrap();
        let length = bytes.len();
        for (at, value) in damage {
            // The tables lie in the first bytes of the first two pages; aim there.
            let at = if at % 2 == 0 { at % 300 } else { (4096 + at % 900) % length };
            bytes[at] = value;
        }
        let _ = read_all(&bytes);
        // And once more with digests that fit, so that the rules behind them are asked too.
        if seal(&mut bytes).is_ok() {
            let _ = read_all(&bytes);
        }
    }
}
