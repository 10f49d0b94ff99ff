//! HEAP, HEAP_ALLOC and HEAP_FREE: pieces of named heaps become a VM's own memory, and go back.
//!
//! A piece is taken from the heap, with its charge, gets an address, is held there and then becomes the
//! caller's; only the last cannot be refused. What goes back is claimed first, which can be refused; then
//! it leaves the caller's tables run by run, is zeroed, and is the heap's again, page by page.
//!
//! A VM is told of the heaps that it may use and of no others: that it may not use a heap and that there
//! is none are one refusal, after as many instructions.

use rm_abi::Bytes;
use rm_abi::extension::{
    self, HeapAllocRequest, HeapFeatures, HeapFreeRequest, HeapInfo, HeapRequest, MAX_HEAP_NAME,
};

use crate::address::{Ipa, PAGE_SIZE, PAGES_PER_2M, Pa};
use crate::call::Caller;
use crate::call::extension::refusal;
use crate::heap::{self, Cursor, Longest};
use crate::machine::Machine;
use crate::operation::budget::{Budget, weight};
use crate::operation::message::Message;
use crate::operation::{Begun, Operation, Reply, Step};
use crate::refusal::Refusal;
use crate::stage2::{Batch, Change, FreeCursor, HoldError, Search, State};

/// Addresses of the wire end here.
const LIMIT: u64 = 1 << 44;
const _: () = assert!(MAX_HEAP_NAME == crate::config::MAX_NAME);

/// A heap call at work.
#[derive(Debug)]
pub(crate) enum HeapCall {
    Ask { heap: u32, longest: Longest },
    Alloc(Alloc),
    Free(Free),
}

pub(crate) fn begin<M: Machine>(
    caller: Caller<'_, '_, M>,
    message: u32,
    payload: &dyn Bytes,
    operation: &mut Option<Operation>,
) -> Result<Begun, Refusal> {
    let heaps = caller.manager.heaps();
    let call = match message {
        extension::HEAP => {
            let HeapRequest { from } = HeapRequest::decode(payload).map_err(refusal)?;
            let next = heaps.allowed(caller.vm, |number| number >= from);
            let heap = next.ok_or(Refusal::NoHeap)?.number;
            HeapCall::Ask { heap, longest: Longest::default() }
        }
        extension::HEAP_ALLOC => {
            let request = HeapAllocRequest::decode(payload).map_err(refusal)?;
            HeapCall::Alloc(Alloc::new(caller, &request)?)
        }
        _ => {
            let request = HeapFreeRequest::decode(payload).map_err(refusal)?;
            let HeapFreeRequest { address, size } = request;
            let end = address.checked_add(size).filter(|&end| end <= LIMIT);
            if !(address | size).is_multiple_of(PAGE_SIZE) || end.is_none() || size == 0 {
                return Err(Refusal::Address);
            }
            HeapCall::Free(Free::new(Ipa(address), size / PAGE_SIZE))
        }
    };
    *operation = Some(Operation::Heap(call));
    Ok(Begun::Long)
}

impl HeapCall {
    /// Bytes of the reply's data.
    pub(crate) const fn data_size(&self) -> usize {
        match self {
            Self::Ask { .. } => HeapInfo::SIZE,
            Self::Alloc(_) => HeapAllocRequest::REPLY,
            Self::Free(_) => 0,
        }
    }

    pub(crate) fn step<M: Machine>(
        &mut self,
        caller: Caller<'_, '_, M>,
        data: &mut Message,
        budget: &mut Budget,
    ) -> Step {
        match self {
            Self::Ask { heap, longest } => ask(caller, *heap, longest, data, budget),
            Self::Alloc(alloc) => alloc.step(caller, data, budget),
            Self::Free(free) => free.step(caller, budget),
        }
    }
}

fn ask<M: Machine>(
    caller: Caller<'_, '_, M>,
    number: u32,
    longest: &mut Longest,
    data: &mut Message,
    budget: &mut Budget,
) -> Step {
    let Some(heap) = caller.manager.heaps().get(number, caller.vm) else {
        return Step::Done(Err(Refusal::NoHeap));
    };
    if !heap.measure(caller.machine(), longest, budget) {
        return Step::More;
    }
    let usage = heap.usage(caller.machine(), caller.vm);
    let info = HeapInfo {
        number,
        features: HeapFeatures::CONTIGUOUS,
        size: heap.pages() * PAGE_SIZE,
        free: heap.free(caller.machine()) * PAGE_SIZE,
        largest: longest.pages * PAGE_SIZE,
        used: usage.used * PAGE_SIZE,
        guaranteed: usage.guaranteed * PAGE_SIZE,
        limit: usage.limit.saturating_mul(PAGE_SIZE),
        name: *heap.name().bytes(),
    };
    let mut bytes = [0; HeapInfo::SIZE];
    info.encode(&mut bytes).expect("G7: the room is for the answer");
    data.write(caller.mem(), 0, &bytes);
    Step::Done(Ok(Reply::Data { length: HeapInfo::SIZE as u16 }))
}

/// A piece on its way to the caller.
#[derive(Debug)]
pub(crate) struct Alloc {
    heap: u32,
    /// The manager chooses the address.
    anywhere: bool,
    pages: u64,
    at: Ipa,
    pa: Pa,
    stage: Stage,
    /// Pages that the stage has done.
    done: u64,
}

#[derive(Debug)]
enum Stage {
    Take(Cursor),
    Mark,
    Find(FreeCursor),
    Hold,
    /// Take back so many held pages, then look for another address or give the piece back.
    Unhold(u64, Option<Refusal>),
    /// Give the piece back.
    Return(Refusal),
    Own,
}

impl Alloc {
    fn new<M: Machine>(
        caller: Caller<'_, '_, M>,
        request: &HeapAllocRequest,
    ) -> Result<Self, Refusal> {
        let HeapAllocRequest { heap, size, address } = *request;
        caller.manager.heaps().get(heap, caller.vm).ok_or(Refusal::NoHeap)?;
        let pages = heap::rounded(size).ok_or(Refusal::Address)?;
        let (anywhere, at) = (address == HeapAllocRequest::ANYWHERE, Ipa(address));
        if !anywhere {
            if !address.is_multiple_of(PAGE_SIZE) || address >= LIMIT {
                return Err(Refusal::Address);
            }
            if at < caller.state().accept_from || at.page() + pages > caller.state().ipa_pages {
                return Err(Refusal::NoRange);
            }
        }
        let stage = Stage::Take(Cursor::default());
        Ok(Self { heap, anywhere, pages, at, pa: Pa(0), stage, done: 0 })
    }

    fn step<M: Machine>(
        &mut self,
        caller: Caller<'_, '_, M>,
        data: &mut Message,
        budget: &mut Budget,
    ) -> Step {
        while !budget.is_spent() {
            match self.advance(caller, budget) {
                Ok(false) => {}
                Ok(true) => {
                    data.write(caller.mem(), 0, &self.at.0.to_le_bytes());
                    data.write(caller.mem(), 8, &(self.pages * PAGE_SIZE).to_le_bytes());
                    let length = HeapAllocRequest::REPLY as u16;
                    return Step::Done(Ok(Reply::Data { length }));
                }
                Err(refusal) => return Step::Done(Err(refusal)),
            }
        }
        Step::More
    }

    /// Whether the piece is the caller's.
    fn advance<M: Machine>(
        &mut self,
        caller: Caller<'_, '_, M>,
        budget: &mut Budget,
    ) -> Result<bool, Refusal> {
        let (mem, machine) = (caller.mem(), caller.machine());
        let heap = caller.manager.heaps().get(self.heap, caller.vm).ok_or(Refusal::NoHeap)?;
        match &mut self.stage {
            Stage::Take(cursor) => {
                if let Some(pa) = heap.take(machine, caller.vm, cursor, self.pages, budget)? {
                    self.pa = pa;
                    self.stage = Stage::Mark;
                }
            }
            Stage::Mark => {
                if heap.mark_taken(machine, caller.vm, budget) {
                    self.stage = self.placed(caller);
                }
            }
            Stage::Find(cursor) => {
                let align = if self.pages >= PAGES_PER_2M { PAGES_PER_2M } else { 1 };
                let found = caller.stage2().find_free(mem, cursor, self.pages, align, budget);
                self.stage = match found {
                    Search::More => return Ok(false),
                    Search::Nowhere => Stage::Return(Refusal::NoRange),
                    Search::Found(at) => {
                        self.at = at;
                        Stage::Hold
                    }
                };
            }
            Stage::Hold => {
                let (at, pa) = (self.at.add_pages(self.done), self.pa.add_pages(self.done));
                match caller.stage2().hold(mem, at, pa, self.pages - self.done, budget) {
                    Ok(held) => self.done += held,
                    Err(error) => {
                        let refusal = match error {
                            // Another call of this VM was faster.
                            HoldError::Taken if self.anywhere => None,
                            HoldError::Taken => Some(Refusal::NoRange),
                            HoldError::NoFrame(none) => Some(none.into()),
                        };
                        self.stage = Stage::Unhold(self.done, refusal);
                        self.done = 0;
                        return Ok(false);
                    }
                }
                if self.done == self.pages {
                    (self.stage, self.done) = (Stage::Own, 0);
                }
            }
            Stage::Unhold(held, refusal) => {
                let (held, refusal) = (*held, *refusal);
                if self.done < held {
                    self.done += self.change(caller, Change::Unhold, held, budget);
                    return Ok(false);
                }
                self.done = 0;
                self.stage = match refusal {
                    Some(refusal) => Stage::Return(refusal),
                    None => Stage::Find(FreeCursor::from(caller.state().accept_from)),
                };
            }
            Stage::Return(refusal) => {
                let (refusal, rest) = (*refusal, self.pages - self.done);
                let piece = (self.pa.add_pages(self.done), rest);
                self.done += heap.put(machine, caller.vm, piece, budget);
                if self.done == self.pages {
                    return Err(refusal);
                }
            }
            Stage::Own => {
                self.done += self.change(caller, Change::Own, self.pages, budget);
                return Ok(self.done == self.pages);
            }
        }
        Ok(false)
    }

    /// What comes when the piece is taken. A VM whose addresses are the machine's has it there.
    fn placed<M: Machine>(&mut self, caller: Caller<'_, '_, M>) -> Stage {
        let state = caller.state();
        if state.direct_mapped {
            let own = Ipa(self.pa.0);
            let fits = own.page() + self.pages <= state.ipa_pages;
            if !fits || !self.anywhere && self.at != own {
                return Stage::Return(Refusal::NoRange);
            }
            (self.at, self.anywhere) = (own, false);
        }
        if self.anywhere { Stage::Find(FreeCursor::from(state.accept_from)) } else { Stage::Hold }
    }

    fn change<M: Machine>(
        &self,
        caller: Caller<'_, '_, M>,
        to: Change,
        end: u64,
        budget: &mut Budget,
    ) -> u64 {
        change(caller, self.at.add_pages(self.done), end - self.done, to, budget)
    }
}

/// Changes leaves from `at` on, with their invalidation; says how many pages.
fn change<M: Machine>(
    caller: Caller<'_, '_, M>,
    at: Ipa,
    pages: u64,
    to: Change,
    budget: &mut Budget,
) -> u64 {
    let mem = caller.mem();
    let mut stage2 = caller.stage2();
    let mut batch = Batch::new();
    let done = stage2.change(mem, &mut batch, at, pages, to, budget);
    stage2.finish(mem, batch);
    done
}

/// Memory of heaps on its way back.
#[derive(Debug)]
pub(crate) struct Free {
    at: Ipa,
    pages: u64,
    stage: Back,
    done: u64,
    /// What has left the VM's tables and is not a heap's yet.
    out: Option<(Pa, u64)>,
}

#[derive(Clone, Copy, Debug)]
enum Back {
    Claim,
    /// Take back the claim of so many pages.
    Unclaim(u64, Refusal),
    Leave,
}

impl Free {
    const fn new(at: Ipa, pages: u64) -> Self {
        Self { at, pages, stage: Back::Claim, done: 0, out: None }
    }

    fn step<M: Machine>(&mut self, caller: Caller<'_, '_, M>, budget: &mut Budget) -> Step {
        while !budget.is_spent() {
            let here = self.at.add_pages(self.done);
            match self.stage {
                Back::Claim if self.done == self.pages => {
                    (self.stage, self.done) = (Back::Leave, 0)
                }
                Back::Claim => match self.claim(caller, budget) {
                    Ok(claimed) => self.done += claimed,
                    Err(refusal) => {
                        self.stage = Back::Unclaim(self.done, refusal);
                        self.done = 0;
                    }
                },
                Back::Unclaim(claimed, refusal) => {
                    if self.done == claimed {
                        return Step::Done(Err(refusal));
                    }
                    let rest = claimed - self.done;
                    self.done += change(caller, here, rest, Change::Unclaim, budget);
                }
                Back::Leave => {
                    if let Some(out) = self.out {
                        self.out = wipe(caller, out, budget);
                    } else if self.done < self.pages {
                        let out = leave(caller, here, self.pages - self.done, budget);
                        self.done += out.1;
                        self.out = Some(out);
                    } else {
                        return Step::Done(Ok(Reply::Empty));
                    }
                }
            }
        }
        Step::More
    }

    /// Claims the beginning of the rest, as far as it is contiguous.
    fn claim<M: Machine>(
        &self,
        caller: Caller<'_, '_, M>,
        budget: &mut Budget,
    ) -> Result<u64, Refusal> {
        let mem = caller.mem();
        let mut stage2 = caller.stage2();
        let (at, rest) = (self.at.add_pages(self.done), self.pages - self.done);
        // Looking is paid for like claiming what was seen.
        let (state, pa, run) = stage2.run(mem, at, rest, &mut Budget::new(budget.left()));
        // None is claimed: the VM's one slot is this call's, and no page of its range comes twice.
        if state != State::Owned {
            return Err(Refusal::NotOwned);
        }
        let (_, span) = caller.manager.heaps().at(pa).ok_or(Refusal::NotOfHeap)?;
        let run = span.min(run);
        if M::MAY_POISON && !caller.machine().is_sound(pa, run) {
            return Err(Refusal::Poisoned);
        }
        Ok(stage2.claim(mem, at, run, budget)?)
    }
}

/// Takes a run at the beginning of a VM's range out of its tables: pages of one heap.
pub(crate) fn leave<M: Machine>(
    caller: Caller<'_, '_, M>,
    at: Ipa,
    pages: u64,
    budget: &mut Budget,
) -> (Pa, u64) {
    // Looking is paid for like changing what was seen.
    let (_, pa, run) =
        caller.stage2().run(caller.mem(), at, pages, &mut Budget::new(budget.left()));
    let heap = caller.manager.heaps().at(pa);
    let (_, span) = heap.expect("G8: what goes back to a heap was looked at");
    (pa, change(caller, at, run.min(span), Change::Leave, budget))
}

/// Zeroes pages that have left a VM's tables, and gives them to their heap; what is left of them.
pub(crate) fn wipe<M: Machine>(
    caller: Caller<'_, '_, M>,
    (pa, pages): (Pa, u64),
    budget: &mut Budget,
) -> Option<(Pa, u64)> {
    let mut zeroed = 0;
    while zeroed < pages && budget.spend(weight::ZERO_PAGE) {
        caller.zero_page(pa.add_pages(zeroed));
        zeroed += 1;
    }
    let (heap, _) = caller.manager.heaps().at(pa).expect("G8: what left the tables is a heap's");
    // The marks are paid for with the zeros.
    heap.put(caller.machine(), caller.vm, (pa, zeroed), &mut Budget::new(u32::MAX));
    (zeroed < pages).then(|| (pa.add_pages(zeroed), pages - zeroed))
}
