//! Every key of a manifest, with its type and default: what the reader accepts and the reference lists.

/// What a key's value must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `"text"`.
    Text,
    /// A whole number, `0x…` if you like.
    Integer,
    /// Bytes: a whole number, or a text like `"64M"`.
    Size,
    /// `true` or `false`.
    Bool,
    /// `[0, 1]`.
    Integers,
    /// `["a", "b"]`.
    Texts,
    /// `"a"` or `["a", "b"]`.
    TextOrTexts,
    /// `{ … }` or a section of its own.
    Table,
    /// `[{ … }]` or sections `[[…]]`.
    Tables,
    /// A table with keys of the user's choice.
    Properties,
}

impl Kind {
    /// As the reference says it.
    pub fn text(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Integer => "integer",
            Self::Size => "size",
            Self::Bool => "true or false",
            Self::Integers => "list of integers",
            Self::Texts => "list of texts",
            Self::TextOrTexts => "text, or list of texts",
            Self::Table => "table",
            Self::Tables => "list of tables",
            Self::Properties => "table of properties",
        }
    }
}

/// A key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What its value must be.
    pub kind: Kind,
    /// What counts without it; `needed` if there must be one.
    pub default: &'static str,
}

/// The keys that stand together in a table.
#[derive(Debug)]
pub struct Section {
    /// The table's header, as a manifest writes it.
    pub name: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
}

const fn key(name: &'static str, kind: Kind, default: &'static str) -> Key {
    Key { name, kind, default }
}

/// The default of a key that must be there.
pub const NEEDED: &str = "needed";

/// What stands before the first section.
pub const TOP: Section = Section {
    name: "the file",
    keys: &[
        key("board", Kind::Text, NEEDED),
        key("gic", Kind::Integer, "the board's"),
        key("vm", Kind::Tables, NEEDED),
        key("channel", Kind::Tables, "none"),
        key("heap", Kind::Tables, "none"),
    ],
};

/// A virtual machine.
pub const VM: Section = Section {
    name: "[[vm]]",
    keys: &[
        key("name", Kind::Text, NEEDED),
        key("vmid", Kind::Integer, NEEDED),
        key("vcpus", Kind::Integer, "1, or as many as `cpus`"),
        key("cpus", Kind::Integers, "0 and following"),
        key("memory", Kind::Size, NEEDED),
        key("memory_at", Kind::Integer, "0x4000_0000, or found by the tool if `direct`"),
        key("program", Kind::Text, "one of three"),
        key("kernel", Kind::Text, "one of three"),
        key("guest", Kind::Text, "one of three"),
        key("load", Kind::Integer, "as the program says"),
        key("entry", Kind::Integer, "as the program says"),
        key("start", Kind::Text, "\"first\" for a kernel, else \"all\""),
        key("device_tree", Kind::Bool, "true"),
        key("initrd", Kind::Text, "none"),
        key("command_line", Kind::Text, "\"\""),
        key("device", Kind::Tables, "none"),
        key("roles", Kind::Texts, "[]"),
        key("may_supply", Kind::Bool, "true"),
        key("may_consume", Kind::Bool, "true"),
        key("quotas", Kind::Table, "the usual"),
        key("sanitize", Kind::Text, "\"when-asked\""),
        key("end_of_life", Kind::Text, "\"reset\""),
        key("owned_parcels", Kind::Text, "\"revoke\""),
        key("on_fault", Kind::Text, "\"inject\""),
        key("direct", Kind::Bool, "false"),
        key("trusted_dma", Kind::Bool, "false"),
    ],
};

/// A device of the machine that a VM drives itself.
pub const DEVICE: Section = Section {
    name: "[[vm.device]]",
    keys: &[
        key("name", Kind::Text, NEEDED),
        key("address", Kind::Integer, NEEDED),
        key("size", Kind::Size, NEEDED),
        key("at", Kind::Integer, "the address"),
        key("interrupts", Kind::Tables, "[]"),
        key("compatible", Kind::TextOrTexts, "none"),
        key("properties", Kind::Properties, "none"),
        key("dma", Kind::Bool, "false"),
    ],
};

/// An interrupt of such a device.
pub const INTERRUPT: Section = Section {
    name: "interrupts",
    keys: &[
        key("number", Kind::Integer, NEEDED),
        key("at", Kind::Integer, "the next free one from 43 on"),
        key("trigger", Kind::Text, "\"level\""),
    ],
};

/// How much of the resource manager's bookkeeping a VM may use.
pub const QUOTAS: Section = Section {
    name: "[vm.quotas]",
    keys: &[key("guaranteed", Kind::Table, "the usual"), key("limit", Kind::Table, "the usual")],
};

/// So much of each part of it. The defaults are those of [`package::Quotas::USUAL`].
pub const AMOUNTS: Section = Section {
    name: "guaranteed and limit",
    keys: &[
        key("parcels", Kind::Integer, "16 and 64"),
        key("extents", Kind::Integer, "512 and 2048"),
        key("unfinished", Kind::Integer, "1 and 4"),
        key("unread", Kind::Integer, "8 and 32"),
        key("frames", Kind::Integer, "32 and 128"),
        key("pages_lent", Kind::Integer, "65536 and 262144"),
        key("pages_accepted", Kind::Integer, "65536 and 262144"),
    ],
};

/// Memory that two VMs share from boot on.
pub const CHANNEL: Section = Section {
    name: "[[channel]]",
    keys: &[
        key("owner", Kind::Text, NEEDED),
        key("peer", Kind::Text, NEEDED),
        key("size", Kind::Size, NEEDED),
        key("label", Kind::Integer, "0"),
        key("owner_at", Kind::Integer, "found by the tool"),
        key("peer_at", Kind::Integer, "found by the tool"),
    ],
};

/// Memory of which VMs take buffers.
pub const HEAP: Section = Section {
    name: "[[heap]]",
    keys: &[
        key("name", Kind::Text, NEEDED),
        key("size", Kind::Size, NEEDED),
        key("vms", Kind::Texts, NEEDED),
        key("guaranteed", Kind::Size, "0"),
        key("limit", Kind::Size, "all of it"),
    ],
};

/// All sections, in the order of the reference.
pub const SECTIONS: &[&Section] =
    &[&TOP, &VM, &DEVICE, &INTERRUPT, &QUOTAS, &AMOUNTS, &CHANNEL, &HEAP];

impl Section {
    /// The names of its keys.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        self.keys.iter().map(|key| key.name).collect()
    }
}
