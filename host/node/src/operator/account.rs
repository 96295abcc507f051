//! How media were scored, what was kept of them and which term decided: in words, and as JSON.

use std::fmt::Write as _;

use msao_core::offload::account::{Account, MediumAccount, Portion, SideAccount, Term};
use msao_core::offload::manifest::Manifest;
use msao_core::offload::record::DecisionRecord;
use msao_core::offload::{Rest, Treatment};
use msao_registry::Plugins;
use serde_json::{Value, json};

/// The account of a decision as JSON, with the policy's own words, or why there are none. Calls a plug-in: on a blocking
/// thread only.
pub fn told(plugins: &Plugins, record: &DecisionRecord, manifest: Option<&Manifest>) -> Value {
    let account = Account::of(record, manifest);
    let (words, missing) = match plugins.explain(record) {
        Ok(words) => (Some(words), None),
        Err(why) => (None, Some(why.to_string())),
    };
    json!({
        "media": account.media,
        "decided": account.decided,
        "own-words": words,
        "no-own-words": missing,
    })
}

/// How each medium was scored.
pub fn scored(account: &Account) -> String {
    if account.media.is_empty() {
        return String::new();
    }
    let mut text = "\nHow it was scored\n".to_owned();
    for (number, medium) in account.media.iter().enumerate() {
        let _ = write!(text, "  {}: ", name(number, medium));
        let Some(scores) = &medium.scores else {
            text.push_str("not at all, the probe did not run\n");
            continue;
        };
        let _ = write!(
            text,
            "necessity {:.3}, MAS {:.3}",
            scores.necessity, scores.mas
        );
        if let (Some(spatial), Some(temporal)) = (scores.spatial, scores.temporal) {
            let _ = write!(text, " (spatial {spatial:.3}, temporal {temporal:.3})");
        }
        let _ = write!(text, ", unusual {:.3}", scores.unusual);
        match &scores.fallback {
            Some(why) => {
                let _ = write!(text, "; by the fallback: {why}");
            }
            None => {
                let _ = write!(text, "; {} tokens ranked", scores.ranked);
            }
        }
        text.push('\n');
    }
    text
}

/// The reason that the plan gives, and its terms; the one that decided has a mark.
pub fn decided(account: &Account) -> String {
    let decided = &account.decided;
    let mut text = "\nWhat decided\n".to_owned();
    match (&decided.reason, &decided.failed) {
        (Some(reason), _) => {
            match &reason.name {
                Some(name) => text.push_str(&format!("  {name}")),
                None => text.push_str(&format!("  reason {}", reason.number)),
            }
            if let Some(meaning) = reason.meaning.as_ref().filter(|it| !it.is_empty()) {
                let _ = write!(text, ": {meaning}");
            }
            text.push('\n');
        }
        (None, Some(kind)) => {
            let _ = writeln!(
                text,
                "  the policy's call failed ({kind}): the fallback planned"
            );
        }
        (None, None) => text.push_str("  the built-in fallback, by its own rule\n"),
    }
    let width = decided
        .terms
        .iter()
        .map(|term| term_name(term).chars().count());
    let width = width.max().unwrap_or(0);
    for term in &decided.terms {
        let mark = if term.decided { '>' } else { ' ' };
        let padding = " ".repeat(width.saturating_sub(term_name(term).chars().count()));
        let _ = write!(
            text,
            "  {mark} {}{padding}  {}",
            term_name(term),
            term.value
        );
        if !term.unit.is_empty() {
            let _ = write!(text, " {}", term.unit);
        }
        if let Some(meaning) = term.meaning.as_ref().filter(|it| !it.is_empty()) {
            let _ = write!(text, "  ({meaning})");
        }
        text.push('\n');
    }
    text
}

fn term_name(term: &Term) -> &str {
    term.name.as_deref().unwrap_or("term")
}

/// What was kept of each medium for either model, as planned and as run.
pub fn kept(account: &Account) -> String {
    if account.media.is_empty() {
        return String::new();
    }
    let mut text = "\nWhat was kept\n".to_owned();
    for (number, medium) in account.media.iter().enumerate() {
        let _ = writeln!(text, "  {}", name(number, medium));
        for (model, side) in [("draft", &medium.draft), ("target", &medium.target)] {
            let _ = writeln!(text, "    {model:<6}  {}", side_in_words(medium, side));
        }
    }
    text
}

fn side_in_words(medium: &MediumAccount, side: &SideAccount) -> String {
    let planned = match &side.planned {
        Some(portion) => format!("planned {}", portion_in_words(portion)),
        None => "not planned by a policy".to_owned(),
    };
    let ran = match (&side.ran, medium.digest) {
        (Some(portion), _) => format!("read {}", portion_in_words(portion)),
        (None, Some(_)) => "did not read it".to_owned(),
        (None, None) => "what it read was not recorded".to_owned(),
    };
    format!("{planned}; {ran}")
}

fn portion_in_words(portion: &Portion) -> String {
    let mut words = format!(
        "{} of {} tokens ({:.1}%)",
        portion.tokens,
        portion.of,
        100.0 * portion.share
    );
    if let Some(frames) = portion.frames.filter(|frames| *frames != 1) {
        let _ = write!(words, " in {frames} frames");
    }
    let Treatment {
        scale,
        quality,
        rest,
        ..
    } = portion.treatment;
    if scale < 1.0 {
        let _ = write!(words, ", scaled by {scale}");
    }
    if quality > 0 {
        let _ = write!(words, ", JPEG quality {quality}");
    }
    words.push_str(match rest {
        Rest::Send => "",
        Rest::Crop => ", the rest cropped",
        Rest::Flatten => ", the rest flattened",
    });
    words
}

/// A medium by its place in the prompt, and how far it extends.
fn name(number: usize, medium: &MediumAccount) -> String {
    let what = match medium.modality {
        "video" => "clip",
        "audio" => "sound",
        image => image,
    };
    let mut name = format!("{what} {}", number + 1);
    if let Some(extent) = medium.extent {
        let _ = match (extent.frames, extent.per_frame()) {
            (1, _) => write!(name, " ({} x {} tokens)", extent.rows, extent.columns),
            (frames, 1) => write!(name, " ({frames} tokens)"),
            (frames, _) => write!(
                name,
                " ({frames} frames of {} x {} tokens)",
                extent.rows, extent.columns
            ),
        };
    }
    name
}

#[cfg(test)]
mod tests {
    use msao_core::digest::Digest;
    use msao_core::offload::account::{Decided, Reason, ScoreAccount};
    use msao_core::offload::kept::Extent;

    use super::*;

    fn portion(tokens: u32, of: u32, frames: u32, treatment: Treatment) -> Option<Portion> {
        Some(Portion {
            tokens,
            of,
            share: f64::from(tokens) / f64::from(of),
            frames: Some(frames),
            treatment,
        })
    }

    fn account() -> Account {
        let scores = ScoreAccount {
            necessity: 0.93,
            mas: 0.412,
            spatial: Some(0.38),
            temporal: Some(0.0516),
            unusual: 0.12,
            ranked: 256,
            fallback: None,
        };
        let halved = Treatment {
            scale: 0.5,
            quality: 80,
            rest: Rest::Crop,
            ..Treatment::WHOLE
        };
        let whole = Treatment::WHOLE;
        let image = MediumAccount {
            modality: "image",
            tokens: 256,
            extent: Some(Extent {
                frames: 1,
                rows: 16,
                columns: 16,
            }),
            digest: Some(Digest::of(b"image")),
            scores: Some(scores.clone()),
            draft: SideAccount {
                planned: portion(103, 256, 1, whole),
                ran: None,
            },
            target: SideAccount {
                planned: portion(128, 256, 1, halved),
                ran: portion(64, 64, 1, halved),
            },
        };
        let clip = MediumAccount {
            modality: "video",
            extent: Some(Extent {
                frames: 4,
                rows: 2,
                columns: 2,
            }),
            scores: Some(ScoreAccount {
                spatial: None,
                temporal: None,
                fallback: Some("the post-processor failed (trap)".into()),
                ..scores
            }),
            draft: SideAccount {
                planned: portion(6, 16, 2, whole),
                ran: portion(6, 16, 2, whole),
            },
            ..image.clone()
        };
        let old = MediumAccount {
            modality: "audio",
            extent: None,
            digest: None,
            scores: None,
            draft: SideAccount {
                planned: None,
                ran: None,
            },
            target: SideAccount {
                planned: None,
                ran: None,
            },
            ..image.clone()
        };
        let term = |name: Option<&str>, value, decided| Term {
            name: name.map(str::to_owned),
            value,
            unit: "ms".into(),
            meaning: name.map(|name| format!("Time of the {name}")),
            decided,
        };
        Account {
            media: vec![image, clip, old],
            decided: Decided {
                policy: Some("sure 1.0.0".into()),
                failed: None,
                reason: Some(Reason {
                    number: 1,
                    name: Some("cloud-quickest".into()),
                    meaning: Some("A peer's target is quickest".into()),
                }),
                terms: vec![
                    term(Some("edge"), 900.5, false),
                    term(Some("cloud"), 400.0, true),
                    term(None, 7.0, false),
                ],
            },
        }
    }

    #[test]
    fn scores_are_told_with_their_parts() {
        assert_eq!(
            scored(&account()),
            "\nHow it was scored\n\
             \x20 image 1 (16 x 16 tokens): necessity 0.930, MAS 0.412 (spatial 0.380, temporal 0.052), unusual 0.120; \
             256 tokens ranked\n\
             \x20 clip 2 (4 frames of 2 x 2 tokens): necessity 0.930, MAS 0.412, unusual 0.120; by the fallback: the \
             post-processor failed (trap)\n\
             \x20 sound 3: not at all, the probe did not run\n"
        );
    }

    #[test]
    fn the_term_that_decided_has_a_mark() {
        let mut account = account();
        assert_eq!(
            decided(&account),
            "\nWhat decided\n\
             \x20 cloud-quickest: A peer's target is quickest\n\
             \x20   edge   900.5 ms  (Time of the edge)\n\
             \x20 > cloud  400 ms  (Time of the cloud)\n\
             \x20   term   7 ms\n"
        );
        account.decided.terms.clear();
        account.decided.reason = Some(Reason {
            number: 4,
            name: None,
            meaning: None,
        });
        assert_eq!(decided(&account), "\nWhat decided\n  reason 4\n");
        account.decided.reason = None;
        assert!(decided(&account).contains("built-in fallback"));
        account.decided.failed = Some("deadline".into());
        assert!(decided(&account).contains("failed (deadline)"));
    }

    #[test]
    fn what_was_kept_is_told_for_both_models() {
        assert_eq!(
            kept(&account()),
            "\nWhat was kept\n\
             \x20 image 1 (16 x 16 tokens)\n\
             \x20   draft   planned 103 of 256 tokens (40.2%); did not read it\n\
             \x20   target  planned 128 of 256 tokens (50.0%), scaled by 0.5, JPEG quality 80, the rest cropped; read 64 of \
             64 tokens (100.0%), scaled by 0.5, JPEG quality 80, the rest cropped\n\
             \x20 clip 2 (4 frames of 2 x 2 tokens)\n\
             \x20   draft   planned 6 of 16 tokens (37.5%) in 2 frames; read 6 of 16 tokens (37.5%) in 2 frames\n\
             \x20   target  planned 128 of 256 tokens (50.0%), scaled by 0.5, JPEG quality 80, the rest cropped; read 64 of \
             64 tokens (100.0%), scaled by 0.5, JPEG quality 80, the rest cropped\n\
             \x20 sound 3\n\
             \x20   draft   not planned by a policy; what it read was not recorded\n\
             \x20   target  not planned by a policy; what it read was not recorded\n"
        );
        let nothing = Account {
            media: Vec::new(),
            ..account()
        };
        assert!(scored(&nothing).is_empty() && kept(&nothing).is_empty());
    }
}
