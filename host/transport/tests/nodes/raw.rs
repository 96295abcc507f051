//! A client that keeps to HTTP/2 and to nothing else.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame as Piece, Incoming};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use msao_session::frame::{Frame, encode, limits};
use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::support::{Cloud, LONG, hello, numbered, small};

/// Pieces that go as they are, each in DATA frames of its own; then more, as long as somebody has the sender.
pub struct Pieces {
    pub first: VecDeque<Bytes>,
    pub rest: Option<mpsc::UnboundedReceiver<Bytes>>,
}

impl Pieces {
    pub fn none() -> Pieces {
        Pieces::of([])
    }

    pub fn of(pieces: impl IntoIterator<Item = Bytes>) -> Pieces {
        Pieces {
            first: pieces.into_iter().collect(),
            rest: None,
        }
    }

    /// One piece, and more when there is more.
    pub fn open(first: Bytes) -> (Pieces, mpsc::UnboundedSender<Bytes>) {
        let (to, rest) = mpsc::unbounded_channel();
        let pieces = Pieces {
            first: [first].into(),
            rest: Some(rest),
        };
        (pieces, to)
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context,
    ) -> Poll<Option<Result<Piece<Bytes>, Infallible>>> {
        if let Some(piece) = self.first.pop_front() {
            return Poll::Ready(Some(Ok(Piece::data(piece))));
        }
        match &mut self.rest {
            None => Poll::Ready(None),
            Some(rest) => rest
                .poll_recv(cx)
                .map(|piece| piece.map(|piece| Ok(Piece::data(piece)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_empty() && self.rest.is_none()
    }
}

pub struct Raw {
    send: SendRequest<Pieces>,
    _beat: Option<(Response<Incoming>, mpsc::UnboundedSender<Bytes>)>,
}

impl Raw {
    pub async fn connect(cloud: &Cloud) -> Raw {
        Raw::over(TcpStream::connect(cloud.address).await.unwrap()).await
    }

    pub async fn over(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Raw {
        let (send, connection) = handshake(TokioExecutor::new(), TokioIo::new(io))
            .await
            .unwrap();
        tokio::spawn(connection);
        Raw { send, _beat: None }
    }

    pub async fn ask(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Pieces,
    ) -> hyper::Result<Response<Incoming>> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://cloud.test{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        timeout(LONG, self.send.send_request(request.body(body).unwrap()))
            .await
            .unwrap()
    }

    /// Says HELLO, and no heartbeat.
    pub async fn greet(&mut self) {
        let (body, more) = Pieces::open(bytes(&[Frame::Hello(hello("raw"))]));
        let path = "/node/v1/heartbeat";
        let beat = self.ask(Method::POST, path, &[], body).await.unwrap();
        assert_eq!(beat.status(), 200);
        self._beat = Some((beat, more));
    }

    pub async fn session(&mut self, body: Pieces) -> Response<Incoming> {
        self.ask(Method::POST, "/node/v1/session", &[], body)
            .await
            .unwrap()
    }
}

pub fn bytes(frames: &[Frame]) -> Bytes {
    let mut bytes = Vec::new();
    for frame in frames {
        encode(frame, limits::NEWEST, &mut bytes).unwrap();
    }
    bytes.into()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn frames_arrive_whole_and_in_order_however_they_are_cut(
        numbers in prop::collection::vec(0_u32..500, 0..60),
        mut cuts in prop::collection::vec(0_usize..20_000, 0..40),
    ) {
        let frames: Vec<_> = numbers.iter().map(|number| numbered(*number)).collect();
        let whole = bytes(&frames);
        cuts.iter_mut().for_each(|cut| *cut %= whole.len() + 1);
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for to in cuts.into_iter().chain([whole.len()]) {
            // HTTP/2 allows few empty pieces.
            if to > from {
                pieces.push(whole.slice(from..to));
            }
            from = to;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let came = runtime.block_on(async {
            let mut cloud = Cloud::plain().await;
            let mut raw = Raw::connect(&cloud).await;
            raw.greet().await;
            let answer = raw.session(Pieces::of(pieces)).await;
            assert_eq!(answer.status(), 200);
            let (mut there, _) = cloud.session().await;
            let mut came = Vec::new();
            while let Some(frame) = timeout(LONG, there.recv()).await.unwrap() {
                came.push(frame.unwrap());
            }
            came
        });
        prop_assert_eq!(came, frames);
    }
}

#[tokio::test]
async fn half_a_frame_at_the_end_is_an_error() {
    let mut cloud = Cloud::plain().await;
    let mut raw = Raw::connect(&cloud).await;
    raw.greet().await;
    let whole = bytes(&[small(1), small(2)]);
    let _answer = raw
        .session(Pieces::of([whole.slice(..whole.len() - 1)]))
        .await;
    let (mut there, _) = cloud.session().await;
    assert_eq!(there.recv().await, Some(Ok(small(1))));
    let end = timeout(LONG, there.recv()).await.unwrap();
    assert!(
        matches!(end, Some(Err(msao_transport::TransportError::Frame(_)))),
        "{end:?}"
    );
    assert_eq!(there.recv().await, None);
}
