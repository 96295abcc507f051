//! A stream from another node: any bytes give frames or an error, the same however the network cuts them, and what is held of
//! them stays small. What was read can be written, and reads as the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use msao_session::frame::limits::{HEADER_BYTES, NEWEST, OLDEST};
use msao_session::frame::{Decoder, Frame, encode};

/// All frames of a stream that comes in pieces of so many bytes, and what it ended with.
fn read(mut decoder: Decoder, bytes: &[u8], piece: usize) -> (Vec<Frame>, Option<String>) {
    let mut frames = Vec::new();
    let mut came = 0;
    for mut piece in bytes.chunks(piece.max(1)) {
        came += piece.len();
        while !piece.is_empty() {
            match decoder.feed(&mut piece) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => assert!(piece.is_empty(), "bytes are left that nobody took"),
                Err(error) => return (frames, Some(error.to_string())),
            }
            assert!(decoder.buffered() <= came + HEADER_BYTES);
        }
    }
    let end = decoder.end().err().map(|error| error.to_string());
    (frames, end)
}

fuzz_target!(|input: &[u8]| {
    // Whether HELLO has come before, and how the network cuts the rest.
    let Some((&[greeted, piece], bytes)) = input.split_first_chunk() else {
        return;
    };
    let decoder = || {
        if greeted & 1 == 1 {
            Decoder::of_version(NEWEST)
        } else {
            Decoder::new()
        }
    };
    let whole = read(decoder(), bytes, bytes.len());
    assert_eq!(whole, read(decoder(), bytes, usize::from(piece)));
    for frame in whole.0 {
        for version in OLDEST..=NEWEST {
            let mut written = Vec::new();
            encode(&frame, version, &mut written).expect("what was read can be written");
            let again = read(Decoder::of_version(version), &written, 7);
            match frame {
                // Comes first, or not at all.
                Frame::Hello(_) => {}
                _ => assert_eq!(again, (vec![frame.clone()], None)),
            }
        }
    }
});
