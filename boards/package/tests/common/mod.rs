//! A package with everything in it, and a reader that looks at everything.

use package::{
    Amounts, Board, Channel, Device, Heap, Interrupt, Load, Name, Package, PackageError, Vm, Writer,
};

/// Two VMs, with a channel, devices, interrupts and a heap.
pub(crate) fn two_vms() -> Writer {
    let vm = |name: &str, vmid| Vm { name: Name::new(name), vmid, ..Vm::SMALL };
    let tree = Load { image: 2, at: 0x4000_0000 };
    let second = Vm {
        may_supply: false,
        image: 1,
        vcpus: 2,
        cpus: [1, 0],
        device_tree: Some(tree),
        ..vm("b", 4)
    };
    let vms = vec![Vm { may_consume: false, ..vm("a", 3) }, second];
    Writer {
        hlt_allowed: true,
        gic: 3,
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
        devices: vec![
            Device { vm: 0, pa: 0x0a00_0000, ipa: 0x0a00_0000, pages: 1 },
            Device { vm: 1, pa: 0x0a01_0000, ipa: 0x0a00_0000, pages: 2 },
        ],
        interrupts: vec![
            Interrupt { vm: 0, physical: 48, virtual_: 43, edge: true },
            Interrupt { vm: 1, physical: 49, virtual_: 43, edge: false },
        ],
        heaps: vec![Heap {
            name: Name::new("video"),
            size: 8 << 20,
            guaranteed: 4 << 20,
            limit: 6 << 20,
            vms: 0b11,
        }],
        images: vec![vec![0xaa; 100], vec![0xbb; 5000], vec![0xcc; 200]],
        ..Writer::new(Board::QEMU_VIRT, 2, [7; 16])
    }
}

/// Reads everything there is to read, if anything can be.
pub(crate) fn read_all(bytes: &[u8]) -> Result<(), PackageError> {
    let package = Package::parse(bytes)?;
    for vm in package.vms() {
        assert!(!package.image(&vm).is_empty());
        assert!(package.loads(&vm).count() > 0);
    }
    assert!(package.channels().all(|channel| channel.pages > 0));
    assert!(package.devices().all(|device| device.pages > 0));
    assert!(package.interrupts().all(|interrupt| interrupt.physical >= 32));
    assert!(package.heaps().all(|heap| !heap.name.as_str().is_empty()));
    Ok(())
}
