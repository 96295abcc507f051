//! What plug-ins see of a request and of this node.

use msao_core::chat::Modality;
use msao_core::offload::{self, Part, capability, modality};
use msao_core::probe::{FEATURE_WIDTH, ProbeReport};
use msao_link::estimate::{Figures, UNKNOWN};

use super::prepare::Prompt;
use crate::adapt::CLOSED;
use crate::node::Models;

/// A number as plug-ins may see it: one that is not finite says as little as none.
fn finite(number: f64, otherwise: f64) -> f64 {
    if number.is_finite() {
        number
    } else {
        otherwise
    }
}

/// The same of what a model computed.
fn finite_of_model(numbers: &[f32]) -> impl Iterator<Item = f32> {
    numbers
        .iter()
        .map(|&number| if number.is_finite() { number } else { 0.0 })
}

/// A row without numbers that are not finite.
pub fn known(row: offload::Node) -> offload::Node {
    let known = |number| finite(number, UNKNOWN);
    offload::Node {
        up: row.up,
        can: row.can,
        uplink_bps: known(row.uplink_bps),
        uplink_sd_bps: known(row.uplink_sd_bps),
        downlink_bps: known(row.downlink_bps),
        rtt_ms: known(row.rtt_ms),
        jitter_ms: known(row.jitter_ms),
        stalled: known(row.stalled),
        age_ms: known(row.age_ms),
        queue_ms: known(row.queue_ms),
        planned_ms: known(row.planned_ms),
        kv_free: known(row.kv_free),
        prefill_tok_per_s: known(row.prefill_tok_per_s),
        draft_tok_per_s: known(row.draft_tok_per_s),
        target_tok_per_s: known(row.target_tok_per_s),
        verify_ms: known(row.verify_ms),
        acceptance: known(row.acceptance),
        price_per_mtok: known(row.price_per_mtok),
        cached_bytes: known(row.cached_bytes),
        // Above every confidence: nothing is committed unverified.
        confidence_floor: finite(row.confidence_floor, CLOSED),
    }
}

/// The parts of a prompt: media in their order, then all text.
pub fn parts(prompt: &Prompt) -> Vec<Part> {
    let unprobed = Part {
        necessity: UNKNOWN,
        mas: UNKNOWN,
        unusual: UNKNOWN,
        ..Part::default()
    };
    let media = prompt.media.iter().map(|medium| Part {
        modality: number(medium.modality),
        tokens: medium.tokens,
        frames: medium.frames,
        width_px: medium.size_px.0,
        height_px: medium.size_px.1,
        duration_ms: finite(medium.duration_ms, 0.0),
        bytes: medium.bytes.len() as f64,
        ..unprobed.clone()
    });
    let of_media: u32 = prompt.media.iter().map(|medium| medium.tokens).sum();
    let text = Part {
        modality: modality::TEXT,
        tokens: (prompt.tokens() as u32).saturating_sub(of_media),
        bytes: texts(prompt) as f64,
        ..unprobed.clone()
    };
    media.chain([text]).collect()
}

fn texts(prompt: &Prompt) -> usize {
    let parts = prompt
        .messages
        .iter()
        .flat_map(msao_core::chat::Message::parts);
    let bytes = parts.map(|part| match part {
        msao_core::chat::Part::Text { text } => text.len(),
        _ => 0,
    });
    bytes.sum()
}

fn number(of: Modality) -> u8 {
    match of {
        Modality::Text => modality::TEXT,
        Modality::Image => modality::IMAGE,
        Modality::Video => modality::VIDEO,
        Modality::Audio => modality::AUDIO,
    }
}

/// This node's own row.
pub fn this_node(models: &Models, figures: Figures) -> offload::Node {
    let mut node = offload::Node {
        up: true,
        can: capabilities(models),
        uplink_bps: UNKNOWN,
        uplink_sd_bps: UNKNOWN,
        downlink_bps: UNKNOWN,
        rtt_ms: 0.0,
        jitter_ms: 0.0,
        price_per_mtok: UNKNOWN,
        // No media travel to where they are.
        cached_bytes: 0.0,
        // Nothing may be committed unverified, unless audits have shown that it may.
        confidence_floor: CLOSED,
        ..offload::Node::default()
    };
    figures.fill(&mut node);
    node
}

fn capabilities(models: &Models) -> u32 {
    let alike = models.are_alike();
    let bits = [
        (alike, capability::SAME_TOKENIZER),
        (models.draft.is_some(), capability::DRAFT),
        (models.target.is_some(), capability::TARGET),
        // Drafts of other ids cannot be verified.
        (models.target.is_some() && alike, capability::VERIFY),
    ];
    let there = bits.into_iter().filter(|(there, _)| *there);
    there.fold(0, |can, (_, bit)| can | bit)
}

/// The probe's report in the contract's words. What a model computed that is not finite becomes 0.
pub fn report(probe: &ProbeReport) -> offload::Report {
    let mut report = offload::Report {
        dim: FEATURE_WIDTH as u32,
        ..offload::Report::default()
    };
    for item in &probe.items {
        let tokens = item.saliency.len();
        let per_frame = item.grid.h.saturating_mul(item.grid.w).max(1);
        let across = item.grid.w.max(1);
        let sum = |values: &[f32]| finite_of_model(values).map(f64::from).sum::<f64>();
        let (asked, of_nothing) = (sum(&item.relevance), sum(&item.relevance_of_nothing));
        report.items.push(offload::Item {
            modality: number(item.modality),
            tokens: tokens as u32,
            frames: tokens.div_ceil(per_frame) as u32,
            // 1 where nothing was asked, as the contract says: no content-free text was looked at, a medium ends the prompt,
            // or a window hides the item from the last token. Next to nothing is nothing.
            relevance: if asked > 0.0 && of_nothing > 0.0 {
                finite(asked / of_nothing, 1.0)
            } else {
                1.0
            },
        });
        let features: Vec<f32> = finite_of_model(&item.features).collect();
        let centred = centred(&features);
        report.saliency.extend(finite_of_model(&item.saliency));
        report.relevance.extend(finite_of_model(&item.relevance));
        // Without a content-free text nothing is known to draw attention by itself.
        let baseline = finite_of_model(&item.relevance_of_nothing);
        let zeros = std::iter::repeat(0.0);
        report.baseline.extend(baseline.chain(zeros).take(tokens));
        for token in 0..tokens {
            report.frame.push((token / per_frame) as u32);
            report.y.push((token % per_frame / across) as u32);
            report.x.push((token % across) as u32);
            let alike = similarity(&item.features, &centred, token, per_frame);
            report.similarity.push(alike);
        }
        report.features.extend(features);
    }
    report
}

/// Features less their mean.
fn centred(features: &[f32]) -> Vec<f32> {
    let mut mean = [0.0_f64; FEATURE_WIDTH];
    let tokens = (features.len() / FEATURE_WIDTH).max(1) as f64;
    for feature in features.chunks_exact(FEATURE_WIDTH) {
        for (mean, value) in mean.iter_mut().zip(feature) {
            *mean += f64::from(*value) / tokens;
        }
    }
    let less = |feature: &[f32]| {
        let values = feature.iter().zip(mean);
        values
            .map(|(value, mean)| (f64::from(*value) - mean) as f32)
            .collect::<Vec<f32>>()
    };
    features
        .chunks_exact(FEATURE_WIDTH)
        .flat_map(less)
        .collect()
}

/// Cosine of a token's feature, less the mean, with that of the same place one frame before; 2 where there is none, as the
/// contract says. 1 where the two are the same numbers, whatever the mean leaves of them: so are those of a frame that was
/// not encoded because it repeats the one before. What is no number is like nothing.
fn similarity(features: &[f32], centred: &[f32], token: usize, per_frame: usize) -> f32 {
    const NONE: f32 = 2.0;
    fn of(features: &[f32], token: usize) -> Option<&[f32]> {
        let from = token * FEATURE_WIDTH;
        features.get(from..from + FEATURE_WIDTH)
    }
    let Some(earlier) = token.checked_sub(per_frame) else {
        return NONE;
    };
    let known = |feature: &[f32]| feature.iter().all(|value| value.is_finite());
    match (of(features, earlier), of(features, token)) {
        (Some(before), Some(own)) if !known(before) || !known(own) => return 0.0,
        (Some(before), Some(own)) if before == own => return 1.0,
        _ => {}
    }
    let (Some(before), Some(own)) = (of(centred, earlier), of(centred, token)) else {
        return NONE;
    };
    let dot = |a: &[f32], b: &[f32]| {
        let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
        products.sum::<f64>()
    };
    let lengths = (dot(own, own) * dot(before, before)).sqrt();
    if lengths > 0.0 {
        (dot(own, before) / lengths).clamp(-1.0, 1.0) as f32
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use msao_core::inputs::Grid;
    use msao_core::probe::ItemReport;

    use super::*;

    #[test]
    fn nothing_that_is_not_finite_reaches_a_plugin() {
        let bad = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1.0];
        let mut features = vec![f32::NAN; 4 * FEATURE_WIDTH];
        features[FEATURE_WIDTH..].fill(f32::MAX);
        let probe = |relevance_of_nothing: Vec<f32>| ProbeReport {
            items: vec![ItemReport {
                modality: Modality::Video,
                grid: Grid { t: 4, h: 1, w: 1 },
                saliency: bad.to_vec(),
                features: features.clone(),
                relevance: bad.to_vec(),
                relevance_of_nothing,
            }],
            ..ProbeReport::default()
        };
        // The least that there is: what it divides by far exceeds it.
        for of_nothing in [bad.to_vec(), vec![f32::from_bits(1); 4], Vec::new()] {
            let report = report(&probe(of_nothing));
            for (field, numbers) in [
                ("saliency", &report.saliency),
                ("relevance", &report.relevance),
                ("baseline", &report.baseline),
                ("similarity", &report.similarity),
                ("features", &report.features),
            ] {
                assert!(
                    numbers.iter().all(|it| it.is_finite()),
                    "{field}: {numbers:?}"
                );
            }
            assert!(report.items.iter().all(|item| item.relevance.is_finite()));
            assert_eq!(report.saliency, [0.0, 0.0, 0.0, 1.0]);
        }
        let row = known(offload::Node {
            uplink_bps: f64::INFINITY,
            rtt_ms: f64::NAN,
            confidence_floor: f64::NAN,
            kv_free: 0.5,
            ..offload::Node::default()
        });
        assert_eq!((row.uplink_bps, row.rtt_ms), (UNKNOWN, UNKNOWN));
        assert_eq!((row.confidence_floor, row.kv_free), (2.0, 0.5));
    }

    #[test]
    fn a_frame_that_repeats_another_is_wholly_like_it() {
        let likeness = |frames: [f32; 3]| {
            let features = frames.map(|value| [value; FEATURE_WIDTH]);
            let probe = ProbeReport {
                items: vec![ItemReport {
                    modality: Modality::Video,
                    grid: Grid { t: 3, h: 1, w: 1 },
                    saliency: vec![1.0; 3],
                    features: features.concat(),
                    relevance: vec![0.1; 3],
                    relevance_of_nothing: vec![0.1; 3],
                }],
                ..ProbeReport::default()
            };
            report(&probe).similarity
        };
        // The mean leaves nothing of them.
        assert_eq!(likeness([0.3, 0.3, 0.3]), [2.0, 1.0, 1.0]);
        assert_eq!(likeness([0.3, 0.3, 7.0])[1], 1.0);
        for unknown in [f32::NAN, f32::INFINITY] {
            assert_eq!(likeness([unknown, unknown, 1.0]), [2.0, 0.0, 0.0]);
        }
    }

    #[test]
    fn places_and_likeness_follow_the_grid() {
        // Two frames of 1 x 2: the left place stays as it is, the right one turns round.
        let feature = |x: f32, y: f32| {
            let mut feature = [0.0; FEATURE_WIDTH];
            feature[0] = x;
            feature[1] = y;
            feature
        };
        let features = [
            feature(1.0, 5.0),
            feature(0.0, 6.0),
            feature(1.0, 5.0),
            feature(0.0, 4.0),
        ];
        let probe = ProbeReport {
            items: vec![ItemReport {
                modality: Modality::Video,
                grid: Grid { t: 2, h: 1, w: 2 },
                saliency: vec![1.0; 4],
                features: features.concat(),
                relevance: vec![0.1; 4],
                relevance_of_nothing: vec![0.05; 4],
            }],
            ..ProbeReport::default()
        };
        // Nothing was asked of an item that its last token does not see.
        let mut unasked = probe.clone();
        unasked.items[0].relevance = vec![0.0; 4];
        assert_eq!(report(&unasked).items[0].relevance, 1.0);
        let report = report(&probe);
        assert_eq!(
            (&report.frame[..], &report.x[..]),
            (&[0, 0, 1, 1][..], &[0, 1, 0, 1][..])
        );
        assert_eq!(report.similarity[..2], [2.0, 2.0]);
        assert!((report.similarity[2] - 1.0).abs() < 1e-6);
        assert!(report.similarity[3] < 0.0);
        assert!((report.items[0].relevance - 2.0).abs() < 1e-6);
        assert_eq!((report.items[0].frames, report.items[0].tokens), (2, 4));
        assert_eq!(report.baseline, [0.05; 4]);
    }
}
