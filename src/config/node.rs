//! A configuration as a tree in which every value knows its place: the file, with the environment laid over it.

use std::{collections::BTreeMap, path::Path};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};
use zeroize::Zeroizing;

use super::{
    error::{ConfigError, Origin},
    source::Environment,
};

/// A value and its place.
pub(super) struct Node {
    pub(super) origin: Origin,
    pub(super) value: Value,
}

/// Without `Debug`: any text may be a secret.
pub(super) enum Value {
    Text(Zeroizing<String>),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    List(Vec<Node>),
    Table(Table),
    /// The text of an environment variable; the type of the setting decides how it is read.
    Variable(Zeroizing<String>),
    /// A date or a time without quotes.
    Time(String),
    /// A number beyond 64 bits: no setting has such a value.
    Other,
}

pub(super) type Table = BTreeMap<String, Node>;

/// Parses the text of the file at `path`.
///
/// # Errors
/// Where the text is not TOML.
pub(super) fn parse(text: &str, path: &Path) -> Result<Table, ConfigError> {
    let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
    let file = File { path, text, line_starts };
    match DeTable::parse(text) {
        Ok(table) => Ok(file.table(table.into_inner())),
        Err(error) => {
            // The parser's message describes the syntax and quotes nothing; its `Display` would show the line.
            let text = format!("not TOML: {}", error.message());
            let at = error.span().map_or(0, |span| span.start);
            Err(ConfigError::one(file.origin(at), "", text))
        }
    }
}

struct File<'a> {
    path: &'a Path,
    text: &'a str,
    line_starts: Vec<usize>,
}

impl File<'_> {
    fn origin(&self, at: usize) -> Origin {
        let line = self.line_starts.partition_point(|start| *start <= at);
        let before = self.text.get(self.line_starts[line - 1]..at).unwrap_or_default();
        Origin::File { path: self.path.to_owned(), line, column: 1 + before.chars().count() }
    }

    fn table(&self, table: DeTable<'_>) -> Table {
        let entry = |(key, value): (Spanned<_>, Spanned<DeValue<'_>>)| {
            let origin = self.origin(key.span().start);
            let key: std::borrow::Cow<'_, str> = key.into_inner();
            (key.into_owned(), Node { origin, value: self.value(value.into_inner()) })
        };
        table.into_iter().map(entry).collect()
    }

    fn value(&self, value: DeValue<'_>) -> Value {
        match value {
            DeValue::String(text) => Value::Text(Zeroizing::new(text.into_owned())),
            DeValue::Integer(number) => {
                i64::from_str_radix(number.as_str(), number.radix()).map_or(Value::Other, Value::Integer)
            }
            DeValue::Float(number) => number.as_str().parse().map_or(Value::Other, Value::Float),
            DeValue::Boolean(value) => Value::Boolean(value),
            DeValue::Datetime(time) => Value::Time(time.to_string()),
            DeValue::Array(items) => {
                let node = |item: Spanned<DeValue<'_>>| {
                    let origin = self.origin(item.span().start);
                    Node { origin, value: self.value(item.into_inner()) }
                };
                Value::List(items.into_iter().map(node).collect())
            }
            DeValue::Table(table) => Value::Table(self.table(table)),
        }
    }
}

/// The prefix of settings in the environment; a double underscore also separates the parts of their names.
const PREFIX: &str = "TOKEN_SUPERVISOR__";

/// `idp.NAME.params.PARAMETER`: no setting is nested deeper.
const DEEPEST: usize = 4;

/// Lays the settings in the environment over those of the file.
///
/// # Errors
/// A variable is not UTF-8.
pub(super) fn override_by(environment: &Environment, tree: &mut Table) -> Result<(), ConfigError> {
    for (name, path) in environment.below(PREFIX) {
        let origin = Origin::Env { name: name.to_owned() };
        let text = environment.get(name).map_err(|text| ConfigError::one(origin.clone(), "", text))?;
        let path: Vec<_> = path.splitn(DEEPEST, "__").map(str::to_ascii_lowercase).collect();
        set(tree, &path, Node { origin, value: Value::Variable(text) });
    }
    Ok(())
}

/// Whether the environment sets anything.
pub(super) fn overrides(environment: &Environment) -> bool {
    environment.below(PREFIX).next().is_some()
}

fn set(table: &mut Table, path: &[String], node: Node) {
    let Some((first, rest)) = path.split_first() else { return };
    // The name of an identity provider may contain `-`, the name of a variable may not.
    let known = |key: &&String| key.replace('-', "_") == *first;
    let key = if table.contains_key(first) { first } else { table.keys().find(known).unwrap_or(first) }.clone();
    if rest.is_empty() {
        table.insert(key, node);
        return;
    }
    let within = table.entry(key).or_insert_with(|| node.below());
    if !matches!(within.value, Value::Table(_)) {
        *within = node.below();
    }
    if let Value::Table(table) = &mut within.value {
        set(table, rest, node);
    }
}

impl Node {
    /// Creates an empty table at the place of this value.
    fn below(&self) -> Self {
        Self { origin: self.origin.clone(), value: Value::Table(Table::new()) }
    }
}
