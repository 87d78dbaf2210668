//! File descriptors: each connection takes one, and so do the store, the journal and each request to a provider.

/// Raises the limit of this process to the highest that it may set itself, and returns it; `None` if there is none.
#[cfg(unix)]
pub(super) fn raise() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limits = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limits.maximum, ..limits };
    // Some systems set a lower limit than they state.
    if limits.current != raised.current && setrlimit(Resource::Nofile, raised).is_ok() {
        return raised.current;
    }
    limits.current
}

#[cfg(not(unix))]
pub(super) fn raise() -> Option<u64> {
    None
}

/// Returns how many connections can be open under a limit, if this many are wanted: the others stay for everything else.
pub(super) fn for_connections(wanted: usize, limit: Option<u64>) -> usize {
    let Some(limit) = limit else { return wanted };
    let left = limit - RESERVED.min(limit / 2);
    wanted.min(usize::try_from(left).unwrap_or(usize::MAX)).max(1)
}

/// Descriptors that connections do not take.
const RESERVED: u64 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_left_for_everything_but_connections() {
        for (wanted, limit, connections) in [
            (1_024, None, 1_024),
            (1_024, Some(1_000_000), 1_024),
            (1_024, Some(1_024), 768),
            (1_024, Some(256), 128),
            (100, Some(256), 100),
            (1_024, Some(0), 1),
        ] {
            assert_eq!(for_connections(wanted, limit), connections, "{limit:?}");
        }
    }
}
