//! Keeps the connection for media.

use std::convert::Infallible;

use hyper::Method;
use tokio::time::{Instant, sleep, timeout};

use super::keeper::Backoff;
use super::line::{Bound, Line};
use super::{Inner, answer, probe};
use crate::body::Payload;
use crate::error::TransportError;
use crate::limits::{ANSWER_WITHIN, BULK_SIGN};
use crate::routes;
use crate::wire::Ended;

/// Connects again and again, as long as the connection for sessions is up; its caller drops this when it is not.
pub(super) async fn keep(inner: &Inner) -> Infallible {
    let mut backoff = Backoff::default();
    let mut told = String::new();
    loop {
        let began = Instant::now();
        let why = attempt(inner).await;
        // The same reason again and again is no news.
        if why != told {
            tracing::info!(peer = %inner.config.name, why, "no connection for media");
            told = why;
        }
        sleep(backoff.after(began.elapsed())).await;
    }
}

async fn attempt(inner: &Inner) -> String {
    let line = match Line::connect(&inner.config, &inner.target).await {
        Ok(line) => line,
        Err(why) => return why,
    };
    let bound = Bound::new(line);
    let line = &bound.line;
    inner.bulk.send_replace(Some(line.clone()));
    let ended = tokio::select! {
        ended = line.wire.closed() => ended,
        error = tend(inner, line) => Ended {
            why: line.over().unwrap_or_else(|| error.to_string()).into(),
            orderly: false,
        },
    };
    inner.bulk.send_replace(None);
    if ended.orderly {
        bound.release();
    }
    ended.why.to_string()
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
