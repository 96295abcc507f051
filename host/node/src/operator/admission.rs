//! Who may ask.
//!
//! With tokens, whoever shows one. Without, which only a loopback listener may be, everyone on this machine; and a browser is on
//! this machine too. A page from anywhere can have it send requests here, under a name of its own that it lets resolve to
//! 127.0.0.1, and would then read the answers. Such a request names the page's host, not this one, and is refused.

use std::net::IpAddr;

use hyper::header::{AUTHORIZATION, HOST, ORIGIN};
use hyper::{HeaderMap, Uri};
use msao_api::ApiError;
use msao_core::digest::Digest;

use crate::config::{Operator as Config, OperatorRole};

/// Whoever asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// The token's name, or `local`.
    pub name: String,
    /// What it may do.
    pub role: OperatorRole,
}

/// Who asks, if that is allowed to do what needs this role.
///
/// # Errors
/// 401 and 403.
pub fn allow(
    config: &Config,
    uri: &Uri,
    headers: &HeaderMap,
    needed: OperatorRole,
) -> Result<Operator, ApiError> {
    if config.tokens.is_empty() {
        local(uri, headers)?;
        return Ok(Operator {
            name: "local".into(),
            role: OperatorRole::Activate,
        });
    }
    let shown = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let shown = shown.and_then(|value| value.strip_prefix("Bearer "));
    let digest = shown.map(|token| Digest::of(token.trim().as_bytes()).to_string());
    let found = config
        .tokens
        .iter()
        .find(|(_, token)| Some(token.sha256.to_ascii_lowercase()) == digest);
    let (name, token) = found.ok_or_else(no_token)?;
    if token.role < needed {
        return Err(wrong_role(name, token.role, needed));
    }
    Ok(Operator {
        name: name.clone(),
        role: token.role,
    })
}

fn no_token() -> ApiError {
    let message = "No valid operator token was given; send one as 'Authorization: Bearer TOKEN'. Those that are valid stand in \
                   the node's configuration, as operator.tokens.NAME.sha256.";
    ApiError {
        message: message.into(),
        ..ApiError::unauthorized()
    }
}

fn wrong_role(name: &str, role: OperatorRole, needed: OperatorRole) -> ApiError {
    let (role, needed) = (word(role), word(needed));
    let message = format!(
        "This operator token does not allow this: its role is {role}, and {needed} is needed (operator.tokens.{name}.role in \
         the node's configuration)."
    );
    ApiError {
        message,
        ..ApiError::forbidden("this")
    }
}

/// A role as the configuration writes it.
fn word(role: OperatorRole) -> &'static str {
    match role {
        OperatorRole::Read => "read",
        OperatorRole::Push => "push",
        OperatorRole::Activate => "activate",
    }
}

/// Lets in what was sent to this machine by its own name, and by no page of another.
fn local(uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
    // HTTP/2 names the host in the address, HTTP/1.1 in a header; a request may have both.
    let named = headers.get_all(HOST).iter().map(|value| value.to_str());
    let in_uri = uri.authority().map(|it| Ok(it.as_str()));
    let mut hosts = Vec::new();
    for host in named.chain(in_uri) {
        hosts.push(host.map_err(|_| foreign("a Host that is no text"))?);
    }
    if hosts.is_empty() {
        return Err(foreign("no Host"));
    }
    if let Some(host) = hosts.iter().find(|host| !is_here(host)) {
        return Err(foreign(&format!("the Host '{}'", host.escape_default())));
    }
    for origin in headers.get_all(ORIGIN) {
        let own = |origin: &str| {
            let page = origin.strip_prefix("http://");
            page.is_some_and(|page| hosts.iter().all(|host| host.eq_ignore_ascii_case(page)))
        };
        if !origin.to_str().is_ok_and(own) {
            let origin = String::from_utf8_lossy(origin.as_bytes()).into_owned();
            let what = format!("the Origin '{}'", origin.escape_default());
            return Err(foreign(&what));
        }
    }
    Ok(())
}

/// Whether `host`, with or without a port, is a loopback address or `localhost`.
fn is_here(host: &str) -> bool {
    let Some(authority) = host
        .parse::<Uri>()
        .ok()
        .and_then(|it| it.into_parts().authority)
    else {
        return false;
    };
    // Before an @ stands no host.
    if authority.as_str() != host || host.contains('@') {
        return false;
    }
    let name = authority.host().trim_matches(['[', ']']);
    name.eq_ignore_ascii_case("localhost")
        || name
            .parse::<IpAddr>()
            .is_ok_and(|address| address.to_canonical().is_loopback())
}

fn foreign(what: &str) -> ApiError {
    let message = format!(
        "The request has {what}. Without operator tokens only this machine's own programs may ask, at a loopback address or \
         localhost, and no page of a browser; configure [operator.tokens.NAME] with sha256 and role on the node to ask in another way."
    );
    ApiError {
        message,
        code: "foreign_request",
        ..ApiError::forbidden("this")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use hyper::header::{HeaderName, HeaderValue};

    use super::*;
    use crate::config::OperatorToken;

    fn asked(
        config: &Config,
        uri: &str,
        headers: &[(HeaderName, &str)],
        needed: OperatorRole,
    ) -> Result<Operator, ApiError> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, HeaderValue::from_str(value).unwrap());
        }
        allow(config, &uri.parse().unwrap(), &map, needed)
    }

    fn status(uri: &str, headers: &[(HeaderName, &str)]) -> u16 {
        let asked = asked(&Config::default(), uri, headers, OperatorRole::Activate);
        asked.map_or_else(|error| error.status, |_| 200)
    }

    #[test]
    fn without_tokens_only_this_machines_names_are_answered() {
        for host in [
            "127.0.0.1:8081",
            "127.0.0.1",
            "127.3.2.1:1",
            "[::1]:8081",
            "[::ffff:127.0.0.1]:8081",
            "localhost",
            "LocalHost:8081",
        ] {
            assert_eq!(status("/v1/state", &[(HOST, host)]), 200, "{host}");
            // As HTTP/2 says it.
            let uri = format!("http://{host}/v1/state");
            assert_eq!(status(&uri, &[]), 200, "{host}");
        }
        for host in [
            "evil.example:8081",
            "localhost.evil.example",
            "127.0.0.1.evil.example:8081",
            "10.0.0.1:8081",
            "0.0.0.0:8081",
            "[::]:8081",
            "localhost@evil.example",
            "evil.example@localhost",
            "localhost/x",
            "",
        ] {
            assert_eq!(status("/v1/state", &[(HOST, host)]), 403, "{host}");
        }
        assert_eq!(status("/v1/state", &[]), 403);
        // Each that is named counts.
        let both = [(HOST, "localhost:1"), (HOST, "evil.example")];
        assert_eq!(status("/v1/state", &both), 403);
        let uri = "http://evil.example/v1/state";
        assert_eq!(status(uri, &[(HOST, "localhost:1")]), 403);
    }

    #[test]
    fn without_tokens_no_page_of_another_host_is_answered() {
        let with = |origin: &str| status("/v1/off", &[(HOST, "localhost:8081"), (ORIGIN, origin)]);
        assert_eq!(with("http://localhost:8081"), 200);
        for origin in [
            "https://evil.example",
            "http://localhost:3000",
            "http://127.0.0.1:8081",
            "null",
            "",
        ] {
            assert_eq!(with(origin), 403, "{origin}");
        }
        let refused = asked(
            &Config::default(),
            "/v1/off",
            &[(HOST, "evil.example")],
            OperatorRole::Read,
        );
        let refused = refused.unwrap_err();
        assert!(
            refused.message.contains("[operator.tokens.NAME]"),
            "{refused}"
        );
        assert!(refused.message.contains("'evil.example'"), "{refused}");
    }

    #[test]
    fn a_token_has_a_name_and_a_role_from_anywhere() {
        let token = |text: &str, role| OperatorToken {
            sha256: Digest::of(text.as_bytes()).to_string().to_uppercase(),
            role,
        };
        let config = Config {
            tokens: BTreeMap::from([
                ("alice".to_owned(), token("a", OperatorRole::Activate)),
                ("dash".to_owned(), token("d", OperatorRole::Read)),
            ]),
            ..Config::default()
        };
        let as_who = |bearer: &str, needed| {
            let headers = [(HOST, "edge.example"), (AUTHORIZATION, bearer)];
            asked(&config, "/v1/state", &headers, needed)
        };
        let alice = as_who("Bearer a", OperatorRole::Activate).unwrap();
        assert_eq!(
            (alice.name.as_str(), alice.role),
            ("alice", OperatorRole::Activate)
        );
        assert_eq!(as_who("Bearer d", OperatorRole::Read).unwrap().name, "dash");
        let refused = as_who("Bearer d", OperatorRole::Push).unwrap_err();
        assert_eq!(refused.status, 403);
        assert!(
            refused
                .message
                .contains("its role is read, and push is needed")
                && refused.message.contains("operator.tokens.dash.role"),
            "{refused}"
        );
        for bearer in ["Bearer x", "a", ""] {
            let refused = as_who(bearer, OperatorRole::Read).unwrap_err();
            assert_eq!(refused.status, 401);
            assert!(refused.message.contains("operator token"), "{refused}");
        }
    }
}
