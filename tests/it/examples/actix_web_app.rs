//! The page, in front of a browser that keeps one cookie.

use std::time::Duration;

use reqwest::{Client, Response};
use serde_json::Value;

use super::{API_KEY, browser, example, generation};
use crate::{
    real_time::{pass, polled_async},
    support::within,
};

struct Browser {
    http: Client,
    url: String,
    cookie: String,
}

impl Browser {
    async fn get(&self) -> (u16, String) {
        page(within(self.http.get(&self.url).header("cookie", &self.cookie).send()).await.unwrap()).await
    }

    async fn post(&self, form: &str, fields: &[(&str, &str)]) -> Response {
        let url = format!("{}{form}", self.url);
        within(self.http.post(url).header("cookie", &self.cookie).form(fields).send()).await.unwrap()
    }
}

async fn page(response: Response) -> (u16, String) {
    let (status, sort) = (response.status().as_u16(), response.headers()["content-type"].clone());
    assert!(sort.to_str().unwrap().starts_with("text/html"), "{sort:?}");
    (status, response.text().await.unwrap())
}

#[tokio::test]
async fn a_page_lists_repositories_past_any_number_of_tokens() {
    let Some(mut running) = example("actix_web_app") else { return };
    let mut browser = Browser { http: browser(), url: running.url("serving").await, cookie: String::new() };

    let (status, body) = browser.get().await;
    assert!(status == 401 && body.contains(r#"action="/sign-in""#), "{status} {body}");
    let answer = browser.post("/sign-in", &[("user", "alice")]).await;
    let cookie = answer.headers()["set-cookie"].to_str().unwrap();
    let (session, attributes) = cookie.split_once("; ").unwrap();
    assert!(answer.status() == 303 && attributes.starts_with("HttpOnly; SameSite=Lax"), "{attributes}");
    assert_eq!(browser.post("/sign-in", &[("user", "alice; <b>")]).await.status(), 400);
    // A name that nobody signed in with is none, in whatever form it comes.
    for made_up in ["user=alice", "session=alice", "session=", "session=00000000000000000000000000000000"] {
        browser.cookie = made_up.to_owned();
        assert_eq!(browser.get().await.0, 401);
    }
    browser.cookie = format!("theme=dark; {session}");

    let (status, body) = browser.get().await;
    assert!(status == 404 && body.contains(r#"action="/connect""#), "{status} {body}");
    assert_eq!(browser.post("/connect", &[]).await.status(), 303);
    let mut shown = 0;
    // Each token but the first came before the one before it had ended.
    polled_async("a fourth token", Duration::from_secs(60), async || {
        let (status, body) = browser.get().await;
        assert!(status == 200 && body.contains("<b>alice/notes</b>"), "{status} {body}");
        assert!(body.contains("&lt;b&gt;My&lt;/b&gt; pages &amp; more"), "{body}");
        assert!(!body.contains("ts-test-secret"), "a token is on the page");
        let now = generation(body.split_once("With token ").unwrap().1).unwrap();
        assert!(now >= shown, "g{now} after g{shown}");
        shown = now;
        pass(Duration::from_millis(100)).await;
        (now >= 4).then_some(())
    })
    .await;

    let token = format!("{}/tokens/v1/grants/github/alice/token", browser.url);
    let ask = async |key: &str| within(browser.http.get(&token).bearer_auth(key).send()).await.unwrap();
    assert_eq!(ask("made up").await.status(), 401);
    let body: Value = ask(API_KEY).await.json().await.unwrap();
    assert_eq!(body["token_type"], "bearer");

    let (code, said) = running.interrupt().await;
    assert_eq!((code, said.len()), (Some(0), 1), "{said:?}");
}
