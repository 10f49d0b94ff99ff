//! What EL2 makes of the device tree that firmware leaves.

use dtoolkit::ToPropertyValue;
use dtoolkit::memreserve::MemoryReservation;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use hyp::board::{Board, Power, Region, Uart, UartKind};
use hyp::firmware::{self, Error, Memory};
use proptest::prelude::*;
use rm::address::Pa;

/// A board with RAM for sure, more in two places, and a range that is never EL2's.
const BOARD: Board = Board {
    id: package::Board::QEMU_VIRT,
    ram: &[Region::new(0x4000_0000, 0x1000_0000)],
    more_ram: &[Region::new(0x5000_0000, 0x3000_0000), Region::new(0x1_0000_0000, 0x4000_0000)],
    reserved: &[Region::new(0x5600_0000, 0x0200_0000)],
    devices: &[],
    uart: Uart { kind: UartKind::Imx, base: Pa(0), intid: 32 },
    gics: &[],
    power: Power::Psci,
    cpus: &[0],
};

/// A tree with these nodes of RAM and these reservations.
struct Tree(DeviceTree);

impl Tree {
    fn new() -> Self {
        let mut tree = DeviceTree::new();
        cells(&mut tree.root);
        Self(tree)
    }

    fn ram(mut self, name: &str, ranges: &[u64]) -> Self {
        let mut node = DeviceTreeNode::new(name).unwrap();
        set(&mut node, "device_type", "memory");
        set(&mut node, "reg", numbers(ranges));
        self.0.root.add_child(node);
        self
    }

    fn status(mut self, name: &str, status: &str) -> Self {
        set(self.0.root.child_mut(name).unwrap(), "status", status);
        self
    }

    fn reserved(mut self, start: u64, size: u64) -> Self {
        if self.0.root.child_mut("reserved-memory").is_none() {
            let mut all = DeviceTreeNode::new("reserved-memory").unwrap();
            cells(&mut all);
            self.0.root.add_child(all);
        }
        let mut node = DeviceTreeNode::new(format!("kept@{start:x}")).unwrap();
        set(&mut node, "reg", numbers(&[start, size]));
        self.0.root.child_mut("reserved-memory").unwrap().add_child(node);
        self
    }

    fn reservation(mut self, start: u64, size: u64) -> Self {
        self.0.memory_reservations.push(MemoryReservation::new(start, size));
        self
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.to_dtb()
    }

    fn read(&self) -> Result<Memory, Error> {
        firmware::read(&self.bytes())
    }

    fn layout(&self) -> Vec<(u64, u64)> {
        let memory = self.read().unwrap();
        spans(&firmware::layout(&BOARD, Some(&memory)).unwrap())
    }
}

fn set<T: ToPropertyValue>(node: &mut DeviceTreeNode, name: &str, value: T) {
    node.add_property(DeviceTreeProperty::new(name, value).unwrap());
}

fn cells(node: &mut DeviceTreeNode) {
    ["#address-cells", "#size-cells"].into_iter().for_each(|name| set(node, name, 2_u32));
}

fn numbers(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

/// First addresses, and those behind.
fn spans(regions: &[Region]) -> Vec<(u64, u64)> {
    regions.iter().map(|region| (region.start.0, region.end().0)).collect()
}

/// Two banks, and three ranges that are kept in the two ways that there are.
fn usual() -> Tree {
    Tree::new()
        .ram("memory@40000000", &[0x4000_0000, 0x4000_0000])
        .ram("memory@100000000", &[0x1_0000_0000, 0x1000_0000])
        .reserved(0x4800_0000, 0x10_0000)
        .reserved(0x7ff0_0100, 0x100)
        .reservation(0x4000_0000, 0x1000)
}

#[test]
fn without_a_tree_ram_is_what_every_board_has() {
    let all = firmware::layout(&BOARD, None).unwrap();
    assert_eq!(spans(&all), [(0x4000_0000, 0x5000_0000)]);
}

#[test]
fn a_tree_says_how_much_there_is_and_what_is_kept() {
    let expected = [
        (0x4000_1000, 0x4800_0000),
        (0x4810_0000, 0x5600_0000),
        (0x5800_0000, 0x7ff0_0000),
        (0x7ff0_1000, 0x8000_0000),
        (0x1_0000_0000, 0x1_1000_0000),
    ];
    assert_eq!(usual().layout(), expected);
}

#[test]
fn ram_where_the_board_has_none_is_not_believed() {
    let tree = Tree::new().ram("memory@0", &[0, 0x4100_0000, 0x8000_0000, 0x1000_0000]);
    assert_eq!(tree.layout(), [(0x4000_0000, 0x4100_0000)]);
    let nowhere = Tree::new().ram("memory@0", &[0, 0x1000]).read().unwrap();
    assert_eq!(firmware::layout(&BOARD, Some(&nowhere)), Err(Error::NoRam));
}

#[test]
fn a_small_board_is_believed_to_be_small() {
    let tree = Tree::new().ram("memory@40000000", &[0x4000_0000, 0x0800_0000]);
    assert_eq!(tree.layout(), [(0x4000_0000, 0x4800_0000)]);
}

#[test]
fn ram_that_is_named_twice_is_there_once() {
    let ranges = [0x4000_0000, 0x2000_0000, 0x4000_0000, 0x1000, 0x5000_0000, 0x3000_0000];
    let tree = Tree::new().ram("memory@40000000", &ranges);
    let expected =
        [(0x4000_0000, 0x5600_0000), (0x5800_0000, 0x6000_0000), (0x6000_0000, 0x8000_0000)];
    assert_eq!(tree.layout(), expected);
}

#[test]
fn ram_that_is_switched_off_is_none() {
    let tree = usual().status("memory@100000000", "disabled");
    assert_eq!(tree.layout().last(), Some(&(0x7ff0_1000, 0x8000_0000)));
    let tree = usual().status("memory@100000000", "okay");
    assert_eq!(tree.layout().last(), Some(&(0x1_0000_0000, 0x1_1000_0000)));
}

#[test]
fn what_is_kept_is_whole_pages_and_ram_too() {
    let tree =
        Tree::new().ram("memory@40000000", &[0x4000_0800, 0x0000_4000]).reserved(0x4000_2fff, 2);
    assert_eq!(tree.layout(), [(0x4000_1000, 0x4000_2000)]);
}

#[test]
fn sizes_up_to_the_end_of_the_address_space_do_not_wrap() {
    let tree = Tree::new().ram("memory@40000000", &[0x4000_0000, u64::MAX]);
    assert_eq!(tree.layout().len(), 3);
    let tree = tree.reserved(0x5000_0000, u64::MAX).reservation(u64::MAX, u64::MAX);
    assert_eq!(tree.layout(), [(0x4000_0000, 0x5000_0000)]);
}

#[test]
fn a_tree_without_ram_or_with_too_many_ranges_is_not_used() {
    assert_eq!(Tree::new().read(), Err(Error::NoRam));
    let ranges: Vec<u64> = (0..40).flat_map(|n| [0x4000_0000 + n * 0x2000, 0x1000]).collect();
    assert_eq!(Tree::new().ram("memory@40000000", &ranges).read(), Err(Error::TooMany));
    let kept = (0..40).fold(usual(), |tree, n| tree.reserved(0x4100_0000 + n * 0x2000, 0x1000));
    assert_eq!(kept.read(), Err(Error::TooMany));
}

#[test]
fn the_head_tells_the_length() {
    let bytes = usual().bytes();
    let head = |bytes: &[u8]| firmware::length(bytes[..firmware::HEAD].try_into().unwrap());
    assert_eq!(head(&bytes), Ok(bytes.len()));
    assert_eq!(head(&[0; 8]), Err(Error::NotATree));
    let long = [&bytes[..4], &u32::MAX.to_be_bytes()].concat();
    assert_eq!(head(&long), Err(Error::NotATree));
    assert_eq!(firmware::read(&bytes[..bytes.len() - 1]), Err(Error::Damaged));
}

/// Whatever a tree says, RAM is where the board has it, in order, and nothing that anybody keeps.
fn check(bytes: &[u8]) {
    let Ok(memory) = firmware::read(bytes) else { return };
    let Ok(all) = firmware::layout(&BOARD, Some(&memory)) else { return };
    let windows = [Region::new(0x4000_0000, 0x4000_0000), Region::new(0x1_0000_0000, 0x4000_0000)];
    for region in &all {
        assert!(windows.iter().any(|window| window.covers(region)), "{region:x?}");
        assert!(region.size > 0 && region.start.is_aligned(4096), "{region:x?}");
        for kept in memory.kept.iter().chain(BOARD.reserved) {
            assert_eq!(region.common(kept).size, 0, "{region:x?} and {kept:x?}");
        }
    }
    let disjoint = |pair: &[Region]| pair[0].end().0 <= pair[1].start.0;
    assert!(all.windows(2).all(disjoint), "{all:x?}");
}

/// `RM_EFFORT` times as many cases as usual.
fn effort() -> ProptestConfig {
    let effort = std::env::var("RM_EFFORT").ok().and_then(|effort| effort.parse().ok());
    ProptestConfig::with_cases(2_000 * effort.unwrap_or(1))
}

proptest! {
    #![proptest_config(effort())]

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        check(&bytes);
    }

    #[test]
    fn no_damage_makes_the_reader_panic_or_believe_in_other_ram(
        damage in prop::collection::vec((0..4096usize, any::<u8>()), 1..12),
        cut in 0..64usize,
    ) {
        let mut bytes = usual().bytes();
        let length = bytes.len();
        for (at, value) in damage {
            bytes[at % length] = value;
        }
        bytes.truncate(length - cut % 2 * cut);
        check(&bytes);
    }

    #[test]
    fn no_ranges_make_the_reader_believe_in_other_ram(
        ram in prop::collection::vec(any::<u64>(), 0..8),
        near in prop::collection::vec(0x3fff_f000u64..0x9000_0000, 0..8),
        kept in prop::collection::vec((0x3fff_f000u64..0x9000_0000, any::<u32>()), 0..8),
    ) {
        let all = [&near[..near.len() / 2 * 2], &ram[..ram.len() / 2 * 2]].concat();
        let tree = Tree::new().ram("memory@40000000", &all);
        let keep = |tree: Tree, (start, size): (u64, u32)| tree.reservation(start, size.into());
        check(&kept.into_iter().fold(tree, keep).bytes());
    }
}
