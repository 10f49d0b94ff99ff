//! Which VMs may give memory to others, and which may take it.

use rm::address::{Ipa, VmIndex};
use rm::config::{Roles, VmConfig};
use rm::machine::fake::world::{Guest, RAM, World, accept, vm};
use rm_abi::extension::{LEAF, LeafInfo, LeafRequest, Rule};
use rm_abi::{AcceptFlags, Bytes, ErrorCode, Transfer, Vmid, message};

const A: VmIndex = VmIndex(0);
const B: VmIndex = VmIndex(1);
const EYE: VmIndex = VmIndex(2);
const PAGE: u64 = RAM.0 + 0x10_0000;
const WINDOW: u64 = 0x9000_0000;
const DENIED: u32 = ErrorCode::Denied as u32;
const ALL: [Transfer; 3] = [Transfer::Donate, Transfer::Lend, Transfer::Share];

/// VMs 3 and 4, and one that looks at their tables.
fn world(a: VmConfig, b: VmConfig) -> World {
    World::new(&[a, b, VmConfig { roles: Roles::INSPECT, ..vm(6) }])
}

/// The descriptor of a VM's page.
fn descriptor(eye: &Guest<'_>, vmid: u16, ipa: u64) -> LeafInfo {
    let mut request = [0; 16];
    LeafRequest { vmid: Vmid(vmid), ipa }.encode(&mut request).unwrap();
    let reply = eye.call(LEAF, &request);
    assert_eq!(reply[..].u32_at(0), 0);
    LeafInfo::decode(&reply[4..]).unwrap()
}

fn acl(transfer: Transfer) -> &'static [(u16, u8)] {
    match transfer {
        Transfer::Share => &[(3, 6), (4, 6)],
        Transfer::Lend => &[(4, 6)],
        Transfer::Donate => &[(4, 7)],
    }
}

#[test]
fn g4_a_vm_that_may_not_supply_gives_nothing_and_keeps_all() {
    let world = world(VmConfig { may_supply: false, ..vm(3) }, vm(4));
    let (a, b, eye) = (world.caller(A), world.caller(B), world.caller(EYE));
    let (before, leaf) = (world.check(), descriptor(&eye, 3, PAGE));
    for transfer in ALL {
        assert_eq!(a.offer(transfer, acl(transfer), &[(PAGE, 1)]), Err(DENIED), "{transfer:?}");
        assert_eq!(a.last_refusal().rule, Rule::Role as u16);
        let two = [(PAGE, 1), (PAGE + 0x4000, 1)];
        assert_eq!(a.offer(transfer, acl(transfer), &two), Err(DENIED), "{transfer:?}");
    }
    let malformed = a.words(message::MEM_LEND, &[0; 3]).0;
    assert_eq!(malformed, ErrorCode::MessageInvalid as u32, "what is no request is none first");
    assert_eq!(descriptor(&eye, 3, PAGE), leaf);
    assert_eq!(world.check(), before);
    world.cpu(A).write(Ipa(PAGE), 7).unwrap();
    // What it does not give it may take.
    let handle = b.offer(Transfer::Lend, &[(3, 6)], &[(PAGE, 1)]).unwrap();
    a.accept_contiguous(handle, Transfer::Lend, (WINDOW, 1)).unwrap();
}

#[test]
fn g4_a_vm_that_may_not_consume_takes_nothing() {
    let world = world(vm(3), VmConfig { may_consume: false, ..vm(4) });
    let (a, b, eye) = (world.caller(A), world.caller(B), world.caller(EYE));
    for transfer in ALL {
        let handle = a.offer(transfer, acl(transfer), &[(PAGE, 1)]).unwrap();
        let (before, leaf) = (world.check(), descriptor(&eye, 4, WINDOW));
        assert_eq!(b.accept_contiguous(handle, transfer, (WINDOW, 1)), Err(DENIED));
        assert_eq!(b.last_refusal().rule, Rule::Role as u16);
        let assign = accept(handle, transfer, AcceptFlags::empty(), &[(WINDOW, 1)]);
        assert_eq!(b.words(message::MEM_ACCEPT, &assign).0, DENIED, "not even an address");
        let other = b.accept_contiguous(handle + 1, transfer, (WINDOW, 1));
        assert_eq!(
            other,
            Err(ErrorCode::HandleInvalid as u32),
            "no party learns no more than before"
        );
        assert_eq!(descriptor(&eye, 4, WINDOW), leaf);
        assert_eq!(world.check(), before);
        assert!(world.cpu(B).read(Ipa(WINDOW)).is_err());
        a.reclaim(handle, 0).unwrap();
    }
    // What it does not take it may give.
    let handle = b.offer(Transfer::Lend, &[(3, 6)], &[(PAGE, 1)]).unwrap();
    a.accept_contiguous(handle, Transfer::Lend, (WINDOW, 1)).unwrap();
}

#[test]
fn channels_of_the_boot_configuration_do_not_depend_on_it() {
    let neither = |vmid| VmConfig { may_supply: false, may_consume: false, ..vm(vmid) };
    let world = world(neither(3), neither(4));
    let made = world.manager.share_at_boot((A, Ipa(PAGE)), (B, Ipa(WINDOW)), 1, 0).unwrap();
    world.cpu(A).write(Ipa(PAGE), 9).unwrap();
    assert_eq!(world.cpu(B).read(Ipa(WINDOW)), Ok(9));
    // And can be given up as ever.
    world.caller(B).release(made.0, 0).unwrap();
    world.caller(A).reclaim(made.0, 0).unwrap();
    world.check();
}
