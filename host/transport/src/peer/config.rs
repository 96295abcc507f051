//! What is told of a peer.

use std::net::IpAddr;
use std::time::Duration;

use msao_link::estimate::EstimateConfig;
use msao_link::shaper::Link;
use rustls::pki_types::ServerName;

use crate::net::Dial;
use crate::routes;
use crate::tls::TlsIdentity;

/// What is told of a peer. Begin with [`PeerConfig::new`].
#[derive(Clone, Debug)]
pub struct PeerConfig {
    /// The peer's name, for people.
    pub name: String,
    /// `HOST:PORT` of its session listener. With TLS its certificate has to be for HOST.
    pub address: String,
    /// The name by which this node calls itself there. Letters, digits, `-`, `_` and `.`; at most 64.
    pub own_name: String,
    /// None: HTTP/2 in the clear, to loopback alone.
    pub tls: Option<TlsIdentity>,
    /// Time between two heartbeats.
    pub heartbeat: Duration,
    /// A peer of which nothing was heard for so long is gone.
    pub gone_after: Duration,
    /// A connection, TLS included, is there within.
    pub connect_within: Duration,
    /// The peer's HELLO is there within.
    pub hello_within: Duration,
    /// How the link is measured; its `heartbeat_ms` is that of `heartbeat`.
    pub estimates: EstimateConfig,
    /// How old knowledge of the bandwidth may become before it is measured with bytes of no meaning, at most 256 KiB each
    /// way, or 2 MiB on a link that carries these within 20 ms. It is measured so at each connection too. None: only
    /// media tell.
    pub probe: Option<Duration>,
    /// A link that the connections go over, for demonstrations and tests.
    pub shape: Option<Link>,
    /// How it is reached.
    pub dial: Dial,
}

/// Why a peer was not started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("peers: {name}: {field} {problem}")]
pub struct PeerError {
    /// The peer.
    pub name: String,
    /// The key.
    pub field: &'static str,
    /// What is wrong and what is allowed.
    pub problem: String,
}

impl PeerConfig {
    /// The defaults: without TLS, with a heartbeat every 250 ms.
    pub fn new(name: impl Into<String>, address: impl Into<String>) -> PeerConfig {
        PeerConfig {
            name: name.into(),
            address: address.into(),
            own_name: "node".into(),
            tls: None,
            heartbeat: Duration::from_millis(250),
            gone_after: Duration::from_secs(1),
            connect_within: Duration::from_secs(5),
            hello_within: Duration::from_secs(5),
            estimates: EstimateConfig::default(),
            probe: Some(Duration::from_secs(300)),
            shape: None,
            dial: Dial::Tcp,
        }
    }

    /// Checks every value; the host and port of the address.
    pub(super) fn check(&mut self) -> Result<Target, PeerError> {
        let name = self.name.clone();
        let wrong = |field, problem: String| PeerError {
            name: name.clone(),
            field,
            problem,
        };
        let beat_ms = self.heartbeat.as_millis();
        let Ok(heartbeat_ms @ 10..=60_000) = u32::try_from(beat_ms) else {
            return Err(wrong(
                "heartbeat",
                format!("is {beat_ms} ms; allowed: 10 to 60000"),
            ));
        };
        self.estimates.heartbeat_ms = heartbeat_ms;
        if self.gone_after <= self.heartbeat {
            let gone_ms = self.gone_after.as_millis();
            return Err(wrong(
                "gone_after",
                format!("is {gone_ms} ms; allowed: more than the heartbeat's {beat_ms} ms"),
            ));
        }
        self.estimates
            .check()
            .map_err(|error| wrong("estimates", error.to_string()))?;
        if !routes::is_name(&self.own_name) {
            return Err(wrong(
                "own_name",
                format!(
                    "is \"{}\"; allowed: 1 to 64 letters, digits, `-`, `_` and `.`",
                    self.own_name
                ),
            ));
        }
        let target = Target::parse(&self.address).ok_or_else(|| {
            wrong(
                "address",
                format!("is \"{}\"; expected: HOST:PORT", self.address),
            )
        })?;
        if self.tls.is_none() && target.ip().is_some_and(|ip| !ip.is_loopback()) {
            return Err(wrong(
                "address",
                format!(
                    "is {}, another machine, and sessions.tls is not set: name the folder of certificates there",
                    self.address
                ),
            ));
        }
        Ok(target)
    }
}

/// Where a peer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) host: String,
    pub(super) port: u16,
    /// What stands in requests.
    pub(super) authority: String,
}

impl Target {
    fn parse(address: &str) -> Option<Target> {
        let (host, port) = address.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port > 0)?;
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        let named = ServerName::try_from(host.to_owned()).ok()?;
        // An IPv6 address without brackets could be cut anywhere.
        if matches!(named, ServerName::IpAddress(_)) && host.contains(':') && bare.is_none() {
            return None;
        }
        Some(Target {
            host: host.to_owned(),
            port,
            authority: address.to_owned(),
        })
    }

    fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_hosts_and_ports() {
        for (address, host) in [
            ("cloud.example:7443", Some("cloud.example")),
            ("10.0.0.1:7443", Some("10.0.0.1")),
            ("[::1]:7443", Some("::1")),
            ("::1:7443", None),
            ("cloud.example", None),
            ("cloud.example:0", None),
            ("cloud example:1", None),
            (":7443", None),
        ] {
            let parsed = Target::parse(address).map(|target| target.host);
            assert_eq!(parsed.as_deref(), host, "{address}");
        }
    }

    #[test]
    fn wrong_values_are_named() {
        let check = |change: fn(&mut PeerConfig)| {
            let mut config = PeerConfig::new("cloud", "127.0.0.1:7443");
            change(&mut config);
            config.check().map_err(|error| error.to_string())
        };
        assert!(check(|_| ()).is_ok());
        let error = check(|config| config.address = "10.0.0.1:7443".into()).unwrap_err();
        assert!(error.contains("sessions.tls is not set"), "{error}");
        let error = check(|config| config.gone_after = config.heartbeat).unwrap_err();
        assert!(error.contains("gone_after"), "{error}");
        let error = check(|config| config.heartbeat = Duration::from_millis(5)).unwrap_err();
        assert!(error.contains("10 to 60000"), "{error}");
    }
}
