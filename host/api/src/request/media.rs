//! Where a medium comes from: bytes within the request, or a URL that the node fetches or refuses.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use msao_core::chat::Modality;

use super::fields::Field;
use crate::error::{ApiError, excerpt};
use crate::limits::Limits;

/// An image, clip or sound of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Medium {
    /// What the client says that it is; the content decides whether that is so.
    pub modality: Modality,
    /// Where it comes from.
    pub source: Source,
    /// Where it stands in the request, such as `messages[0].content[1]`: the same text as in the message's
    /// [`Part`](msao_core::chat::Part), and what an error about it gives as its `param`.
    pub field: String,
    /// How closely an image is to be looked at.
    pub detail: Detail,
}

/// Where a medium comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum Source {
    /// It came with the request, and these are its bytes: never empty, at most
    /// [`max_medium_bytes`](Limits::max_medium_bytes).
    Bytes(Vec<u8>),
    /// It is to be fetched. The scheme is `http` or `https`; nothing else has been checked, least of all where the host
    /// leads.
    Url(String),
}

impl fmt::Debug for Source {
    // A request that is logged must not log its pictures.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Source::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.len()),
            Source::Url(url) => f.debug_tuple("Url").field(url).finish(),
        }
    }
}

/// How closely an image is to be looked at: OpenAI's `detail`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Detail {
    /// As the node sees fit; the default.
    #[default]
    Auto,
    /// In few tokens: at no more than 512 pixels on either side.
    Low,
    /// In many: as [`Detail::Auto`].
    High,
    /// As it is: as [`Detail::Auto`], which makes nothing smaller before a policy does.
    Original,
}

impl Detail {
    pub(super) fn parse(field: Field) -> Result<Detail, ApiError> {
        let path = field.path.clone();
        match field.string()?.as_ref() {
            "auto" => Ok(Detail::Auto),
            "low" => Ok(Detail::Low),
            "high" => Ok(Detail::High),
            "original" => Ok(Detail::Original),
            other => Err(ApiError::not_one_of(
                &path,
                other,
                &["auto", "low", "high", "original"],
            )),
        }
    }
}

/// With and without padding: both are common, and there is nothing to confuse.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A `data:`, `http:` or `https:` URL.
pub(super) fn of_url(field: Field, limits: &Limits) -> Result<Source, ApiError> {
    let path = field.path.clone();
    let url = field.string()?;
    let (scheme, rest) = url.split_once(':').unwrap_or(("", &url));
    if scheme.eq_ignore_ascii_case("data") {
        return of_data(rest, &path, limits);
    }
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        let rule = format!(
            "expected a data:, http: or https: URL, but got '{}'.",
            excerpt(&url)
        );
        return Err(ApiError::invalid_value(&path, &rule));
    }
    if url.len() > limits.max_url_bytes {
        let limit = limits.max_url_bytes;
        return Err(ApiError::too_long(&path, "max_url_bytes", limit, url.len()));
    }
    let host = rest.strip_prefix("//").unwrap_or_default();
    let odd = |byte: u8| byte.is_ascii_whitespace() || byte.is_ascii_control();
    if host.is_empty() || host.starts_with('/') || url.bytes().any(odd) {
        let rule = format!("'{}' is no URL.", excerpt(&url));
        return Err(ApiError::invalid_value(&path, &rule));
    }
    Ok(Source::Url(url.into_owned()))
}

/// Base64, as `input_audio` has it; a `data:` URI too, which some clients send there.
pub(super) fn of_base64(field: Field, limits: &Limits) -> Result<Source, ApiError> {
    let path = field.path.clone();
    let text = field.string()?;
    match text.split_once(':') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("data") => of_data(rest, &path, limits),
        _ => decode(&text, &path, limits),
    }
}

/// What stands behind `data:` (RFC 2397). The media type is not looked at: the content decides what a medium is.
fn of_data(rest: &str, path: &str, limits: &Limits) -> Result<Source, ApiError> {
    let ends_in_base64 = |header: &str| {
        header
            .rsplit_once(';')
            .is_some_and(|(_, last)| last.eq_ignore_ascii_case("base64"))
    };
    match rest.split_once(',') {
        Some((header, data)) if ends_in_base64(header) => decode(data, path, limits),
        _ => Err(ApiError::invalid_value(
            path,
            "a data: URI must be in base64, as in 'data:image/png;base64,iVBORw0...'.",
        )),
    }
}

fn decode(text: &str, path: &str, limits: &Limits) -> Result<Source, ApiError> {
    // Some tools break lines.
    let whitespace = text.bytes().filter(u8::is_ascii_whitespace).count();
    // Before memory is taken for it.
    let at_least = ((text.len() - whitespace) / 4 * 3).saturating_sub(2);
    check_size(at_least, path, limits)?;
    let text = if whitespace > 0 {
        Cow::Owned(text.split_ascii_whitespace().collect::<String>())
    } else {
        Cow::Borrowed(text)
    };
    let bytes = BASE64.decode(text.as_bytes()).map_err(|error| {
        ApiError::invalid(
            "invalid_base64",
            Some(path.to_owned()),
            format!("Invalid '{path}': no valid base64: {error}."),
        )
    })?;
    check_size(bytes.len(), path, limits)?;
    if bytes.is_empty() {
        return Err(ApiError::invalid_value(path, "the medium is empty."));
    }
    Ok(Source::Bytes(bytes))
}

fn check_size(bytes: usize, path: &str, limits: &Limits) -> Result<(), ApiError> {
    if bytes <= limits.max_medium_bytes {
        return Ok(());
    }
    let message = format!(
        "Invalid '{path}': the medium has {bytes} bytes or more; at most {} are allowed (max_medium_bytes).",
        limits.max_medium_bytes
    );
    Err(ApiError::too_large(Some(path.to_owned()), message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Json;

    fn field(text: &str) -> Field<'_> {
        Field {
            path: "url".into(),
            value: Json::String(text.into()),
        }
    }

    fn bytes(text: &str) -> Result<Vec<u8>, (u16, &'static str)> {
        match of_url(field(text), &Limits::default()) {
            Ok(Source::Bytes(bytes)) => Ok(bytes),
            Ok(Source::Url(url)) => panic!("{url} is to be fetched"),
            Err(error) => Err((error.status, error.code)),
        }
    }

    #[test]
    fn data_uris_in_all_their_spellings() {
        for text in [
            "data:image/png;base64,aGk=",
            "data:image/png;base64,aGk",
            "DATA:image/png;name=a.png;Base64,aGk=",
            "data:;base64,aG\r\nk=\n",
        ] {
            assert_eq!(bytes(text), Ok(b"hi".to_vec()), "{text}");
        }
        for (text, code) in [
            ("data:image/png;base64,", "invalid_value"),
            ("data:image/png;base64", "invalid_value"),
            ("data:image/png,hi", "invalid_value"),
            ("data:base64,aGk=", "invalid_value"),
            ("data:image/png;base64,a", "invalid_base64"),
            ("data:image/png;base64,-_8=", "invalid_base64"),
            ("file:///etc/passwd", "invalid_value"),
            ("cat.png", "invalid_value"),
            ("", "invalid_value"),
            ("http:", "invalid_value"),
            ("https:///path", "invalid_value"),
            ("https://host/a b", "invalid_value"),
            ("https://host/\u{7f}", "invalid_value"),
        ] {
            assert_eq!(bytes(text), Err((400, code)), "{text}");
        }
    }

    #[test]
    fn other_urls_are_left_to_be_fetched() {
        let limits = Limits {
            max_url_bytes: 20,
            ..Limits::default()
        };
        let url = "HTTPS://host/cat.png";
        assert_eq!(of_url(field(url), &limits), Ok(Source::Url(url.into())));
        let error = of_url(field("https://host/cats.png"), &limits).unwrap_err();
        assert_eq!((error.status, error.code), (400, "string_above_max_length"));
    }

    #[test]
    fn the_limit_itself_is_allowed() {
        for size in 0..20_usize {
            let limits = Limits {
                max_medium_bytes: size,
                ..Limits::default()
            };
            let coded = |bytes: usize| BASE64.encode(vec![7; bytes]);
            if size > 0 {
                let whole = of_base64(field(&coded(size)), &limits);
                assert_eq!(whole, Ok(Source::Bytes(vec![7; size])));
            }
            for more in 1..9 {
                let error = of_base64(field(&coded(size + more)), &limits).unwrap_err();
                assert_eq!((error.status, error.param.as_deref()), (413, Some("url")));
            }
        }
    }
}
