//! Why there is no connection to a provider. Pure.

use std::{
    error::Error,
    io::{self, ErrorKind},
    iter::successors,
};

use crate::code::ConnectFault;

/// Returns why connecting failed, from the chain of the error's sources; `None` if it does not say. `tls` says whether the
/// endpoint uses TLS.
pub(super) fn fault_of(error: &(dyn Error + 'static), is_timeout: bool, tls: bool) -> Option<ConnectFault> {
    let chain = || successors(Some(error), |&error| error.source());
    // The texts of hyper-util; a test with real sockets notices when they change.
    let says = |text: &str| chain().any(|error| error.to_string() == text);
    let kinds = || chain().filter_map(|error| error.downcast_ref::<io::Error>()).map(io::Error::kind);
    match () {
        () if says("dns error") => Some(ConnectFault::Dns),
        () if is_timeout || kinds().any(|kind| kind == ErrorKind::TimedOut) => Some(ConnectFault::ConnectTimeout),
        () if kinds().any(|kind| kind == ErrorKind::ConnectionRefused) => Some(ConnectFault::Refused),
        () if kinds().any(is_unreachable) => Some(ConnectFault::Unreachable),
        // TCP connected: what follows is the handshake.
        () if tls && !says("tcp connect error") && !says("tcp open error") => Some(ConnectFault::Tls),
        () => None,
    }
}

fn is_unreachable(kind: ErrorKind) -> bool {
    use ErrorKind::{AddrNotAvailable, HostUnreachable, NetworkDown, NetworkUnreachable};
    [AddrNotAvailable, HostUnreachable, NetworkDown, NetworkUnreachable].contains(&kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: io::Error,
    }

    #[test]
    fn the_cause_is_found_in_the_chain() {
        for (text, kind, is_timeout, tls, expected) in [
            ("dns error", ErrorKind::Other, false, true, Some(ConnectFault::Dns)),
            ("tcp connect error", ErrorKind::ConnectionRefused, false, true, Some(ConnectFault::Refused)),
            ("tcp connect error", ErrorKind::TimedOut, false, false, Some(ConnectFault::ConnectTimeout)),
            ("operation timed out", ErrorKind::Other, true, false, Some(ConnectFault::ConnectTimeout)),
            ("tcp connect error", ErrorKind::NetworkUnreachable, false, true, Some(ConnectFault::Unreachable)),
            ("tcp connect error", ErrorKind::HostUnreachable, false, false, Some(ConnectFault::Unreachable)),
            ("tcp connect error", ErrorKind::PermissionDenied, false, true, None),
            ("client error (Connect)", ErrorKind::InvalidData, false, true, Some(ConnectFault::Tls)),
            ("client error (Connect)", ErrorKind::UnexpectedEof, false, true, Some(ConnectFault::Tls)),
            ("client error (Connect)", ErrorKind::UnexpectedEof, false, false, None),
        ] {
            let error = Layer { text, source: kind.into() };
            assert_eq!(fault_of(&error, is_timeout, tls), expected, "{text} {kind:?}");
        }
    }
}
