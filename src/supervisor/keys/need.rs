//! What needs a key.

/// What needs a key: it cannot be removed before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyNeed {
    /// Stored grants with a value that it sealed.
    pub rows: u64,
    /// Queued revocations that it sealed.
    pub revocations: u64,
    /// Responses that it sealed in the journals of this machine, and that the store does not have yet.
    pub journal: u64,
    /// Whether it sealed the value by which the store's keys are checked at start.
    pub check: bool,
}

impl KeyNeed {
    /// Returns whether anything needs the key.
    pub fn is_any(&self) -> bool {
        *self != Self::default()
    }

    /// Returns what needs the key as a list, such as "12 grants and the check value".
    pub fn in_words(&self) -> String {
        let many = |count: u64, one: &str, many: &str| match count {
            0 => None,
            1 => Some(format!("1 {one}")),
            count => Some(format!("{count} {many}")),
        };
        let all = [
            many(self.rows, "grant", "grants"),
            many(self.revocations, "queued revocation", "queued revocations"),
            many(self.journal, "response in the journal", "responses in the journal"),
            self.check.then(|| "the check value".to_owned()),
        ];
        let all: Vec<_> = all.into_iter().flatten().collect();
        match all.as_slice() {
            [] => "nothing".to_owned(),
            [only] => only.clone(),
            [first @ .., last] => format!("{} and {last}", first.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_need_is_named() {
        let need = KeyNeed { rows: 12, revocations: 1, journal: 2, check: true };
        assert_eq!(need.in_words(), "12 grants, 1 queued revocation, 2 responses in the journal and the check value");
        assert_eq!(KeyNeed { rows: 1, ..KeyNeed::default() }.in_words(), "1 grant");
        assert!(need.is_any() && !KeyNeed::default().is_any());
    }
}
