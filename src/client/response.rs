//! Responses of the HTTP API, and why there is none.

use reqwest::{RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;

use crate::api::ProblemBody;

/// Why a request to the HTTP API did not succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// The server refused the request: the problem says why, and what to do next.
    #[error("{}", .0.detail)]
    Problem(Box<ProblemBody>),
    /// The server cannot be reached, or the connection was lost.
    #[error("the server cannot be reached: check its URL, and that it runs")]
    Transport(#[source] reqwest::Error),
    /// The response is an error, but not one of a token-supervisor: check the URL, and any proxy in front of the server.
    #[error("{0}, and not the response of a token-supervisor: check the URL, and any proxy in front of it")]
    Foreign(StatusCode),
    /// The body of the response cannot be read, or broke off.
    #[error("the response cannot be read: check the URL, and the version of the server")]
    Unreadable(#[source] reqwest::Error),
}

/// Sends the request, and reads the body of a success.
pub(super) async fn read<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, ApiError> {
    body(send(request).await?).await
}

pub(super) async fn send(request: RequestBuilder) -> Result<Response, ApiError> {
    succeeded(request.send().await.map_err(transport)?).await
}

pub(super) async fn succeeded(response: Response) -> Result<Response, ApiError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let problem = response.json().await.map_err(|_| ApiError::Foreign(status))?;
    Err(ApiError::Problem(problem))
}

pub(super) async fn body<T: DeserializeOwned>(response: Response) -> Result<T, ApiError> {
    response.json().await.map_err(|error| ApiError::Unreadable(error.without_url()))
}

pub(super) fn transport(error: reqwest::Error) -> ApiError {
    ApiError::Transport(error.without_url())
}
