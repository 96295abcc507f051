//! What the draft model's passes have cost, one by one, and how much of it came to nothing.
//!
//! A pass is thrown away where its choice did not become part of the answer: the target chose otherwise, or it went on from such a
//! choice, or nobody waited for it any more. What a pass cost is what the model's account of the answer grew by. The first has no
//! account before it, and counts as nothing: the choice behind a prompt comes out of reading the prompt.

use std::collections::BTreeMap;

/// See the module. Figures are floating-point operations.
#[derive(Debug, Default)]
pub struct Passes {
    /// What the account said behind the last pass.
    seen: Option<u64>,
    /// Those whose choice may yet stand, by its place in the answer.
    open: BTreeMap<u32, Pass>,
    all: u64,
    kept: u64,
}

#[derive(Clone, Copy, Debug)]
struct Pass {
    stamp: u64,
    flops: u64,
    /// It chose to end the answer.
    ends: bool,
}

impl Passes {
    /// A pass has made a choice, and the account has come to so much. `place`: of the choice; `None` where it was taken back
    /// before it was made.
    pub fn ran(&mut self, stamp: u64, place: Option<u32>, ends: bool, account: u64) {
        let before = self.seen.replace(account);
        let flops = before.map_or(0, |before| account.saturating_sub(before));
        self.all = self.all.saturating_add(flops);
        if let Some(place) = place {
            self.open.insert(place, Pass { stamp, flops, ends });
        }
    }

    /// The answer is taken back to so many tokens.
    pub fn taken_back(&mut self, to: u32) {
        let _thrown_away = self.open.split_off(&to);
    }

    /// The target has chosen what the draft of this stamp says.
    pub fn accepted(&mut self, stamp: u64) {
        let mut open = self.open.iter();
        let place = open.find(|(_, pass)| pass.stamp == stamp);
        if let Some(place) = place.map(|(place, _)| *place) {
            self.stands(place);
        }
    }

    /// The choice at this place has become part of the answer.
    pub fn stands(&mut self, place: u32) {
        if let Some(pass) = self.open.remove(&place) {
            self.kept = self.kept.saturating_add(pass.flops);
        }
    }

    /// The answer, of so many tokens, has come to its own end.
    pub fn ended(&mut self, tokens: u32) {
        if self.open.get(&tokens).is_some_and(|pass| pass.ends) {
            self.stands(tokens);
        }
    }

    /// What was thrown away, once the answer has ended. `account`: what it came to in the end; a pass that nobody has heard of is in
    /// it.
    pub fn thrown_away(&self, account: u64) -> u64 {
        let unheard = self.seen.map_or(0, |seen| account.saturating_sub(seen));
        let thrown_away = self.all.saturating_sub(self.kept);
        thrown_away.saturating_add(unheard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Drafts at places 0 to 3. Out of reading the prompt, of 1,000 operations, comes the first; the others cost 10, 11 and 12.
    fn four() -> Passes {
        let mut passes = Passes::default();
        for (place, account) in [(0, 1_000), (1, 1_010), (2, 1_021), (3, 1_033)] {
            passes.ran(u64::from(place) + 1, Some(place), place == 3, account);
        }
        passes
    }

    #[test]
    fn what_the_target_accepts_is_not_thrown_away() {
        let mut passes = four();
        assert_eq!(passes.thrown_away(1_033), 33);
        passes.accepted(1);
        passes.accepted(2);
        assert_eq!(passes.thrown_away(1_033), 23);
        // The target chose otherwise at the third place, and the fourth went on from there. One more was under way.
        passes.taken_back(2);
        passes.ran(5, None, false, 1_050);
        passes.ran(6, Some(3), false, 1_064);
        passes.accepted(6);
        assert_eq!(passes.thrown_away(1_064), 23 + 17);
        // And one of which nobody heard.
        assert_eq!(passes.thrown_away(1_080), 23 + 17 + 16);
    }

    #[test]
    fn what_is_committed_unverified_stands_and_so_does_an_end() {
        let mut passes = four();
        for place in 0..3 {
            passes.stands(place);
        }
        passes.ended(3);
        assert_eq!(passes.thrown_away(1_033), 0);
        // A choice that did not say that the answer ends is no end.
        let mut passes = four();
        passes.ended(2);
        assert_eq!(passes.thrown_away(1_033), 33);
        // Nor is one that was taken back, and nothing is kept twice.
        let mut passes = four();
        passes.taken_back(3);
        passes.ended(3);
        passes.accepted(2);
        passes.stands(1);
        passes.accepted(2);
        assert_eq!(passes.thrown_away(1_033), 23);
    }

    #[test]
    fn without_a_pass_nothing_is_thrown_away() {
        // The prompt was read, and no choice was heard of.
        assert_eq!(Passes::default().thrown_away(1_000), 0);
    }
}
