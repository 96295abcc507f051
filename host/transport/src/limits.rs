//! How much, how many, how long: what is not configured.

use std::time::Duration;

/// HTTP/2's flow-control window of a connection and of each of its streams, bytes. It has to hold what is under way:
/// with hyper's 1 MiB a round trip of 50 ms would cap a link at 21 MB/s. It also bounds what a connection buffers that
/// is not read.
pub const WINDOW: u32 = 16 << 20;

/// Bytes of a request's or an answer's header. Ours are far smaller.
pub const MAX_HEADER: u32 = 8 << 10;

/// Bytes of a stream that HTTP/2 buffers to be sent.
pub const MAX_SEND_BUFFER: usize = 256 << 10;

/// Bytes of a stream's frames that wait to be handed to HTTP/2; a larger frame waits until none does.
pub const OUTBOX_BYTES: usize = 1 << 20;

/// Most bytes that are handed to HTTP/2 as one piece: frames that wait together go together.
pub const PIECE_BYTES: usize = 64 << 10;

/// Bytes of a stream's frames that have come and are not received yet; a stream that would hold more is given up. A session
/// under way has some hundred of them, and its OPEN fits.
pub const INBOX_BYTES: usize = 4 << 20;

/// What a frame counts at least against [`INBOX_BYTES`]: the room that it takes in memory, however short it was.
pub const FRAME_COST: usize = 256;

/// A stream whose frames the peer does not take for so long is given up.
pub const UNREAD: Duration = Duration::from_secs(10);

/// HTTP/2 asks the other side so often whether it is there, on connections without heartbeats, and on a server's.
pub const PING_EVERY: Duration = Duration::from_secs(10);

/// An answer to that takes no longer. It may have to wait behind what the kernel has buffered for a slow link.
pub const PING_WITHIN: Duration = Duration::from_secs(30);

/// A medium of so many bytes or more is asked for before it is sent: a round trip, where another node may have brought it. A
/// smaller one is over sooner than the answer would be there.
pub const ASKED_FROM: u64 = 64 << 10;

/// A small question (`HEAD`) is answered within.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// An upload that does not move for so long has failed.
pub const STUCK: Duration = Duration::from_secs(60);

/// Bytes of an answer in words that are read.
pub const MAX_WORDS: usize = 1 << 10;

/// Wait before the second try to reach a peer; doubled each time.
pub const BACKOFF_LEAST: Duration = Duration::from_millis(100);

/// Longest wait between two tries to reach a peer.
pub const BACKOFF_MOST: Duration = Duration::from_secs(5);

/// Bytes of the first measurement of a link's bandwidth, each way; the latter half is measured, so that the first can
/// open TCP's congestion window.
pub const PROBE_BYTES: u64 = 256 << 10;

/// Bytes of the second one, where the first was over too soon to tell.
pub const PROBE_BYTES_FAST: u64 = 2 << 20;

/// Half a measurement that takes less tells more about timers than about the link.
pub const PROBE_LEAST: Duration = Duration::from_millis(20);

/// A measurement that takes longer is broken off.
pub const PROBE_WITHIN: Duration = Duration::from_secs(10);

/// Most bytes of a measurement that a peer is sent or that are taken from it.
pub const MAX_PROBE_BYTES: u64 = 8 << 20;

/// The connection for media, which has no heartbeats, is tried so often.
pub const BULK_SIGN: Duration = Duration::from_secs(30);

/// Digests that are remembered for each peer.
pub const MAX_KNOWN: usize = 4096;

/// Longest name of a node.
pub const MAX_NAME: usize = 64;
