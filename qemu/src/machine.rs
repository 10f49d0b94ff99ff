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
        Self { board: Board::QemuVirt, cpu: "cortex-a72", cpus: 2, gic: 3, counted: false };
    /// One tick of the counter is one instruction.
    pub const BENCH: Self =
        Self { cpu: "cortex-a57,cntfrq=1000000000", cpus: 1, counted: true, ..Self::TESTS };

    /// The model of a board.
    pub const fn of(board: Board) -> Self {
        let cpu = match board {
            Board::QemuVirt | Board::Rpi4 => "cortex-a72",
            Board::Imx8mpEvk | Board::Zcu102 => "cortex-a53",
        };
        Self { board, cpu, ..Self::TESTS }
    }

    /// QEMU's name of the machine.
    pub const fn model(&self) -> &'static str {
        match self.board {
            Board::QemuVirt => "virt",
            Board::Rpi4 => "raspi4b",
            Board::Imx8mpEvk => "imx8mp-evk",
            Board::Zcu102 => "xlnx-zcu102",
        }
    }

    /// QEMU's arguments, but for what is loaded and where input and output go.
    pub fn arguments(&self) -> Vec<String> {
        let cpus = self.cpus.to_string();
        let gic = format!("virt,virtualization=on,gic-version={},dtb-randomness=off", self.gic);
        let mut arguments = match self.board {
            Board::QemuVirt => vec!["-M", &gic, "-cpu", self.cpu, "-smp", &cpus, "-m", "1G"],
            Board::Rpi4 => vec!["-M", "raspi4b"],
            Board::Imx8mpEvk => vec!["-M", "imx8mp-evk", "-smp", "4", "-m", "1G"],
            Board::Zcu102 => vec![
                "-M",
                "xlnx-zcu102,virtualization=on",
                "-smp",
                "4",
                "-m",
                "2G",
                "-audio",
                "none",
            ],
        };
        arguments.extend(["-nodefaults", "-display", "none", "-no-reboot"]);
        if self.counted {
            arguments.extend(["-icount", "shift=0,sleep=off"]);
        }
        // The console is the second UART of this board: the first one is connected to nothing.
        if self.board == Board::Imx8mpEvk {
            arguments.extend(["-serial", "null"]);
        }
        arguments.into_iter().map(str::to_owned).collect()
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
        for board in Board::ALL {
            let machine = Machine::of(board);
            assert!(machine.arguments()[1].starts_with(machine.model()));
        }
    }
}
