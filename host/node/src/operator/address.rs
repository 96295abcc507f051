//! What a request's address says, without its escapes.

use msao_api::ApiError;
use percent_encoding::percent_decode_str;

/// The parts of a path between its slashes; an escaped slash parts nothing.
///
/// # Errors
/// An escape that makes no text.
pub fn parts(path: &str) -> Result<Vec<String>, ApiError> {
    let parts = path.trim_start_matches('/').split('/');
    parts.map(|part| text(part, "path")).collect()
}

/// A parameter of a query.
///
/// # Errors
/// An escape that makes no text.
pub fn parameter(query: &str, name: &str) -> Result<Option<String>, ApiError> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    for (key, value) in pairs {
        if text(key, "query")? == name {
            return text(value, name).map(Some);
        }
    }
    Ok(None)
}

fn text(escaped: &str, whose: &str) -> Result<String, ApiError> {
    let text = percent_decode_str(escaped).decode_utf8();
    let text = text.map_err(|_| ApiError::invalid_value(whose, "its escapes make no UTF-8."))?;
    Ok(text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone_after_the_address_is_taken_apart() {
        let parts = parts("/v1/decisions/a%2Fb%20%C3%A9/words").unwrap();
        assert_eq!(parts, ["v1", "decisions", "a/b \u{e9}", "words"]);
        // Not an escape: as it stands.
        assert_eq!(super::parts("/v1/100%").unwrap(), ["v1", "100%"]);
        assert_eq!(super::parts("/v1/%ff").unwrap_err().status, 400);
    }

    #[test]
    fn parameters_are_found_by_name() {
        let find = |query: &str, name: &str| parameter(query, name).unwrap();
        assert_eq!(find("last=7&as=jsonl", "as").as_deref(), Some("jsonl"));
        assert_eq!(find("l%61st=%37&last=8", "last").as_deref(), Some("7"));
        assert_eq!(find("last", "last"), None);
        // A plus is a plus.
        assert_eq!(find("as=a+b%26c", "as").as_deref(), Some("a+b&c"));
        assert_eq!(parameter("last=%ff", "last").unwrap_err().status, 400);
    }
}
