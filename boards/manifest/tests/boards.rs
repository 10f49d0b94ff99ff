//! What is different from board to board.

mod common;

use common::read;
use manifest::Manifest;
use package::{Board, Package};

fn manifest(board: &str, more: &str) -> Result<Manifest, String> {
    let vm = "[[vm]]\nname = \"a\"\nvmid = 1\nmemory = \"16M\"\nprogram = \"raw.bin\"\n";
    read(&format!("board = \"{board}\"\n{vm}{more}\n")).map_err(|report| report.to_string())
}

fn refusal(board: &str, more: &str) -> String {
    manifest(board, more).err().unwrap_or_else(|| panic!("{board} accepts {more}"))
}

#[test]
fn the_same_vm_runs_on_every_board_with_the_boards_interrupt_controller() {
    for (board, gic) in
        [(Board::QEMU_VIRT, 3), (Board::RPI4, 2), (Board::IMX8MP_EVK, 3), (Board::ZCU102, 2)]
    {
        let manifest = manifest(board.name(), "").unwrap();
        assert_eq!((manifest.board(), manifest.gic()), (board, gic));
        let vm = manifest.configuration().vms[0];
        assert_eq!((vm.memory_at, vm.load), (0x4000_0000, 0x4008_0000));
        let bytes = manifest.into_writer([0; 16]).write().unwrap();
        assert!(Package::parse(&bytes).unwrap().is_for(board));
    }
}

#[test]
fn an_interrupt_controller_that_the_board_does_not_have_is_refused() {
    let text = |board: &str, gic: u8| {
        let vm = "[[vm]]\nname = \"a\"\nvmid = 1\nmemory = \"16M\"\nprogram = \"raw.bin\"\n";
        read(&format!("board = \"{board}\"\ngic = {gic}\n{vm}"))
    };
    assert_eq!(text("qemu-virt", 2).unwrap().gic(), 2);
    let report = text("rpi4", 3).unwrap_err().to_string();
    assert!(report.contains("rpi4 has no GICv3") && report.contains("it has GICv2"), "{report}");
    let report = text("imx8mp-evk", 2).unwrap_err().to_string();
    assert!(report.contains("imx8mp-evk has no GICv2"), "{report}");
}

#[test]
fn a_direct_vm_lies_in_ram_that_every_such_board_has_and_beside_what_vms_see_elsewhere() {
    for board in boards::ids() {
        let manifest = manifest(board.name(), "direct = true").unwrap();
        let vm = manifest.configuration().vms[0];
        let end = vm.memory_at + vm.memory;
        let ram = manifest.ram().iter().find(|bank| bank.start <= vm.memory_at && end <= bank.end);
        assert!(ram.is_some(), "{}: {:#x}", board.name(), vm.memory_at);
        assert!(end <= package::EMULATED.start || vm.memory_at >= package::EMULATED.end);
    }
}

#[test]
fn memory_that_firmware_keeps_is_no_vms() {
    // OP-TEE's, on both boards.
    let report = refusal("imx8mp-evk", "direct = true\nmemory_at = 0x5600_0000");
    assert!(report.contains("the board has no RAM there"), "{report}");
    let report = refusal("zcu102", "direct = true\nmemory_at = 0x6000_0000");
    assert!(report.contains("the board has no RAM there"), "{report}");
    // The GPU's.
    let report = refusal("rpi4", "direct = true\nmemory_at = 0x3b40_0000");
    assert!(report.contains("the board has no RAM there"), "{report}");
}

#[test]
fn memory_where_firmware_loads_the_image_is_no_vms() {
    for (board, load) in
        [("rpi4", "0x20_0000"), ("zcu102", "0x40_0000"), ("imx8mp-evk", "0x4040_0000")]
    {
        let report = refusal(board, &format!("direct = true\nmemory_at = {load}"));
        assert!(report.contains("overlaps EL2 and its package"), "{report}");
    }
}

#[test]
fn devices_of_el2_are_no_vms_on_any_board() {
    for table in boards::ALL {
        for region in table.devices {
            let device = format!(
                "[[vm.device]]\nname = \"d\"\naddress = {:#x}\nsize = \"4K\"\nat = 0x1000_0000\n",
                region.start.0
            );
            let report = refusal(table.id.name(), &device);
            let told = report.contains("overlaps") || report.contains("lies in RAM");
            assert!(told, "{report}");
        }
        let interrupt = format!(
            "[[vm.device]]\nname = \"d\"\naddress = 0x7d00_0000_00\nsize = \"4K\"\nat = 0x1000_0000\ninterrupts = [{{ number = {} }}]",
            table.uart.intid
        );
        let report = refusal(table.id.name(), &interrupt);
        assert!(report.contains("EL2's own UART"), "{report}");
    }
}

#[test]
fn what_needs_more_ram_than_every_such_board_has_is_said() {
    let small = manifest("rpi4", "").unwrap().tables();
    assert!(small.contains("which every rpi4 has"), "{small}");
    let vm = "[[vm]]\nname = \"b\"\nvmid = 2\nmemory = \"1G\"\nprogram = \"raw.bin\"\n";
    let large = manifest("rpi4", vm).unwrap().tables();
    assert!(large.contains("which not every rpi4 has"), "{large}");
}
