//! Media that a request names by URL, fetched from the hosts that the operator allows (`media.fetch`).
//!
//! What a client names must be no way into the networks that the node stands in. So the node looks a name up itself, once, and
//! connects to the very addresses that it has checked; it does the same again at each redirect. It shows no credentials,
//! keeps no cookies, and asks no proxy. Time, bytes, redirects, and how many are fetched at once have limits; a fetch that is
//! dropped ends. What a server says of a medium's type is not looked at: the content decides.
//!
//! Read first: [`Fetcher`], [`is_public`].

mod address;
mod exchange;
mod resolve;
mod target;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use msao_api::{ApiError, Medium, Source};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tracing::Instrument as _;

pub use self::address::is_public;
use self::exchange::{Answer, Fetched};
pub use self::resolve::{Lookup, Resolve, SystemResolver};
use self::target::Target;
use crate::config::Media;
use crate::config::hosts::{Host, HostPattern};
use crate::http::Unread;

/// Redirects that are followed.
const REDIRECTS: usize = 3;
/// Addresses of a host that are tried.
const ADDRESSES: usize = 4;
/// A host that does not take a connection within this is tried at its next address.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);

/// Why nothing can be fetched at all.
#[derive(Debug, Error)]
pub enum FetcherError {
    /// Nobody's certificate could be trusted.
    #[error(
        "media.fetch: this machine has no certificates of authorities, by which hosts are trusted; install them (ca-certificates, on most systems), or name a file of them in SSL_CERT_FILE"
    )]
    NoRoots,
    /// TLS cannot be set up.
    #[error("media.fetch: {0}")]
    Tls(#[from] rustls::Error),
}

/// Why a medium was not fetched. Completes "Cannot use the URL: ..."; no address is told, since it may be of a network that
/// the client is not to know.
#[derive(Debug, Error)]
enum FetchError {
    /// The operator allows no hosts.
    #[error("this node fetches nothing from other hosts (media.fetch)")]
    NoHosts,
    /// It cannot be read.
    #[error(
        "it is no URL with a host's name, which is written in ASCII, or an address in its usual form"
    )]
    Malformed,
    /// Neither `http` nor `https`.
    #[error("it leads to a URL that is neither http:// nor https://")]
    Scheme,
    /// A user or a password.
    #[error("it has a user's name or a password, and none are sent")]
    Credentials,
    /// `http`, where only `https` is allowed.
    #[error(
        "it leads to an http:// URL, and this node fetches by https:// alone (media.fetch-plain)"
    )]
    Plain,
    /// A host or a port that no pattern allows.
    #[error("it leads to a host or a port from which this node does not fetch (media.fetch)")]
    NotAllowed,
    /// The name has no address.
    #[error("its host is not known")]
    Unknown,
    /// No address of the host is public.
    #[error("its host has no public address, and this node fetches from no other")]
    Private,
    /// Nobody takes the connection.
    #[error("its host cannot be reached")]
    Unreachable,
    /// The host's certificate, or what else stands in the way of TLS.
    #[error("there is no secure connection to its host: {0}")]
    Insecure(io::Error),
    /// The answer is no HTTP, or ends before its end.
    #[error("its host's answer cannot be read: {0}")]
    Broken(hyper::Error),
    /// The server has no such thing, or does not give it.
    #[error("its host answers with status {0} instead of 200")]
    Status(u16),
    /// One redirect after the other.
    #[error("it is redirected too many times")]
    Redirects,
    /// Not a byte.
    #[error("its host sends an empty body")]
    Empty,
    /// Not there in time.
    #[error("it was not there within {0} s (media.fetch-s)")]
    TooSlow(u64),
    /// More bytes than a medium may have.
    #[error("the medium has more than the {most} bytes that this node takes (media.mib)")]
    TooLarge {
        /// Bytes that it may have.
        most: usize,
    },
    /// Others are being fetched, or bodies take all the room.
    #[error("the node has no room for it now")]
    NoRoom,
}

/// What a fetcher may reach, and whom it believes.
pub struct Reach {
    /// Whether it may connect to an address. In a node always [`is_public`]; tests, whose servers are on this machine, have
    /// another.
    pub allows: fn(IpAddr) -> bool,
    /// Who knows the addresses of names.
    pub resolver: Arc<dyn Resolve>,
    /// Authorities by whose certificates hosts are trusted.
    pub roots: RootCertStore,
}

/// Fetches media.
pub struct Fetcher {
    patterns: Vec<HostPattern>,
    plain: bool,
    within: Duration,
    most: usize,
    turns: Semaphore,
    allows: fn(IpAddr) -> bool,
    resolver: Arc<dyn Resolve>,
    tls: TlsConnector,
}

impl Fetcher {
    /// One that fetches from public addresses alone, trusts the authorities that the system trusts, and asks its name
    /// servers.
    ///
    /// # Errors
    /// Hosts are allowed, and the system trusts nobody.
    pub fn new(rules: &Media) -> Result<Fetcher, FetcherError> {
        let roots = if rules.fetch.is_empty() {
            RootCertStore::empty()
        } else {
            system_roots()?
        };
        let reach = Reach {
            allows: is_public,
            resolver: Arc::new(SystemResolver::default()),
            roots,
        };
        Fetcher::reaching(rules, reach)
    }

    /// One that reaches what it is told: for tests.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn reaching(rules: &Media, reach: Reach) -> Result<Fetcher, FetcherError> {
        let patterns = rules.fetch.iter();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(reach.roots)
            .with_no_client_auth();
        Ok(Fetcher {
            // That each is one was checked with the configuration.
            patterns: patterns
                .filter_map(|text| HostPattern::parse(text))
                .collect(),
            plain: rules.fetch_plain,
            within: Duration::from_secs(u64::from(rules.fetch_s)),
            most: (rules.mib as usize) << 20,
            turns: Semaphore::new(rules.fetches as usize),
            allows: reach.allows,
            resolver: reach.resolver,
            tls: TlsConnector::from(Arc::new(tls)),
        })
    }

    /// Puts the bytes of media in the place of their URLs, all at the same time. Gives the room that they take, a permit of
    /// `room` a byte.
    ///
    /// # Errors
    /// 400 for the first URL that may not be fetched or does not give the medium, 413 where it is too large, each with the
    /// medium's field; or there is no room. The others are then given up.
    pub async fn fetch_all(
        self: &Arc<Self>,
        media: &mut [Medium],
        room: &Arc<Semaphore>,
    ) -> Result<Vec<OwnedSemaphorePermit>, Unread> {
        let mut targets = Vec::new();
        for (index, medium) in media.iter().enumerate() {
            if let Source::Url(url) = &medium.source {
                let target = Target::parse(url).and_then(|target| self.checked(target));
                let target = target.map_err(|error| told(&error, &medium.field))?;
                targets.push((index, target));
            }
        }
        // Nothing is asked for before all may be.
        let mut fetches = JoinSet::new();
        for (index, target) in targets {
            let (fetcher, room) = (Arc::clone(self), Arc::clone(room));
            let fetch = async move { (index, fetcher.fetch(target, &room).await) };
            fetches.spawn(fetch.in_current_span());
        }
        let mut rooms = Vec::new();
        // Dropping the set ends those that are left.
        while let Some(ended) = fetches.join_next().await {
            let (index, fetched) = ended.map_err(|_| ApiError::internal())?;
            let Some(medium) = media.get_mut(index) else {
                continue;
            };
            let (bytes, taken) = fetched.map_err(|error| told(&error, &medium.field))?;
            medium.source = Source::Bytes(bytes);
            rooms.extend(taken);
        }
        Ok(rooms)
    }

    /// The target, if it may be asked for so far as can be said before its name is looked up.
    fn checked(&self, target: Target) -> Result<Target, FetchError> {
        if self.patterns.is_empty() {
            return Err(FetchError::NoHosts);
        }
        if !target.secure && !self.plain {
            return Err(FetchError::Plain);
        }
        let mut patterns = self.patterns.iter();
        if !patterns.any(|pattern| pattern.allows(&target.host, target.port)) {
            return Err(FetchError::NotAllowed);
        }
        Ok(target)
    }

    async fn fetch(&self, target: Target, room: &Arc<Semaphore>) -> Result<Fetched, FetchError> {
        let host = target.host.clone();
        let turn = timeout(self.within, self.turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            return Err(FetchError::NoRoom);
        };
        let fetched = timeout(self.within, self.follow(target, room)).await;
        let fetched = fetched.unwrap_or(Err(FetchError::TooSlow(self.within.as_secs())));
        match &fetched {
            Ok((bytes, _)) => tracing::debug!(%host, bytes = bytes.len(), "a medium was fetched"),
            Err(error) => tracing::debug!(%host, %error, "a medium was not fetched"),
        }
        fetched
    }

    async fn follow(
        &self,
        mut target: Target,
        room: &Arc<Semaphore>,
    ) -> Result<Fetched, FetchError> {
        for _ in 0..=REDIRECTS {
            match self.ask(&target, room).await? {
                Answer::Medium(fetched) => return Ok(fetched),
                Answer::Elsewhere(location) => {
                    target = self.checked(target.redirected(&location)?)?;
                }
            }
        }
        Err(FetchError::Redirects)
    }

    async fn ask(&self, target: &Target, room: &Arc<Semaphore>) -> Result<Answer, FetchError> {
        let stream = self.connect(target).await?;
        if !target.secure {
            return exchange::ask(stream, target, self.most, room).await;
        }
        let name = match &target.host {
            Host::Name(name) => ServerName::try_from(name.clone()),
            Host::Address(address) => Ok(ServerName::from(*address)),
        };
        let name = name.map_err(|_| FetchError::Malformed)?;
        let stream = self.tls.connect(name, stream).await;
        let stream = stream.map_err(FetchError::Insecure)?;
        exchange::ask(stream, target, self.most, room).await
    }

    /// Connects to an address that was checked. The name is not looked up again: it might lead elsewhere by then.
    async fn connect(&self, target: &Target) -> Result<TcpStream, FetchError> {
        let addresses = match &target.host {
            Host::Address(address) => vec![*address],
            Host::Name(name) => {
                let known = self.resolver.addresses(name).await;
                known.map_err(|_| FetchError::Unknown)?
            }
        };
        if addresses.is_empty() {
            return Err(FetchError::Unknown);
        }
        let allowed = addresses.into_iter().filter(|it| (self.allows)(*it));
        let allowed: Vec<IpAddr> = allowed.take(ADDRESSES).collect();
        let mut failed = FetchError::Private;
        for address in allowed {
            let connected = timeout(CONNECT_WITHIN, TcpStream::connect((address, target.port)));
            match connected.await {
                Ok(Ok(stream)) => return Ok(stream),
                _ => failed = FetchError::Unreachable,
            }
        }
        Err(failed)
    }
}

/// What a client is told of a medium that was not fetched.
fn told(error: &FetchError, field: &str) -> Unread {
    match error {
        FetchError::NoRoom => Unread::NoRoom,
        FetchError::TooLarge { .. } => {
            ApiError::too_large(Some(field.to_owned()), format!("{field}: {error}.")).into()
        }
        _ => ApiError::invalid_media_url(field, &error.to_string()).into(),
    }
}

/// The authorities that the system trusts.
fn system_roots() -> Result<RootCertStore, FetcherError> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "certificates of authorities cannot be read");
    }
    let mut roots = RootCertStore::empty();
    match roots.add_parsable_certificates(found.certs) {
        (0, _) => Err(FetcherError::NoRoots),
        _ => Ok(roots),
    }
}
