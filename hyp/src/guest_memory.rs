//! Memory of the guest that runs, by its own virtual addresses. Nothing else in EL2 touches it.
//!
//! Each page is translated and copied under the VM's lock: stage 1 by the hardware, stage 2 by our
//! own walk, which alone says what the VM may do with the page. Nothing is read twice, so what was
//! checked is what is used.
//!
//! EL2 goes through its caches. Where the guest does not, because its own tables or the policy of the
//! parcel that the page is in say so, memory and EL2's lines are brought together around each access.

use core::arch::asm;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use aarch64_cpu::asm::barrier::{SY, isb};
use rm::address::{Ipa, PAGE_SIZE, Pa, VmIndex};
use rm::direct::{GuestFault, GuestMemory};
use rm::stage2::{Access, MemoryType, Page};

use crate::vcpu::context::{mrs, msr};
use crate::vm::Manager;
use crate::{cache, stage1};

/// The memory of the VM that is loaded on this CPU.
pub(crate) struct Loaded<'a> {
    pub(crate) manager: &'a Manager,
    pub(crate) vm: VmIndex,
}

/// Bytes of one page that are about to be copied.
struct Piece {
    pa: Pa,
    length: usize,
    /// Whether the guest uses them by write-back caches, as far as both stages go. If not, EL2's own
    /// lines must not stay.
    cached: bool,
}

/// Where the guest bypasses the caches, memory and EL2's own lines must agree before EL2 reads
/// and after it has written.
fn maintain(at: Pa, length: usize, cached: bool) {
    if !cached {
        cache::clean_invalidate(at, length as u64);
    }
}

/// Copies bytes of one page of guest RAM, which a lock keeps what it is, out.
pub(crate) fn read_page(from: Pa, into: &mut [u8], cached: bool) {
    maintain(from, into.len(), cached);
    copy_in(stage1::direct(from), into);
}

/// Copies bytes into one page of guest RAM, which a lock keeps what it is.
pub(crate) fn write_page(to: Pa, from: &[u8], cached: bool) {
    maintain(to, from.len(), cached);
    copy_out(stage1::direct(to), from);
    maintain(to, from.len(), cached);
}

impl Loaded<'_> {
    /// Calls `f` with the pieces of `at..at + length` in ascending order. Stops at the first page
    /// that does not allow the access; what was done before stays done.
    fn pieces(
        &self,
        at: u64,
        length: usize,
        access: Access,
        mut f: impl FnMut(Piece),
    ) -> Result<(), GuestFault> {
        let mut done = 0;
        while done < length {
            let address = at.checked_add(done as u64).ok_or(GuestFault::Unmapped)?;
            let room = (PAGE_SIZE - address % PAGE_SIZE) as usize;
            let length = room.min(length - done);
            self.manager.with_page(self.vm, |allowed| {
                let (ipa, cached) = translate(address, access)?;
                let page = resolve(allowed, ipa, access)?;
                let pa = Pa(page.pa.0 + ipa.0 % PAGE_SIZE);
                let cached = cached && page.memory == MemoryType::WriteBack;
                f(Piece { pa, length, cached });
                Ok(())
            })?;
            done += length;
        }
        Ok(())
    }
}

impl GuestMemory for Loaded<'_> {
    fn read(&self, at: u64, mut into: &mut [u8]) -> Result<(), GuestFault> {
        self.pieces(at, into.len(), Access::Read, |piece| {
            let (part, rest) = core::mem::take(&mut into).split_at_mut(piece.length);
            read_page(piece.pa, part, piece.cached);
            into = rest;
        })
    }

    fn write(&self, at: u64, mut from: &[u8]) -> Result<(), GuestFault> {
        self.pieces(at, from.len(), Access::Write, |piece| {
            let (part, rest) = from.split_at(piece.length);
            write_page(piece.pa, part, piece.cached);
            from = rest;
        })
    }

    fn writable(&self, at: u64, length: usize) -> Result<(), GuestFault> {
        self.pieces(at, length, Access::Write, |_| {})
    }
}

/// Stage 2, by our tables: the page that holds the address.
fn resolve(
    allowed: &dyn Fn(Ipa, Access) -> Option<Page>,
    at: Ipa,
    access: Access,
) -> Result<Page, GuestFault> {
    allowed(at, access).ok_or_else(|| match allowed(at, Access::Read) {
        Some(_) => GuestFault::Permission,
        None => GuestFault::Unmapped,
    })
}

/// Stage 1 of the loaded guest, and whether it makes the page write-back. The VM's lock is held, so
/// no table of its stage 2 is in the middle of a change while the CPU walks.
fn translate(address: u64, access: Access) -> Result<(Ipa, bool), GuestFault> {
    let saved = mrs!("par_el1");
    match access {
        Access::Write => at_write(address),
        Access::Read | Access::Execute => at_read(address),
    }
    isb(SY);
    let result = mrs!("par_el1");
    msr!("par_el1", saved);
    if result & FAILED != 0 {
        return Err(if result & AT_STAGE_2 != 0 {
            GuestFault::Unmapped
        } else {
            GuestFault::Stage1
        });
    }
    let ipa = result & 0x000F_FFFF_FFFF_F000 | address & (PAGE_SIZE - 1);
    Ok((Ipa(ipa), is_write_back((result >> 56) as u8)))
}

/// PAR_EL1.F.
const FAILED: u64 = 1;
/// PAR_EL1.S: the fault was met at stage 2, on the walk of the guest's own tables.
const AT_STAGE_2: u64 = 1 << 9;

fn at_read(address: u64) {
    // SAFETY: walks the tables of the loaded guest and writes PAR_EL1, which `translate` restores.
    unsafe { asm!("at s1e1r, {}", in(reg) address, options(nostack, preserves_flags)) };
}

fn at_write(address: u64) {
    // SAFETY: as in `at_read`.
    unsafe { asm!("at s1e1w, {}", in(reg) address, options(nostack, preserves_flags)) };
}

/// Whether a memory attribute in MAIR_EL1's format is Normal write-back, inner and outer.
fn is_write_back(attribute: u8) -> bool {
    // Transient write-back 0b01RW with RW not 0, or write-back 0b11RW.
    let half = |bits: u8| matches!(bits & 0xF, 0x5..=0x7 | 0xC..=0xF);
    half(attribute) && half(attribute >> 4)
}

/// Bytes before the first whole word at an address, of `length` bytes there.
fn bytes_before_words(at: *mut u8, length: usize) -> usize {
    at.align_offset(8).min(length)
}

/// Copies from a guest, which may write at the same time: each part is read once, as an atomic.
fn copy_in(from: *mut u8, into: &mut [u8]) {
    let mut at = from;
    let (head, rest) = into.split_at_mut(bytes_before_words(at, into.len()));
    let (words, tail) = rest.as_chunks_mut();
    let bytes_in = |bytes: &mut [u8], at: &mut *mut u8| {
        for byte in bytes {
            *byte = load_byte(*at);
            *at = at.wrapping_add(1);
        }
    };
    bytes_in(head, &mut at);
    for word in words {
        *word = load_word(at).to_le_bytes();
        at = at.wrapping_add(8);
    }
    bytes_in(tail, &mut at);
}

/// Copies to a guest.
fn copy_out(to: *mut u8, from: &[u8]) {
    let mut at = to;
    let (head, rest) = from.split_at(bytes_before_words(at, from.len()));
    let (words, tail) = rest.as_chunks();
    let bytes_out = |bytes: &[u8], at: &mut *mut u8| {
        for byte in bytes {
            store_byte(*at, *byte);
            *at = at.wrapping_add(1);
        }
    };
    bytes_out(head, &mut at);
    for word in words {
        store_word(at, u64::from_le_bytes(*word));
        at = at.wrapping_add(8);
    }
    bytes_out(tail, &mut at);
}

fn load_word(at: *mut u8) -> u64 {
    // SAFETY: `at` lies in a page of guest RAM that `pieces` or the manager has found, a lock keeps it
    // the guest's, and the caller has checked the alignment. EL2 reads guest RAM as atomics only.
    unsafe { AtomicU64::from_ptr(at.cast()) }.load(Ordering::Relaxed)
}

fn load_byte(at: *mut u8) -> u8 {
    // SAFETY: as in `load_word`.
    unsafe { AtomicU8::from_ptr(at) }.load(Ordering::Relaxed)
}

fn store_word(at: *mut u8, word: u64) {
    // SAFETY: as in `load_word`.
    unsafe { AtomicU64::from_ptr(at.cast()) }.store(word, Ordering::Relaxed);
}

fn store_byte(at: *mut u8, byte: u8) {
    // SAFETY: as in `load_word`.
    unsafe { AtomicU8::from_ptr(at) }.store(byte, Ordering::Relaxed);
}
