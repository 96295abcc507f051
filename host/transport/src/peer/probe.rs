//! Bandwidth where no media have shown it.
//!
//! Nothing large ever comes down from a cloud node, and nothing goes up before the first picture does. So a little is sent
//! each way when a connection begins, and again when what is known has become old. The receiver's clock counts, over the
//! latter half: the first half opens TCP's congestion window, and no round trip is in it.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::Method;
use msao_link::estimate::Transfer;
use tokio::time::{Instant, timeout};

use super::line::Line;
use super::{Inner, answer};
use crate::body::Payload;
use crate::error::TransportError;
use crate::limits::{MAX_PROBE_BYTES, PROBE_BYTES, PROBE_BYTES_FAST, PROBE_LEAST, PROBE_WITHIN};
use crate::routes;

/// A link that comes and goes is not measured more often.
const NOT_AGAIN_WITHIN: Duration = Duration::from_secs(30);

#[derive(Clone, Copy)]
enum Way {
    Up,
    Down,
}

/// Bytes, and the time that they took.
#[derive(Clone, Copy)]
struct Seen {
    bytes: u64,
    took: Duration,
}

/// Measures each direction of which too little is known.
pub(super) async fn measure_if_due(inner: &Inner, line: &Line) -> Result<(), TransportError> {
    let Some(every) = inner.config.probe else {
        return Ok(());
    };
    let oldest = every.max(NOT_AGAIN_WITHIN).as_secs_f64() * 1000.0;
    let [up, down] = inner.estimates.bandwidth_age_ms();
    for (way, age_ms) in [(Way::Down, down), (Way::Up, up)] {
        if age_ms.is_none_or(|age_ms| age_ms >= oldest) {
            measure(inner, line, way).await?;
        }
    }
    Ok(())
}

async fn measure(inner: &Inner, line: &Line, way: Way) -> Result<(), TransportError> {
    // The latter half has to be as large as the estimator wants a transfer to be.
    let least = inner.estimates.least_bytes().saturating_mul(2);
    let bytes = least.clamp(PROBE_BYTES, MAX_PROBE_BYTES);
    let mut seen = send(line, way, bytes).await?;
    if seen.is_some_and(|seen| seen.took < PROBE_LEAST) {
        seen = send(line, way, bytes.max(PROBE_BYTES_FAST)).await?;
    }
    // A link too slow for this stays unknown until media show it.
    let Some(seen) = seen else {
        return Ok(());
    };
    let transfer = Transfer {
        bytes: seen.bytes,
        start_ms: 0.0,
        end_ms: seen.took.as_secs_f64() * 1000.0,
        acknowledged: false,
    };
    match way {
        Way::Up => inner.estimates.uplink(transfer),
        Way::Down => inner.estimates.downlink(transfer),
    }
    Ok(())
}

async fn send(line: &Line, way: Way, bytes: u64) -> Result<Option<Seen>, TransportError> {
    match way {
        Way::Up => up(line, bytes).await,
        Way::Down => down(line, bytes).await,
    }
}

async fn up(line: &Line, bytes: u64) -> Result<Option<Seen>, TransportError> {
    let body = Payload::Noise { left: bytes };
    let asked = line.ask(Method::PUT, routes::PROBE, &[], body);
    let Ok(answer) = timeout(PROBE_WITHIN, asked).await else {
        return Ok(None);
    };
    let answer = answer::checked(answer?, routes::PROBE).await?;
    Ok(reported(answer.headers()).map(|(bytes, ms)| Seen {
        bytes,
        took: Duration::from_secs_f64(ms / 1000.0),
    }))
}

async fn down(line: &Line, bytes: u64) -> Result<Option<Seen>, TransportError> {
    let path = format!("{}/{bytes}", routes::PROBE);
    let asked = line.ask(Method::GET, &path, &[], Payload::Empty);
    let mut sum = 0;
    let mut begun: Option<(Instant, u64)> = None;
    let reading = async {
        let mut body = answer::checked(asked.await?, routes::PROBE)
            .await?
            .into_body();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| crate::stream::lost(&error, &line.wire))?;
            sum += frame.data_ref().map_or(0, |piece| piece.len() as u64);
            if begun.is_none() && sum > bytes / 2 {
                begun = Some((Instant::now(), sum));
            }
        }
        Ok::<_, TransportError>(())
    };
    match timeout(PROBE_WITHIN, reading).await {
        Err(_) => {}
        Ok(read) => read?,
    }
    Ok(begun.map(|(since, before)| Seen {
        bytes: sum - before,
        took: since.elapsed(),
    }))
}

/// What a peer says of how it got an upload: bytes, and ms.
pub(super) fn reported(headers: &hyper::HeaderMap) -> Option<(u64, f64)> {
    let bytes = routes::number(headers, routes::RECEIVED_BYTES)?;
    let ms: f64 = routes::number(headers, routes::RECEIVED_MS)?;
    // A day is longer than any upload lasts.
    (0.0..=86_400_000.0).contains(&ms).then_some((bytes, ms))
}
