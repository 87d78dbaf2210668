//! The tables, in types that both databases share. The migrations document the columns.

diesel::table! {
    grants (id) {
        id -> BigInt,
        idp -> Text,
        user_id -> Text,
        account -> Text,
        grant_id -> Text,
        revision -> BigInt,
        incarnation -> Binary,
        generation -> BigInt,
        client_id -> Nullable<Text>,
        refresh_token -> Nullable<Binary>,
        fingerprint -> Nullable<Binary>,
        parent -> Nullable<Binary>,
        committed_by -> Nullable<Text>,
        alt -> Nullable<Text>,
        epoch -> BigInt,
        lease -> Nullable<Text>,
        lease_until -> Nullable<BigInt>,
        intent -> Nullable<Text>,
        verdict -> Nullable<Text>,
        held -> Nullable<Text>,
        issued_at -> BigInt,
        expires_at -> Nullable<BigInt>,
        refresh_expires_at -> Nullable<BigInt>,
        notice_at -> Nullable<BigInt>,
        due_at -> Nullable<BigInt>,
        retry_at -> Nullable<BigInt>,
        last_error -> Nullable<Text>,
        document -> Binary,
        tombstone -> Nullable<Text>,
        changed_at -> BigInt,
        wake_at -> Nullable<BigInt>,
        code -> Nullable<Binary>,
    }
}

diesel::table! {
    fingerprints (fingerprint, grant_row) {
        fingerprint -> Binary,
        grant_row -> BigInt,
        connected -> Bool,
        spent -> Bool,
        at -> BigInt,
    }
}

diesel::table! {
    spent (grant_row) {
        grant_row -> BigInt,
        generation -> BigInt,
        at -> BigInt,
        tokens -> Binary,
    }
}

diesel::table! {
    purged (grant_row) {
        grant_row -> BigInt,
        key_hash -> BigInt,
    }
}

diesel::table! {
    revocations (id) {
        id -> BigInt,
        idp -> Text,
        user_id -> Text,
        account -> Text,
        token -> Binary,
        due_at -> BigInt,
        failures -> Integer,
    }
}

diesel::table! {
    meta (name) {
        name -> Text,
        value -> Binary,
    }
}

diesel::allow_tables_to_appear_in_same_query!(grants, fingerprints, spent, purged);
