//! The line between processes: what one of them says with NOTIFY, all hear that LISTEN.
//!
//! A connection of its own serves both. What is said is no part of the transaction that it is about: a NOTIFY in each commit
//! makes commits wait for each other.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls, Socket, tls::TlsStream};

use super::connection::{Connector, OPENED_WITHIN, STATEMENT_TIMEOUT};
use crate::store::{Line, StoreError};

/// Texts that were received and not read yet. Further ones wait at the server.
const UNREAD: usize = 1_024;

/// Says the texts, in one transaction.
const SAY: &str = "SELECT pg_notify($1, text) FROM unnest($2::TEXT[]) AS text";

impl Connector {
    /// Opens a line.
    ///
    /// # Errors
    /// The server cannot be reached, or does not answer in time.
    pub(super) async fn open_line(&self) -> Result<Line, StoreError> {
        let opened = tokio::time::timeout(OPENED_WITHIN, self.listening()).await;
        opened.unwrap_or_else(|_| Err(self.silent()))
    }

    async fn listening(&self) -> Result<Line, StoreError> {
        let (texts, heard) = mpsc::channel(UNREAD);
        let failed = |error: tokio_postgres::Error| self.unreachable(&error);
        let config = &self.address.config;
        let client = match &self.tls {
            Some(tls) => {
                let (client, connection) = config.connect(tls.clone()).await.map_err(failed)?;
                hear(connection, texts);
                client
            }
            None => {
                let (client, connection) = config.connect(NoTls).await.map_err(failed)?;
                hear(connection, texts);
                client
            }
        };
        let (settings, schema) = (self.settings(), &self.address.schema);
        // Nothing of a line is stored: it need not wait for the disk.
        let settings = format!(
            "{settings} SET synchronous_commit TO off; SET application_name TO 'token-supervisor line of {schema}'; \
             LISTEN \"{schema}\""
        );
        client.batch_execute(&settings).await.map_err(failed)?;
        let say = client.prepare(SAY).await.map_err(failed)?;
        let (client, channel) = (Arc::new(client), Arc::<str>::from(self.address.schema.as_str()));
        let say = move |texts: Vec<String>| -> crate::store::StoreFuture<()> {
            let (client, say, channel) = (client.clone(), say.clone(), channel.clone());
            Box::pin(async move { said(&client, &say, &channel, &texts).await })
        };
        Ok(Line { heard, say: Box::new(say) })
    }
}

async fn said(
    client: &Client,
    say: &tokio_postgres::Statement,
    channel: &str,
    texts: &[String],
) -> Result<(), StoreError> {
    let done = tokio::time::timeout(STATEMENT_TIMEOUT * 2, client.execute(say, &[&channel, &texts])).await;
    match done {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(StoreError::Unavailable(super::connection::with_causes(&error))),
        Err(_) => Err(StoreError::Unavailable("the server did not respond in time".to_owned())),
    }
}

/// Runs the connection in a task until it ends, or until no one hears it any more.
fn hear<S>(mut connection: Connection<Socket, S>, texts: mpsc::Sender<String>)
where
    S: TlsStream + Unpin + Send + 'static,
{
    tokio::spawn(async move {
        let mut messages = stream::poll_fn(move |context| connection.poll_message(context));
        while let Some(Ok(message)) = messages.next().await {
            if let AsyncMessage::Notification(notice) = message
                && texts.send(notice.payload().to_owned()).await.is_err()
            {
                return;
            }
        }
    });
}
