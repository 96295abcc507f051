//! Media that are named by URL: what is fetched, what is refused, and that a name is no way to private addresses. The servers
//! are on this machine, so fetchers here may reach it; what may be reached in a node has a test of its own.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use msao_api::{Detail, Medium, Source};
use msao_core::chat::Modality;
use msao_node::config::Media;
use msao_node::http::Unread;
use msao_node::request::fetch::{Fetcher, Lookup, Reach, Resolve, is_public};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::{RootCertStore, ServerConfig};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{Barrier, Notify, Semaphore};
use tokio_rustls::TlsAcceptor;

use crate::common::{Bench, about_picture, about_picture_at, picture, text};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Room for bodies, where it is not what a test is about.
const ROOM: usize = 8 << 20;

/// What a server does once it has read a question.
enum Says {
    /// It writes this and closes.
    This(Vec<u8>),
    /// It writes this, and no more.
    Stalls(Vec<u8>),
    /// It writes this when another question has come too.
    Meets(Vec<u8>),
    /// It redirects there, `PORT` being its own.
    Leads(&'static str),
}

/// What a server has seen.
struct Seen {
    heads: Mutex<Vec<String>>,
    /// Told when a client goes that was kept waiting.
    left: Notify,
    both: Barrier,
}

/// A server on this machine that answers paths.
struct Server {
    address: SocketAddr,
    seen: Arc<Seen>,
}

impl Server {
    async fn start(says: impl Fn(&str) -> Says + Send + Sync + 'static) -> Server {
        Server::over(None, says).await
    }

    async fn over(
        tls: Option<TlsAcceptor>,
        says: impl Fn(&str) -> Says + Send + Sync + 'static,
    ) -> Server {
        let listener = TcpListener::bind((HERE, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen {
            heads: Mutex::default(),
            left: Notify::new(),
            both: Barrier::new(2),
        });
        let (says, sees) = (Arc::new(says), Arc::clone(&seen));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (says, sees, tls) = (Arc::clone(&says), Arc::clone(&sees), tls.clone());
                let port = address.port();
                tokio::spawn(async move {
                    match tls {
                        None => answer(stream, &*says, &sees, port).await,
                        Some(tls) => {
                            // A client that does not trust it goes.
                            if let Ok(stream) = tls.accept(stream).await {
                                answer(stream, &*says, &sees, port).await;
                            }
                        }
                    }
                });
            }
        });
        Server { address, seen }
    }

    fn url(&self, host: &str, path: &str) -> String {
        format!("http://{host}:{}{path}", self.address.port())
    }

    /// Heads of the questions so far.
    fn heads(&self) -> Vec<String> {
        self.seen.heads.lock().unwrap().clone()
    }
}

async fn answer<S, F>(mut stream: S, says: &F, seen: &Seen, port: u16)
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Fn(&str) -> Says,
{
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    seen.heads.lock().unwrap().push(head);
    let (bytes, stalls) = match says(&path) {
        Says::This(bytes) => (bytes, false),
        Says::Stalls(bytes) => (bytes, true),
        Says::Meets(bytes) => {
            seen.both.wait().await;
            (bytes, false)
        }
        Says::Leads(location) => {
            let location = location.replace("PORT", &port.to_string());
            let head = format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\n\r\n");
            (head.into_bytes(), false)
        }
    };
    // A client that has had enough goes in the middle.
    let _ = stream.write_all(&bytes).await;
    let _ = stream.flush().await;
    if stalls {
        let _ = stream.read_u8().await;
        seen.left.notify_one();
    }
    let _ = stream.shutdown().await;
}

fn ok(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// Names of tests: `private.test` is at a private address, `both.test` there and here, `nowhere.test` unknown, all others here.
#[derive(Default)]
struct Names {
    lookups: AtomicUsize,
}

impl Resolve for Names {
    fn addresses<'a>(&'a self, name: &'a str) -> Lookup<'a> {
        self.lookups.fetch_add(1, Ordering::Relaxed);
        let private = IpAddr::from([10, 0, 0, 1]);
        let found = match name {
            "nowhere.test" => Err(io::Error::from(io::ErrorKind::NotFound)),
            "private.test" => Ok(vec![private]),
            "both.test" => Ok(vec![private, HERE]),
            _ => Ok(vec![HERE]),
        };
        Box::pin(std::future::ready(found))
    }
}

/// This machine is to a test what the public internet is to a node.
fn is_here(address: IpAddr) -> bool {
    address == HERE
}

fn rules(hosts: &[&str]) -> Media {
    Media {
        fetch: hosts.iter().map(|&host| host.to_owned()).collect(),
        fetch_plain: true,
        ..Media::default()
    }
}

fn reaching(rules: &Media, allows: fn(IpAddr) -> bool, roots: RootCertStore) -> Fetcher {
    let reach = Reach {
        allows,
        resolver: Arc::new(Names::default()),
        roots,
    };
    Fetcher::reaching(rules, reach).unwrap()
}

/// One that may reach this machine.
fn fetcher(rules: &Media) -> Arc<Fetcher> {
    Arc::new(reaching(rules, is_here, RootCertStore::empty()))
}

fn named(urls: &[&str]) -> Vec<Medium> {
    let media = urls.iter().enumerate().map(|(index, url)| Medium {
        modality: Modality::Image,
        source: Source::Url((*url).to_owned()),
        field: format!("messages[0].content[{index}]"),
        detail: Detail::Auto,
    });
    media.collect()
}

/// What a client is told: status and message.
type Refused = (u16, String);

fn refused(error: Unread) -> Refused {
    match error {
        Unread::Refused(error) => {
            let param = error.param.unwrap_or_default();
            let expected = if error.status == 413 {
                "request_too_large"
            } else {
                "invalid_media_url"
            };
            assert_eq!(error.code, expected, "{}", error.message);
            assert!(param.starts_with("messages[0].content["), "{param}");
            assert!(error.message.contains(&param), "{}", error.message);
            (error.status, error.message)
        }
        Unread::NoRoom => (429, String::new()),
    }
}

/// The bytes behind URLs of one request.
async fn fetch_all(fetcher: &Arc<Fetcher>, urls: &[&str]) -> Result<Vec<Vec<u8>>, Refused> {
    let room = Arc::new(Semaphore::new(ROOM));
    let mut media = named(urls);
    let fetched = fetcher.fetch_all(&mut media, &room).await;
    let taken = fetched.map_err(refused)?;
    let bytes = media.into_iter().map(|medium| match medium.source {
        Source::Bytes(bytes) => bytes,
        Source::Url(url) => panic!("{url} was not fetched"),
    });
    let bytes: Vec<Vec<u8>> = bytes.collect();
    let size: usize = bytes.iter().map(Vec::len).sum();
    assert_eq!(room.available_permits(), ROOM - size);
    drop(taken);
    assert_eq!(room.available_permits(), ROOM);
    Ok(bytes)
}

async fn fetch(fetcher: &Arc<Fetcher>, url: &str) -> Result<Vec<u8>, Refused> {
    let mut fetched = fetch_all(fetcher, &[url]).await?;
    Ok(fetched.remove(0))
}

/// That it is refused with 400 and these words.
async fn refuses(fetcher: &Arc<Fetcher>, url: &str, words: &str) {
    let (status, message) = fetch(fetcher, url).await.unwrap_err();
    assert_eq!(status, 400, "{url}: {message}");
    assert!(message.contains(words), "{url}: {message}");
    // Nothing of the networks that the node stands in.
    for address in ["10.0.0.1", "127.0.0.1"] {
        assert!(!message.contains(address), "{url}: {message}");
    }
}

#[tokio::test]
async fn what_is_allowed_is_fetched_and_no_more_said_than_needed() {
    let server = Server::start(|_| Says::This(ok(b"picture"))).await;
    let port = server.address.port();
    let rules = rules(&[&format!("*:{port}")]);
    let names = Arc::new(Names::default());
    let reach = Reach {
        allows: is_here,
        resolver: Arc::clone(&names) as Arc<dyn Resolve>,
        roots: RootCertStore::empty(),
    };
    let fetcher = Arc::new(Fetcher::reaching(&rules, reach).unwrap());
    let url = server.url("Media.TEST.", "/a/ö.png?x=1#top");
    assert_eq!(fetch(&fetcher, &url).await.unwrap(), b"picture");
    // What was looked up is what was connected to.
    assert_eq!(names.lookups.load(Ordering::Relaxed), 1);
    let head = server.heads().remove(0).to_ascii_lowercase();
    let mut lines: Vec<&str> = head.split("\r\n").filter(|line| !line.is_empty()).collect();
    lines[1..].sort_unstable();
    let expected = [
        "get /a/%c3%b6.png?x=1 http/1.1".to_owned(),
        "accept-encoding: identity".to_owned(),
        "accept: */*".to_owned(),
        "connection: close".to_owned(),
        format!("host: media.test:{port}"),
        format!("user-agent: msao/{}", env!("CARGO_PKG_VERSION")),
    ];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn media_of_a_request_are_fetched_together() {
    let server = Server::start(|path| Says::Meets(ok(path.as_bytes()))).await;
    let host = format!("media.test:{}", server.address.port());
    let (a, b) = (
        server.url("media.test", "/a"),
        server.url("media.test", "/b"),
    );
    let two = fetcher(&Media {
        fetches: 2,
        ..rules(&[&host])
    });
    let fetched = fetch_all(&two, &[&a, &b]).await.unwrap();
    assert_eq!(fetched, [b"/a", b"/b"]);
    // With one at a time the first waits for the second in vain.
    let one = fetcher(&Media {
        fetches: 1,
        fetch_s: 1,
        ..rules(&[&host])
    });
    let (status, message) = fetch_all(&one, &[&a, &b]).await.unwrap_err();
    assert!(matches!(status, 400 | 429), "{status} {message}");
}

#[tokio::test]
async fn what_the_operator_does_not_allow_is_not_asked_for() {
    let server = Server::start(|_| Says::This(ok(b"picture"))).await;
    let port = server.address.port();
    let nothing = fetcher(&rules(&[]));
    let url = server.url("media.test", "/");
    refuses(
        &nothing,
        &url,
        "fetches nothing from other hosts (media.fetch)",
    )
    .await;
    // Without a port a pattern has those of the web alone.
    let not_here = "from which this node does not fetch (media.fetch)";
    let web = fetcher(&rules(&["media.test", "*"]));
    refuses(&web, &url, not_here).await;
    let listed = fetcher(&rules(&[
        &format!("media.test:{port}"),
        &format!("*.below.test:{port}"),
    ]));
    for host in [
        "other.test",
        "media.test.other.test",
        "below.test",
        "127.0.0.1",
    ] {
        refuses(&listed, &server.url(host, "/"), not_here).await;
    }
    refuses(&listed, "http://media.test:1/", not_here).await;
    refuses(&listed, "http://media.test/", not_here).await;
    let url = server.url("me:secret@media.test", "/");
    refuses(&listed, &url, "a user's name or a password").await;
    refuses(&listed, &server.url("2130706433", "/"), "it is no URL").await;
    let secure = fetcher(&Media {
        fetch_plain: false,
        ..rules(&[&format!("media.test:{port}")])
    });
    let url = server.url("media.test", "/");
    refuses(&secure, &url, "by https:// alone (media.fetch-plain)").await;
    assert!(server.heads().is_empty());
    for host in ["media.test", "a.below.test"] {
        let fetched = fetch(&listed, &server.url(host, "/")).await;
        assert_eq!(fetched.unwrap(), b"picture");
    }
}

/// If one may not be fetched the others are not asked for.
#[tokio::test]
async fn one_bad_url_refuses_the_request_before_anything_is_fetched() {
    let server = Server::start(|_| Says::This(ok(b"picture"))).await;
    let fetcher = fetcher(&rules(&[&format!("media.test:{}", server.address.port())]));
    let urls = [server.url("media.test", "/"), server.url("other.test", "/")];
    let refused = fetch_all(&fetcher, &[&urls[0], &urls[1]]).await;
    let (_, message) = refused.unwrap_err();
    assert!(message.contains("messages[0].content[1]"), "{message}");
    assert!(server.heads().is_empty());
}

#[tokio::test]
async fn a_node_fetches_from_no_address_that_is_not_public() {
    let server = Server::start(|_| Says::This(ok(b"secret"))).await;
    let port = server.address.port();
    let rules = rules(&[&format!("*:{port}"), "*"]);
    let strict = Arc::new(reaching(&rules, is_public, RootCertStore::empty()));
    for host in [
        "media.test",
        "private.test",
        "both.test",
        "127.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "0.0.0.0",
    ] {
        let url = server.url(host, "/");
        refuses(&strict, &url, "no public address").await;
    }
    let metadata = "http://169.254.169.254/latest/meta-data/";
    refuses(&strict, metadata, "no public address").await;
    assert!(server.heads().is_empty());
}

#[tokio::test]
async fn of_several_addresses_those_that_are_allowed_are_tried() {
    let server = Server::start(|_| Says::This(ok(b"picture"))).await;
    let fetcher = fetcher(&rules(&[&format!("*:{}", server.address.port())]));
    let fetched = fetch(&fetcher, &server.url("both.test", "/")).await;
    assert_eq!(fetched.unwrap(), b"picture");
    refuses(&fetcher, &server.url("private.test", "/"), "no public").await;
    refuses(&fetcher, &server.url("nowhere.test", "/"), "is not known").await;
    // A port at which nobody listens any more.
    let gone = TcpListener::bind((HERE, 0)).await.unwrap();
    let port = gone.local_addr().unwrap().port();
    drop(gone);
    let fetcher = self::fetcher(&rules(&[&format!("*:{port}")]));
    let url = format!("http://media.test:{port}/");
    refuses(&fetcher, &url, "cannot be reached").await;
}

#[tokio::test]
async fn redirects_are_followed_three_times_and_checked_each_time() {
    let server = Server::start(|path| match path {
        "/0" => Says::This(ok(b"picture")),
        "/1" => Says::Leads("/0"),
        "/2" => Says::Leads("1"),
        "/3" => Says::Leads("//other.test:PORT/2"),
        "/4" => Says::Leads("/3"),
        "/loop" => Says::Leads("/loop"),
        "/unlisted" => Says::Leads("http://unlisted.test:PORT/0"),
        "/port" => Says::Leads("http://media.test:1/0"),
        "/private" => Says::Leads("http://private.test:PORT/0"),
        "/loopback" => Says::Leads("http://127.0.0.2:PORT/0"),
        "/metadata" => Says::Leads("http://169.254.169.254/latest/meta-data/"),
        "/scheme" => Says::Leads("ftp://media.test/0"),
        "/file" => Says::Leads("file:///etc/passwd"),
        "/user" => Says::Leads("http://me@media.test:PORT/0"),
        "/odd" => Says::Leads("http://0x7f.1:PORT/0"),
        other => panic!("{other} is asked for"),
    })
    .await;
    let port = server.address.port();
    let hosts = ["media.test", "other.test", "private.test", "127.0.0.2"];
    let hosts = hosts.map(|host| format!("{host}:{port}"));
    let [media, other, private, loopback] = hosts.each_ref().map(String::as_str);
    let hosts = [media, other, private, loopback, "169.254.169.254"];
    let fetcher = fetcher(&rules(&hosts));
    for path in ["/0", "/1", "/2", "/3"] {
        let fetched = fetch(&fetcher, &server.url("media.test", path)).await;
        assert_eq!(fetched.unwrap(), b"picture", "{path}");
    }
    let unlisted = "from which this node does not fetch";
    for (path, words) in [
        ("/4", "redirected too many times"),
        ("/loop", "redirected too many times"),
        ("/unlisted", unlisted),
        ("/port", unlisted),
        ("/private", "no public address"),
        ("/loopback", "no public address"),
        ("/metadata", "no public address"),
        ("/scheme", "neither http:// nor https://"),
        ("/file", "it is no URL"),
        ("/user", "a user's name or a password"),
        ("/odd", "it is no URL"),
    ] {
        refuses(&fetcher, &server.url("media.test", path), words).await;
    }
}

#[tokio::test]
async fn no_more_is_taken_than_a_medium_may_have() {
    const MOST: usize = 1 << 20;
    let server = Server::start(|path| {
        let much = vec![7; MOST + 1];
        match path {
            "/just" => Says::This(ok(&much[1..])),
            // What it announces need not come first.
            "/announced" => {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", MOST + 1);
                Says::Stalls(head.into_bytes())
            }
            "/chunks" => {
                let chunk = [b"8000\r\n".as_slice(), &much[..0x8000], b"\r\n"].concat();
                let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
                Says::Stalls([head.as_slice(), &chunk.repeat(33)].concat())
            }
            _ => Says::This([b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &much].concat()),
        }
    })
    .await;
    let fetcher = fetcher(&Media {
        mib: 1,
        ..rules(&[&format!("*:{}", server.address.port())])
    });
    let fetched = fetch(&fetcher, &server.url("media.test", "/just")).await;
    assert_eq!(fetched.unwrap().len(), MOST);
    for path in ["/announced", "/chunks", "/until-the-end"] {
        let fetched = fetch(&fetcher, &server.url("media.test", path)).await;
        let (status, message) = fetched.unwrap_err();
        assert_eq!(status, 413, "{path}: {message}");
        let expected = "more than the 1048576 bytes that this node takes (media.mib)";
        assert!(message.contains(expected), "{path}: {message}");
    }
}

#[tokio::test]
async fn a_fetch_that_finds_no_room_gives_back_what_it_has() {
    let server = Server::start(|_| Says::This(ok(b"picture"))).await;
    let fetcher = fetcher(&rules(&[&format!("*:{}", server.address.port())]));
    let room = Arc::new(Semaphore::new(3));
    let mut media = named(&[&server.url("media.test", "/")]);
    let fetched = fetcher.fetch_all(&mut media, &room).await;
    assert_eq!(fetched.map_err(refused).unwrap_err().0, 429);
    assert_eq!(room.available_permits(), 3);
}

#[tokio::test]
async fn a_slow_server_is_not_waited_for() {
    let server = Server::start(|path| {
        let whole = ok(b"picture");
        Says::Stalls(match path {
            "/head" => whole[..20].to_vec(),
            "/body" => whole[..whole.len() - 1].to_vec(),
            _ => Vec::new(),
        })
    })
    .await;
    let fetcher = fetcher(&Media {
        fetch_s: 1,
        ..rules(&[&format!("*:{}", server.address.port())])
    });
    for path in ["/nothing", "/head", "/body"] {
        let url = server.url("media.test", path);
        refuses(&fetcher, &url, "within 1 s (media.fetch-s)").await;
    }
}

#[tokio::test]
async fn what_is_no_medium_is_refused() {
    let says = |text: &str| Says::This(text.as_bytes().to_vec());
    let server = Server::start(move |path| match path {
        "/404" => says("HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno"),
        "/206" => says("HTTP/1.1 206 Partial Content\r\ncontent-length: 2\r\n\r\nno"),
        "/nowhere" => says("HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n"),
        "/empty" => Says::This(ok(b"")),
        "/short" => says("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nno"),
        "/header" => says(&format!(
            "HTTP/1.1 200 OK\r\nx: {}\r\n\r\n",
            "y".repeat(300_000)
        )),
        _ => says("SSH-2.0-OpenSSH_9.9\r\n\r\n"),
    })
    .await;
    let fetcher = fetcher(&rules(&[&format!("*:{}", server.address.port())]));
    for (path, words) in [
        ("/404", "status 404 instead of 200"),
        ("/206", "status 206 instead of 200"),
        ("/nowhere", "status 302 instead of 200"),
        ("/empty", "an empty body"),
        ("/short", "cannot be read"),
        ("/header", "cannot be read"),
        ("/ssh", "cannot be read"),
    ] {
        refuses(&fetcher, &server.url("media.test", path), words).await;
    }
}

#[tokio::test]
async fn a_fetch_that_nobody_waits_for_ends() {
    let server = Server::start(|_| Says::Stalls(Vec::new())).await;
    let fetcher = fetcher(&rules(&[&format!("*:{}", server.address.port())]));
    let url = server.url("media.test", "/");
    let fetching = tokio::spawn(async move { fetch(&fetcher, &url).await });
    let end = Instant::now() + Duration::from_secs(5);
    while server.heads().is_empty() {
        assert!(Instant::now() < end, "it is not asked for");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    fetching.abort();
    let left = tokio::time::timeout(Duration::from_secs(5), server.seen.left.notified());
    left.await.unwrap();
}

/// A certificate for names, and a server's side of it.
fn certified(names: &[&str]) -> (CertificateDer<'static>, TlsAcceptor) {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.into())
        .unwrap();
    (certificate, TlsAcceptor::from(Arc::new(config)))
}

#[tokio::test]
async fn with_tls_a_host_must_show_a_certificate_for_its_name() {
    let (certificate, acceptor) = certified(&["media.test"]);
    let server = Server::over(Some(acceptor), |_| Says::This(ok(b"picture"))).await;
    let port = server.address.port();
    let rules = Media {
        fetch_plain: false,
        ..rules(&[&format!("*:{port}")])
    };
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let trusting = Arc::new(reaching(&rules, is_here, roots));
    let url = |host: &str| format!("https://{host}:{port}/");
    let fetched = fetch(&trusting, &url("media.test")).await;
    assert_eq!(fetched.unwrap(), b"picture");
    let insecure = "no secure connection to its host";
    refuses(&trusting, &url("other.test"), insecure).await;
    refuses(&fetcher(&rules), &url("media.test"), insecure).await;
    assert_eq!(server.heads().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_picture_by_url_is_answered_as_the_same_picture_within_the_request() {
    let server = Server::start(|_| Says::This(ok(&picture()))).await;
    let host = format!("media.test:{}", server.address.port());
    let sections = format!("[media]\nfetch = [\"{host}\"]\nfetch-plain = true\n");
    let reach = |rules: &Media| reaching(rules, is_here, RootCertStore::empty());
    let bench = Bench::fetching(&sections, reach).await;
    let question = "What shapes are there?";
    let more = json!({ "temperature": 0, "max_tokens": 20 });
    let by_url = about_picture_at(&server.url("media.test", "/a.png"), question, more.clone());
    let by_url = bench.answer(&by_url).await;
    assert_eq!(server.heads().len(), 1);
    let within = bench.answer(&about_picture(question, more.clone())).await;
    assert_eq!(text(&by_url), text(&within));
    for figure in [
        "/usage/prompt_tokens",
        "/usage/prompt_tokens_details/image_tokens",
    ] {
        assert_eq!(by_url.pointer(figure), within.pointer(figure), "{figure}");
    }
    let elsewhere = about_picture_at(&server.url("other.test", "/a.png"), question, more);
    let (status, _, answer) = bench.chat(&elsewhere).await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (400, &json!("invalid_media_url"))
    );
    assert_eq!(answer["error"]["param"], "messages[0].content[0]");
    bench.rest().await;
    // The room for bodies and media is free again.
    let all = (bench.node.config.api.bodies_mib as usize) << 20;
    let end = Instant::now() + Duration::from_secs(5);
    while bench.node.bodies.available_permits() < all {
        assert!(Instant::now() < end, "something holds room");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
