//! Entity tags: `"g41"` is the generation.

use crate::Generation;

/// What a caller has: of the entity tags that it names those that are ours, or (`*`) whichever there is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known {
    These(Vec<Generation>),
    Any,
}

impl Default for Known {
    fn default() -> Self {
        Self::These(Vec::new())
    }
}

impl Known {
    pub(super) fn read(list: &str) -> Self {
        if list.trim() == "*" {
            return Self::Any;
        }
        Self::These(list.split(',').filter_map(|tag| one(tag.trim().trim_start_matches("W/"))).collect())
    }

    pub(super) fn is_none(&self) -> bool {
        matches!(self, Self::These(these) if these.is_empty())
    }

    pub(super) fn has(&self, generation: Generation) -> bool {
        match self {
            Self::These(these) => these.contains(&generation),
            Self::Any => true,
        }
    }
}

/// The generation that one entity tag names.
pub(super) fn one(tag: &str) -> Option<Generation> {
    let number = tag.strip_prefix("\"g")?.strip_suffix('"')?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok().map(Generation::new))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entity_tags_are_generations() {
        assert_eq!(one("\"g41\""), Some(Generation::new(41)));
        for other in ["g41", "\"41\"", "\"g\"", "\"g+1\"", "\"g-1\"", "\"g99999999999999999999\"", "*", "", "W/\"g41\""]
        {
            assert_eq!(one(other), None, "{other}");
        }
        let these = Known::These(vec![Generation::new(41), Generation::new(42)]);
        assert_eq!(Known::read("\"x\", W/\"g41\",\"g42\""), these);
        assert!(these.has(Generation::new(42)) && !these.has(Generation::new(43)) && !these.is_none());
        assert!(Known::read(" * ").has(Generation::new(7)) && Known::read("\"x\"").is_none());
    }
}
