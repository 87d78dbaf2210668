//! The way of a request to the registry of this moment.

use std::time::Duration;

use actix::{Message, Recipient, dev::SendError};
use tokio::sync::{oneshot, watch};

use super::command::Ask;
use crate::{error::Error, model::TokenKey};

/// A request for the actor of a key.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct RoutedRequest {
    pub(super) key: TokenKey,
    pub(super) ask: Ask,
}

/// Hands requests to the registry, and survives its replacement.
#[derive(Clone)]
pub(super) struct Router(watch::Receiver<Option<Recipient<RoutedRequest>>>);

impl Router {
    /// `registry` holds the registry of the moment; `None` until the first one runs.
    pub(super) fn new(registry: watch::Receiver<Option<Recipient<RoutedRequest>>>) -> Self {
        Self(registry)
    }

    /// Hands a request to the registry; waits while a dead one is being replaced.
    ///
    /// # Errors
    /// Too many requests wait for routing, or the supervisor was shut down.
    pub(super) async fn route(&self, key: TokenKey, ask: Ask) -> Result<(), Error> {
        let mut route = RoutedRequest { key, ask };
        let mut registries = self.0.clone();
        loop {
            let registry = registries.borrow_and_update().clone();
            if let Some(registry) = registry {
                route = match registry.try_send(route) {
                    Ok(()) => return Ok(()),
                    Err(SendError::Full(_)) => return Err(Error::Busy { retry_after: Duration::from_secs(1) }),
                    Err(SendError::Closed(route)) => route,
                };
            }
            registries.changed().await.map_err(|_| Error::ShutDown)?;
        }
    }
}

impl Router {
    /// Has every actor that runs read its row again. Resolves once each of them will.
    ///
    /// # Errors
    /// Too many requests wait for routing, or the supervisor was shut down.
    pub(super) async fn route_to_all_awake(&self) -> Result<(), Error> {
        let (reply, told) = oneshot::channel();
        // The registry looks at no key.
        self.route(TokenKey::at("").user(""), Ask::AllStale { reply }).await?;
        // A registry that died has no actors; theirs read their rows when its successor starts them.
        told.await.unwrap_or(Ok(()))
    }
}

#[cfg(feature = "testing")]
impl Router {
    pub(super) fn panic_registry(&self) {
        if let Some(registry) = &*self.0.borrow() {
            registry.do_send(RoutedRequest { key: TokenKey::at("").user(""), ask: Ask::PanicRegistry });
        }
    }
}

#[cfg(test)]
mod tests {
    use actix::{Actor, ActorContext as _, Context, Handler};
    use tokio::sync::mpsc;

    use super::*;

    /// Reports the users that it was asked for; stops at the first if it is told to.
    struct Registry(mpsc::UnboundedSender<String>, bool);

    impl Actor for Registry {
        type Context = Context<Self>;

        fn started(&mut self, context: &mut Self::Context) {
            if self.1 {
                context.stop();
            }
        }
    }

    impl Handler<RoutedRequest> for Registry {
        type Result = ();

        fn handle(&mut self, route: RoutedRequest, _: &mut Self::Context) {
            self.0.send(route.key.user().to_owned()).ok();
        }
    }

    fn key(user: &str) -> TokenKey {
        TokenKey::at("idp").user(user)
    }

    #[actix::test]
    async fn a_request_waits_for_the_successor_of_a_dead_registry() {
        let (asked, mut heard) = mpsc::unbounded_channel();
        let dead = Registry(asked.clone(), true).start();
        let (registry, registries) = watch::channel(Some(dead.clone().recipient()));
        while dead.connected() {
            tokio::task::yield_now().await;
        }
        let router = Router::new(registries);
        let routed = actix::spawn({
            let router = router.clone();
            async move { router.route(key("alice"), Ask::Wake).await }
        });
        tokio::task::yield_now().await;
        assert!(!routed.is_finished());
        registry.send_replace(Some(Registry(asked, false).start().recipient()));
        routed.await.unwrap().unwrap();
        assert_eq!(heard.recv().await.as_deref(), Some("alice"));
        drop(registry);
    }

    #[actix::test]
    async fn without_a_successor_the_supervisor_is_shut_down() {
        let (registry, registries) = watch::channel(None);
        drop(registry);
        assert_eq!(Router::new(registries).route(key("alice"), Ask::Wake).await, Err(Error::ShutDown));
    }
}
