//! A scene with a picture of it, and what may become of both.

use rm_abi::Transfer;

use super::calls::Effect;
use super::picture::{self, Picture};
use super::states::{Scene, State};
use super::{Role, end_all, settle};

/// A scene that may have been used by calls that changed nothing, with its picture.
pub struct Stage {
    pub scene: Scene,
    pub before: Picture,
    is_poisoned: bool,
}

impl Stage {
    pub fn new(state: &State) -> Self {
        Self { is_poisoned: state.name == "poisoned", ..Self::of((state.make)()) }
    }

    pub fn of(scene: Scene) -> Self {
        // Whatever was said on the way is read.
        picture::heard_by_all(&scene);
        let before = Picture::of(&scene);
        Self { scene, before, is_poisoned: false }
    }

    /// Nobody can tell that there was a call.
    pub fn check_unchanged(&self, call: &str) {
        let changed = Picture::of(&self.scene).differs(&self.before);
        assert!(changed.is_empty(), "G4: {call}, but something changed: {changed:?}");
    }

    /// A call of `role` was done: all that it changes is there, and nothing else of the kind.
    pub fn check_done(&self, effect: Effect, role: Role, call: &str) {
        let scene = &self.scene;
        let mut wanted = effect.on(&self.before.view(scene), role);
        for dead in Role::ALL.into_iter().filter(|&role| !scene.runs(role)) {
            wanted.heard[dead as usize].clear();
        }
        // Who has a call at work hears later.
        let late = scene.at_work.filter(|(role, _)| scene.world.manager.pending(role.vm()));
        let heard = late.map(|(role, _)| core::mem::take(&mut wanted.heard[role as usize]));
        assert_eq!(Picture::of(scene).view(scene), wanted, "{call}: not what was to change");
        scene.finish();
        if let (Some((late, _)), Some(heard)) = (late, heard) {
            let is = picture::heard(&scene.caller(late));
            assert_eq!(is, heard, "{call}: not what was to be told");
        }
    }

    /// Everything ends, and everything is where it was at first.
    pub fn strike(self, call: &str, backwards: bool) {
        self.scene.finish();
        settle(&self.scene.world);
        end_all(&self.scene.world, backwards);
        let report = self.scene.world.check();
        let fresh = super::world().check();
        let left = if self.is_poisoned { (1, 3) } else { (0, 0) };
        assert_eq!((report.parcels, report.poisoned), left, "G8: {call}");
        assert_eq!((report.borrowed, report.total()), (0, fresh.total()), "G8: {call}");
        // What was given away leaves a hole in one VM's blocks and pages in another's.
        if !self.is_poisoned && self.scene.transfer != Transfer::Donate {
            assert_eq!(report.frames, fresh.frames, "G8: {call}: a frame is lost");
        }
    }
}
