//! What a client is told when it does not get what it asked for.
//!
//! | status | code | when |
//! |---|---|---|
//! | 400 | `invalid_json`, `missing_required_parameter`, `unknown_parameter`, `unsupported_parameter`, `unsupported_value`, `invalid_type`, `invalid_value`, ... | the request cannot be read or asks for what there is not ([`ApiError::invalid`] and its siblings) |
//! | 400 | `context_length_exceeded` | prompt and answer do not fit the model's context |
//! | 400 | `invalid_media_url`, `invalid_media` | a medium cannot be fetched, or is damaged |
//! | 401 | `invalid_api_key` | no key, or not one of ours |
//! | 403 | `permission_denied` | the key does not allow it |
//! | 404 | `model_not_found`, `not_found` | no such model, no such path |
//! | 405 | `method_not_allowed` | the path takes another method |
//! | 408 | `body_timeout` | the body came too slowly |
//! | 413 | `request_too_large` | bytes, pixels, seconds or frames over a limit |
//! | 415 | `unsupported_media_type` | the body is no JSON, a medium of a format that is not decoded |
//! | 429 | `overloaded` | shed, with the time after which to come back |
//! | 500 | `internal_error` | a mistake of ours |
//! | 503 | `model_loading`, `draining`, `exact_unavailable`, `target_unavailable` | not now, with the time after which to come back where it is known |
//! | 504 | `deadline_exceeded` | the time for the answer has run out |
//!
//! Codes are stable: clients may branch on them. Never 422.

mod invalid;

use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};

pub(crate) use self::invalid::excerpt;

/// OpenAI's classes of errors, under `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum ErrorType {
    /// The request has to change before it can succeed.
    #[serde(rename = "invalid_request_error")]
    InvalidRequest,
    /// The same request may succeed later.
    #[serde(rename = "rate_limit_error")]
    RateLimit,
    /// The node could not do it.
    #[serde(rename = "server_error")]
    Server,
}

/// An answer that is an error. Serialises as `{"error": {"message", "type", "param", "code"}}`.
///
/// ```
/// let error = msao_api::ApiError::model_not_found("gpt-17");
/// assert_eq!(error.status, 404);
/// assert_eq!(
///     msao_api::sse::json(&error),
///     r#"{"error":{"message":"The model 'gpt-17' does not exist here; GET /v1/models lists those that do.","type":"invalid_request_error","param":"model","code":"model_not_found"}}"#
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The HTTP status.
    pub status: u16,
    /// What is wrong and what to do, in a sentence or two.
    pub message: String,
    /// The class.
    pub kind: ErrorType,
    /// The field of the request that it is about, such as `messages[0].content[1]`.
    pub param: Option<String>,
    /// What is wrong, for programs; see the module.
    pub code: &'static str,
    /// Time after which the same request may succeed, in ms. Goes into headers.
    pub retry_after_ms: Option<u64>,
}

impl Serialize for ApiError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Body<'a> {
            message: &'a str,
            #[serde(rename = "type")]
            kind: ErrorType,
            param: Option<&'a str>,
            code: &'a str,
        }
        let mut whole = serializer.serialize_struct("ApiError", 1)?;
        let body = Body {
            message: &self.message,
            kind: self.kind,
            param: self.param.as_deref(),
            code: self.code,
        };
        whole.serialize_field("error", &body)?;
        whole.end()
    }
}

impl ApiError {
    fn new(status: u16, kind: ErrorType, code: &'static str, message: impl Into<String>) -> Self {
        ApiError {
            status,
            message: message.into(),
            kind,
            param: None,
            code,
            retry_after_ms: None,
        }
    }

    fn about(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    fn retry_after(mut self, ms: Option<u64>) -> Self {
        self.retry_after_ms = ms;
        self
    }

    /// 401: no API key, or one that is not known.
    pub fn unauthorized() -> Self {
        let message = "No valid API key was given; send one as 'Authorization: Bearer KEY'.";
        Self::new(401, ErrorType::InvalidRequest, "invalid_api_key", message)
    }

    /// 403: the key is known and does not allow this. `what` completes "This API key does not allow ...".
    pub fn forbidden(what: &str) -> Self {
        let message = format!("This API key does not allow {what}.");
        Self::new(403, ErrorType::InvalidRequest, "permission_denied", message)
    }

    /// 404: no such model.
    pub fn model_not_found(model: &str) -> Self {
        let message = format!(
            "The model '{}' does not exist here; GET /v1/models lists those that do.",
            excerpt(model)
        );
        Self::new(404, ErrorType::InvalidRequest, "model_not_found", message).about("model")
    }

    /// 404: no such path.
    pub fn not_found(path: &str) -> Self {
        let message = format!("There is nothing at '{}'.", excerpt(path));
        Self::new(404, ErrorType::InvalidRequest, "not_found", message)
    }

    /// 405: the path takes another method. The caller adds the `allow` header, `allowed` being its value.
    pub fn method_not_allowed(allowed: &str) -> Self {
        let message = format!("This path takes {allowed} only.");
        Self::new(
            405,
            ErrorType::InvalidRequest,
            "method_not_allowed",
            message,
        )
    }

    /// 408: the body did not arrive within `limit_ms`.
    pub fn slow_body(limit_ms: u64) -> Self {
        let message = format!("The body did not arrive within {limit_ms} ms.");
        Self::new(408, ErrorType::InvalidRequest, "body_timeout", message)
    }

    /// 413: bytes, pixels, seconds or frames over a limit, which the message names.
    pub fn too_large(param: Option<String>, message: impl Into<String>) -> Self {
        let error = Self::new(413, ErrorType::InvalidRequest, "request_too_large", message);
        ApiError { param, ..error }
    }

    /// 415: the body, or a medium, is of a type that is not taken; the message says which are.
    pub fn unsupported_media_type(param: Option<String>, message: impl Into<String>) -> Self {
        let code = "unsupported_media_type";
        let error = Self::new(415, ErrorType::InvalidRequest, code, message);
        ApiError { param, ..error }
    }

    /// 429: there is more to do than can be done; come back after `retry_after_ms`.
    pub fn overloaded(retry_after_ms: u64) -> Self {
        let message = format!(
            "The node has more requests than it can serve; try again in {retry_after_ms} ms."
        );
        Self::new(429, ErrorType::RateLimit, "overloaded", message)
            .retry_after(Some(retry_after_ms))
    }

    /// 500: a mistake of ours. Tells nothing of it: that is for the log, under the request's id.
    pub fn internal() -> Self {
        let message = "The node failed on this request; its log says more under the x-request-id.";
        Self::new(500, ErrorType::Server, "internal_error", message)
    }

    /// 503: the model is still being loaded.
    pub fn loading(retry_after_ms: Option<u64>) -> Self {
        let message = "The model is still being loaded; GET /ready says when it is there.";
        Self::new(503, ErrorType::Server, "model_loading", message).retry_after(retry_after_ms)
    }

    /// 503: the node takes no more requests, because an operator wants it so or it is about to stop.
    pub fn draining(retry_after_ms: Option<u64>) -> Self {
        let message = "The node is draining and takes no more requests; ask another one.";
        Self::new(503, ErrorType::Server, "draining", message).retry_after(retry_after_ms)
    }

    /// 503: a model of the node computes nothing any more, `role` saying which.
    pub fn model_lost(role: &str) -> Self {
        let message = format!(
            "The node's {role} model has ended because its device failed; the node must be started again. Ask another one."
        );
        Self::new(503, ErrorType::Server, "model_lost", message)
    }

    /// 503: an exact answer was required and cannot be had, `why` saying what is missing. In the middle of a stream the same is an
    /// event.
    pub fn exact_unavailable(why: &str) -> Self {
        let message = format!(
            "An exact answer is required and cannot be had now: {why}. Try again later, or leave msao.require out."
        );
        Self::new(503, ErrorType::Server, "exact_unavailable", message).about("msao.require")
    }

    /// 503: nobody who has the model that the answer needs can be reached, `why` saying so.
    pub fn target_unavailable(why: &str) -> Self {
        let message = format!("The model cannot be reached now: {why}. Try again later.");
        Self::new(503, ErrorType::Server, "target_unavailable", message)
    }

    /// 504: the answer was not complete within `limit_ms`.
    pub fn deadline_exceeded(limit_ms: u64) -> Self {
        let message = format!("The answer was not complete within {limit_ms} ms.");
        Self::new(504, ErrorType::Server, "deadline_exceeded", message)
    }

    /// Headers that go with the error, names in lower case: `retry-after` in whole seconds rounded up, `retry-after-ms`, which the
    /// official clients prefer, and `www-authenticate`.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = Vec::new();
        if let Some(ms) = self.retry_after_ms {
            headers.push(("retry-after", ms.div_ceil(1000).to_string()));
            headers.push(("retry-after-ms", ms.to_string()));
        }
        if self.status == 401 {
            headers.push(("www-authenticate", "Bearer".to_owned()));
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_rounded_up() {
        let headers = |ms| ApiError::overloaded(ms).headers();
        assert_eq!(
            headers(1001),
            [
                ("retry-after", "2".to_owned()),
                ("retry-after-ms", "1001".to_owned())
            ]
        );
        assert_eq!(headers(0)[0].1, "0");
        assert_eq!(headers(u64::MAX)[0].1, "18446744073709552");
        assert!(ApiError::internal().headers().is_empty());
        assert_eq!(
            ApiError::unauthorized().headers(),
            [("www-authenticate", "Bearer".to_owned())]
        );
    }
}
