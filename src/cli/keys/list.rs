//! `keys list`: lists the keys, and what needs them.

use token_supervisor::api::{KeyUseBody, KeysBody};

use super::place::keys_at;
use crate::cli::{
    CliFailure, Exit, Out,
    args::TargetArgs,
    show::{RowTable, folded},
    time::to_the_second,
};

/// List the keys, what needs each of them, and which replicas have it.
///
/// Reads every row of the store. A key that nothing needs can be removed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor keys list\n  \
    token-supervisor keys list --server https://tokens.example.com --json")]
pub(super) struct ListKeysArgs {
    #[command(flatten)]
    target: TargetArgs,
}

impl ListKeysArgs {
    pub(super) async fn run(self, out: Out) -> Result<Exit, CliFailure> {
        let keys = keys_at(&self.target.place()?).await?;
        out.result(&keys, || in_words(&keys))?;
        Ok(Exit::Done)
    }
}

fn in_words(keys: &KeysBody) -> String {
    let header = ["key", "state", "since", "rows", "revocations", "journal", "replicas"];
    let table = RowTable::new(&header, &[]).rows(keys.items.iter().map(|key| row(key, keys)));
    let lacking: String = keys.items.iter().filter_map(|key| lacks(key, keys)).collect();
    table.text() + &lacking
}

fn row(key: &KeyUseBody, keys: &KeysBody) -> Vec<String> {
    let has = keys.replicas.iter().filter(|replica| replica.has(&key.id)).count();
    let since = key.since.map_or_else(|| "-".to_owned(), to_the_second);
    let counts = [key.rows, key.revocations, key.journal].map(|count| count.to_string());
    let replicas = if keys.replicas.is_empty() { "-".to_owned() } else { format!("{has} of {}", keys.replicas.len()) };
    [key.id.clone(), key.state.to_string(), since].into_iter().chain(counts).chain([replicas]).collect()
}

/// Says which replicas lack a key that others have.
fn lacks(key: &KeyUseBody, keys: &KeysBody) -> Option<String> {
    let lacking = keys.lacking(&key.id);
    let some_have_it = lacking.len() < keys.replicas.len();
    let text = format!("{} lacks {}", lacking.join(", "), key.id);
    (some_have_it && !lacking.is_empty()).then(|| folded(&text, 0) + "\n")
}
