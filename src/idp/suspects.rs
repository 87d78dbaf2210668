//! Whose failures say something about the provider. Pure.
//!
//! An outage is seen by different grants. A grant that fails while others succeed has a fault of its own: it is accused,
//! and says nothing about the provider until it succeeds itself.

use std::collections::VecDeque;

/// The number of grants whose failures make an outage.
const OUTAGE: usize = 5;

/// More are not remembered.
const MOST_ACCUSED: usize = 1_024;

/// The grants of one provider that fail.
#[derive(Clone, Debug, Default)]
pub(super) struct Suspects {
    /// The grants that have failed since the provider last responded as it should.
    failing: Vec<u64>,
    /// Oldest first.
    accused: VecDeque<u64>,
}

impl Suspects {
    pub(super) fn is_accused(&self, grant: u64) -> bool {
        self.accused.contains(&grant)
    }

    /// Records a failure. Returns whether so many grants fail that the provider is the cause.
    pub(super) fn fails(&mut self, grant: u64) -> bool {
        if self.is_accused(grant) {
            return false;
        }
        if self.failing.len() < OUTAGE && !self.failing.contains(&grant) {
            self.failing.push(grant);
        }
        self.failing.len() >= OUTAGE
    }

    /// Records that the provider responded to this grant as it should: the faults of the others are their own.
    pub(super) fn succeeds(&mut self, grant: u64) {
        self.accused.retain(|accused| *accused != grant);
        let accused = self.failing.drain(..).filter(|failing| *failing != grant);
        self.accused.extend(accused);
        while self.accused.len() > MOST_ACCUSED {
            self.accused.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_seen_by_different_grants() {
        let mut suspects = Suspects::default();
        for _ in 0..100 {
            for grant in 0..3 {
                assert!(!suspects.fails(grant), "three grants, however often they fail");
            }
        }
        assert!(!suspects.fails(3) && suspects.fails(4));
        assert!(suspects.fails(0) && suspects.fails(5));
    }

    #[test]
    fn who_fails_while_others_succeed_counts_again_only_after_a_success() {
        let mut suspects = Suspects::default();
        for grant in 0..4 {
            suspects.fails(grant);
        }
        suspects.succeeds(9);
        assert!((0..4).all(|grant| suspects.is_accused(grant)) && !suspects.is_accused(9));
        for grant in [0, 1, 2, 3, 10, 11, 12, 13] {
            assert!(!suspects.fails(grant), "{grant}");
        }
        suspects.succeeds(0);
        assert!(!suspects.is_accused(0) && suspects.is_accused(10), "those that failed meanwhile are accused, too");
        assert!(!suspects.fails(0));
    }

    #[test]
    fn a_success_of_its_own_accuses_nobody_else_twice_and_the_memory_is_bounded() {
        let mut suspects = Suspects::default();
        for grant in 0..10_000 {
            suspects.fails(grant);
            suspects.succeeds(1_000_000);
        }
        assert_eq!(suspects.accused.len(), MOST_ACCUSED);
        assert!(suspects.is_accused(9_999) && !suspects.is_accused(0));
    }
}
