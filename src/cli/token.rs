//! `token`: prints a valid token in the requested format, or keeps a file up to date with it.

mod file;

use std::{path::PathBuf, time::Duration};

use clap::{ValueEnum, value_parser};
use token_supervisor::api::TokenBody;
use zeroize::Zeroizing;

use self::file::TokenFile;
use super::{
    CliFailure, Exit, Out,
    args::{KeyArgs, TargetArgs},
    backend::Backend,
    exit::quoted,
    show::note,
};

/// Print a valid token, or keep a file up to date with it.
///
/// The token is refreshed first if it has expired or is about to.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  curl -H \"$(token-supervisor token github alice --format header)\" https://api.github.com/user\n  \
    token-supervisor token gitlab alice --file /run/app/gitlab-token --watch"
)]
pub(crate) struct TokenArgs {
    #[command(flatten)]
    which: KeyArgs,
    /// Output format [default: plain]
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<Format>,
    /// Minimum remaining lifetime of the token
    #[arg(long, value_name = "SECONDS", default_value_t = 0, allow_negative_numbers = true)]
    min_ttl: u32,
    /// Maximum wait, 1 to 60; a refresh that has started continues afterwards [default: 10]
    #[arg(long, value_name = "SECONDS", value_parser = value_parser!(u64).range(1..=60))]
    timeout: Option<u64>,
    /// Host in the netrc entry
    #[arg(long, value_name = "HOST", required_if_eq("format", "netrc"))]
    machine: Option<String>,
    /// User name in the netrc entry
    #[arg(long, value_name = "NAME", default_value = "oauth2")]
    login: String,
    /// File to write the token to instead, replaced atomically and readable only by you
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Keep the file up to date until Ctrl-C, or until the user must consent again
    #[arg(long, requires = "file")]
    watch: bool,
    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The token alone
    Plain,
    /// An HTTP header: `Authorization: Bearer ..`
    Header,
    /// A JSON object with the token, its expiry and its generation
    Json,
    /// A shell variable: `GITHUB_TOKEN=..`
    Env,
    /// An entry of ~/.netrc
    Netrc,
}

pub(crate) async fn run(args: TokenArgs, out: Out) -> Result<Exit, CliFailure> {
    let (key, place) = (args.which.key()?, args.target.place()?);
    let format = match (args.format, out.json) {
        (Some(format), _) if args.file.is_some() => format,
        (None, _) if args.file.is_some() => Format::Plain,
        (None, false) => Format::Plain,
        (None | Some(Format::Json), _) => Format::Json,
        (Some(format), false) => format,
        (Some(_), true) => {
            return Err(CliFailure::usage("--json and --format cannot be combined", "use one of them"));
        }
    };
    let word = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    if !args.machine.as_deref().is_none_or(word) || !word(&args.login) {
        return Err(CliFailure::usage(
            "--machine and --login must not be empty or have spaces",
            "write them as in --machine gitlab.com --login oauth2",
        ));
    }
    let min_ttl = Duration::from_secs(args.min_ttl.into());
    let timeout = args.timeout.map(Duration::from_secs);
    let form =
        |token: &TokenBody| written(token, format, key.idp(), args.machine.as_deref().unwrap_or_default(), &args.login);
    let file = args.file.as_ref().map(|path| TokenFile { path, key: &key, form, out });
    let ended = Backend::with(&place, async |backend| {
        let ask = async || backend.token(&key, min_ttl, timeout).await;
        let token = ask().await?;
        if let Some(warning) = &token.warning {
            note(&format!("warning: {} (token-supervisor why {warning})", warning.replace('_', " ")));
        }
        let Some(file) = file else { return out.text(&form(&token)) };
        file.write(&token)?;
        if args.watch {
            match file.keep_fresh(backend, token.generation, ask).await? {}
        }
        Ok(())
    });
    match ended.await {
        // `--watch` runs until it is stopped, so a signal is its normal end.
        Err(CliFailure { exit: Exit::Interrupted(_), .. }) if args.watch => Ok(Exit::Done),
        ended => ended.map(|()| Exit::Done),
    }
}

fn written(token: &TokenBody, format: Format, idp: &str, machine: &str, login: &str) -> Zeroizing<String> {
    let secret = token.access_token.expose_secret();
    Zeroizing::new(match format {
        Format::Plain => format!("{secret}\n"),
        Format::Header => format!("Authorization: {} {secret}\n", scheme(&token.token_type)),
        Format::Json => serde_json::to_string(token).expect("plain structs serialize to JSON") + "\n",
        Format::Env => format!("{}={}\n", variable(idp), quoted(secret)),
        Format::Netrc => format!("machine {machine} login {login} password {secret}\n"),
    })
}

/// Returns the authentication scheme. Many providers respond with `bearer`, and some accept only `Bearer` in requests.
fn scheme(token_type: &str) -> &str {
    if token_type.eq_ignore_ascii_case("bearer") { "Bearer" } else { token_type }
}

/// Returns the variable for a provider's token, such as `GITHUB_TOKEN`.
fn variable(idp: &str) -> String {
    let digit = if idp.starts_with(|first: char| first.is_ascii_digit()) { "_" } else { "" };
    format!("{digit}{}_TOKEN", idp.to_ascii_uppercase().replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn env_output_is_quoted_for_shells() {
        assert_eq!(quoted("ts-test-secret-1.a_b=="), "ts-test-secret-1.a_b==");
        assert_eq!(quoted("ts-test-secret-$x'y"), r"'ts-test-secret-$x'\''y'");
        assert_eq!(
            [variable("github"), variable("my-idp"), variable("1and1")],
            ["GITHUB_TOKEN", "MY_IDP_TOKEN", "_1AND1_TOKEN"]
        );
        assert_eq!([scheme("bearer"), scheme("DPoP")], ["Bearer", "DPoP"]);
    }
}
