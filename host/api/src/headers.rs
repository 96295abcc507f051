//! Headers whose values say something of the API: what a body is, and which request it is.

use crate::error::ApiError;

/// Of answers and errors.
pub const JSON: &str = "application/json";
/// Of streamed answers.
pub const EVENT_STREAM: &str = "text/event-stream";
/// Names a request in both directions and in the log.
pub const REQUEST_ID: &str = "x-request-id";

/// Longest `x-request-id` that is echoed.
const MAX_REQUEST_ID: usize = 128;

/// Whether a client's `x-request-id` may be echoed and logged: 1 to 128 visible ASCII characters. For another one the node makes
/// its own.
pub fn is_request_id(given: &str) -> bool {
    (1..=MAX_REQUEST_ID).contains(&given.len()) && given.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Takes a body whose `content-type` is JSON.
///
/// It must be there: a web page on somebody else's site may send bodies of other types, and of none, to a node on
/// the user's own machine without asking the browser's leave.
///
/// # Errors
/// 415 for any other type.
pub fn require_json(content_type: Option<&str>) -> Result<(), ApiError> {
    let given = content_type.unwrap_or_default();
    let (essence, _parameters) = given.split_once(';').unwrap_or((given, ""));
    if essence.trim().eq_ignore_ascii_case(JSON) {
        return Ok(());
    }
    Err(ApiError::unsupported_media_type(
        None,
        "The body must be JSON: send the header 'content-type: application/json'.",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_is_taken() {
        for good in [
            "application/json",
            "Application/JSON ; charset=utf-8",
            " application/json;",
        ] {
            assert_eq!(require_json(Some(good)), Ok(()), "{good}");
        }
        for bad in [
            None,
            Some(""),
            Some("text/plain"),
            Some("application/jsonp"),
            Some("text/plain; application/json"),
        ] {
            assert_eq!(require_json(bad).unwrap_err().status, 415, "{bad:?}");
        }
    }

    #[test]
    fn request_ids_stay_on_their_line() {
        assert!(is_request_id("req_0"));
        assert!(is_request_id(&"a".repeat(128)));
        for bad in ["", "a b", "a\r\nb", "é", &"a".repeat(129)] {
            assert!(!is_request_id(bad), "{bad}");
        }
    }
}
