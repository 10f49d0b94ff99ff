//! The scenarios of consoles with a keyboard. What is typed waits for what it answers.

use guests::layout::{VMID_A, VMID_B};
use package::{Board, Vm};

use super::{Guest, Machine, Scenario, guest};

/// All of them.
pub const ALL: &[Scenario] = &[
    KEYBOARD,
    KEYBOARD_UART,
    KEYBOARD_FLOOD,
    Scenario { name: "gicv2-keyboard", machine: Machine { gic: 2, ..Machine::TESTS }, ..KEYBOARD },
    on(Board::RPI4, "rpi4-keyboard", KEYBOARD),
    on(Board::IMX8MP_EVK, "imx8mp-evk-keyboard", KEYBOARD_POLLING),
    on(Board::ZCU102, "zcu102-keyboard", KEYBOARD),
];

/// A scenario on a board's model, over the board's own UART alone.
const fn on(board: Board, name: &'static str, scenario: Scenario) -> Scenario {
    Scenario { name, machine: Machine::of(board), semihosting: false, ..scenario }
}

/// For people: it runs until they end it.
pub const BY_HAND: &[Scenario] = &[Scenario {
    name: "consoles",
    about: "two VMs that answer what you type; Ctrl-A n switches, `quit` ends a VM",
    log: &[],
    types: &[],
    ..KEYBOARD
}];

const KEYBOARD: Scenario = Scenario {
    name: "keyboard",
    about: "two VMs on two CPUs answer what is typed for them; Ctrl-A switches between them",
    guests: &[
        Guest { program: "echo", vm: guest("A", VMID_A) },
        Guest { program: "echo", vm: Vm { cpus: [1, 0], ..guest("B", VMID_B) } },
    ],
    types: &[
        ("first VM: press a key? ", b"x"),
        ("first VM: your name? ", b"Ada\r"),
        ("hello Ada, says the first VM", b"\x012"),
        ("keyboard: goes to B", b"Bobb\x7f\r"),
        ("hello Bob, says the second VM", b"\x01l"),
        ("keyboard: goes to B; there are 1 A, 2 B", b"quit\r"),
        ("B: ended with code 0", b"one\rtwo\r"),
        ("B: is down, what is typed for it is dropped", b"\x017\x01?"),
        ("keyboard: Ctrl-A, then", b"\x01n"),
        ("keyboard: goes to A", b"\x01l"),
        ("keyboard: goes to A; there are 1 A, 2 B (down)", b"quit\r"),
    ],
    log: &[
        "first VM: press a key? x",
        "first VM: your name? Ada",
        "hello Ada, says the first VM",
        "keyboard: goes to B",
        "second VM: your name? Bob",
        "hello Bob, says the second VM",
        "second VM: your name? quit",
        "B: is down, what is typed for it is dropped",
        "keyboard: there is no VM 7",
        "keyboard: goes to A",
        "first VM: your name? quit",
    ],
    ..Scenario::USUAL
};

const KEYBOARD_UART: Scenario = Scenario {
    name: "keyboard-uart",
    about: "as `keyboard`, on one CPU and over the UART alone, as on a board",
    guests: &[
        Guest { program: "echo", vm: guest("A", VMID_A) },
        Guest { program: "echo", vm: guest("B", VMID_B) },
    ],
    semihosting: false,
    ..KEYBOARD
};

/// As [`KEYBOARD`], after its first step, where no VM is interrupted.
const KEYBOARD_POLLING: Scenario = Scenario {
    about: "as `keyboard`, with VMs that ask their console again and again",
    guests: &[
        Guest { program: "echo_polling", vm: guest("A", VMID_A) },
        Guest { program: "echo_polling", vm: Vm { cpus: [1, 0], ..guest("B", VMID_B) } },
    ],
    types: KEYBOARD.types.split_at(1).1,
    log: KEYBOARD.log.split_at(1).1,
    ..KEYBOARD
};

/// More than fits a console, whose queue has 256 bytes; what is more fits once the VM reads again.
const PASTE: [u8; 300] = [b'y'; 300];

const KEYBOARD_FLOOD: Scenario = Scenario {
    name: "keyboard-flood",
    about: "a VM that is alone and spins shows its prompt; one that does not read loses what does not fit",
    guests: &[Guest { program: "echo", vm: guest("A", VMID_A) }],
    semihosting: false,
    types: &[
        ("first VM: press a key? ", b"x"),
        ("first VM: your name? ", b"doze\r"),
        ("I doze", &PASTE),
        ("I was overrun", b"\r"),
        ("hello ", b"quit\r"),
    ],
    log: &[
        "A: does not read its input, more of it is dropped",
        " bytes of input were dropped",
        "first VM: your name? quit",
    ],
    ..Scenario::USUAL
};
