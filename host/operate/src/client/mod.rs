//! A node's operator API over HTTP: requests, answers, and what each error means for whoever asked.

mod error;

use std::fmt;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use ureq::http::{Response, Uri};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, Timeout};

pub use self::error::ClientError;

/// An answer that is looked at must be there after so long.
const LOOK: Duration = Duration::from_secs(30);
/// A change compiles, and a component may have to be sent: the node itself allows a body 300 s.
const CHANGE: Duration = Duration::from_secs(330);
/// Somebody must answer the telephone.
const CONNECT: Duration = Duration::from_secs(5);
/// Bytes of an answer that is held in memory at most.
const MOST: u64 = 256 << 20;
/// Characters of an answer that is quoted in an error.
const QUOTED: usize = 300;

/// A token, which is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A token that can be sent: visible ASCII, and not empty.
    pub fn new(text: &str) -> Option<Secret> {
        let sendable = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        sendable.then(|| Secret(text.to_owned()))
    }

    /// What is sent.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("...")
    }
}

/// A node's operator API.
#[derive(Clone, Debug)]
pub struct Client {
    agent: Agent,
    url: String,
    host: String,
    token: Option<Secret>,
    look: Duration,
}

impl Client {
    /// A client of the API at `url`; a scheme that is left out is http. Of https only certificates that lead to `ca` (PEM)
    /// are trusted.
    ///
    /// # Errors
    /// [`ClientError::Address`], [`ClientError::Certificates`].
    pub fn new(url: &str, token: Option<Secret>, ca: Option<&[u8]>) -> Result<Client, ClientError> {
        let wrong = |problem: &str| ClientError::Address {
            url: url.to_owned(),
            problem: problem.to_owned(),
        };
        let trimmed = url.trim().trim_end_matches('/');
        let whole = if trimmed.contains("://") {
            trimmed.to_owned()
        } else {
            format!("http://{trimmed}")
        };
        let uri: Uri = whole.parse().map_err(|error| wrong(&format!("{error}")))?;
        let authority = uri.authority().ok_or_else(|| wrong("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("tokens go into --token-file"));
        }
        if !uri.path().trim_end_matches('/').is_empty() || uri.query().is_some() {
            return Err(wrong("it has a path"));
        }
        let tls = match uri.scheme_str() {
            Some("http") => TlsConfig::builder(),
            Some("https") => {
                let ca =
                    ca.ok_or_else(|| wrong("https needs --ca FILE, the certificates to trust"))?;
                TlsConfig::builder().root_certs(RootCerts::new_with_certs(&certificates(ca)?))
            }
            _ => return Err(wrong("it is neither http nor https")),
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .tls_config(tls.unversioned_rustls_crypto_provider(provider).build())
            // A token goes to the node that was named and to nobody else.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent(concat!("msao/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT));
        Ok(Client {
            agent: config.build().new_agent(),
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            url: whole,
            token,
            look: LOOK,
        })
    }

    /// The same client, which waits only so long for what it looks at.
    #[must_use]
    pub fn patient(mut self, look: Duration) -> Client {
        self.look = look;
        self
    }

    /// Where the node is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What it is shown.
    pub fn token(&self) -> Option<&Secret> {
        self.token.as_ref()
    }

    /// What whoever listens in could learn.
    pub fn risk(&self) -> Option<String> {
        let here = self.host == "localhost"
            || self
                .host
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback());
        let open = self.url.starts_with("http://") && !here && self.token.is_some();
        open.then(|| {
            format!("the token goes to {} unencrypted; an SSH tunnel or a TLS proxy before the node protects it", self.url)
        })
    }

    /// What is at `path`, as JSON.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn get(&self, path: &str) -> Result<Value, ClientError> {
        let text = self.text(path)?;
        serde_json::from_str(&text).map_err(|error| self.no_answer(path, &error.to_string()))
    }

    /// What is at `path`, as text.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn text(&self, path: &str) -> Result<String, ClientError> {
        self.read(path, self.ask(path)?, self.look)
    }

    /// Writes what is at `path`, byte for byte. Returns how many bytes there were.
    ///
    /// # Errors
    /// [`ClientError`]; something may have been written then.
    pub fn copy(&self, path: &str, out: &mut dyn Write) -> Result<u64, ClientError> {
        let mut reader = self.ask(path)?.into_body().into_reader();
        let mut block = vec![0; 64 << 10];
        let mut copied = 0;
        loop {
            let read = reader.read(&mut block);
            let read = read.map_err(|error| self.no_answer(path, &error.to_string()))?;
            match block.get(..read) {
                Some([]) | None => return Ok(copied),
                Some(bytes) => out.write_all(bytes)?,
            }
            copied += read as u64;
        }
    }

    /// Asks for a change.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        let mut request = self
            .agent
            .post(self.at(path))
            .header("content-type", "application/json");
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {}", token.expose()));
        }
        let request = request.config().timeout_global(Some(CHANGE)).build();
        let answer = request.send(body.to_string());
        let answer = answer.map_err(|error| self.silent(path, error, CHANGE))?;
        let text = self.read(path, self.fine(path, answer)?, CHANGE)?;
        serde_json::from_str(&text).map_err(|error| self.no_answer(path, &error.to_string()))
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    fn ask(&self, path: &str) -> Result<Response<Body>, ClientError> {
        let mut request = self.agent.get(self.at(path));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {}", token.expose()));
        }
        let request = request.config().timeout_global(Some(self.look)).build();
        let answer = request
            .call()
            .map_err(|error| self.silent(path, error, self.look))?;
        self.fine(path, answer)
    }

    fn read(
        &self,
        path: &str,
        mut answer: Response<Body>,
        within: Duration,
    ) -> Result<String, ClientError> {
        let text = answer.body_mut().with_config().limit(MOST).read_to_string();
        text.map_err(|error| self.silent(path, error, within))
    }

    fn silent(&self, path: &str, error: ureq::Error, within: Duration) -> ClientError {
        match error {
            ureq::Error::Timeout(which)
                if !matches!(which, Timeout::Connect | Timeout::Resolve) =>
            {
                ClientError::Slow {
                    url: self.url.clone(),
                    doing: path.to_owned(),
                    after_s: within.as_secs(),
                }
            }
            ureq::Error::BodyExceedsLimit(most) => {
                self.no_answer(path, &format!("it has more than {most} bytes"))
            }
            error => ClientError::Unreachable {
                url: self.url.clone(),
                problem: error.to_string(),
            },
        }
    }

    fn no_answer(&self, path: &str, problem: &str) -> ClientError {
        ClientError::Answer {
            url: self.url.clone(),
            doing: path.to_owned(),
            problem: problem.to_owned(),
        }
    }

    /// The answer, if it is none of the errors.
    fn fine(&self, path: &str, mut answer: Response<Body>) -> Result<Response<Body>, ClientError> {
        let status = answer.status().as_u16();
        if (200..300).contains(&status) {
            return Ok(answer);
        }
        let url = self.url.clone();
        let body = answer
            .body_mut()
            .with_config()
            .limit(1 << 20)
            .read_to_string()
            .unwrap_or_default();
        let value: Option<Value> = serde_json::from_str(&body).ok();
        let message = value
            .as_ref()
            .and_then(|it| it.pointer("/error/message"))
            .and_then(Value::as_str);
        let known = message.is_some();
        let code = value.as_ref().and_then(|it| it.pointer("/error/code"));
        let code = code.and_then(Value::as_str);
        let message = crate::output::plain(message.unwrap_or(&body))
            .trim()
            .chars()
            .take(QUOTED.max(1))
            .collect();
        let everywhere = ["/v1/state", "/v1/policies", "/v1/history"].contains(&path);
        Err(match status {
            401 => ClientError::NoToken {
                url,
                had_token: self.token.is_some(),
            },
            403 if code == Some("permission_denied") => ClientError::Role { url, message },
            409 => ClientError::NotNow { url, message },
            404 | 405 if everywhere || !known => ClientError::NotOperators { url },
            404 => ClientError::NotFound { message },
            300..=399 => ClientError::NotOperators { url },
            500.. => ClientError::Failed {
                url,
                status,
                message,
            },
            _ => ClientError::Refused {
                url,
                status,
                message,
            },
        })
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<Certificate<'static>>, ClientError> {
    let mut found = Vec::new();
    for item in parse_pem(pem) {
        match item.map_err(|error| ClientError::Certificates(error.to_string()))? {
            PemItem::Certificate(certificate) => found.push(certificate),
            _ => continue,
        }
    }
    if found.is_empty() {
        return Err(ClientError::Certificates("there is none in it".to_owned()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_as_people_write_them() {
        for (given, url) in [
            ("http://10.0.0.1:8081/", "http://10.0.0.1:8081"),
            ("10.0.0.1:8081", "http://10.0.0.1:8081"),
            ("http://[::1]:8081", "http://[::1]:8081"),
        ] {
            assert_eq!(Client::new(given, None, None).unwrap().url(), url);
        }
        for (given, told) in [
            ("", "is no node's address"),
            ("ftp://host", "neither http nor https"),
            ("https://host:1", "--ca FILE"),
            ("http://token@host:1", "--token-file"),
            ("http://host:1/v1/state", "path"),
        ] {
            let error = Client::new(given, None, None).unwrap_err().to_string();
            assert!(error.contains(told), "{given}: {error}");
        }
        let error = Client::new("https://host", None, Some(b"no certificate")).unwrap_err();
        assert!(error.to_string().contains("there is none in it"), "{error}");
    }

    #[test]
    fn a_token_that_would_travel_in_the_open_is_told() {
        let risk = |url: &str, token: Option<&str>| {
            Client::new(url, token.and_then(Secret::new), None)
                .unwrap()
                .risk()
                .is_some()
        };
        assert!(risk("http://10.0.0.1:8081", Some("t")));
        assert!(!risk("http://10.0.0.1:8081", None));
        assert!(!risk("http://127.0.0.1:8081", Some("t")));
        assert!(!risk("http://[::1]:8081", Some("t")));
        assert!(!risk("http://localhost:8081", Some("t")));
    }

    #[test]
    fn what_cannot_be_sent_is_no_token() {
        assert!(Secret::new("abc-123").is_some());
        for wrong in ["", "two words", "line\nfeed", "ümlaut"] {
            assert!(Secret::new(wrong).is_none(), "{wrong}");
        }
    }
}
