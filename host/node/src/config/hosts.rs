//! Hosts by name or address, and which of them an operator allows.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustls::pki_types::DnsName;

/// Ports of the web: all that a pattern without a port allows.
const WEB_PORTS: [u16; 2] = [80, 443];

/// A host, as a URL or a pattern has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A name: ASCII, in lower case, without the last dot.
    Name(String),
    /// An address.
    Address(IpAddr),
}

impl Host {
    /// Reads a host, IPv6 in brackets. `None` where it is neither a name nor an address: `0x7f.1` and `2130706433`, which
    /// some systems take for addresses, are neither.
    pub fn parse(text: &str) -> Option<Host> {
        if let Some(open) = text.strip_prefix('[') {
            let address: Ipv6Addr = open.strip_suffix(']')?.parse().ok()?;
            return Some(Host::Address(address.into()));
        }
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Some(Host::Address(address.into()));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        // By the rules of who compares it with a certificate.
        let is_name = DnsName::try_from(name.as_str()).is_ok() && !name.ends_with('.');
        is_name.then_some(Host::Name(name))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => f.write_str(name),
            Host::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// Parts `HOST:PORT` or `HOST`. `None` where what should be a port is none from 1 to 65535.
pub fn split(text: &str) -> Option<(&str, Option<u16>)> {
    match text.rsplit_once(':') {
        // The colons within brackets are an address's own.
        Some((host, port)) if !port.ends_with(']') => {
            // A number's own parser would take a sign.
            let digits = port.bytes().all(|byte| byte.is_ascii_digit());
            let port = port.parse::<u16>().ok()?;
            (digits && port > 0).then_some((host, Some(port)))
        }
        _ => Some((text, None)),
    }
}

/// Hosts that are allowed: `media.example`, `*.media.example` (all names below it, itself not), `*` (any), each with or without
/// a port. Without one the web's own are allowed, 80 and 443.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern {
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hosts {
    Any,
    Below(String),
    One(Host),
}

impl HostPattern {
    /// Reads a pattern. `None` where it is none.
    pub fn parse(text: &str) -> Option<HostPattern> {
        let (hosts, port) = split(text)?;
        let hosts = match hosts.strip_prefix("*.") {
            Some(domain) => match Host::parse(domain)? {
                Host::Name(name) => Hosts::Below(name),
                // Nothing is below an address.
                Host::Address(_) => return None,
            },
            None if hosts == "*" => Hosts::Any,
            None => Hosts::One(Host::parse(hosts)?),
        };
        Some(HostPattern { hosts, port })
    }

    /// Whether it allows a host at a port.
    pub fn allows(&self, host: &Host, port: u16) -> bool {
        let port_fits = match self.port {
            Some(only) => port == only,
            None => WEB_PORTS.contains(&port),
        };
        let host_fits = match (&self.hosts, host) {
            (Hosts::Any, _) => true,
            (Hosts::Below(domain), Host::Name(name)) => {
                let before = name.strip_suffix(domain.as_str());
                before.is_some_and(|before| before.ends_with('.'))
            }
            (Hosts::Below(_), Host::Address(_)) => false,
            (Hosts::One(one), host) => one == host,
        };
        port_fits && host_fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(pattern: &str, host: &str, port: u16) -> bool {
        let pattern = HostPattern::parse(pattern).unwrap();
        pattern.allows(&Host::parse(host).unwrap(), port)
    }

    #[test]
    fn a_pattern_allows_what_it_names_and_nothing_else() {
        for (pattern, host, port, allowed) in [
            ("media.example", "media.example", 443, true),
            ("media.example", "MEDIA.example.", 80, true),
            ("Media.Example", "media.example", 443, true),
            ("media.example", "media.example", 8443, false),
            ("media.example", "www.media.example", 443, false),
            ("media.example:8443", "media.example", 8443, true),
            ("media.example:8443", "media.example", 443, false),
            ("*.media.example", "a.media.example", 443, true),
            ("*.media.example", "a.b.media.example", 443, true),
            ("*.media.example", "media.example", 443, false),
            ("*.media.example", "notmedia.example", 443, false),
            ("*.media.example", "media.example.other.test", 443, false),
            ("*.media.example:81", "a.media.example", 81, true),
            ("*.example", "192.0.2.1", 443, false),
            ("*", "anything.test", 80, true),
            ("*", "192.0.2.1", 443, true),
            ("*", "[2001:db8::1]", 443, true),
            ("*", "anything.test", 22, false),
            ("*:9000", "anything.test", 9000, true),
            ("192.0.2.1", "192.0.2.1", 443, true),
            ("[2001:db8::1]", "[2001:0db8:0::1]", 443, true),
            ("[2001:db8::1]:8443", "[2001:db8::1]", 8443, true),
        ] {
            let got = allows(pattern, host, port);
            assert_eq!(got, allowed, "{pattern} {host} {port}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_none() {
        for text in [
            "",
            "*.",
            "**",
            "*x.example",
            "a.*.example",
            "https://media.example",
            "media.example/path",
            "me@media.example",
            "media.example:",
            "media.example:0",
            "media.example:+80",
            "media.example:65536",
            "2001:db8::1",
            "*.192.0.2.1",
            "a..example",
            "media.example..",
            "b\u{fc}cher.example",
        ] {
            assert_eq!(HostPattern::parse(text), None, "{text}");
        }
    }

    /// The C library reads these as 127.0.0.1.
    #[test]
    fn old_spellings_of_addresses_are_no_hosts() {
        for text in ["2130706433", "0x7f000001", "0x7f.1", "127.1", "127.0.0.01"] {
            assert_eq!(Host::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_host_is_written_as_it_is_read() {
        for text in ["media.example", "192.0.2.1", "[2001:db8::1]", "localhost"] {
            assert_eq!(Host::parse(text).unwrap().to_string(), text);
        }
    }
}
