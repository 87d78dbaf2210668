//! Extractors: arguments of the handlers of an actix-web application.

use std::{fmt, future::Ready, marker::PhantomData, ops::Deref, sync::Arc};

use actix_web::{FromRequest, HttpRequest, dev::Payload, web::Data};
use futures_util::future::LocalBoxFuture;

use super::Problem;
use crate::{Error, Token, TokenKey, TokenSupervisor};

/// Extracts the supervisor from the data of the application, bare or as [`Data`].
impl FromRequest for TokenSupervisor {
    type Error = Error;
    type Future = Ready<Result<Self, Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let bare = request.app_data::<Self>();
        let supervisor = bare.or_else(|| request.app_data::<Data<Self>>().map(Data::get_ref));
        let missing = Error::Internal("the application has no TokenSupervisor as its app_data");
        std::future::ready(supervisor.cloned().ok_or(missing))
    }
}

/// Identifies the user of a request, whose tokens the handlers get. Give it to the application as `app_data`; see
/// [`IdpToken`].
///
/// ```
/// use token_supervisor::web::Caller;
///
/// // Trusts a header: only where a proxy in front has signed the user in and sets this header itself, and nobody else can
/// // reach the application. Otherwise, read the session.
/// let caller = Caller::by(|request| Some(request.headers().get("x-user")?.to_str().ok()?.to_owned()));
/// ```
#[derive(Clone)]
pub struct Caller(Arc<Identify>);

type Identify = dyn Fn(&HttpRequest) -> Option<String> + Send + Sync;

impl Caller {
    /// Identifies the user by a function, such as one that reads the application's session. If it returns `None`,
    /// [`IdpToken`] responds with 401 and the handler does not run.
    pub fn by(identify: impl Fn(&HttpRequest) -> Option<String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(identify))
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller").finish_non_exhaustive()
    }
}

/// Names an identity provider as a type, for [`IdpToken`].
pub trait IdpName {
    /// Its name, as in keys.
    const NAME: &'static str;
    /// Which of the user's accounts there.
    const ACCOUNT: &'static str = "";
}

/// The caller's token for an identity provider: valid when the handler starts, refreshed if necessary, for which the
/// request waits at most 10 s. Dropping the request stops no refresh.
///
/// Without a token the handler does not run, and the response is a problem document (RFC 9457): 401 if the caller is not
/// signed in, 404 if the user is not connected, 409 if the user must consent again, 429 and 503 with `Retry-After`, 504
/// after those 10 s; as for each [`Error`].
///
/// ```
/// use actix_web::{App, HttpRequest, web};
/// use token_supervisor::{TokenSupervisor, web::{Caller, IdpName, IdpToken}};
///
/// struct GitHub;
///
/// impl IdpName for GitHub {
///     const NAME: &'static str = "github";
/// }
///
/// async fn repositories(token: IdpToken<GitHub>) -> String {
///     format!("a token of {}, until {:?}", token.key().user(), token.expiry())
/// }
///
/// fn session_user(request: &HttpRequest) -> Option<String> {
///     // Whatever the application's sessions are.
/// #   let _ = request;
///     Some("alice".to_owned())
/// }
///
/// fn mount(supervisor: TokenSupervisor) {
///     let app = App::new()
///         .app_data(supervisor)
///         .app_data(Caller::by(session_user))
///         .route("/repositories", web::get().to(repositories));
/// #   drop(app);
/// }
/// ```
pub struct IdpToken<I> {
    key: TokenKey,
    token: Token,
    idp: PhantomData<fn() -> I>,
}

impl<I> IdpToken<I> {
    /// The key that the token belongs to.
    pub fn key(&self) -> &TokenKey {
        &self.key
    }

    /// The token itself.
    pub fn into_inner(self) -> Token {
        self.token
    }
}

impl<I> Deref for IdpToken<I> {
    type Target = Token;

    fn deref(&self) -> &Token {
        &self.token
    }
}

impl<I> fmt::Debug for IdpToken<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("IdpToken").field(&self.token).finish()
    }
}

impl<I: IdpName> FromRequest for IdpToken<I> {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let asked = asked::<I>(request, payload);
        Box::pin(async {
            let (supervisor, key) = asked?;
            let token = supervisor.token(&key).await?;
            Ok(Self { key, token, idp: PhantomData })
        })
    }
}

fn asked<I: IdpName>(request: &HttpRequest, payload: &mut Payload) -> Result<(TokenSupervisor, TokenKey), Problem> {
    let supervisor = TokenSupervisor::from_request(request, payload).into_inner()?;
    let missing = Error::Internal("the application has no token_supervisor::web::Caller as its app_data");
    let Caller(identify) = request.app_data().ok_or(missing)?;
    let user = identify(request)
        .ok_or_else(|| Problem::unauthorized("sign in first: the application does not know the caller"))?;
    Ok((supervisor, TokenKey::at(I::NAME).user(user).account(I::ACCOUNT)))
}
