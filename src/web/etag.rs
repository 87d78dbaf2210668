//! Entity tags: `"g41"` is generation 41.

use actix_web::{
    http::header::{EntityTag, HeaderValue, IfNoneMatch},
    web::Bytes,
};

use crate::Generation;

/// Returns the entity tag of a generation as the value of a header.
pub(super) fn of(generation: Generation) -> HeaderValue {
    HeaderValue::from_maybe_shared(Bytes::from(format!("\"{generation}\""))).expect("a generation is ASCII")
}

/// The generation that an entity tag names, if it is one of ours.
pub(super) fn generation(tag: &EntityTag) -> Option<Generation> {
    let number = tag.tag().strip_prefix('g')?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok().map(Generation::new))?
}

/// Whether the caller has this generation already.
pub(super) fn matches(known: &IfNoneMatch, generation: Generation) -> bool {
    match known {
        IfNoneMatch::Any => true,
        IfNoneMatch::Items(tags) => tags.iter().any(|tag| self::generation(tag) == Some(generation)),
    }
}

/// Whether the caller has no generation that could match.
pub(super) fn is_empty(known: &IfNoneMatch) -> bool {
    matches!(known, IfNoneMatch::Items(tags) if tags.iter().all(|tag| generation(tag).is_none()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entity_tags_are_generations() {
        let read = |text: &str| text.parse().ok().and_then(|tag| generation(&tag));
        assert_eq!(read("\"g41\""), Some(Generation::new(41)));
        assert_eq!(of(Generation::new(41)), "\"g41\"");
        for other in ["g41", "\"41\"", "\"g\"", "\"g+1\"", "\"g-1\"", "\"g99999999999999999999\"", "*", ""] {
            assert_eq!(read(other), None, "{other}");
        }
        let tags = ["\"x\"", "W/\"g41\"", "\"g42\""].map(|tag| tag.parse().unwrap());
        let known = IfNoneMatch::Items(tags.to_vec());
        assert!(matches(&known, Generation::new(41)) && matches(&known, Generation::new(42)));
        assert!(!matches(&known, Generation::new(43)) && !is_empty(&known));
        assert!(matches(&IfNoneMatch::Any, Generation::new(7)) && !is_empty(&IfNoneMatch::Any));
        assert!(is_empty(&IfNoneMatch::Items(tags[..1].to_vec())));
    }
}
