//! What a VM wants done when its part in a page ends, and the bells that are rung then.

use std::collections::BTreeMap;
use std::ops::Range;

use rm_abi::Transfer;

use super::{ARGUMENT, Answer, DENIED, Model, PAGE, RELEASED, WRITE};

/// What is done: which byte of the page is cleared, and which flag of which bell of the VM's is rung.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Will {
    pub(crate) clears: Option<u64>,
    pub(crate) rings: Option<(u8, u8)>,
}

/// A VM's end of a channel.
pub(crate) type Bell = (u8, u8);
/// Which ends belong together.
pub(crate) const CHANNELS: [(Bell, Bell); 3] =
    [((0, 0), (1, 2)), ((1, 0), (2, 1)), ((2, 2), (0, 1))];

/// How often each was rung, and the flags that are up.
#[derive(Default)]
pub(crate) struct Bells(BTreeMap<Bell, (u64, u64)>);

impl Bells {
    fn peer(bell: Bell) -> Option<Bell> {
        CHANNELS.into_iter().find_map(|(one, other)| match bell {
            _ if bell == one => Some(other),
            _ if bell == other => Some(one),
            _ => None,
        })
    }

    fn ring(&mut self, bell: Bell, flag: u8) {
        let (times, flags) = self.0.entry(Self::peer(bell).expect("it was looked at")).or_default();
        (*times, *flags) = (*times + 1, *flags | 1 << flag);
    }

    pub(crate) fn times(&self, bell: Bell) -> u64 {
        self.0.get(&bell).map_or(0, |(times, _)| *times)
    }

    /// Takes the flags down.
    pub(crate) fn take(&mut self, bell: Bell) -> u64 {
        self.0.get_mut(&bell).map_or(0, |(_, flags)| std::mem::take(flags))
    }

    pub(super) fn reset(&mut self, vm: u8) {
        self.0.iter_mut().filter(|((of, _), _)| *of == vm).for_each(|(_, (_, flags))| *flags = 0);
    }
}

impl Model {
    pub(crate) fn set_will(&mut self, vm: u8, handle: u32, page: usize, will: Will) -> Answer {
        let index = self.find(vm, handle)?;
        let parcel = &self.parcels[index];
        if page >= parcel.pages.len() {
            return Err(ARGUMENT);
        }
        let given = match parcel.held.get(&vm) {
            _ if parcel.owner == vm && parcel.transfer == Transfer::Donate => return Err(ARGUMENT),
            _ if parcel.owner == vm && parcel.revoked => return Err(DENIED),
            None if parcel.owner != vm => return Err(RELEASED),
            held => held.is_some_and(|held| held.given[page]),
        };
        if given || parcel.gone[page] {
            return Err(RELEASED);
        }
        let may_write = parcel.rights(vm).is_some_and(|rights| rights & WRITE != 0);
        let may_ring = |(bell, flag)| Bells::peer((vm, bell)).is_some() && flag < 64;
        if will.clears.is_some() && !may_write || !will.rings.is_none_or(may_ring) {
            return Err(ARGUMENT);
        }
        self.parcels[index].wills.insert((vm, page), will);
        Ok(())
    }

    /// The VM's part in these pages of a parcel, or all, ends.
    pub(super) fn end_part(&mut self, index: usize, vm: u8, pages: Option<&Range<usize>>) {
        let is_about = |page: usize| pages.is_none_or(|pages| pages.contains(&page));
        let ends = |&(of, page): &(u8, usize), _: &mut Will| of == vm && is_about(page);
        let parcel = &mut self.parcels[index];
        for ((_, page), Will { clears, rings }) in parcel.wills.extract_if(.., ends) {
            if let Some(offset) = clears {
                self.content.remove(&(parcel.pages[page].1 + offset));
            }
            if let Some((bell, flag)) = rings {
                self.bells.ring((vm, bell), flag);
            }
        }
    }
}

const _: () = assert!(PAGE == 4096);
