//! What processes tell each other, as texts of a line. Never holds a token.
//!
//! Whoever may connect to the database can listen and speak: texts are sealed with the keys of the store.
//!
//! `{"from": "r_...", "news": [{"changed": {...}}, ...]}`. Kinds and fields that are not known are left out: a later version
//! may send more.

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::{
    keyring::{Field, Keyring},
    model::{Generation, Sealed, StoreTime, TokenKey, WallTime},
    protocol::Transition,
    store::LONGEST_TEXT,
};

/// One thing that another process should know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::supervisor) enum News {
    /// The row of a key was changed.
    Changed(ChangedNews),
    /// A resource server rejected the token of this generation.
    Rejected { key: KeyNews, generation: Generation },
    /// Which providers are on hold was changed, or the deployment.
    Holds,
    /// More has changed than could be told.
    Everything,
    /// A proof that this process hears itself, and so the others.
    Echo(u64),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::supervisor) struct ChangedNews {
    pub(in crate::supervisor) key: KeyNews,
    /// Of the row; `None` if it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::supervisor) generation: Option<Generation>,
    /// When the row needs attention.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::supervisor) wake_at: Option<WallTime>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "if_known")]
    pub(in crate::supervisor) events: Option<EventNews>,
}

/// Reads events, unless they are of a later version: what was changed matters more.
fn if_known<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<EventNews>, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).ok())
}

/// The events that a change brought.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::supervisor) struct EventNews {
    pub(in crate::supervisor) grant_id: String,
    pub(in crate::supervisor) at: StoreTime,
    pub(in crate::supervisor) transitions: Vec<Transition>,
}

/// A key: identity provider, user and account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::supervisor) struct KeyNews(String, String, String);

impl From<&TokenKey> for KeyNews {
    fn from(key: &TokenKey) -> Self {
        Self(key.idp().to_owned(), key.user().to_owned(), key.account_name().to_owned())
    }
}

impl From<&KeyNews> for TokenKey {
    fn from(KeyNews(idp, user, account): &KeyNews) -> Self {
        Self::at(idp).user(user).account(account)
    }
}

/// The longest text before it is sealed: sealing adds less than 64 bytes, and base64 a third.
const LONGEST_PLAIN: usize = LONGEST_TEXT / 4 * 3 - 64;

/// Returns the texts that tell all of these news to the holders of the keys.
pub(in crate::supervisor) fn texts(keyring: &Keyring, from: &str, news: &[News]) -> Vec<String> {
    let seal = |text: String| STANDARD_NO_PAD.encode(keyring.seal(&bound_to(), Field::Line, text.as_bytes()).0);
    plain_texts(from, news).into_iter().map(seal).collect()
}

/// The field keeps a text apart from what is stored for a key.
fn bound_to() -> TokenKey {
    TokenKey::at("line").user("line")
}

fn plain_texts(from: &str, news: &[News]) -> Vec<String> {
    let begin = format!("{{\"from\":\"{from}\",\"news\":[");
    let mut texts = Vec::new();
    let mut text = begin.clone();
    for one in news {
        let mut json = serde_json::to_string(one).expect("plain enums have a JSON form");
        if begin.len() + json.len() + 2 > LONGEST_PLAIN {
            // Names of 255 bytes may take six times that in JSON.
            json = serde_json::to_string(&News::Everything).expect("plain enums have a JSON form");
        }
        if text.len() + json.len() + 3 > LONGEST_PLAIN {
            texts.push(std::mem::replace(&mut text, begin.clone()) + "]}");
        }
        if text.len() > begin.len() {
            text.push(',');
        }
        text.push_str(&json);
    }
    if text.len() > begin.len() {
        texts.push(text + "]}");
    }
    texts
}

/// Returns the news in a text, and the name of the process that sent it; `None` if no holder of the keys has sealed it.
pub(in crate::supervisor) fn hear(keyring: &Keyring, text: &str) -> Option<(String, Vec<News>)> {
    let sealed = Sealed(STANDARD_NO_PAD.decode(text).ok()?);
    hear_plain(&keyring.open(&bound_to(), Field::Line, &sealed).ok()?)
}

fn hear_plain(text: &[u8]) -> Option<(String, Vec<News>)> {
    #[derive(Deserialize)]
    struct Envelope {
        from: String,
        news: Vec<Value>,
    }
    let Envelope { from, news } = serde_json::from_slice(text).ok()?;
    Some((from, news.into_iter().filter_map(|one| serde_json::from_value(one).ok()).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{code::EvidenceCode, model::Evidence};

    fn changed(user: &str) -> News {
        let key = KeyNews::from(&TokenKey::at("idp").user(user).account("work"));
        let transitions = vec![
            Transition::Renewed { generation: Generation(7) },
            Transition::InDoubt { evidence: Evidence::ours(EvidenceCode::Unanswered) },
        ];
        let events = Some(EventNews { grant_id: "g_1".to_owned(), at: StoreTime(5), transitions });
        News::Changed(ChangedNews { key, generation: Some(Generation(7)), wake_at: Some(WallTime(9)), events })
    }

    #[test]
    fn what_is_told_is_heard_in_texts_that_are_not_too_long() {
        let news: Vec<_> = (0..300).map(|number| changed(&format!("user \"{number}\" \u{1f600}"))).collect();
        let keyring = Keyring::generate();
        let told = texts(&keyring, "r_a", &news);
        assert!(told.len() > 1 && told.iter().all(|text| text.len() <= LONGEST_TEXT));
        assert!(told.iter().any(|text| text.len() > LONGEST_TEXT - 500), "as much as fits");
        let heard: Vec<_> = told.iter().flat_map(|text| hear(&keyring, text).unwrap().1).collect();
        assert_eq!(heard, news);
        assert_eq!(hear(&keyring, &told[0]).unwrap().0, "r_a");
        assert!(texts(&keyring, "r_a", &[]).is_empty());
        assert!(told.iter().all(|text| !text.contains("user")) && hear(&Keyring::generate(), &told[0]).is_none());
    }

    #[test]
    fn what_is_too_long_to_be_told_makes_the_others_look_at_everything() {
        let told = plain_texts("r_a", &[News::Holds, changed(&"\u{1}".repeat(2_000)), News::Holds]);
        let heard: Vec<_> = told.iter().flat_map(|text| hear_plain(text.as_bytes()).unwrap().1).collect();
        assert_eq!(heard, [News::Holds, News::Everything, News::Holds]);
    }

    #[test]
    fn what_a_later_version_tells_is_passed_over() {
        let text = r#"{"from":"r_b","later":1,"news":[{"moved":{"x":1}},"holds",{"rejected":{"key":["i","u",""],"generation":3,"why":"x"}}]}"#;
        let (_, heard) = hear_plain(text.as_bytes()).unwrap();
        let key = KeyNews::from(&TokenKey::at("i").user("u"));
        assert_eq!(heard, [News::Holds, News::Rejected { key, generation: Generation(3) }]);
        assert_eq!(hear_plain(b"not ours"), None);
        let later = r#"{"from":"r_b","news":[{"changed":{"key":["i","u",""],"generation":4,"events":{"later":1}}}]}"#;
        let (_, heard) = hear_plain(later.as_bytes()).unwrap();
        let key = KeyNews::from(&TokenKey::at("i").user("u"));
        let known = ChangedNews { key, generation: Some(Generation(4)), wake_at: None, events: None };
        assert_eq!(heard, [News::Changed(known)], "what was changed is heard without the events");
    }
}
