//! Keeps the connection for media.

use std::convert::Infallible;
use std::time::Duration;

use hyper::Method;
use tokio::time::{sleep, timeout};

use super::keeper::Backoff;
use super::line::{Bound, Line};
use super::{Inner, answer, probe};
use crate::body::Payload;
use crate::error::TransportError;
use crate::limits::{ANSWER_WITHIN, BULK_SIGN};
use crate::routes;

/// A connection that was there for so long was a good one: the next try comes at once.
const GOOD: Duration = Duration::from_secs(10);

/// Connects again and again, as long as the connection for sessions is up; its caller drops this when it is not.
pub(super) async fn keep(inner: &Inner) -> Infallible {
    let mut backoff = Backoff::default();
    loop {
        match Line::connect(&inner.config, &inner.target).await {
            Ok(line) => {
                let bound = Bound::new(line);
                let line = &bound.line;
                inner.bulk.send_replace(Some(line.clone()));
                let since = tokio::time::Instant::now();
                let why = tokio::select! {
                    why = line.wire.closed() => why,
                    error = tend(inner, line) => error.to_string(),
                };
                inner.bulk.send_replace(None);
                tracing::info!(peer = %inner.config.name, why, "the connection for media has ended");
                if since.elapsed() >= GOOD {
                    backoff.reset();
                }
            }
            Err(why) => {
                tracing::info!(peer = %inner.config.name, why, "no connection for media");
            }
        }
        sleep(backoff.next()).await;
    }
}

/// Measures when it is time, and looks whether the connection still works.
async fn tend(inner: &Inner, line: &Line) -> TransportError {
    loop {
        if let Err(error) = probe::measure_if_due(inner, line).await {
            return error;
        }
        sleep(BULK_SIGN).await;
        if let Err(error) = sign_of_life(line).await {
            return error;
        }
    }
}

async fn sign_of_life(line: &Line) -> Result<(), TransportError> {
    let path = format!("{}/0", routes::PROBE);
    let asked = line.ask(Method::GET, &path, &[], Payload::Empty);
    let late = TransportError::Timeout {
        what: "a sign of life",
        seconds: ANSWER_WITHIN.as_secs(),
    };
    let answer = timeout(ANSWER_WITHIN, asked).await.map_err(|_| late)??;
    answer::checked(answer, routes::PROBE).await?;
    Ok(())
}
