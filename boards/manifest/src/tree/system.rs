//! The nodes that every machine has.

use std::ops::Range;

use dtoolkit::model::DeviceTreeNode;
use hyp::console::{CONSOLE, CONSOLE_SIZE};

use super::{CLOCK, CONTROLLER, LEVEL, mark, node, set, shared, wide};
use crate::draft::Vm;
use crate::machine::{
    CONSOLE_INTERRUPT, CPU_INTERFACE, DISTRIBUTOR, REDISTRIBUTOR_SIZE, REDISTRIBUTORS, TIMER_PPI,
};

/// Hz of the console's clock, which does nothing.
const CLOCK_RATE: u32 = 24_000_000;

fn console_name() -> String {
    format!("pl011@{CONSOLE:x}")
}

/// Parameters (Devicetree v0.4, 3.6; `linux,initrd-…`: dt-schema, schemas/chosen.yaml).
pub(super) fn chosen(vm: &Vm<'_>) -> DeviceTreeNode {
    let mut chosen = node("chosen");
    if let Some(line) = &vm.said.command_line {
        set(&mut chosen, "bootargs", line.value);
    }
    set(&mut chosen, "stdout-path", format!("/{}", console_name()));
    if let Some(initrd) = &vm.initrd {
        set(&mut chosen, "linux,initrd-start", initrd.at);
        set(&mut chosen, "linux,initrd-end", initrd.at + initrd.bytes.len() as u64);
    }
    chosen
}

/// Devicetree v0.4, 3.3.
pub(super) fn aliases() -> DeviceTreeNode {
    let mut aliases = node("aliases");
    set(&mut aliases, "serial0", format!("/{}", console_name()));
    aliases
}

/// Devicetree v0.4, 3.4.
pub(super) fn memory(range: &Range<u64>) -> DeviceTreeNode {
    let mut memory = node(format!("memory@{:x}", range.start));
    set(&mut memory, "device_type", "memory");
    set(&mut memory, "reg", wide(&[range.start, range.end - range.start]));
    memory
}

/// arm/cpus.yaml.
pub(super) fn cpus(count: u32) -> DeviceTreeNode {
    let mut cpus = node("cpus");
    set(&mut cpus, "#address-cells", 1u32);
    set(&mut cpus, "#size-cells", 0u32);
    for number in 0..count {
        let mut cpu = node(format!("cpu@{number:x}"));
        set(&mut cpu, "device_type", "cpu");
        set(&mut cpu, "compatible", "arm,armv8");
        set(&mut cpu, "reg", number);
        set(&mut cpu, "enable-method", "psci");
        cpus.add_child(cpu);
    }
    cpus
}

/// arm/psci.yaml.
pub(super) fn psci() -> DeviceTreeNode {
    let mut psci = node("psci");
    set(&mut psci, "compatible", vec!["arm,psci-1.0", "arm,psci-0.2"]);
    set(&mut psci, "method", "hvc");
    psci
}

/// timer/arm,arch_timer.yaml: secure, physical, virtual and hypervisor's. Only the virtual one is there;
/// kernels find it by its place in the list.
pub(super) fn timer(gic: u8, cpus: u32) -> DeviceTreeNode {
    // Of a GICv2, a private interrupt says which CPUs have it.
    let kind = if gic == 2 { ((1 << cpus) - 1) << 8 | LEVEL } else { LEVEL };
    let mut timer = node("timer");
    set(&mut timer, "compatible", "arm,armv8-timer");
    let interrupts = [13, 14, TIMER_PPI, 10].map(|ppi| [1, ppi, kind]);
    set(&mut timer, "interrupts", interrupts.concat());
    mark(&mut timer, "always-on");
    timer
}

/// interrupt-controller/arm,gic-v3.yaml and arm,gic.yaml.
pub(super) fn interrupt_controller(gic: u8, cpus: u64) -> DeviceTreeNode {
    let size = |range: Range<u64>| [range.start, range.end - range.start];
    let (compatible, second) = match gic {
        2 => ("arm,gic-400", size(CPU_INTERFACE)),
        _ => ("arm,gic-v3", [REDISTRIBUTORS, REDISTRIBUTOR_SIZE * cpus]),
    };
    let mut controller = node(format!("interrupt-controller@{:x}", DISTRIBUTOR.start));
    set(&mut controller, "compatible", compatible);
    mark(&mut controller, "interrupt-controller");
    set(&mut controller, "#interrupt-cells", 3u32);
    set(&mut controller, "#address-cells", 0u32);
    set(&mut controller, "reg", wide(&[size(DISTRIBUTOR), second].concat()));
    set(&mut controller, "phandle", CONTROLLER);
    controller
}

/// clock/fixed-clock.yaml: the drivers of Arm's peripherals want to switch one on.
pub(super) fn clock() -> DeviceTreeNode {
    let mut clock = node("apb-pclk");
    set(&mut clock, "compatible", "fixed-clock");
    set(&mut clock, "#clock-cells", 0u32);
    set(&mut clock, "clock-frequency", CLOCK_RATE);
    set(&mut clock, "clock-output-names", "clk24mhz");
    set(&mut clock, "phandle", CLOCK);
    clock
}

/// serial/pl011.yaml.
pub(super) fn console() -> DeviceTreeNode {
    let mut console = node(console_name());
    set(&mut console, "compatible", vec!["arm,pl011", "arm,primecell"]);
    set(&mut console, "reg", wide(&[CONSOLE, CONSOLE_SIZE]));
    set(&mut console, "interrupts", shared(CONSOLE_INTERRUPT, LEVEL));
    set(&mut console, "clocks", [CLOCK, CLOCK]);
    set(&mut console, "clock-names", vec!["uartclk", "apb_pclk"]);
    console
}
