//! Tests of the configuration: each setting, each mistake, and what is never said.

mod bytes;
mod checks;
mod places;
mod reload;
mod schema;
mod settings;

use std::path::PathBuf;

use zeroize::Zeroizing;

use super::{
    Config, ConfigError,
    source::{Environment, Source},
};

const IDP: &str = "[idp.github]\npreset = \"github\"\nclient_id = \"id\"\nclient_secret = \"ts-test-secret-client\"\n";

/// [`read`], and nothing that is said of it has a secret within.
fn load(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let result = read(text, environment);
    let said = match &result {
        Ok(config) => format!("{config:?} {:?} {:?}", config.show(), config.server()),
        Err(error) => format!("{error:?} {error}"),
    };
    assert!(!said.contains("ts-test-secret-"), "{said}");
    result
}

/// `text` as if it stood in `conf.toml`.
fn read(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let variables = environment.iter().map(|(name, value)| ((*name).into(), (*value).into()));
    let (path, text) = (Some(PathBuf::from("conf.toml")), Zeroizing::new(text.to_owned()));
    let source = Source { path, text, environment: Environment::new(variables) };
    Config::read(&source, &source.text)
}

/// Everything that is said to be wrong with it.
fn wrong(text: &str, environment: &[(&str, &str)]) -> Vec<String> {
    load(text, environment)
        .err()
        .map_or_else(Vec::new, |error| error.problems().iter().map(ToString::to_string).collect())
}

fn shown<'a>(config: &'a Config, path: &str) -> Option<(&'a str, String)> {
    let shown = config.show().iter().find(|shown| shown.path == path)?;
    Some((&shown.value, shown.origin.to_string()))
}
