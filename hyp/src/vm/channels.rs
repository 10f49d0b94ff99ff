//! Channels: memory that two VMs share from boot on, and again when one of them has started anew.

use core::sync::atomic::{AtomicU32, Ordering};

use heapless::Vec;
use package::Channel;
use rm::address::{Ipa, VmIndex};
use rm::config::MAX_VMS;
use rm::doorbell::MAX_DOORBELLS;
use rm::life::VmState;
use rm_abi::Handle;
use spin::Once;

use super::Manager;

/// Most channels of a package.
const MAX_CHANNELS: usize = 64;

/// A channel, and the parcel that it is.
struct Open {
    channel: Channel,
    handle: AtomicU32,
}

impl Open {
    const fn owner(&self) -> (VmIndex, Ipa) {
        (VmIndex(self.channel.owner as u8), Ipa(self.channel.owner_ipa))
    }

    const fn peer(&self) -> (VmIndex, Ipa) {
        (VmIndex(self.channel.peer as u8), Ipa(self.channel.peer_ipa))
    }

    /// Shares the memory, as if both VMs had asked.
    fn share(&self, manager: &Manager) -> Result<(), rm::config::BootError> {
        let Channel { pages, label, .. } = self.channel;
        let handle = manager.share_at_boot(self.owner(), self.peer(), pages, label)?;
        self.handle.store(handle.0, Ordering::Relaxed);
        Ok(())
    }
}

static CHANNELS: Once<Vec<Open, MAX_CHANNELS>> = Once::new();

/// Shares what the package says that VMs share from boot on, and connects their next doorbells. A channel
/// beyond a VM's last doorbell has none.
pub(super) fn open(manager: &Manager, channels: impl Iterator<Item = Channel>) {
    let mut doorbells = [0_u8; MAX_VMS];
    let all = CHANNELS.call_once(|| {
        let mut all = Vec::new();
        for channel in channels {
            let open = Open { channel, handle: AtomicU32::new(0) };
            assert!(all.push(open).is_ok(), "a package has at most {MAX_CHANNELS} channels");
        }
        all
    });
    for open in all {
        if let Err(error) = open.share(manager) {
            panic!("channel at {:#x}: {error:?}", open.channel.owner_ipa);
        }
        let ends = [open.owner().0, open.peer().0].map(|vm| (vm, doorbells[usize::from(vm.0)]));
        if ends.iter().all(|&(_, number)| usize::from(number) < MAX_DOORBELLS) {
            manager.connect_doorbells(ends[0], ends[1]);
        }
        ends.iter().for_each(|(vm, _)| doorbells[usize::from(vm.0)] += 1);
    }
}

/// Opens the channels of a VM that is about to run again, where the other end runs. What the VMs have
/// done to the memory meanwhile may be in the way; then the channel stays closed.
pub(super) fn reopen(manager: &Manager, vm: VmIndex) {
    for open in CHANNELS.get().into_iter().flatten() {
        let (owner, peer) = (open.owner().0, open.peer().0);
        let runs = |end| end == vm || manager.state(end) == VmState::Running;
        if (owner != vm && peer != vm) || !runs(owner) || !runs(peer) {
            continue;
        }
        let handle = Handle(open.handle.load(Ordering::Relaxed));
        let opened = if peer == vm {
            // The owner still offers it, unless it has reclaimed it.
            manager
                .accept_at_boot(handle, open.peer(), open.channel.pages, open.channel.label)
                .or_else(|_| open.share(manager))
        } else {
            open.share(manager)
        };
        if opened.is_err() {
            defmt::warn!("channel at {=u64:#x} stays closed", open.channel.owner_ipa);
        }
    }
}
