//! A URL, taken apart once: what is checked of it is what is asked for.

use hyper::Uri;
use percent_encoding::{CONTROLS, utf8_percent_encode};

use super::FetchError;
use crate::config::hosts::{self, Host};

/// What is asked for, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// By `https`, not by `http`.
    pub(super) secure: bool,
    pub(super) host: Host,
    pub(super) port: u16,
    /// Path and query.
    pub(super) path: String,
}

impl Target {
    pub(super) fn parse(url: &str) -> Result<Target, FetchError> {
        // The fragment is the client's own.
        let url = url.split_once('#').map_or(url, |(url, _)| url);
        // Paths are often written as people read them. Names of hosts that are not ASCII are refused thereby.
        let url = utf8_percent_encode(url, CONTROLS).to_string();
        let uri: Uri = url.parse().map_err(|_| FetchError::Malformed)?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(FetchError::Scheme),
        };
        let authority = uri.authority().ok_or(FetchError::Malformed)?.as_str();
        if authority.contains('@') {
            return Err(FetchError::Credentials);
        }
        let (host, port) = hosts::split(authority).ok_or(FetchError::Malformed)?;
        let host = Host::parse(host).ok_or(FetchError::Malformed)?;
        let path = match uri.query() {
            Some(query) => format!("{}?{query}", uri.path()),
            None => uri.path().to_owned(),
        };
        let port = port.unwrap_or(Self::default_port(secure));
        Ok(Target {
            secure,
            host,
            port,
            path,
        })
    }

    fn default_port(secure: bool) -> u16 {
        if secure { 443 } else { 80 }
    }

    /// Host, and port where it is not the scheme's own: the header `host`.
    pub(super) fn authority(&self) -> String {
        if self.port == Self::default_port(self.secure) {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Where a redirect from here leads (RFC 3986, 5.2; dots in paths are left to the server).
    pub(super) fn redirected(&self, location: &str) -> Result<Target, FetchError> {
        if has_scheme(location) {
            return Target::parse(location);
        }
        let scheme = if self.secure { "https" } else { "http" };
        if location.starts_with("//") {
            return Target::parse(&format!("{scheme}:{location}"));
        }
        let path = self.path.split_once('?');
        let path = path.map_or(self.path.as_str(), |(path, _)| path);
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let path = match location.chars().next() {
            Some('/') => location.to_owned(),
            Some('?') => format!("{path}{location}"),
            _ => format!("{folder}/{location}"),
        };
        Target::parse(&format!("{scheme}://{}{path}", self.authority()))
    }
}

fn has_scheme(reference: &str) -> bool {
    let is_scheme = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphabetic())
            && (text.chars()).all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    };
    let before = reference.split_once(':');
    before.is_some_and(|(before, _)| is_scheme(before))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn target(url: &str) -> Target {
        Target::parse(url).unwrap()
    }

    fn whole(target: &Target) -> String {
        let scheme = if target.secure { "https" } else { "http" };
        format!("{scheme}://{}{}", target.authority(), target.path)
    }

    #[test]
    fn a_url_is_taken_apart() {
        for (url, expected) in [
            ("http://a.example", "http://a.example/"),
            ("HTTP://A.Example.:80/", "http://a.example/"),
            ("https://a.example:443/x", "https://a.example/x"),
            ("https://a.example:80/x", "https://a.example:80/x"),
            (
                "https://a.example:8443?x=1#y",
                "https://a.example:8443/?x=1",
            ),
            ("https://a.example/ö?ü", "https://a.example/%C3%B6?%C3%BC"),
            ("https://a.example//b/x", "https://a.example//b/x"),
            ("http://[2001:DB8::1]:81/x", "http://[2001:db8::1]:81/x"),
            ("http://192.0.2.1/x", "http://192.0.2.1/x"),
        ] {
            assert_eq!(whole(&target(url)), expected, "{url}");
        }
    }

    #[test]
    fn what_is_no_url_to_fetch_is_refused() {
        let refusal = |url: &str| match Target::parse(url) {
            Ok(target) => panic!("{url} is {target:?}"),
            Err(error) => error,
        };
        for url in [
            "http://",
            "http://a.example:0/",
            "http://a.example:99999/",
            "http://a.example:+80/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://127.1/",
            "http://[::1/",
            "http://[fe80::1%25eth0]/",
            "http://a.example\\b/",
            "https://b\u{fc}cher.example/",
            "mailto:a",
            "/x",
        ] {
            let got = refusal(url);
            let expected = matches!(got, FetchError::Malformed | FetchError::Scheme);
            assert!(expected, "{url}: {got:?}");
        }
        for url in ["ftp://a.example/x", "file://a.example/x"] {
            assert!(matches!(refusal(url), FetchError::Scheme), "{url}");
        }
        for url in ["http://me@a.example/", "http://me:x@a.example/"] {
            assert!(matches!(refusal(url), FetchError::Credentials), "{url}");
        }
    }

    #[test]
    fn a_redirect_is_taken_from_where_it_stands() {
        let from = target("https://a.example:8443/b/c?d=/e");
        for (location, expected) in [
            ("http://f.example/g", "http://f.example/g"),
            ("//f.example/g", "https://f.example/g"),
            ("/g", "https://a.example:8443/g"),
            ("g:h/i", ""),
            ("g", "https://a.example:8443/b/g"),
            ("?g", "https://a.example:8443/b/c?g"),
            ("./g:h", "https://a.example:8443/b/./g:h"),
            ("ftp://f.example/g", ""),
        ] {
            let got = from.redirected(location);
            let got = got.as_ref().map(whole).unwrap_or_default();
            assert_eq!(got, expected, "{location}");
        }
    }

    proptest! {
        #[test]
        fn whatever_the_text_there_is_a_target_or_an_error(
            url in "(https?://)?\\PC{0,60}",
            location in "\\PC{0,60}",
        ) {
            if let Ok(target) = Target::parse(&url) {
                prop_assert!(target.port > 0);
                let _ = target.redirected(&location);
            }
        }
    }
}
