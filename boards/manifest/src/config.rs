//! What a manifest says, word by word, before anything is checked against anything else.

use package::{Amounts, Board, EndOfLife, OnFault, OwnedParcels, Quotas, Roles, Sanitize, Start};
use toml::de::DeTable;

use crate::keys;
use crate::properties::{self, Property};
use crate::read::Table;
use crate::report::{At, Problem, Problems, Span};

/// A whole manifest.
#[derive(Debug)]
pub(crate) struct Config<'a> {
    pub(crate) span: Span,
    pub(crate) board: Option<At<Board>>,
    pub(crate) gic: Option<At<u8>>,
    pub(crate) vms: Vec<Vm<'a>>,
    pub(crate) channels: Vec<Channel<'a>>,
    pub(crate) heaps: Vec<Heap<'a>>,
}

/// Where a VM's first program comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A file: ELF or raw.
    Program,
    /// A file: an arm64 Linux image.
    Kernel,
    /// One of the project's own programs, by name.
    Guest,
}

/// `[[vm]]`.
#[derive(Debug)]
pub(crate) struct Vm<'a> {
    pub(crate) span: Span,
    pub(crate) name: Option<At<&'a str>>,
    pub(crate) vmid: Option<At<u16>>,
    pub(crate) vcpus: Option<At<u64>>,
    pub(crate) cpus: Option<At<Vec<At<u64>>>>,
    pub(crate) memory: Option<At<u64>>,
    pub(crate) memory_at: Option<At<u64>>,
    pub(crate) program: Option<(Origin, At<&'a str>)>,
    pub(crate) load: Option<At<u64>>,
    pub(crate) entry: Option<At<u64>>,
    pub(crate) start: Option<Start>,
    pub(crate) device_tree: bool,
    pub(crate) initrd: Option<At<&'a str>>,
    pub(crate) command_line: Option<At<&'a str>>,
    pub(crate) devices: Vec<Device<'a>>,
    pub(crate) roles: Roles,
    pub(crate) may_supply: bool,
    pub(crate) may_consume: bool,
    pub(crate) quotas: At<Quotas>,
    pub(crate) sanitize: Sanitize,
    pub(crate) end_of_life: EndOfLife,
    pub(crate) owned_parcels: OwnedParcels,
    pub(crate) on_fault: OnFault,
    pub(crate) direct: Option<At<bool>>,
    pub(crate) trusted_dma: Option<At<bool>>,
}

/// `[[vm.device]]`.
#[derive(Debug)]
pub(crate) struct Device<'a> {
    pub(crate) span: Span,
    pub(crate) name: Option<At<&'a str>>,
    pub(crate) address: Option<At<u64>>,
    pub(crate) size: Option<At<u64>>,
    pub(crate) at: Option<At<u64>>,
    pub(crate) interrupts: Vec<Interrupt>,
    pub(crate) compatible: Vec<At<&'a str>>,
    pub(crate) properties: Vec<Property>,
    pub(crate) dma: Option<At<bool>>,
}

/// One of a device's interrupts.
#[derive(Debug)]
pub(crate) struct Interrupt {
    pub(crate) number: Option<At<u32>>,
    pub(crate) at: Option<At<u32>>,
    pub(crate) edge: bool,
}

/// `[[channel]]`.
#[derive(Debug)]
pub(crate) struct Channel<'a> {
    pub(crate) span: Span,
    pub(crate) owner: Option<At<&'a str>>,
    pub(crate) peer: Option<At<&'a str>>,
    pub(crate) size: Option<At<u64>>,
    pub(crate) label: u32,
    pub(crate) owner_at: Option<At<u64>>,
    pub(crate) peer_at: Option<At<u64>>,
}

/// `[[heap]]`.
#[derive(Debug)]
pub(crate) struct Heap<'a> {
    pub(crate) span: Span,
    pub(crate) name: Option<At<&'a str>>,
    pub(crate) size: Option<At<u64>>,
    pub(crate) vms: Vec<At<&'a str>>,
    pub(crate) guaranteed: Option<At<u64>>,
    pub(crate) limit: Option<At<u64>>,
}

impl<'a> Vm<'a> {
    /// What a message calls it.
    pub(crate) fn called(&self) -> &'a str {
        self.name.as_ref().map_or("the VM", |name| name.value)
    }

    /// Whether its memory lies at the machine's own addresses.
    pub(crate) fn is_direct(&self) -> bool {
        self.direct.as_ref().is_some_and(|direct| direct.value)
    }
}

/// Reads the whole file.
pub(crate) fn read<'a>(file: &'a DeTable<'a>, problems: &'a Problems) -> Config<'a> {
    let top = Table::new(file, 0..0, &keys::TOP, problems);
    let boards: Vec<_> = ::boards::ids().map(|board| (board.name(), board)).collect();
    let vms: Vec<_> = top.tables("vm", &keys::VM).iter().map(vm).collect();
    if vms.is_empty() && !top.has("vm") {
        top.need::<()>("vm", None);
    }
    Config {
        span: 0..0,
        board: top.need("board", top.word("board", &boards)),
        gic: gic(&top),
        vms,
        channels: top.tables("channel", &keys::CHANNEL).iter().map(channel).collect(),
        heaps: top.tables("heap", &keys::HEAP).iter().map(heap).collect(),
    }
}

fn gic(top: &Table<'_>) -> Option<At<u8>> {
    let version = top.integer("gic", u64::MAX)?;
    match version.value {
        2 | 3 => Some(version.with(version.value as u8)),
        _ => {
            top.note(Problem::new(&version.span, "`gic` must be 2 or 3").label("no such version"));
            None
        }
    }
}

fn vm<'a>(table: &Table<'a>) -> Vm<'a> {
    let starts = [("all", Start::All), ("first", Start::First)];
    let sanitize = [("when-asked", Sanitize::WhenAsked), ("always", Sanitize::Always)];
    let ends =
        [("keep", EndOfLife::Keep), ("reset", EndOfLife::Reset), ("restart", EndOfLife::Restart)];
    let owned = [("revoke", OwnedParcels::Revoke), ("keep", OwnedParcels::Keep)];
    let faults =
        [("inject", OnFault::Inject), ("stop", OnFault::Stop), ("restart", OnFault::Restart)];
    let roles = [("inspect", Roles::INSPECT), ("manage", Roles::MANAGE)];
    Vm {
        span: table.span.clone(),
        name: table.need("name", table.text("name")),
        vmid: table.need("vmid", narrow(table.integer("vmid", u16::MAX.into()))),
        vcpus: table.integer("vcpus", u64::MAX),
        cpus: table.integers("cpus", u64::MAX),
        memory: table.need("memory", table.size("memory")),
        memory_at: table.integer("memory_at", u64::MAX),
        program: program(table),
        load: table.integer("load", u64::MAX),
        entry: table.integer("entry", u64::MAX),
        start: table.word("start", &starts).map(|start| start.value),
        device_tree: table.bool("device_tree").is_none_or(|flag| flag.value),
        initrd: table.text("initrd"),
        command_line: table.text("command_line"),
        devices: table.tables("device", &keys::DEVICE).iter().map(device).collect(),
        roles: table.words("roles", &roles).iter().map(|role| role.value).collect(),
        may_supply: table.bool("may_supply").is_none_or(|flag| flag.value),
        may_consume: table.bool("may_consume").is_none_or(|flag| flag.value),
        quotas: quotas(table),
        sanitize: value(table.word("sanitize", &sanitize)),
        end_of_life: value(table.word("end_of_life", &ends)),
        owned_parcels: value(table.word("owned_parcels", &owned)),
        on_fault: value(table.word("on_fault", &faults)),
        direct: table.bool("direct"),
        trusted_dma: table.bool("trusted_dma"),
    }
}

/// What was said, or the default.
fn value<T: Default>(said: Option<At<T>>) -> T {
    said.map(|said| said.value).unwrap_or_default()
}

/// A number that was read with a bound that fits the smaller type.
fn narrow<T: TryFrom<u64>>(number: Option<At<u64>>) -> Option<At<T>> {
    let number = number?;
    Some(At::new(number.value.try_into().ok()?, number.span))
}

fn program<'a>(table: &Table<'a>) -> Option<(Origin, At<&'a str>)> {
    let key = table.one_of(&["program", "kernel", "guest"])?;
    let origin = match key {
        "program" => Origin::Program,
        "kernel" => Origin::Kernel,
        _ => Origin::Guest,
    };
    Some((origin, table.text(key)?))
}

fn quotas(table: &Table<'_>) -> At<Quotas> {
    let Some(quotas) = table.table("quotas", &keys::QUOTAS) else {
        return At::new(Quotas::USUAL, table.span.clone());
    };
    let part = |key, usual| {
        quotas.table(key, &keys::AMOUNTS).map_or(usual, |amounts| self::amounts(&amounts, usual))
    };
    let Quotas { guaranteed, limit } = Quotas::USUAL;
    let quotas_of =
        Quotas { guaranteed: part("guaranteed", guaranteed), limit: part("limit", limit) };
    At::new(quotas_of, quotas.span.clone())
}

fn amounts(table: &Table<'_>, usual: Amounts) -> Amounts {
    let small = |key, usual| {
        narrow(table.integer(key, u32::MAX.into())).map_or(usual, |number| number.value)
    };
    let large = |key, usual| table.integer(key, MOST_PAGES).map_or(usual, |number| number.value);
    Amounts {
        parcels: small("parcels", usual.parcels),
        extents: small("extents", usual.extents),
        unfinished: small("unfinished", usual.unfinished),
        unread: small("unread", usual.unread),
        frames: small("frames", usual.frames),
        pages_lent: large("pages_lent", usual.pages_lent),
        pages_accepted: large("pages_accepted", usual.pages_accepted),
    }
}

/// Pages of the largest address space: more says nothing.
const MOST_PAGES: u64 = 1 << 40;

fn device<'a>(table: &Table<'a>) -> Device<'a> {
    let entries = table.entries("properties");
    let properties = entries.iter().filter_map(|(name, value)| {
        properties::read(name, value).map_err(|problem| table.note(*problem)).ok()
    });
    Device {
        span: table.span.clone(),
        name: table.need("name", table.text("name")),
        address: table.need("address", table.integer("address", u64::MAX)),
        size: table.need("size", table.size("size")),
        at: table.integer("at", u64::MAX),
        interrupts: table
            .tables("interrupts", &keys::INTERRUPT)
            .iter()
            .map(|interrupt| Interrupt {
                number: interrupt.need("number", number(interrupt, "number")),
                at: number(interrupt, "at"),
                edge: value(interrupt.word("trigger", &[("level", false), ("edge", true)])),
            })
            .collect(),
        compatible: table.text_or_texts("compatible"),
        properties: properties.collect(),
        dma: table.bool("dma"),
    }
}

fn number(table: &Table<'_>, key: &str) -> Option<At<u32>> {
    narrow(table.integer(key, u32::MAX.into()))
}

fn channel<'a>(table: &Table<'a>) -> Channel<'a> {
    Channel {
        span: table.span.clone(),
        owner: table.need("owner", table.text("owner")),
        peer: table.need("peer", table.text("peer")),
        size: table.need("size", table.size("size")),
        label: value(narrow(table.integer("label", u32::MAX.into()))),
        owner_at: table.integer("owner_at", u64::MAX),
        peer_at: table.integer("peer_at", u64::MAX),
    }
}

fn heap<'a>(table: &Table<'a>) -> Heap<'a> {
    table.need("vms", table.has("vms").then_some(()));
    Heap {
        span: table.span.clone(),
        name: table.need("name", table.text("name")),
        size: table.need("size", table.size("size")),
        vms: table.texts("vms"),
        guaranteed: table.size("guaranteed"),
        limit: table.size("limit"),
    }
}
