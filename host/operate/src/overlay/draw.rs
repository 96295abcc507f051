//! What was kept of media, as a picture. From left to right: what the draft model read (blue frame), what the target read
//! (orange frame); from top to bottom the media in prompt order. What was dropped is grey and dark.
//!
//! An image has its kept tokens over it. Of a clip the frames are shown of which anything was kept, and under them a bar with a
//! place for each frame; of a sound its wave, as high as it is loud.

use anyhow::bail;
use msao_core::offload::kept::{Extent, Reading};
use msao_core::offload::modality;
use msao_media::RgbImage;

use super::canvas::{Area, Canvas, Colour, covered};
use super::medium::{Medium, Seen, kept_frames};

/// Around what the draft model read, and around what the target read.
const DRAFT: Colour = [66, 133, 244];
const TARGET: Colour = [244, 160, 0];
const GROUND: Colour = [255; 3];
/// What a medium looks like that is not there.
const UNSEEN: Colour = [208; 3];
const WAVE: Colour = [32; 3];

/// Pixels.
const BORDER: u32 = 3;
const GAP: u32 = 8;
const BETWEEN_FRAMES: u32 = 2;
const BAR: u32 = 6;
/// The longer side of an image, as far as its cells are not smaller or larger than these.
const IMAGE: u32 = 640;
const IMAGE_CELL: (u32, u32) = (4, 28);
/// The longer side of a clip's frame, likewise.
const FRAME: u32 = 160;
const FRAME_CELL: (u32, u32) = (1, 28);
const FRAMES_IN_A_ROW: u32 = 8;
const SOUND: (u32, u32) = (640, 64);
/// Pixels of a whole picture at most.
const MOST: u64 = 64 << 20;

/// Draws all media.
///
/// # Errors
/// No model has read any, or the picture would be too large.
pub fn draw(media: &[Medium]) -> anyhow::Result<RgbImage> {
    let mut rows = Vec::new();
    for medium in media {
        let sides = [(&medium.kept.draft, DRAFT), (&medium.kept.target, TARGET)];
        let mut panels = Vec::new();
        for (reading, colour) in sides {
            if let Some(reading) = reading {
                panels.push(panel(medium, reading)?.framed(BORDER, colour));
            }
        }
        if !panels.is_empty() {
            rows.push(beside(&panels)?);
        }
    }
    if rows.is_empty() {
        bail!("neither model has read any of the media: there is nothing to draw");
    }
    Ok(below(&rows)?.framed(GAP, GROUND).into_image())
}

/// The sides of a picture, if it is not too large.
fn fitting(width: u64, height: u64) -> anyhow::Result<(u32, u32)> {
    match (u32::try_from(width), u32::try_from(height)) {
        (Ok(wide), Ok(high)) if width.saturating_mul(height) <= MOST => Ok((wide, high)),
        _ => bail!(
            "the picture would have {width} x {height} pixels, more than the {MOST} that are drawn"
        ),
    }
}

/// A canvas of the ground's colour.
fn ground(width: u64, height: u64) -> anyhow::Result<Canvas> {
    let (width, height) = fitting(width, height)?;
    Ok(Canvas::filled(width, height, GROUND))
}

fn beside(panels: &[Canvas]) -> anyhow::Result<Canvas> {
    let gaps = u64::from(GAP) * (panels.len() as u64).saturating_sub(1);
    let width: u64 = panels.iter().map(|it| u64::from(it.width())).sum();
    let height = panels.iter().map(|it| u64::from(it.height())).max();
    let mut all = ground(width + gaps, height.unwrap_or(0))?;
    let mut x = 0;
    for panel in panels {
        all.paste(panel, (x, 0));
        x += panel.width() + GAP;
    }
    Ok(all)
}

fn below(rows: &[Canvas]) -> anyhow::Result<Canvas> {
    let gaps = u64::from(GAP) * (rows.len() as u64).saturating_sub(1);
    let height: u64 = rows.iter().map(|it| u64::from(it.height())).sum();
    let width = rows.iter().map(|it| u64::from(it.width())).max();
    let mut all = ground(width.unwrap_or(0), height + gaps)?;
    let mut y = 0;
    for row in rows {
        all.paste(row, (0, y));
        y += row.height() + GAP;
    }
    Ok(all)
}

fn panel(medium: &Medium, reading: &Reading) -> anyhow::Result<Canvas> {
    let extent = reading.extent.unwrap_or(medium.kept.extent);
    match medium.modality {
        modality::AUDIO => Ok(sound(&medium.seen, &extent, reading)),
        modality::VIDEO => clip(&medium.seen, &extent, reading),
        _ => {
            let image = match &medium.seen {
                Seen::Image(image) => Some(image),
                _ => None,
            };
            let cell = cell(&extent, IMAGE, IMAGE_CELL);
            let side = |tokens: u32| u64::from(tokens) * u64::from(cell);
            fitting(side(extent.columns), side(extent.rows))?;
            Ok(frame(image, &extent, cell, 0, reading))
        }
    }
}

/// The side of a token in pixels, so that the longer side of a frame has about so many.
fn cell(extent: &Extent, side: u32, (least, most): (u32, u32)) -> u32 {
    let longer = extent.rows.max(extent.columns).max(1);
    (side / longer).clamp(least, most)
}

/// One frame with its kept tokens over it.
fn frame(
    image: Option<&RgbImage>,
    extent: &Extent,
    cell: u32,
    number: u32,
    reading: &Reading,
) -> Canvas {
    let (width, height) = (extent.columns * cell, extent.rows * cell);
    let mut canvas = match image {
        Some(image) => Canvas::scaled(image, width, height),
        None => Canvas::filled(width, height, UNSEEN),
    };
    for row in 0..extent.rows {
        for column in 0..extent.columns {
            let token = number * extent.per_frame() + row * extent.columns + column;
            if !is_kept(reading, token) {
                let area = Area {
                    x: column * cell,
                    y: row * cell,
                    width: cell,
                    height: cell,
                };
                canvas.change(area, dimmed);
            }
        }
    }
    canvas
}

fn is_kept(reading: &Reading, token: u32) -> bool {
    reading
        .kept
        .as_ref()
        .is_none_or(|kept| kept.contains(token))
}

/// Grey, and dark.
fn dimmed([r, g, b]: Colour) -> Colour {
    let grey = (77 * u32::from(r) + 150 * u32::from(g) + 29 * u32::from(b)) >> 8;
    [24 + (grey / 4) as u8; 3]
}

/// The frames of which anything was kept, and a bar of all of them.
fn clip(seen: &Seen, extent: &Extent, reading: &Reading) -> anyhow::Result<Canvas> {
    let cell = cell(extent, FRAME, FRAME_CELL);
    let (wide, high) = (extent.columns * cell, extent.rows * cell);
    let kept = kept_frames(extent, reading);
    let count = kept.len() as u32;
    let in_a_row = count.clamp(1, FRAMES_IN_A_ROW);
    let lines = count.div_ceil(FRAMES_IN_A_ROW);
    let strip = u64::from(in_a_row) * u64::from(wide + BETWEEN_FRAMES);
    let width = (strip - u64::from(BETWEEN_FRAMES)).max(u64::from(FRAME));
    let height = u64::from(lines) * u64::from(high + BETWEEN_FRAMES) + u64::from(BAR);
    let mut canvas = ground(width, height)?;
    for (place, &number) in (0_u32..).zip(&kept) {
        let image = match seen {
            Seen::Frames(frames) => frames.get(&number),
            _ => None,
        };
        let at = (
            place % FRAMES_IN_A_ROW * (wide + BETWEEN_FRAMES),
            place / FRAMES_IN_A_ROW * (high + BETWEEN_FRAMES),
        );
        canvas.paste(&frame(image, extent, cell, number, reading), at);
    }
    let top = lines * (high + BETWEEN_FRAMES);
    let mut bar = Canvas::filled(canvas.width(), BAR, UNSEEN);
    dim_dropped(&mut bar, extent.frames, |number| {
        kept.binary_search(&number).is_ok()
    });
    canvas.paste(&bar, (0, top));
    Ok(canvas)
}

/// The wave of a sound, and which of its segments were kept.
fn sound(seen: &Seen, extent: &Extent, reading: &Reading) -> Canvas {
    let (width, height) = SOUND;
    let mut canvas = Canvas::filled(width, height, UNSEEN);
    if let Seen::Sound(samples) = seen {
        let all = u32::try_from(samples.len()).unwrap_or(u32::MAX);
        for x in 0..width {
            let heard = samples.get(covered(x, width, all)).unwrap_or_default();
            if heard.is_empty() {
                continue;
            }
            let low = heard.iter().copied().fold(f32::INFINITY, f32::min);
            let high = heard.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let (top, bottom) = (row_of(high, height), row_of(low, height));
            let area = Area {
                x,
                y: top,
                width: 1,
                height: bottom.saturating_sub(top) + 1,
            };
            canvas.change(area, |_| WAVE);
        }
    }
    dim_dropped(&mut canvas, extent.tokens(), |token| {
        is_kept(reading, token)
    });
    canvas
}

/// The row of a sample: 1 is at the top, -1 at the bottom.
fn row_of(sample: f32, height: u32) -> u32 {
    let half = height / 2;
    let up = (sample.clamp(-1.0, 1.0) * (half - 1) as f32).round();
    // Of what is no number the row is that of silence.
    let row = i64::from(half) - up as i64;
    u32::try_from(row).unwrap_or(0).min(height - 1)
}

/// Dims the columns that stand for nothing that was kept of so many things in a row.
fn dim_dropped(canvas: &mut Canvas, all: u32, is_kept: impl Fn(u32) -> bool) {
    let (width, height) = (canvas.width(), canvas.height());
    for x in 0..width {
        let mut things = covered(x, width, all).map(|it| it as u32);
        if !things.any(&is_kept) {
            let area = Area {
                x,
                y: 0,
                width: 1,
                height,
            };
            canvas.change(area, dimmed);
        }
    }
}

#[cfg(test)]
mod tests;
