//! The cost of a cold read: of a grant that is stored and that nothing has read before.

use std::time::Duration;

use aes_gcm_siv::{Aes256GcmSiv, KeyInit, aead::Aead};
use diesel::{ExpressionMethods, QueryDsl, RunQueryDsl, SqliteConnection};
use futures_util::stream::{self, StreamExt};
use token_supervisor::TokenKey;

use crate::{
    Size, Stage,
    harness::{median, now, row},
    schedule::database,
};

pub(crate) async fn run(size: Size) {
    let mut stage = Stage::new().await;
    let keys = stage.connect(size.keys).await;
    for (at_once, what) in [(1, "a cold read, beside query + open"), (64, "the same, 64 at once")] {
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        stage.restart().await;
        let mut connection = database(stage.folder.path());
        let cipher = Aes256GcmSiv::new(&[7; 32].into());
        let sealed = cipher.encrypt(&[0; 12].into(), &vec![0; document(&mut connection, &keys[0])][..]);
        let sealed = sealed.expect("sealed");
        let some: Vec<_> = keys.chunks(keys.len().div_ceil(size.rounds).min(1_000)).take(size.rounds).collect();
        for keys in some {
            let started = now();
            let supervisor = &stage.supervisor;
            let read = |key| async move { drop(supervisor.token(key).await.expect("a token")) };
            stream::iter(keys).map(read).buffer_unordered(at_once).collect::<()>().await;
            ours.push(started.elapsed() / keys.len() as u32);
            let started = now();
            for key in keys {
                document(&mut connection, key);
                cipher.decrypt(&[0; 12].into(), &sealed[..]).expect("opened");
            }
            bare.push(started.elapsed() / keys.len() as u32);
        }
        row(what, (median(ours), median(bare)), "<= 1.5");
    }
    stage.supervisor.shutdown(Duration::from_secs(60)).await;
}

diesel::table! {
    grants (id) {
        id -> BigInt,
        idp -> Text,
        user_id -> Text,
        account -> Text,
        generation -> BigInt,
        incarnation -> Binary,
        issued_at -> BigInt,
        expires_at -> Nullable<BigInt>,
        due_at -> Nullable<BigInt>,
        refresh_token -> Nullable<Binary>,
        document -> Binary,
    }
}

/// What a read needs: the sealed tokens, and until when they can be served.
type Row = (i64, Vec<u8>, i64, Option<i64>, Option<i64>, Option<Vec<u8>>, Vec<u8>);

/// Reads a row with a statement that is prepared once, and returns the length of its document.
fn document(connection: &mut SqliteConnection, key: &TokenKey) -> usize {
    let columns = (
        grants::generation,
        grants::incarnation,
        grants::issued_at,
        grants::expires_at,
        grants::due_at,
        grants::refresh_token,
        grants::document,
    );
    let found = grants::table
        .select(columns)
        .filter(grants::idp.eq(key.idp()))
        .filter(grants::user_id.eq(key.user()))
        .filter(grants::account.eq(""));
    let row: Row = found.first(connection).expect("a row");
    assert!(row.0 > 0);
    row.6.len()
}
