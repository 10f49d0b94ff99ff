//! The machines that QEMU models: what to type for each board.

use package::Board;

/// The machine of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The board that it is.
    pub board: Board,
    /// QEMU's name of the CPU, with properties. Boards other than `qemu-virt` have their own.
    pub cpu: &'static str,
    /// How many CPUs are used. Boards other than `qemu-virt` have four.
    pub cpus: u8,
    /// Version of the interrupt controller of `qemu-virt`: 2 or 3.
    pub gic: u8,
    /// Whether time is counted in instructions, which makes a run the same every time.
    pub counted: bool,
}

impl Machine {
    /// What scenarios run on unless they say otherwise.
    pub const TESTS: Self =
        Self { board: Board::QEMU_VIRT, cpu: "cortex-a72", cpus: 2, gic: 3, counted: false };
    /// One tick of the counter is one instruction.
    pub const BENCH: Self =
        Self { cpu: "cortex-a57,cntfrq=1000000000", cpus: 1, counted: true, ..Self::TESTS };

    /// The model of a board, which must have one.
    pub const fn of(board: Board) -> Self {
        Self { board, cpu: Model::of(board).cpu, ..Self::TESTS }
    }

    /// QEMU's name of the machine.
    pub const fn model(&self) -> &'static str {
        Model::of(self.board).name
    }

    /// Where its RAM starts.
    pub const fn ram_start(&self) -> u64 {
        Model::of(self.board).ram
    }

    /// QEMU's arguments, but for what is loaded and where input and output go.
    pub fn arguments(&self) -> Vec<String> {
        let cpus = self.cpus.to_string();
        let gic = format!("virt,virtualization=on,gic-version={},dtb-randomness=off", self.gic);
        let mut arguments = match self.board {
            Board::QEMU_VIRT => vec!["-M", &gic, "-cpu", self.cpu, "-smp", &cpus, "-m", "1G"],
            board => Model::of(board).arguments.to_vec(),
        };
        arguments.extend(["-nodefaults", "-display", "none", "-no-reboot"]);
        if self.counted {
            arguments.extend(["-icount", "shift=0,sleep=off"]);
        }
        arguments.into_iter().map(str::to_owned).collect()
    }
}

/// QEMU's model of a board.
struct Model {
    board: Board,
    name: &'static str,
    cpu: &'static str,
    /// Where RAM starts.
    ram: u64,
    /// What is typed for it. `qemu-virt` has what the machine says.
    arguments: &'static [&'static str],
}

/// Boards that QEMU has a model of. Others have no scenarios.
const MODELS: &[Model] = &[
    Model {
        board: Board::QEMU_VIRT,
        name: "virt",
        cpu: "cortex-a72",
        ram: 0x4000_0000,
        arguments: &[],
    },
    Model {
        board: Board::RPI4,
        name: "raspi4b",
        cpu: "cortex-a72",
        ram: 0,
        arguments: &["-M", "raspi4b"],
    },
    Model {
        board: Board::IMX8MP_EVK,
        name: "imx8mp-evk",
        cpu: "cortex-a53",
        ram: 0x4000_0000,
        // The console is the second UART: the first one is connected to nothing.
        arguments: &["-M", "imx8mp-evk", "-smp", "4", "-m", "1G", "-serial", "null"],
    },
    Model {
        board: Board::ZCU102,
        name: "xlnx-zcu102",
        cpu: "cortex-a53",
        ram: 0,
        arguments: &[
            "-M",
            "xlnx-zcu102,virtualization=on",
            "-smp",
            "4",
            "-m",
            "2G",
            "-audio",
            "none",
        ],
    },
];

impl Model {
    const fn of(board: Board) -> &'static Self {
        let mut index = 0;
        while MODELS[index].board.id() != board.id() {
            index += 1;
            assert!(index < MODELS.len(), "QEMU has no model of the board");
        }
        &MODELS[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_benchmark_machine_counts_instructions() {
        let arguments = Machine::BENCH.arguments().join(" ");
        assert!(arguments.contains("-cpu cortex-a57,cntfrq=1000000000 -smp 1"));
        assert!(arguments.ends_with("-icount shift=0,sleep=off"));
    }

    #[test]
    fn each_board_is_a_model_of_its_own() {
        for model in MODELS {
            let machine = Machine::of(model.board);
            assert!(machine.arguments()[1].starts_with(machine.model()));
        }
    }
}
