//! Keeps web pages away from a server on loopback: a page can make a browser on this machine send requests there, and can
//! make its own host name resolve to loopback (DNS rebinding).

use actix_web::{
    HttpRequest,
    http::header::{self, HeaderName},
};

use super::{Api, peer::Peer, problem::Problem};

/// Checks the host and the origin of a request.
///
/// # Errors
/// The request came over loopback under another name, or from a page of another origin.
pub(super) fn check(api: &Api, request: &HttpRequest) -> Result<(), Problem> {
    let local = Peer::of(request).and_then(|peer| peer.local());
    let local = local.unwrap_or_else(|| request.app_config().local_addr());
    // Browsers cannot send requests to a Unix socket.
    if api.trusting || !local.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    let header = |name: HeaderName| request.headers().get(name).map(|value| value.to_str().unwrap_or_default());
    let host = header(header::HOST).or_else(|| request.uri().authority().map(|authority| authority.as_str()));
    let named = [host, request.uri().authority().map(|authority| authority.as_str())];
    let ours = |authority: &str| {
        is_loopback(authority) || api.hosts.iter().any(|host| host.eq_ignore_ascii_case(name(authority)))
    };
    if host.is_none() || !named.into_iter().flatten().all(ours) {
        return Err(Problem::foreign("this server listens on loopback: Host must be localhost, 127.0.0.1 or [::1]"));
    }
    let own = |origin: &str| {
        let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        authority.is_some() && authority == host
    };
    if header(header::ORIGIN).is_some_and(|origin| !own(origin)) {
        return Err(Problem::foreign("this server accepts no requests from pages of other origins"));
    }
    Ok(())
}

/// The host without its port.
fn name(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// Whether a host, with or without a port, names loopback.
fn is_loopback(authority: &str) -> bool {
    let host = name(authority);
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse().is_ok_and(|address: std::net::Ipv6Addr| address.to_canonical().is_loopback());
    }
    host.eq_ignore_ascii_case("localhost")
        || host.parse().is_ok_and(|address: std::net::Ipv4Addr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_hosts_name_loopback() {
        for name in [
            "localhost",
            "LocalHost:8080",
            "127.0.0.1",
            "127.0.0.1:8080",
            "127.1.2.3:1",
            "[::1]",
            "[::1]:8080",
            "[::ffff:127.0.0.1]:80",
        ] {
            assert!(is_loopback(name), "{name}");
        }
        for name in
            ["", "localhost.evil.example", "127.0.0.1.evil.example:8080", "10.0.0.1", "[::2]:1", "0.0.0.0", "::1:x"]
        {
            assert!(!is_loopback(name), "{name}");
        }
    }
}
