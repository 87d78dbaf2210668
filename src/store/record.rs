//! A row of the table `grants` and its conversion from and to the model's [`Row`].

use diesel::prelude::*;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{StoreError, schema::grants};
use crate::{
    keyring::{RowCode, RowCodes},
    model::{
        Alt, Attempted, Expires, Fingerprint, Generation, Id, Lease, Row, Sealed, Spendable, StoreTime, TokenKey,
        WallTime,
    },
    protocol::schedule::wake_at,
};

/// The columns as they are stored, without the surrogate key and the revision.
#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = grants)]
pub(super) struct GrantRecord {
    #[diesel(embed)]
    pub(super) name: Name,
    #[diesel(embed)]
    pub(super) content: Content,
}

/// The columns that identify a row. They are never updated, so that no update touches their indexes.
#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = grants)]
pub(super) struct Name {
    idp: String,
    user_id: String,
    account: String,
    grant_id: String,
}

/// The columns that change.
#[derive(Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = grants, treat_none_as_null = true)]
pub(super) struct Content {
    incarnation: Vec<u8>,
    generation: i64,
    client_id: Option<String>,
    refresh_token: Option<Vec<u8>>,
    fingerprint: Option<Vec<u8>>,
    parent: Option<Vec<u8>>,
    committed_by: Option<String>,
    alt: Option<String>,
    epoch: i64,
    lease: Option<String>,
    lease_until: Option<i64>,
    intent: Option<String>,
    verdict: Option<String>,
    held: Option<String>,
    issued_at: i64,
    expires_at: Option<i64>,
    refresh_expires_at: Option<i64>,
    notice_at: Option<i64>,
    due_at: Option<i64>,
    retry_at: Option<i64>,
    last_error: Option<String>,
    document: Vec<u8>,
    tombstone: Option<String>,
    changed_at: i64,
    wake_at: Option<i64>,
    code: Option<Vec<u8>>,
}

#[derive(Serialize, Deserialize)]
struct AltRecord {
    /// Sealed, in hexadecimal digits.
    token: String,
    fingerprint: Fingerprint,
    attempt: Id,
    epoch: u64,
}

#[derive(Serialize, Deserialize)]
struct LeaseHolder {
    attempt: Id,
    owner: Id,
}

impl From<&Row> for GrantRecord {
    fn from(row: &Row) -> Self {
        let bytes = |fingerprint: Fingerprint| fingerprint.0.to_vec();
        let alt = |Alt { token, by }: &Alt| AltRecord {
            token: hex(&token.sealed.0),
            fingerprint: token.fingerprint,
            attempt: by.attempt,
            epoch: by.epoch,
        };
        let name = Name {
            idp: row.key.idp().to_owned(),
            user_id: row.key.user().to_owned(),
            account: row.key.account_name().to_owned(),
            grant_id: row.grant_id.clone(),
        };
        let content = Content {
            incarnation: row.incarnation.0.to_vec(),
            generation: signed(row.generation.0),
            client_id: row.client_id.clone(),
            refresh_token: row.refresh_token.as_ref().map(|token| token.sealed.0.clone()),
            fingerprint: row.refresh_token.as_ref().map(|token| bytes(token.fingerprint)),
            parent: row.parent.map(bytes),
            committed_by: json(row.commit.as_ref()),
            alt: json(row.alt.as_ref().map(alt).as_ref()),
            epoch: signed(row.epoch),
            lease: json(row.lease.map(|Lease { attempt, owner, .. }| LeaseHolder { attempt, owner }).as_ref()),
            lease_until: row.lease.map(|lease| lease.until.0),
            intent: json(row.intent.as_ref()),
            verdict: json(row.verdict.as_ref()),
            held: row.held.clone(),
            issued_at: row.issued_at.0,
            expires_at: expiry_column(row.expires),
            refresh_expires_at: expiry_column(row.refresh_expires),
            notice_at: row.notice_at.map(|time| time.0),
            due_at: row.due_at.map(|time| time.0),
            retry_at: row.retry_at.map(|time| time.0),
            last_error: json(row.last_error.as_ref()),
            document: row.document.0.clone(),
            tombstone: json(row.tombstone.as_ref()),
            changed_at: row.changed_at.0,
            wake_at: wake_at(row).map(|time| time.0),
            code: None,
        };
        Self { name, content }
    }
}

impl GrantRecord {
    /// Returns the record of a row that is stored under `id`, with its code.
    pub(super) fn coded(row: &Row, id: i64, codes: &RowCodes) -> Self {
        let mut record = Self::from(row);
        record.content.code = Some(record.code(id, codes).finish().to_vec());
        record
    }

    /// Checks that the record is as this program wrote it.
    ///
    /// # Errors
    /// It has no code, or another one: it was changed or damaged outside the program.
    pub(super) fn verify(&self, id: i64, codes: &RowCodes) -> Result<(), StoreError> {
        match &self.content.code {
            Some(stored) if self.code(id, codes).is(stored) => Ok(()),
            _ => Err(StoreError::Corrupt { grant_id: self.name.grant_id.clone(), column: "code" }),
        }
    }

    /// Computes the code over every column but itself and the revision, which only counts.
    pub(super) fn code(&self, id: i64, codes: &RowCodes) -> RowCode {
        let Self { name: Name { idp, user_id, account, grant_id }, content } = self;
        let Content {
            incarnation,
            generation,
            client_id,
            refresh_token,
            fingerprint,
            parent,
            committed_by,
            alt,
            epoch,
            lease,
            lease_until,
            intent,
            verdict,
            held,
            issued_at,
            expires_at,
            refresh_expires_at,
            notice_at,
            due_at,
            retry_at,
            last_error,
            document,
            tombstone,
            changed_at,
            wake_at,
            code: _,
        } = content;
        let mut code = codes.begin();
        for text in [idp, user_id, account, grant_id] {
            code.add(Some(text.as_bytes()));
        }
        for number in [id, *generation, *epoch, *issued_at, *changed_at] {
            code.add(Some(&number.to_le_bytes()));
        }
        for number in [lease_until, expires_at, refresh_expires_at, notice_at, due_at, retry_at, wake_at] {
            code.add(number.map(i64::to_le_bytes).as_ref().map(<[u8; 8]>::as_slice));
        }
        for text in [client_id, committed_by, alt, lease, intent, verdict, held, last_error, tombstone] {
            code.add(text.as_deref().map(str::as_bytes));
        }
        for bytes in [refresh_token, fingerprint, parent] {
            code.add(bytes.as_deref());
        }
        code.add(Some(incarnation));
        code.add(Some(document));
        code
    }

    pub(super) fn key(&self) -> TokenKey {
        TokenKey::at(&self.name.idp).user(&self.name.user_id).account(&self.name.account)
    }

    /// Converts the record to the row of `key`, the key by which it was found.
    pub(super) fn into_row(self, key: TokenKey) -> Result<Row, StoreError> {
        let Self { name, content: record } = self;
        let corrupt = |column: &'static str| StoreError::Corrupt { grant_id: name.grant_id.clone(), column };
        let fingerprint = |bytes: &[u8], column| Fingerprint::try_from(bytes).map_err(|_| corrupt(column));
        let refresh_token = match (record.refresh_token, &record.fingerprint) {
            (Some(sealed), Some(bytes)) => {
                Some(Spendable { sealed: Sealed(sealed), fingerprint: fingerprint(bytes, "fingerprint")? })
            }
            (None, None) => None,
            _ => return Err(corrupt("fingerprint")),
        };
        let alt = parse::<AltRecord>(record.alt, || corrupt("alt"))?;
        let alt = alt.map(|alt| -> Result<Alt, StoreError> {
            let sealed = unhex(&alt.token).ok_or_else(|| corrupt("alt"))?;
            let token = Spendable { sealed: Sealed(sealed), fingerprint: alt.fingerprint };
            Ok(Alt { token, by: Attempted { attempt: alt.attempt, epoch: alt.epoch } })
        });
        let alt = alt.transpose()?;
        let lease = match (parse::<LeaseHolder>(record.lease, || corrupt("lease"))?, record.lease_until) {
            (Some(LeaseHolder { attempt, owner }), Some(until)) => {
                Some(Lease { attempt, owner, until: StoreTime(until) })
            }
            (None, None) => None,
            _ => return Err(corrupt("lease")),
        };
        Ok(Row {
            key,
            incarnation: record.incarnation.as_slice().try_into().map_err(|_| corrupt("incarnation"))?,
            generation: Generation(record.generation.try_into().map_err(|_| corrupt("generation"))?),
            client_id: record.client_id,
            refresh_token,
            parent: record.parent.map(|bytes| fingerprint(&bytes, "parent")).transpose()?,
            commit: parse(record.committed_by, || corrupt("committed_by"))?,
            alt,
            epoch: record.epoch.try_into().map_err(|_| corrupt("epoch"))?,
            lease,
            intent: parse(record.intent, || corrupt("intent"))?,
            verdict: parse(record.verdict, || corrupt("verdict"))?,
            held: record.held,
            issued_at: WallTime(record.issued_at),
            expires: expires(record.expires_at),
            refresh_expires: expires(record.refresh_expires_at),
            notice_at: record.notice_at.map(StoreTime),
            due_at: record.due_at.map(WallTime),
            retry_at: record.retry_at.map(WallTime),
            last_error: parse(record.last_error, || corrupt("last_error"))?,
            document: Sealed(record.document),
            tombstone: parse(record.tombstone, || corrupt("tombstone"))?,
            changed_at: StoreTime(record.changed_at),
            grant_id: name.grant_id,
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2));
    pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect()
}

/// Converts a counter. Counters grow by one from zero, so they never exceed a signed integer.
fn signed(counter: u64) -> i64 {
    counter.try_into().unwrap_or(i64::MAX)
}

/// Converts an expiry to its column: the largest integer is "never", NULL is "unknown".
fn expiry_column(expires: Expires) -> Option<i64> {
    match expires {
        Expires::At(time) => Some(time.0.min(i64::MAX - 1)),
        Expires::Never => Some(i64::MAX),
        Expires::Unknown => None,
    }
}

pub(super) fn expires(column: Option<i64>) -> Expires {
    match column {
        Some(i64::MAX) => Expires::Never,
        Some(time) => Expires::At(WallTime(time)),
        None => Expires::Unknown,
    }
}

fn json<T: Serialize>(value: Option<&T>) -> Option<String> {
    value.map(|value| serde_json::to_string(value).expect("plain structs serialize as JSON"))
}

fn parse<T: DeserializeOwned>(
    text: Option<String>,
    corrupt: impl FnOnce() -> StoreError,
) -> Result<Option<T>, StoreError> {
    text.map(|text| serde_json::from_str(&text)).transpose().map_err(|_| corrupt())
}
