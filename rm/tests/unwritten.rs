//! Replies that cannot be written, because the guest's buffer is not its own any more or never was.
//!
//! The call is refused before it begins, and what its checks had marked is given back. Tried with every call by the
//! owner and a borrower, in every state of a parcel.

mod stage;

use rm::machine::fake::effort::{few, some};
use rm::machine::fake::world::Turn;
use rm_abi::HypercallError;
use stage::Role;
use stage::calls::CALLS;
use stage::set::Stage;
use stage::states::STATES;

#[test]
fn g4_a_call_whose_reply_has_no_place_changes_nothing() {
    let mut refused = 0;
    for state in some(STATES, 60) {
        let stage = Stage::new(state);
        for role in [Role::Owner, Role::Borrower] {
            if !stage.scene.runs(role) {
                continue;
            }
            for call in some(CALLS, 30) {
                let case = format!("{}, {}, {}", role.name(), state.name, call.name);
                let guest = stage.scene.caller(role);
                let (message, payload) = (call.request)(&stage.scene, role);
                guest.lose_reply_page(true);
                match guest.send(message, &payload) {
                    Turn::Error(HypercallError::ADDR_INVALID, 0) => refused += 1,
                    // The slot is another call's.
                    Turn::Error(HypercallError::BUSY, 0) => {}
                    other => panic!("{case}: {other:?}"),
                }
                stage.check_unchanged(&case);
            }
        }
        stage.strike(state.name, true);
    }
    println!("unwritten: {refused} calls");
    assert!(refused > few(2000, 1), "most calls come so far");
}
