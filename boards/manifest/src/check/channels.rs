//! Channels: memory that two VMs share from boot on, and the doorbells that go with it.

use std::ops::Range;

use package::{MEMORY_GRANULE, VM_MEMORY_BASE};
use rm::doorbell::MAX_DOORBELLS;

use super::heaps::find;
use crate::config;
use crate::draft::{Draft, End, IPA_END};
use crate::map::{PAGE, hex, range, text};
use crate::report::{At, Problem};

/// A channel between two VMs that exist.
struct Link<'a> {
    said: &'a config::Channel<'a>,
    owner: usize,
    peer: usize,
    size: u64,
}

/// Gives each channel its addresses: first those that the manifest says.
pub(super) fn place(draft: &mut Draft<'_>) {
    let links: Vec<_> = draft.config.channels.iter().filter_map(|said| link(draft, said)).collect();
    quotas(draft, &links);
    // What is chosen must not take what is said further below.
    let owners: Vec<_> = links.iter().map(|link| owner_said(draft, link)).collect();
    let peers: Vec<_> = links.iter().map(|link| peer_said(draft, link)).collect();
    for ((link, owner), peer) in links.iter().zip(owners).zip(peers) {
        let owner = owner.or_else(|| owner_chosen(draft, link));
        let peer = peer.or_else(|| peer_chosen(draft, link));
        if let (Some(owner), Some(peer)) = (owner, peer) {
            connect(draft, link, owner, peer);
        }
    }
}

fn link<'a>(draft: &Draft<'_>, said: &'a config::Channel<'a>) -> Option<Link<'a>> {
    let size = said.size.as_ref();
    let fits = size.filter(|size| size.value > 0 && size.value.is_multiple_of(PAGE));
    if let Some(size) = size.filter(|_| fits.is_none()) {
        let problem = Problem::new(&size.span, "a channel's size must be a multiple of 4096");
        draft.problems.add(problem.label("bytes"));
    }
    let owner = said.owner.as_ref().and_then(|name| find(draft, name));
    let peer = said.peer.as_ref().and_then(|name| find(draft, name));
    let (owner, peer) = (owner?, peer?);
    let (owner_at, peer_at) = (said.owner.as_ref()?, said.peer.as_ref()?);
    if owner == peer {
        let message = format!("`{}` cannot share a channel with itself", peer_at.value);
        draft.problems.add(Problem::new(&peer_at.span, message));
        return None;
    }
    if draft.vms[peer].said.is_direct() {
        let message = format!(
            "`{}` is `direct`, so it cannot see the memory of `{}` at an address of its choice",
            peer_at.value, owner_at.value
        );
        let help = format!("make `{}` the owner and `{}` the peer", peer_at.value, owner_at.value);
        draft.problems.add(Problem::new(&peer_at.span, message).help(help));
        return None;
    }
    Some(Link { said, owner, peer, size: fits?.value })
}

/// Whether owners and peers may have so many channels, and so large ones.
fn quotas(draft: &Draft<'_>, links: &[Link<'_>]) {
    for (index, vm) in draft.vms.iter().enumerate() {
        let owned = || links.iter().filter(|link| link.owner == index);
        let pages = |links: &mut dyn Iterator<Item = &Link<'_>>| {
            links.map(|link| link.size / PAGE).fold(0, u64::saturating_add)
        };
        let limit = &vm.said.quotas.value.limit;
        // Memory is put together from pieces of 2 MiB and more, and a channel may begin in any.
        let extents = owned().map(|link| link.size.div_ceil(MEMORY_GRANULE).saturating_add(1));
        let needed = [
            ("parcels", owned().count() as u64, limit.parcels.into()),
            ("extents", extents.fold(0, u64::saturating_add), limit.extents.into()),
            ("pages_lent", pages(&mut owned()), limit.pages_lent),
            (
                "pages_accepted",
                pages(&mut links.iter().filter(|link| link.peer == index)),
                limit.pages_accepted,
            ),
        ];
        for (name, needed, limit) in needed {
            if needed > limit {
                let message = format!(
                    "the channels of {} need {needed} {name}, but its limit is {limit}",
                    vm.said.called()
                );
                draft.problems.add(Problem::new(&vm.said.quotas.span, message));
            }
        }
    }
}

/// Claims the owner's part if the manifest says where it is. `Some(None)`: it does, and wrongly.
fn owner_said(draft: &mut Draft<'_>, link: &Link<'_>) -> Option<Option<u64>> {
    let at = link.said.owner_at.as_ref()?;
    let vm = &mut draft.vms[link.owner];
    let Some(memory) = vm.memory.clone() else { return Some(None) };
    let wanted = range(at.value, link.size);
    if !page(draft.problems, at) {
        return Some(None);
    }
    if wanted.start < memory.start || wanted.end > memory.end {
        let message = format!(
            "the channel ({}) must lie in the memory of {} ({})",
            text(&wanted),
            vm.said.called(),
            text(&memory)
        );
        draft.problems.add(Problem::new(&at.span, message).help("leave `owner_at` out"));
        return Some(None);
    }
    let free = vm.contents.claim(wanted, "channel", &at.span, draft.problems);
    Some(free.then_some(at.value))
}

/// Claims the peer's part if the manifest says where it is.
fn peer_said(draft: &mut Draft<'_>, link: &Link<'_>) -> Option<Option<u64>> {
    let at = link.said.peer_at.as_ref()?;
    let wanted = range(at.value, link.size);
    if !page(draft.problems, at) {
        return Some(None);
    }
    if at.value < VM_MEMORY_BASE || wanted.end > IPA_END {
        let message = format!("the peer cannot see the channel at {}", hex(at.value));
        let help = format!("from {} to {}", hex(VM_MEMORY_BASE), hex(IPA_END));
        draft.problems.add(Problem::new(&at.span, message).help(help));
        return Some(None);
    }
    let free = draft.vms[link.peer].space.claim(wanted, "channel", &at.span, draft.problems);
    Some(free.then_some(at.value))
}

fn page(problems: &crate::report::Problems, at: &At<u64>) -> bool {
    if !at.value.is_multiple_of(PAGE) {
        let message = format!("{} is no multiple of 4096", hex(at.value));
        problems.add(Problem::new(&at.span, message));
    }
    at.value.is_multiple_of(PAGE)
}

/// The highest free pages of the owner's memory.
fn owner_chosen(draft: &mut Draft<'_>, link: &Link<'_>) -> Option<Option<u64>> {
    let vm = &mut draft.vms[link.owner];
    let memory = vm.memory.clone()?;
    let free = vm.contents.highest(memory, link.size, PAGE);
    Some(chosen(&mut vm.contents, free, link, vm.said, draft.problems))
}

/// The lowest free addresses behind the peer's memory.
fn peer_chosen(draft: &mut Draft<'_>, link: &Link<'_>) -> Option<Option<u64>> {
    let vm = &mut draft.vms[link.peer];
    let memory: Range<u64> = vm.memory.clone()?;
    let within = memory.end.max(VM_MEMORY_BASE)..IPA_END;
    let free = vm.space.lowest(within, link.size, PAGE);
    Some(chosen(&mut vm.space, free, link, vm.said, draft.problems))
}

fn chosen(
    map: &mut crate::map::Map,
    free: Option<u64>,
    link: &Link<'_>,
    vm: &config::Vm<'_>,
    problems: &crate::report::Problems,
) -> Option<u64> {
    let Some(at) = free else {
        let message = format!("{} has no room for the channel", vm.called());
        let memory = vm.memory.as_ref().map(|memory| &memory.span);
        problems.add(Problem::new(&link.said.span, message).also(memory, "make this larger"));
        return None;
    };
    map.claim(range(at, link.size), "channel", &link.said.span, problems);
    Some(at)
}

fn connect(draft: &mut Draft<'_>, link: &Link<'_>, owner: Option<u64>, peer: Option<u64>) {
    let (Some(owner_ipa), Some(peer_ipa)) = (owner, peer) else { return };
    let label = link.said.label;
    draft.channels.push(package::Channel {
        owner: link.owner as u16,
        peer: link.peer as u16,
        label,
        owner_ipa,
        peer_ipa,
        pages: link.size / PAGE,
    });
    // EL2 connects the next doorbell of each VM, if both have one left.
    let next = [link.owner, link.peer].map(|vm| draft.vms[vm].ends.len());
    let rings = next.iter().all(|&number| number < MAX_DOORBELLS);
    let end = |at, other, number: usize| End {
        at,
        size: link.size,
        label,
        other,
        doorbell: rings.then_some(number as u8),
    };
    draft.vms[link.owner].ends.push(end(owner_ipa, link.peer, next[0]));
    draft.vms[link.peer].ends.push(end(peer_ipa, link.owner, next[1]));
}
