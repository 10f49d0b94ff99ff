//! Tables with columns as wide as they must be.

use package::{Amounts, EndOfLife, OnFault, OwnedParcels, Placement, Roles, Sanitize, Start, Vm};

use crate::Manifest;
use crate::board;
use crate::map::hex;
use crate::size;

/// All tables, one below the other.
pub(super) fn all(manifest: &Manifest) -> String {
    let tables =
        [summary(manifest), vms(manifest), starts(manifest), rules(manifest), devices(manifest)];
    let rest = [channels(manifest), heaps(manifest), quotas(manifest)];
    let shown: Vec<_> = tables.into_iter().chain(rest).filter(|table| !table.is_empty()).collect();
    shown.join("\n")
}

fn summary(manifest: &Manifest) -> String {
    let writer = &manifest.writer;
    let sure = board::bytes(&manifest.ram);
    let name = writer.board.name();
    let which = if manifest.needs() <= sure { "every" } else { "not every" };
    let images: usize = writer.images.iter().map(Vec::len).sum();
    format!(
        "{name} with GICv{}, CPUs 0 to {}\n{} of RAM for EL2, VMs and heaps, which {which} {name} has\n\
         {} in {} images\n",
        writer.gic,
        writer.cpus - 1,
        size::text(manifest.needs()),
        about(images as u64),
        writer.images.len(),
    )
}

/// Bytes, rounded up to KiB if there are many.
fn about(bytes: u64) -> String {
    if bytes < 4096 { format!("{bytes} B") } else { format!("{} KiB", bytes.div_ceil(1024)) }
}

fn vms(manifest: &Manifest) -> String {
    let mut rows =
        vec![["VM", "VMID", "CPUs", "memory", "at", "placed", "roles"].map(str::to_owned).to_vec()];
    for vm in &manifest.writer.vms {
        let cpus: Vec<_> = vm.cpus().iter().map(u8::to_string).collect();
        let placed = match (vm.placement, vm.trusted_dma) {
            (Placement::Anywhere, _) => "anywhere",
            (Placement::Identity, false) => "direct",
            (Placement::Identity, true) => "direct, trusted with DMA",
        };
        rows.push(vec![
            vm.name.as_str().to_owned(),
            format!("{:#x}", vm.vmid),
            cpus.join(" "),
            size::text(vm.memory),
            hex(vm.memory_at),
            placed.to_owned(),
            roles(vm),
        ]);
    }
    table(&rows)
}

/// What it may do beyond the usual, and what of the usual it may not.
fn roles(vm: &Vm) -> String {
    let names = [(Roles::INSPECT, "inspect"), (Roles::MANAGE, "manage")];
    let held = names.iter().filter(|(role, _)| vm.roles.contains(*role)).map(|(_, name)| *name);
    let kept = [(vm.may_supply, "supplies nothing"), (vm.may_consume, "consumes nothing")];
    let kept = kept.iter().filter(|(may, _)| !may).map(|(_, name)| *name);
    let held: Vec<_> = held.chain(kept).collect();
    if held.is_empty() { "-".to_owned() } else { held.join(", ") }
}

fn starts(manifest: &Manifest) -> String {
    let titles = ["VM", "program", "at", "entry", "vCPUs that start", "initrd", "device tree"];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    let image =
        |number: u32| about(manifest.writer.images.get(number as usize).map_or(0, Vec::len) as u64);
    let load = |load: Option<package::Load>| match load {
        None => "-".to_owned(),
        Some(load) => format!("{} at {}", image(load.image), hex(load.at)),
    };
    for (vm, planned) in manifest.writer.vms.iter().zip(&manifest.vms) {
        rows.push(vec![
            planned.name.clone(),
            format!("{} ({})", planned.program.escape_debug(), image(vm.image)),
            hex(vm.load),
            hex(vm.entry),
            if vm.start == Start::All { "all" } else { "the first" }.to_owned(),
            load(vm.initrd),
            load(vm.device_tree),
        ]);
    }
    table(&rows)
}

fn rules(manifest: &Manifest) -> String {
    let titles = ["VM", "sanitize", "when it ends", "its parcels then", "a fault"];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    for vm in &manifest.writer.vms {
        let words = [
            vm.name.as_str(),
            match vm.sanitize {
                Sanitize::WhenAsked => "when asked",
                Sanitize::Always => "always",
            },
            match vm.end_of_life {
                EndOfLife::Keep => "is kept",
                EndOfLife::Reset => "is reset",
                EndOfLife::Restart => "starts again",
            },
            match vm.owned_parcels {
                OwnedParcels::Revoke => "are revoked",
                OwnedParcels::Keep => "are kept",
            },
            match vm.on_fault {
                OnFault::Inject => "is injected",
                OnFault::Stop => "stops it",
                OnFault::Restart => "starts it again",
            },
        ];
        rows.push(words.map(str::to_owned).to_vec());
    }
    table(&rows)
}

fn devices(manifest: &Manifest) -> String {
    let titles = ["device", "VM", "in the machine", "in the VM", "size", "interrupts"];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    for (index, planned) in (0..).zip(&manifest.vms) {
        let own = manifest.writer.devices.iter().filter(|device| device.vm == index);
        for (device, name) in own.zip(&planned.devices) {
            let interrupts = device_interrupts(manifest, index, &name.interrupts);
            rows.push(vec![
                name.name.clone(),
                planned.name.clone(),
                hex(device.pa),
                hex(device.ipa),
                size::text(u64::from(device.pages) * 4096),
                interrupts,
            ]);
        }
    }
    table(&rows)
}

/// "34 as 43 (level)".
fn device_interrupts(manifest: &Manifest, vm: u16, physical: &[u32]) -> String {
    let all = manifest.writer.interrupts.iter();
    let own = all.filter(|interrupt| interrupt.vm == vm && physical.contains(&interrupt.physical));
    let texts = own.map(|interrupt| {
        let kind = if interrupt.edge { "edge" } else { "level" };
        format!("{} as {} ({kind})", interrupt.physical, interrupt.virtual_)
    });
    let texts: Vec<_> = texts.collect();
    if texts.is_empty() { "-".to_owned() } else { texts.join(", ") }
}

fn name(manifest: &Manifest, vm: u16) -> String {
    manifest.vms.get(usize::from(vm)).map_or_else(String::new, |vm| vm.name.clone())
}

fn channels(manifest: &Manifest) -> String {
    let titles = ["channel of", "at", "with", "at", "size", "label"];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    for channel in &manifest.writer.channels {
        rows.push(vec![
            name(manifest, channel.owner),
            hex(channel.owner_ipa),
            name(manifest, channel.peer),
            hex(channel.peer_ipa),
            size::text(channel.pages * 4096),
            channel.label.to_string(),
        ]);
    }
    table(&rows)
}

fn heaps(manifest: &Manifest) -> String {
    let titles = ["heap", "size", "guaranteed / limit", "VMs"];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    for heap in &manifest.writer.heaps {
        let vms = (0..32).filter(|bit| heap.vms >> bit & 1 == 1).map(|vm| name(manifest, vm));
        let vms: Vec<_> = vms.collect();
        rows.push(vec![
            heap.name.as_str().to_owned(),
            size::text(heap.size),
            format!("{} / {}", size::text(heap.guaranteed), size::text(heap.limit)),
            vms.join(", "),
        ]);
    }
    table(&rows)
}

fn quotas(manifest: &Manifest) -> String {
    let titles = [
        "guaranteed / limit",
        "parcels",
        "extents",
        "unfinished",
        "unread",
        "frames",
        "pages lent",
        "pages accepted",
    ];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    for vm in &manifest.writer.vms {
        let mut row = vec![vm.name.as_str().to_owned()];
        row.extend(amounts(vm));
        rows.push(row);
    }
    table(&rows)
}

fn amounts(vm: &Vm) -> Vec<String> {
    let each = |of: &Amounts| {
        [
            of.parcels.into(),
            of.extents.into(),
            of.unfinished.into(),
            of.unread.into(),
            of.frames.into(),
            of.pages_lent,
            of.pages_accepted,
        ]
    };
    let pairs = each(&vm.quotas.guaranteed).into_iter().zip(each(&vm.quotas.limit));
    pairs.map(|(guaranteed, limit): (u64, u64)| format!("{guaranteed} / {limit}")).collect()
}

/// Rows below a row of titles; nothing if there are only titles.
fn table(rows: &[Vec<String>]) -> String {
    if rows.len() < 2 {
        return String::new();
    }
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().enumerate();
        let cells = cells.map(|(n, cell)| format!("{cell:<width$}", width = width(n).unwrap_or(0)));
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
