//! Entity tags: `"g41"` is the generation.

use crate::Generation;

/// The generations that a list of entity tags names. Others than ours match nothing.
pub(super) fn read(list: &str) -> Vec<Generation> {
    list.split(',').filter_map(|tag| one(tag.trim().trim_start_matches("W/"))).collect()
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
        assert_eq!(read("\"x\", W/\"g41\",\"g42\""), [Generation::new(41), Generation::new(42)]);
    }
}
