//! Frames go through a stream whole, however it is cut.

use msao_session::frame::{Decoder, Frame, FrameError, encode, limits};
use proptest::prelude::*;

use super::samples::{SESSION, samples};
use super::strategies::frame;

fn bytes(frames: &[Frame]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for frame in frames {
        encode(frame, limits::NEWEST, &mut bytes).unwrap();
    }
    bytes
}

/// Feeds pieces of the given lengths over and over.
fn decode(bytes: &[u8], pieces: &[usize]) -> Result<Vec<Frame>, FrameError> {
    let mut decoder = Decoder::of_version(limits::NEWEST);
    let mut frames = Vec::new();
    let mut left = bytes;
    for piece in pieces.iter().cycle() {
        if left.is_empty() {
            break;
        }
        let (mut now, later) = left.split_at((*piece).min(left.len()));
        left = later;
        while !now.is_empty() {
            frames.extend(decoder.feed(&mut now)?);
        }
    }
    decoder.end()?;
    Ok(frames)
}

proptest! {
    #[test]
    fn what_is_written_is_read_however_it_is_cut(
        frames in prop::collection::vec(frame(), 1..6),
        pieces in prop::collection::vec(1_usize..200, 1..20),
    ) {
        prop_assert_eq!(decode(&bytes(&frames), &pieces).unwrap(), frames);
    }

    #[test]
    fn a_stream_that_ends_early_says_so(frame in frame(), share in 0.0..1.0) {
        let bytes = bytes(std::slice::from_ref(&frame));
        let cut = 1 + (share * (bytes.len() - 1) as f64) as usize;
        prop_assume!(cut < bytes.len());
        let ended = decode(&bytes[..cut], &[7]).unwrap_err();
        let early = matches!(ended, FrameError::Truncated { .. } | FrameError::TruncatedHeader);
        prop_assert!(early, "{ended}");
    }
}

#[test]
fn a_decoder_takes_no_more_than_one_frame() {
    let frames: Vec<_> = samples().into_iter().map(|(_, frame)| frame).collect();
    let bytes = bytes(&frames);
    let mut decoder = Decoder::of_version(limits::NEWEST);
    let mut left = bytes.as_slice();
    for frame in frames {
        assert_eq!(decoder.feed(&mut left).unwrap(), Some(frame));
        assert_eq!(decoder.buffered(), 0);
    }
    assert!(left.is_empty());
}

#[test]
fn hello_comes_first_and_then_what_was_agreed() {
    let all = samples();
    let find = |name| all.iter().find(|(n, _)| *n == name).unwrap().1.clone();
    let (hello, cancel) = (bytes(&[find("hello")]), bytes(&[find("cancel")]));
    let mut decoder = Decoder::new();
    assert!(decoder.feed(&mut hello.as_slice()).unwrap().is_some());
    let mut early = decoder.clone();
    assert_eq!(
        early.feed(&mut cancel.as_slice()).unwrap_err().to_string(),
        "a CANCEL frame came before HELLO: a stream begins with HELLO"
    );
    decoder.agree(1);
    let frame = decoder.feed(&mut cancel.as_slice()).unwrap().unwrap();
    assert_eq!(frame.session(), Some(SESSION));
    decoder.agree(2);
    assert_eq!(
        decoder
            .feed(&mut cancel.as_slice())
            .unwrap_err()
            .to_string(),
        "a CANCEL frame of version 1 came where 2 was agreed in HELLO"
    );
}
