//! The address of a PostgreSQL database: which server, which schema, and how the connection is protected.
//!
//! Invariant: no password and no query parameter of the URL is in any error or log line.

use std::{fmt, net::IpAddr, path::PathBuf, time::Duration};

use tokio_postgres::config::{Config, Host, SslMode, TargetSessionAttrs};
use url::form_urlencoded;

use crate::error::Error;

/// A parsed URL. Its `Display` is the URL without user, password and parameters.
#[derive(Clone)]
pub(super) struct PostgresAddress {
    pub(super) config: Config,
    /// The schema that has all tables of the store.
    pub(super) schema: String,
    /// A file with the certificates that may sign the server's; the platform's unless set.
    pub(super) root_certificates: Option<PathBuf>,
}

/// The schema unless the URL names another one.
const SCHEMA: &str = "token_supervisor";

/// How long the server may leave what was sent unacknowledged, and how long it may be silent on an idle connection.
const SILENCE: Duration = Duration::from_secs(10);

impl PostgresAddress {
    /// Parses the URL and checks that its connection will be protected.
    ///
    /// # Errors
    /// The URL lacks something, or asks for a connection without TLS to another machine. The message says what to do.
    pub(super) fn parse(url: &str) -> Result<Self, Error> {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut schema, mut tls, mut root_certificates) = (SCHEMA.to_owned(), None, None);
        let mut rest = form_urlencoded::Serializer::new(String::new());
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "schema" => schema = value.into_owned(),
                "sslmode" => tls = Some(TlsMode::parse(&value)?),
                "sslrootcert" if value == "system" => root_certificates = None,
                "sslrootcert" => root_certificates = Some(PathBuf::from(&*value)),
                "sslcert" | "sslkey" | "sslpassword" => {
                    return Err(refused(
                        "client certificates are not supported: remove sslcert and sslkey, use a password",
                    ));
                }
                _ => drop(rest.append_pair(&name, &value)),
            }
        }
        if !is_plain_name(&schema) {
            return Err(refused("schema must be a name of lower-case letters, digits and _, such as token_supervisor"));
        }
        let rest = rest.finish().replace('+', "%20");
        let url = if rest.is_empty() { base.to_owned() } else { format!("{base}?{rest}") };
        // The parser's own error may show a part of a password that is not encoded.
        let mut config: Config = url.parse().map_err(|_| {
            refused(
                "it is not understood: write postgres://USER:PASSWORD@HOST/DATABASE, with special characters of user and \
                 password percent-encoded",
            )
        })?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(refused(
                "it names no host: write postgres://USER@HOST/DATABASE, or ?host=/FOLDER of a Unix socket",
            ));
        }
        if config.get_hosts().iter().any(|host| matches!(host, Host::Tcp(name) if name.contains('@'))) {
            // What comes before it is the end of a password.
            return Err(refused("user or password has an `@`: write it percent-encoded, as %40"));
        }
        protect(&mut config, tls)?;
        if config.get_application_name().is_none() {
            config.application_name("token-supervisor");
        }
        if config.get_target_session_attrs() == TargetSessionAttrs::Any {
            // A standby cannot store a response.
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        if config.get_connect_timeout().is_none() {
            // For each address: the next one is tried while a connection is still waited for.
            config.connect_timeout(Duration::from_secs(2));
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(SILENCE);
        }
        config.keepalives_idle(SILENCE).keepalives_interval(Duration::from_secs(3)).keepalives_retries(3);
        Ok(Self { config, schema, root_certificates })
    }

    pub(super) fn uses_tls(&self) -> bool {
        self.config.get_ssl_mode() != SslMode::Disable
    }
}

/// What `sslmode` asks for.
#[derive(Clone, Copy, PartialEq)]
enum TlsMode {
    Off,
    Verified,
}

impl TlsMode {
    fn parse(value: &str) -> Result<Self, Error> {
        match value {
            "disable" => Ok(Self::Off),
            // The server's certificate and name are verified in each of these.
            "require" | "verify-ca" | "verify-full" => Ok(Self::Verified),
            _ => Err(refused("sslmode must be verify-full, or disable for a loopback address or a Unix socket")),
        }
    }
}

/// Sets the mode of TLS, if it is one that protects the connection.
fn protect(config: &mut Config, tls: Option<TlsMode>) -> Result<(), Error> {
    let is_socket = |host: &Host| matches!(host, Host::Unix(_));
    let is_local = |host: &Host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            let name = name.trim_start_matches('[').trim_end_matches(']');
            name == "localhost" || name.parse().is_ok_and(|address: IpAddr| address.is_loopback())
        }
    };
    // An address is used instead of the host's name.
    let addresses = config.get_hostaddrs();
    let all_local = match addresses {
        [] => config.get_hosts().iter().all(is_local),
        addresses => addresses.iter().all(IpAddr::is_loopback),
    };
    let all_sockets = addresses.is_empty() && config.get_hosts().iter().all(is_socket);
    let mode = match tls {
        Some(TlsMode::Off) if !all_local => {
            return Err(refused(
                "sslmode=disable would send tokens and the password unprotected: remove it (then the server's certificate is \
                 verified; sslrootcert=FILE names a private authority)",
            ));
        }
        Some(TlsMode::Off) => SslMode::Disable,
        _ if all_sockets => SslMode::Disable,
        _ => SslMode::Require,
    };
    config.ssl_mode(mode);
    Ok(())
}

fn refused(why: &str) -> Error {
    Error::Configuration(format!("the URL of the PostgreSQL store is refused: {why}"))
}

/// Whether the name means itself in SQL without quotes.
fn is_plain_name(name: &str) -> bool {
    let first = |first: char| first.is_ascii_lowercase() || first == '_';
    name.starts_with(first)
        && name.len() < 64
        && !name.starts_with("pg_")
        && name.chars().all(|letter| first(letter) || letter.is_ascii_digit())
}

impl fmt::Display for PostgresAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("postgres://")?;
        for (number, host) in self.config.get_hosts().iter().enumerate() {
            let separator = if number == 0 { "" } else { "," };
            match host {
                Host::Tcp(name) => write!(f, "{separator}{name}")?,
                Host::Unix(folder) => write!(f, "{separator}{}", folder.display())?,
            }
            if let Some(port) = self.config.get_ports().get(number).or(self.config.get_ports().first()) {
                write!(f, ":{port}")?;
            }
        }
        if self.config.get_hosts().is_empty() {
            self.config.get_hostaddrs().iter().try_for_each(|address| write!(f, "{address}"))?;
        }
        match self.config.get_dbname() {
            Some(name) => write!(f, "/{name}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<PostgresAddress, String> {
        PostgresAddress::parse(url).map_err(|error| error.to_string())
    }

    #[test]
    fn tls_is_left_out_only_where_nobody_can_listen() {
        for (url, tls) in [
            ("postgres://me:ts-test-secret-pw@db.example/tokens", true),
            ("postgresql://me@db.example/tokens?sslmode=require", true),
            ("postgres://me@db.example/tokens?sslmode=verify-full&sslrootcert=/etc/ca.pem", true),
            ("postgres://me@localhost/tokens", true),
            ("postgres://me@localhost/tokens?sslmode=disable", false),
            ("postgres://me@127.0.0.1:5433/tokens?sslmode=disable", false),
            ("postgres://me@[::1]/tokens?sslmode=disable", false),
            ("postgres://me@%2Fvar%2Frun%2Fpostgresql/tokens", false),
            ("postgres:///tokens?host=/var/run/postgresql&user=me", false),
            ("postgres://me@db.example/tokens?hostaddr=127.0.0.1&sslmode=disable", false),
        ] {
            assert_eq!(parse(url).map(|address| address.uses_tls()), Ok(tls), "{url}");
        }
    }

    #[test]
    fn what_is_refused_says_what_to_do_and_shows_no_password() {
        for (url, next) in [
            ("postgres://me:ts-test-secret-pw@db.example/t?sslmode=disable", "remove it"),
            ("postgres://me:ts-test-secret-pw@localhost,db.example/t?sslmode=disable", "remove it"),
            ("postgres://me:ts-test-secret-pw@localhost/t?hostaddr=192.0.2.1&sslmode=disable", "remove it"),
            ("postgres://me:ts-test-secret-pw@db.example/t?sslmode=prefer", "sslmode must be verify-full"),
            ("postgres://me:ts-test-secret-pw@db.example/t?sslcert=x", "use a password"),
            ("postgres://me:ts-test-secret-pw@db.example/t?schema=Robert'); --", "schema must be"),
            ("postgres://me:ts-test-secret?pw@db.example/t", "percent-encoded"),
            ("postgres://me:p@ts-test-secret-pw@db.example/t", "as %40"),
            ("postgres://me@home:ts-test-secret-pw@db.example/t", "percent-encoded"),
            ("postgres:///t?password=ts-test-secret-pw", "names no host"),
            ("postgres://me@db.example:port/t", "percent-encoded"),
        ] {
            let error = parse(url).err().unwrap();
            assert!(error.contains(next) && !error.contains("ts-test-secret"), "{url}: {error}");
        }
    }

    #[test]
    fn an_address_is_shown_without_user_password_and_parameters() {
        for (url, shown) in [
            ("postgres://me:ts-test-secret-pw@db.example:5433/tokens?schema=own", "postgres://db.example:5433/tokens"),
            ("postgres://me@a,b/t", "postgres://a:5432,b:5432/t"),
            ("postgres://me@%2Frun%2Fpg/t", "postgres:///run/pg:5432/t"),
        ] {
            assert_eq!(parse(url).unwrap().to_string(), shown);
        }
        assert_eq!(parse("postgres://me@a/t?schema=own_2").unwrap().schema, "own_2");
        assert_eq!(parse("postgres://me@a/t").unwrap().schema, "token_supervisor");
    }
}
