//! Statements of every day use indexes, however many rows there are.

use super::*;

const ROWS: usize = 200_000;

/// The plan of a prepared statement, whatever its values are.
async fn plan(connection: &mut AsyncPgConnection, statement: &str) -> String {
    let text = statement.split(" -- binds").next().unwrap();
    let count = (1..=60).rev().find(|number| text.contains(&format!("${number}")));
    let count = count.unwrap_or_else(|| panic!("no value in {statement}"));
    connection
        .batch_execute(&format!(
            "SET plan_cache_mode TO force_generic_plan; DEALLOCATE ALL; PREPARE planned AS {text};"
        ))
        .await
        .unwrap();
    explain(connection, &format!("EXECUTE planned({})", vec!["NULL"; count].join(", "))).await
}

async fn explain(connection: &mut AsyncPgConnection, text: &str) -> String {
    #[derive(diesel::QueryableByName)]
    struct PlanLine {
        #[diesel(sql_type = diesel::sql_types::Text, column_name = "QUERY PLAN")]
        line: String,
    }
    let lines = diesel::sql_query(format!("EXPLAIN {text}")).load::<PlanLine>(connection).await;
    let lines = lines.unwrap_or_else(|error| panic!("{error}: {text}"));
    lines.into_iter().map(|line| line.line + "\n").collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_statements_of_a_refresh_and_of_pages_use_indexes() {
    let Some(place) = TestStore::open(by_hand()) else { return };
    let row = place.connected("alice", 1).await;
    let mut connection = place.connection().await;
    connection
        .batch_execute(&format!(
            "INSERT INTO grants SELECT nextval('grant_rows'), CASE WHEN n % 2 = 0 THEN 'idp' ELSE 'other' END, \
             'acme/user' || lpad(n::text, 8, '0'), '', 'g_' || n, 1, incarnation, 1, client_id, refresh_token, \
             decode(lpad(to_hex(n), 32, '0'), 'hex'), parent, committed_by, alt, epoch, lease, lease_until, intent, verdict, \
             held, issued_at, expires_at, refresh_expires_at, notice_at, due_at, retry_at, last_error, document, tombstone, \
             changed_at, n, code FROM grants, generate_series(1, {ROWS}) n WHERE user_id = 'alice'; \
             INSERT INTO spent SELECT id, 1, 1, '' FROM grants; \
             INSERT INTO fingerprints SELECT fingerprint, id, TRUE, FALSE, 1 FROM grants WHERE user_id <> 'alice'; ANALYZE;"
        ))
        .await
        .unwrap();
    let by_key = "idp = 'idp' AND user_id = 'acme/user00100000' AND account = ''";
    // Two indexes have these columns.
    let by_names = "Index Scan using grants_";
    let due = "idp = 'idp' AND wake_at <= 100000 AND wake_at >= 5 AND (wake_at > 5 OR wake_at = 5 AND id > 9)";
    for (statement, index) in [
        (format!("SELECT * FROM grants LEFT JOIN spent ON grant_row = id WHERE {by_key}"), by_names),
        (format!("SELECT id FROM grants WHERE {by_key} FOR UPDATE"), by_names),
        (
            "UPDATE grants SET epoch = 2 WHERE id = 70000 AND revision = 1 AND store_now() - 5 BETWEEN 0 AND 9".into(),
            "grants_pkey",
        ),
        (format!("SELECT * FROM grants WHERE {due} ORDER BY wake_at, id LIMIT 100"), "grants_due"),
        ("SELECT min(wake_at) FROM grants WHERE idp = 'idp' AND wake_at > 100".into(), "grants_due"),
        (
            "SELECT id, substr(document, 2, 4) <> '\\x00' FROM grants WHERE id > 5 ORDER BY id LIMIT 1000".into(),
            "grants_pkey",
        ),
        (
            "SELECT FROM grants WHERE fingerprint = '\\x00' AND id <> 4 AND tombstone IS NULL".into(),
            "grants_fingerprint",
        ),
        (
            "SELECT FROM fingerprints WHERE fingerprint = '\\x00' AND grant_row <> 4 AND spent".into(),
            "fingerprints_pkey",
        ),
        (
            "SELECT tokens FROM spent WHERE grant_row = 5 UNION ALL SELECT tokens FROM spent WHERE grant_row = \
             ANY (ARRAY(SELECT grant_row FROM purged WHERE key_hash = 7))"
                .into(),
            "spent_pkey",
        ),
    ] {
        let plan = explain(&mut connection, &statement).await;
        let reads_all = plan.contains("Seq Scan on spent") || plan.contains("Seq Scan on grants");
        assert!(plan.contains(index) && !reads_all && !plan.contains("Sort"), "{statement}: {plan}");
    }

    // The statements themselves are planned, too.
    let columns = crate::store::record::Columns::from(&row);
    let update = statement::UpdateRow {
        columns: &columns,
        code: &[],
        id: 1,
        revision: 1,
        content: true,
        compared: Some(1),
        spent: None,
    };
    let some = |text: &str| Some(text.to_owned());
    let cursor = TokenKey::at("idp").user("acme/user00100000").account("");
    let text = |query: &dyn std::fmt::Display| query.to_string();
    for (statement, index) in [
        (text(&diesel::debug_query::<diesel::pg::Pg, _>(&update)), "grants_pkey"),
        (text(&diesel::debug_query::<diesel::pg::Pg, _>(&pages::due_page("idp", 9, 5, 1, 100))), "grants_due"),
    ] {
        let plan = plan(&mut connection, &statement).await;
        assert!(plan.contains(index) && !plan.contains("Seq Scan"), "{statement}: {plan}");
    }
    let idp = Names { idp: some("idp"), ..Names::default() };
    let tenant = Names { user_prefix: some("acme/"), ..idp.clone() };
    for (names, after) in [
        (Names::default(), None),
        (Names::default(), Some(&cursor)),
        (idp.clone(), None),
        (idp, Some(&cursor)),
        (tenant.clone(), None),
        (tenant, Some(&cursor)),
        (Names { user: some("acme/user00100000"), ..Names::default() }, None),
        (Names { gone: true, ..Names::default() }, None),
    ] {
        let query = diesel::debug_query::<diesel::pg::Pg, _>(&pages::page(&names, after, 50)).to_string();
        let (text, binds) = query.split_once(" -- binds: ").unwrap();
        let values: Vec<String> =
            binds.trim_matches(['[', ']']).split(", ").map(|bind| bind.replace('"', "'")).collect();
        let text = (1..=values.len())
            .rev()
            .fold(text.to_owned(), |text, number| text.replace(&format!("${number}"), &values[number - 1]));
        let plan = explain(&mut connection, &text).await;
        assert!(plan.contains("Index") && !plan.contains("Seq Scan") && !plan.contains("Sort"), "{names:?}: {plan}");
    }
}
