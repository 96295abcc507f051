//! How a medium was made smaller on its way to the target, and where what is left of it stands.
//!
//! A medium's tokens are counted in *steps* (of a clip the pairs of frames that are one token deep, of a sound the chunks
//! that its encoder looks at by themselves; an image is one), rows and columns. What is laid out of it is a rectangle of
//! rows and columns, the same in each of some steps, at a size of its own: its tokens stand where their centres lie in
//! the grid of the whole medium, so that nothing else in the prompt moves. A keep list is of the tokens that are laid out.

use serde::{Deserialize, Serialize};

use super::limits::{MAX_SIDE, MAX_STEP_BYTES};
use super::wire::{at_most, must};
use super::{FrameError, Kind, cbor};

/// How a medium was made smaller. Sent only to a node whose HELLO says that it knows of it ([`super::Hello::shipments`]).
/// Unlike elsewhere an unknown field is refused: another way of being made is another input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    /// Whether the bytes are a shipment (`msao_media::ship`); else they are as the medium's sender made them.
    #[serde(default)]
    pub shipped: bool,
    /// Pixels across and down as its sender made it; 0 and 0 for a sound.
    pub size: (u32, u32),
    /// Frames that are looked at, of a clip; samples at 16 kHz, of a sound; 1, of an image.
    pub length: u32,
    /// Frames of a clip as its sender made it; 0 otherwise.
    #[serde(default)]
    pub frames: u32,
    /// Their rate in frames per second; 0 otherwise.
    #[serde(default)]
    pub fps: f64,
    /// Its tokens, as the target's own processor makes them of all of it: deep (of a sound: all), down and across.
    pub whole: (u32, u32, u32),
    /// Pixels across and down at which it is laid out, at most `size`; 0 and 0 for a sound.
    pub canvas: (u32, u32),
    /// Tokens down and across at that size.
    pub scaled: (u32, u32),
    /// What of that is laid out; nothing drops the medium, whose bytes are not uploaded then.
    #[serde(default)]
    pub window: Option<Window>,
}

/// What of a medium is laid out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Rows of tokens above it.
    pub top: u32,
    /// Columns of tokens left of it.
    pub left: u32,
    /// Rows of tokens in it, at least 1.
    pub rows: u32,
    /// Columns of tokens in it, at least 1.
    pub columns: u32,
    /// A bit for each step of the medium, as in [`Medium::keep`](super::Medium::keep); set ones are laid out, at least one.
    #[serde(with = "cbor::bytes")]
    pub steps: Vec<u8>,
}

impl Made {
    pub(super) fn check(&self) -> Result<(), FrameError> {
        let kind = Kind::Open;
        let (width, height) = self.size;
        let side = "prompt.media.made.size";
        at_most(kind, side, MAX_SIDE, width.max(height) as usize)?;
        let sides = (width > 0) == (height > 0);
        must(kind, side, "of two sides, or of none", sides)?;
        must(
            kind,
            "prompt.media.made.canvas",
            "at most `size`, and of as many sides",
            self.canvas.0 <= width
                && self.canvas.1 <= height
                && (self.canvas.0 > 0) == (width > 0)
                && (self.canvas.1 > 0) == (height > 0),
        )?;
        let length = self.length > 0;
        must(kind, "prompt.media.made.length", "at least 1", length)?;
        let rate = self.fps.is_finite() && self.fps >= 0.0;
        let field = "prompt.media.made.fps";
        must(kind, field, "finite and not negative", rate)?;
        let (deep, down, across) = self.whole;
        let some = deep > 0 && down > 0 && across > 0;
        let field = "prompt.media.made.whole";
        must(kind, field, "at least 1 each way", some)?;
        let some = self.scaled.0 > 0 && self.scaled.1 > 0;
        let field = "prompt.media.made.scaled";
        must(kind, field, "at least 1 each way", some)?;
        let Some(window) = &self.window else {
            // There is nothing that could have been sent.
            let field = "prompt.media.made.shipped";
            return must(kind, field, "false without a `window`", !self.shipped);
        };
        let within = |from: u32, count: u32, most: u32| {
            count > 0 && from.checked_add(count).is_some_and(|end| end <= most)
        };
        must(
            kind,
            "prompt.media.made.window",
            "a part of `scaled`",
            within(window.top, window.rows, self.scaled.0)
                && within(window.left, window.columns, self.scaled.1),
        )?;
        let steps = "prompt.media.made.window.steps";
        at_most(kind, steps, MAX_STEP_BYTES, window.steps.len())?;
        let any = window.steps.iter().any(|&bits| bits != 0);
        must(kind, steps, "of at least one step", any)
    }

    /// All of it, for a digest: each field of fixed length but the last.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![u8::from(self.shipped), u8::from(self.window.is_some())];
        let (deep, down, across) = self.whole;
        for number in [
            self.size.0,
            self.size.1,
            self.length,
            self.frames,
            deep,
            down,
            across,
            self.canvas.0,
            self.canvas.1,
            self.scaled.0,
            self.scaled.1,
        ] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(self.fps.to_le_bytes());
        if let Some(window) = &self.window {
            for number in [window.top, window.left, window.rows, window.columns] {
                bytes.extend(number.to_le_bytes());
            }
            bytes.extend(&window.steps);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crop() -> Made {
        Made {
            shipped: true,
            size: (640, 480),
            length: 1,
            frames: 0,
            fps: 0.0,
            whole: (1, 17, 23),
            canvas: (320, 240),
            scaled: (9, 11),
            window: Some(Window {
                top: 3,
                left: 4,
                rows: 6,
                columns: 7,
                steps: vec![1],
            }),
        }
    }

    fn wrong(change: impl FnOnce(&mut Made)) -> String {
        let mut made = crop();
        change(&mut made);
        made.check().unwrap_err().to_string()
    }

    fn wrong_window(change: impl FnOnce(&mut Window)) -> String {
        wrong(|made| change(made.window.as_mut().unwrap()))
    }

    #[test]
    fn a_lie_is_told_by_its_field() {
        assert_eq!(crop().check(), Ok(()));
        for (message, field) in [
            (wrong(|made| made.size = (640, 0)), "size must"),
            (wrong(|made| made.size.0 = u32::MAX), "size is 4294967295"),
            (wrong(|made| made.canvas.0 = 641), "canvas must"),
            (wrong(|made| made.canvas.1 = 0), "canvas must"),
            (wrong(|made| made.length = 0), "length must"),
            (wrong(|made| made.fps = f64::NAN), "fps must"),
            (wrong(|made| made.whole.1 = 0), "whole must"),
            (wrong(|made| made.scaled.0 = 0), "scaled must"),
            (wrong(|made| made.window = None), "shipped must"),
            (wrong_window(|it| it.rows = 7), "window must"),
            (wrong_window(|it| it.left = u32::MAX), "window must"),
            (wrong_window(|it| it.columns = 0), "window must"),
            (wrong_window(|it| it.steps = vec![0, 0]), "steps must"),
            (
                wrong_window(|it| it.steps = vec![1; MAX_STEP_BYTES + 1]),
                "steps is",
            ),
        ] {
            let wanted = format!("OPEN.prompt.media.made.{field}");
            let named = message.replace("window.steps", "steps");
            assert!(named.starts_with(&wanted), "{message}");
        }
        let dropped = Made {
            shipped: false,
            window: None,
            ..crop()
        };
        assert_eq!(dropped.check(), Ok(()));
    }

    #[test]
    fn every_field_changes_the_bytes() {
        let mut all = vec![crop().bytes()];
        let mut put = |change: fn(&mut Made)| {
            let mut made = crop();
            change(&mut made);
            all.push(made.bytes());
        };
        put(|made| made.shipped = false);
        put(|made| made.size.0 += 1);
        put(|made| made.size.1 += 1);
        put(|made| made.length += 1);
        put(|made| made.frames += 1);
        put(|made| made.fps = 2.0);
        put(|made| made.whole.0 += 1);
        put(|made| made.whole.1 += 1);
        put(|made| made.whole.2 += 1);
        put(|made| made.canvas.0 += 1);
        put(|made| made.canvas.1 += 1);
        put(|made| made.scaled.0 += 1);
        put(|made| made.scaled.1 += 1);
        put(|made| made.window = None);
        put(|made| made.window.as_mut().unwrap().top += 1);
        put(|made| made.window.as_mut().unwrap().left += 1);
        put(|made| made.window.as_mut().unwrap().rows += 1);
        put(|made| made.window.as_mut().unwrap().columns += 1);
        put(|made| made.window.as_mut().unwrap().steps = vec![2]);
        put(|made| made.window.as_mut().unwrap().steps = vec![1, 0]);
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
