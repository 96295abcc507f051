//! Answers that are none of those hoped for.

use http_body_util::{BodyExt, Limited};
use hyper::Response;
use hyper::body::Incoming;
use msao_session::frame::RefusedCode;
use tokio::time::timeout;

use crate::error::TransportError;
use crate::limits::{ANSWER_WITHIN, MAX_WORDS};
use crate::routes::{self, refusal};

/// The answer, if its status is a good one; otherwise what it says.
pub(super) async fn checked(
    answer: Response<Incoming>,
    what: &'static str,
) -> Result<Response<Incoming>, TransportError> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let name = routes::text(answer.headers(), routes::ERROR).unwrap_or_default();
    let code = match name {
        refusal::DRAINING => Some(RefusedCode::Draining),
        refusal::OVERLOADED | refusal::FULL => Some(RefusedCode::Overloaded),
        refusal::VERSION | refusal::HELLO => Some(RefusedCode::Version),
        refusal::TOO_LARGE => Some(RefusedCode::Request),
        _ => None,
    };
    let retry: f64 = routes::number(answer.headers(), routes::RETRY_AFTER_MS).unwrap_or(0.0);
    let retry_after_ms = if retry.is_finite() {
        retry.max(0.0)
    } else {
        0.0
    };
    let name = name.to_owned();
    let message = words(answer.into_body()).await.unwrap_or(name);
    Err(match code {
        Some(code) => TransportError::Refused {
            code,
            retry_after_ms,
            message,
        },
        None => TransportError::Answer {
            what,
            status: status.as_u16(),
            message,
        },
    })
}

/// A short text. `None`: there is none, or it is longer than any of ours.
async fn words(body: Incoming) -> Option<String> {
    let read = timeout(ANSWER_WITHIN, Limited::new(body, MAX_WORDS).collect());
    let bytes = read.await.ok()?.ok()?.to_bytes();
    let text = String::from_utf8_lossy(&bytes);
    let clean: String = text.chars().filter(|c| !c.is_control()).collect();
    (!clean.is_empty()).then_some(clean)
}
