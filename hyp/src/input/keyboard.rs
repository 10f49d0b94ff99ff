//! Who has the keyboard, and what comes of each key.

use core::fmt::Write;

use heapless::String;
use rm::config::MAX_VMS;
use spin::mutex::SpinMutex;

use super::escape::{Escape, Wish};
use crate::console::Input;
use crate::uart;
use crate::vm::{self, Vm};

/// Bytes that one entry reads: what the smallest receive queue of a board's UART holds.
pub(super) const BYTES_PER_ENTRY: usize = 16;

/// Room for the names of all VMs, of 16 bytes each, with number and state.
const LIST: usize = MAX_VMS * 32;

struct Keyboard {
    escape: Escape,
    /// Index of the VM that has it.
    owner: usize,
    /// It was said that this VM is down.
    told_down: bool,
}

static KEYBOARD: SpinMutex<Keyboard, crate::Relax> =
    SpinMutex::new(Keyboard { escape: Escape::new(), owner: 0, told_down: false });

/// Reads what waits on the UART, a little at a time. Whether more may wait.
pub(crate) fn receive() -> bool {
    let mut keyboard = KEYBOARD.lock();
    for _ in 0..BYTES_PER_ENTRY {
        let Some(byte) = uart::try_read() else { return false };
        if let Some(wish) = keyboard.escape.take(byte) {
            keyboard.grant(wish);
        }
    }
    true
}

impl Keyboard {
    fn grant(&mut self, wish: Wish) {
        match wish {
            Wish::Type(byte) => self.type_in(byte),
            Wish::Switch(index) => self.switch(index),
            Wish::Next => self.switch((self.owner + 1) % vm::all().count()),
            Wish::List => self.list(),
            Wish::Unknown => {
                defmt::info!("keyboard: Ctrl-A, then 1 to 9 or n: switch; l: list; a: Ctrl-A");
            }
        }
    }

    fn type_in(&mut self, byte: u8) {
        let Some(vm) = vm::all().nth(self.owner) else { return };
        if vm.has_ended() {
            if !core::mem::replace(&mut self.told_down, true) {
                defmt::warn!("{=str}: is down, what is typed for it is dropped", vm.name());
            }
            return;
        }
        self.told_down = false;
        match vm.type_in(byte) {
            Input::Taken { lost: 0 } | Input::Lost => {}
            Input::Taken { lost } => vm.note(|name| {
                defmt::warn!("{=str}: {=u32} bytes of input were dropped", name, lost);
            }),
            Input::Full => vm.note(|name| {
                defmt::warn!("{=str}: does not read its input, more of it is dropped", name);
            }),
        }
    }

    fn switch(&mut self, index: usize) {
        let Some(vm) = vm::all().nth(index) else {
            defmt::warn!("keyboard: there is no VM {=usize}", index + 1);
            return;
        };
        self.owner = index;
        self.told_down = vm.has_ended();
        let state = if self.told_down { ", which is down" } else { "" };
        defmt::info!("keyboard: goes to {=str}{=str}", vm.name(), state);
    }

    fn list(&self) {
        let mut list: String<LIST> = String::new();
        for (number, vm) in (1..).zip(vm::all()) {
            let comma = if number == 1 { "" } else { ", " };
            let state = if vm.has_ended() { " (down)" } else { "" };
            // There is room for all.
            let _ = write!(list, "{comma}{number} {}{state}", vm.name());
        }
        let owner = vm::all().nth(self.owner).map_or("nobody", Vm::name);
        defmt::info!("keyboard: goes to {=str}; there are {=str}", owner, list.as_str());
    }
}
