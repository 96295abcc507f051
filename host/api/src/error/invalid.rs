//! The many ways in which a request is not one: status 400, in the words and codes of OpenAI where it has them.

use msao_core::sampling::ParamError;

use super::{ApiError, ErrorType};

/// Characters of a client's own text that a message repeats.
const EXCERPT_CHARS: usize = 64;

/// The beginning of a client's text, fit for a message: short, and on one line.
pub(crate) fn excerpt(text: &str) -> String {
    let mut chars = text.chars();
    let begin = chars.by_ref().take(EXCERPT_CHARS);
    let mut begin: String = begin
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if chars.next().is_some() {
        begin.push('…');
    }
    begin
}

impl ApiError {
    /// 400 with a code and a message of the caller's.
    pub fn invalid(code: &'static str, param: Option<String>, message: impl Into<String>) -> Self {
        let error = Self::new(400, ErrorType::InvalidRequest, code, message);
        ApiError { param, ..error }
    }

    fn named(code: &'static str, param: &str, message: String) -> Self {
        Self::invalid(code, Some(param.to_owned()), message)
    }

    /// 400: the body is no JSON. `detail` says where and why.
    pub fn invalid_json(detail: &str) -> Self {
        let message = format!("The body is no valid JSON: {detail}.");
        Self::invalid("invalid_json", None, message)
    }

    /// 400: a field that must be there is not.
    pub fn missing(param: &str) -> Self {
        let message = format!("Missing required parameter: '{param}'.");
        Self::named("missing_required_parameter", param, message)
    }

    /// 400: a field that nobody knows.
    pub fn unknown_parameter(param: &str) -> Self {
        let message = format!("Unknown parameter: '{param}'.");
        Self::named("unknown_parameter", param, message)
    }

    /// 400: a field of OpenAI's API that is not supported here. `advice` says what to do instead.
    pub fn unsupported_parameter(param: &str, advice: &str) -> Self {
        let message = format!("Unsupported parameter: '{param}'. {advice}");
        Self::named("unsupported_parameter", param, message)
    }

    /// 400: a value that OpenAI's API has and this one has not. `advice` says what to do instead.
    pub fn unsupported_value(param: &str, given: &str, advice: &str) -> Self {
        let message = format!(
            "Unsupported value for '{param}': '{}'. {advice}",
            excerpt(given)
        );
        Self::named("unsupported_value", param, message)
    }

    /// 400: none of the values that a field may have. `allowed` lists them.
    pub fn not_one_of(param: &str, given: &str, allowed: &[&str]) -> Self {
        let allowed: Vec<String> = allowed.iter().map(|value| format!("'{value}'")).collect();
        let message = format!(
            "Invalid value for '{param}': '{}'. Supported values are: {}.",
            excerpt(given),
            allowed.join(", ")
        );
        Self::named("invalid_value", param, message)
    }

    /// 400: another type of value than expected, both with their article.
    pub fn wrong_type(param: &str, expected: &str, got: &str) -> Self {
        let message =
            format!("Invalid type for '{param}': expected {expected}, but got {got} instead.");
        Self::named("invalid_type", param, message)
    }

    /// 400: the right type and a wrong value. `rule` completes "Invalid 'param': ...".
    pub fn invalid_value(param: &str, rule: &str) -> Self {
        let message = format!("Invalid '{param}': {rule}");
        Self::named("invalid_value", param, message)
    }

    /// 400: an integer below the least that is allowed.
    pub(crate) fn below(param: &str, least: u32, given: i128) -> Self {
        let message = format!(
            "Invalid '{param}': integer below minimum value. Expected a value >= {least}, but got {given} instead."
        );
        Self::named("integer_below_min_value", param, message)
    }

    /// 400: an integer above the most that is allowed.
    pub(crate) fn above(param: &str, most: u32, given: i128) -> Self {
        let message = format!(
            "Invalid '{param}': integer above maximum value. Expected a value <= {most}, but got {given} instead."
        );
        Self::named("integer_above_max_value", param, message)
    }

    /// 400: an array that must not be empty is.
    pub(crate) fn empty_array(param: &str) -> Self {
        let message =
            format!("Invalid '{param}': empty array. Expected an array with at least one element.");
        Self::named("empty_array", param, message)
    }

    /// 400: a string that must not be empty is.
    pub(crate) fn empty_string(param: &str) -> Self {
        let message = format!(
            "Invalid '{param}': empty string. Expected a string of at least one character."
        );
        Self::named("empty_string", param, message)
    }

    /// 400: more elements than `limit`, the field `setting` of [`crate::Limits`].
    pub(crate) fn too_many(param: &str, setting: &str, limit: usize, given: usize) -> Self {
        let message = format!(
            "Invalid '{param}': too many elements. At most {limit} are allowed ({setting}), but there are {given}."
        );
        Self::named("array_above_max_length", param, message)
    }

    /// 400: a string of more bytes than `limit`, the field `setting` of [`crate::Limits`].
    pub(crate) fn too_long(param: &str, setting: &str, limit: usize, given: usize) -> Self {
        let message = format!(
            "Invalid '{param}': string too long. At most {limit} bytes are allowed ({setting}), but it has {given}."
        );
        Self::named("string_above_max_length", param, message)
    }

    /// 400: prompt and answer together need more tokens than the model reads.
    pub fn context_length_exceeded(prompt: usize, answer: usize, context: usize) -> Self {
        let message = format!(
            "This model's context holds {context} tokens, and {} are needed: {prompt} for the messages and {answer} for the answer. \
             Shorten the messages, or ask for fewer tokens.",
            prompt.saturating_add(answer)
        );
        Self::named("context_length_exceeded", "messages", message)
    }

    /// 400: a URL that may not be fetched, or did not give the medium. `why` completes "Cannot use the URL: ...".
    pub fn invalid_media_url(param: &str, why: &str) -> Self {
        let message = format!(
            "Cannot use the URL in '{param}': {why}. Send the medium within the request, as a data: URI."
        );
        Self::named("invalid_media_url", param, message)
    }

    /// 400: a medium that is damaged or cannot be made sense of. `why` says how.
    pub fn invalid_media(param: &str, why: &str) -> Self {
        let message = format!("Invalid '{param}': {why}.");
        Self::named("invalid_media", param, message)
    }
}

impl From<ParamError> for ApiError {
    fn from(error: ParamError) -> Self {
        Self::named(
            "invalid_value",
            error.field,
            format!("Invalid '{}': {error}.", error.field),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_text_is_cut_and_kept_on_one_line() {
        assert_eq!(excerpt("a\nb"), "a\u{fffd}b");
        assert_eq!(excerpt(&"é".repeat(64)), "é".repeat(64));
        assert_eq!(excerpt(&"é".repeat(65)), format!("{}…", "é".repeat(64)));
    }
}
