//! Responses.

use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use msao_api::{ApiError, headers, sse};

use super::body::{Outgoing, whole};

/// Headers by name.
pub type Named = Vec<(&'static str, String)>;

/// A response.
pub fn response(
    status: u16,
    content_type: &'static str,
    more: Named,
    body: Outgoing,
) -> Response<Outgoing> {
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    for (name, value) in more {
        // What is no header's value is left out: none of ours is.
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    response
}

/// A value as JSON.
pub fn json<T: serde::Serialize>(value: &T, more: Named) -> Response<Outgoing> {
    response(200, headers::JSON, more, whole(sse::json(value)))
}

/// A text.
pub fn text(text: String) -> Response<Outgoing> {
    response(200, "text/plain; charset=utf-8", Vec::new(), whole(text))
}

/// An error.
pub fn error(error: &ApiError) -> Response<Outgoing> {
    response(
        error.status,
        headers::JSON,
        error.headers(),
        whole(sse::json(error)),
    )
}
