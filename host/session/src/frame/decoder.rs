//! Frames out of a stream of bytes, however it is cut.

use super::limits::{HEADER_BYTES, max_payload};
use super::wire::at_most;
use super::{Frame, FrameError, HELLO_VERSION, Kind};

/// Takes a stream apart into frames.
///
/// Holds at most one frame: a caller's bytes are taken no further than to the end of the first frame in them. Room for
/// a payload grows with the bytes that come, not with the length that a header claims.
#[derive(Clone, Debug)]
pub struct Decoder {
    /// What was agreed; nothing before HELLO.
    version: Option<u8>,
    header: [u8; HEADER_BYTES],
    /// Bytes of the header that are there.
    got: usize,
    /// What the header says, once it is whole.
    expects: Option<(Kind, usize)>,
    payload: Vec<u8>,
    /// A stream that went wrong stays wrong.
    failed: Option<FrameError>,
}

/// Room that is kept between two frames.
const KEPT_BYTES: usize = 16 << 10;

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// At the beginning of a stream: HELLO comes first, and others once [`Decoder::agree`] was called.
    pub fn new() -> Self {
        Decoder {
            version: None,
            header: [0; HEADER_BYTES],
            got: 0,
            expects: None,
            payload: Vec::new(),
            failed: None,
        }
    }

    /// On a stream whose version is known from elsewhere.
    pub fn of_version(version: u8) -> Self {
        Decoder {
            version: Some(version),
            ..Decoder::new()
        }
    }

    /// From here on frames are of this version.
    pub fn agree(&mut self, version: u8) {
        self.version = Some(version);
    }

    /// Takes bytes from the front of `input` up to the end of a frame, and gives that frame. `None`: all were taken and
    /// the frame is not whole yet. Call again while `input` is not empty.
    ///
    /// # Errors
    /// The stream is broken; every later call says so again.
    pub fn feed(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, FrameError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let fed = self.take(input);
        if let Err(error) = &fed {
            self.failed = Some(error.clone());
            self.payload = Vec::new();
        }
        fed
    }

    /// Called where the stream ends.
    ///
    /// # Errors
    /// It ended within a frame, or was broken before.
    pub fn end(&self) -> Result<(), FrameError> {
        match (&self.failed, self.expects, self.got) {
            (Some(error), _, _) => Err(error.clone()),
            (None, Some((kind, _)), _) => Err(FrameError::Truncated {
                kind,
                field: "payload",
            }),
            (None, None, 0) => Ok(()),
            (None, None, _) => Err(FrameError::TruncatedHeader),
        }
    }

    /// Bytes of a frame that is not whole yet.
    pub fn buffered(&self) -> usize {
        self.got + self.payload.len()
    }

    fn take(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, FrameError> {
        let (kind, length) = match self.expects {
            Some(expected) => expected,
            None => {
                let room = self.header.get_mut(self.got..).unwrap_or_default();
                let bytes = split(input, room.len());
                for (place, byte) in room.iter_mut().zip(bytes) {
                    *place = *byte;
                }
                self.got += bytes.len();
                if self.got < HEADER_BYTES {
                    return Ok(None);
                }
                let expected = self.read_header()?;
                self.expects = Some(expected);
                expected
            }
        };
        let bytes = split(input, length.saturating_sub(self.payload.len()));
        self.payload.extend_from_slice(bytes);
        if self.payload.len() < length {
            return Ok(None);
        }
        let frame = Frame::read(kind, &self.payload)?;
        self.got = 0;
        self.expects = None;
        self.payload.clear();
        self.payload.shrink_to(KEPT_BYTES);
        Ok(Some(frame))
    }

    fn read_header(&self) -> Result<(Kind, usize), FrameError> {
        let [a, b, c, d, version, kind] = self.header;
        let kind = Kind::of(kind)?;
        let agreed = match (kind, self.version) {
            (Kind::Hello, _) => HELLO_VERSION,
            (_, Some(agreed)) => agreed,
            (_, None) => return Err(FrameError::BeforeHello { kind }),
        };
        if version != agreed {
            return Err(FrameError::Version {
                kind,
                found: version,
                agreed,
            });
        }
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        at_most(kind, "payload", max_payload(kind), length)?;
        Ok((kind, length))
    }
}

/// Takes up to `most` bytes off the front.
fn split<'a>(input: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (front, rest) = input.split_at_checked(most).unwrap_or((input, &[]));
    *input = rest;
    front
}
