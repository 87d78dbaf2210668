//! `token`: prints a valid token, in the form that who asks for it takes, or keeps a file with it.

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

/// Prints a valid token, refreshed if need be; or keeps a file with it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  curl -H \"$(token-supervisor token github alice --format header)\" https://api.github.com/user\n  \
    token-supervisor token gitlab alice --file /run/app/gitlab-token --watch"
)]
pub(crate) struct TokenArgs {
    #[command(flatten)]
    which: KeyArgs,
    /// In which form [default: plain]
    #[arg(long, value_enum, value_name = "FORM")]
    format: Option<Format>,
    /// How long it has to live at least
    #[arg(long, value_name = "SECONDS", default_value_t = 0, allow_negative_numbers = true)]
    min_ttl: u32,
    /// How long to wait for it at most, 1 to 60; a refresh that was begun goes on [default: 10]
    #[arg(long, value_name = "SECONDS", value_parser = value_parser!(u64).range(1..=60))]
    timeout: Option<u64>,
    /// Of netrc: the host
    #[arg(long, value_name = "HOST", required_if_eq("format", "netrc"))]
    machine: Option<String>,
    /// Of netrc: the user's name there
    #[arg(long, value_name = "NAME", default_value = "oauth2")]
    login: String,
    /// Writes it into this file, whole at once and for you alone, instead of printing it
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Keeps the file fresh, until Ctrl-C or until the user must consent again
    #[arg(long, requires = "file")]
    watch: bool,
    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The token alone
    Plain,
    /// A header of HTTP: `Authorization: Bearer ..`
    Header,
    /// An object, with its end and its generation
    Json,
    /// A variable for shells: `GITHUB_TOKEN=..`
    Env,
    /// A line of ~/.netrc
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
            return Err(CliFailure::usage("--json and --format contradict each other", "give one of them"));
        }
    };
    let word = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    if !args.machine.as_deref().is_none_or(word) || !word(&args.login) {
        return Err(CliFailure::usage(
            "--machine and --login must be words",
            "such as --machine gitlab.com --login oauth2",
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
        // It was to go on until somebody ends it.
        Err(CliFailure { exit: Exit::Interrupted(_), .. }) if args.watch => Ok(Exit::Done),
        ended => ended.map(|()| Exit::Done),
    }
}

fn written(token: &TokenBody, format: Format, idp: &str, machine: &str, login: &str) -> Zeroizing<String> {
    let secret = token.access_token.expose_secret();
    Zeroizing::new(match format {
        Format::Plain => format!("{secret}\n"),
        Format::Header => format!("Authorization: {} {secret}\n", scheme(&token.token_type)),
        Format::Json => serde_json::to_string(token).expect("a plain struct has a JSON form") + "\n",
        Format::Env => format!("{}={}\n", variable(idp), quoted(secret)),
        Format::Netrc => format!("machine {machine} login {login} password {secret}\n"),
    })
}

/// Many write `bearer` in their answers, and some want `Bearer` in requests.
fn scheme(token_type: &str) -> &str {
    if token_type.eq_ignore_ascii_case("bearer") { "Bearer" } else { token_type }
}

/// `GITHUB_TOKEN`, as most tools call it.
fn variable(idp: &str) -> String {
    let digit = if idp.starts_with(|first: char| first.is_ascii_digit()) { "_" } else { "" };
    format!("{digit}{}_TOKEN", idp.to_ascii_uppercase().replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shells_read_back_what_was_written() {
        assert_eq!(quoted("ts-test-secret-1.a_b=="), "ts-test-secret-1.a_b==");
        assert_eq!(quoted("ts-test-secret-$x'y"), r"'ts-test-secret-$x'\''y'");
        assert_eq!(
            [variable("github"), variable("my-idp"), variable("1and1")],
            ["GITHUB_TOKEN", "MY_IDP_TOKEN", "_1AND1_TOKEN"]
        );
        assert_eq!([scheme("bearer"), scheme("DPoP")], ["Bearer", "DPoP"]);
    }
}
