//! Recorded decisions as traffic: the same requests again, for other policies and parameters.
//!
//! A record says what was asked, and what became of it. What it does not say is taken from the other records (how well
//! drafts were guessed, where none were judged) or assumed (media of requests that were not probed are needed whole).

use std::sync::Arc;

use msao_core::offload::record::DecisionRecord;
use msao_core::offload::{BINS, Part, Status, flag, kind, modality};
use msao_link::shaper::{Bandwidth, DirectionConfig, LinkConfig};

use super::{Arrivals, Drawn, Guessing, MOST_TOKENS, Medium, Question, Said, Traffic};
use crate::error::{Result, must};

/// Makes traffic of decision records, as `msao_registry::state::read_jsonl` reads them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recorded {
    /// Over so many edges the requests are dealt, one after the other.
    pub edges: u32,
    /// 1: they come as they came; 2: twice as fast.
    pub pace: f64,
    /// What drafts are like where no record says anything of them.
    pub drafts: Drawn,
}

impl Default for Recorded {
    fn default() -> Recorded {
        Recorded {
            edges: 1,
            pace: 1.0,
            drafts: Drawn::default(),
        }
    }
}

impl Recorded {
    /// The questions of all records whose requests were answered.
    ///
    /// # Errors
    /// [`crate::SimulateError::Value`]: nothing was answered, or a record says what cannot be.
    pub fn traffic(&self, records: &[DecisionRecord]) -> Result<Traffic> {
        let (edges, pace) = (self.edges, self.pace);
        must(
            (1..=1_000_000).contains(&edges),
            || "edges".to_owned(),
            || format!("is {edges}; allowed: 1 to 1000000"),
        )?;
        must(
            pace > 0.0 && pace <= 1e6,
            || "pace".to_owned(),
            || format!("is {pace}; allowed: above 0, at most 1000000"),
        )?;
        let mut answered: Vec<&DecisionRecord> =
            records.iter().filter(|record| tokens(record) > 0).collect();
        // They stand in the order in which they ended.
        answered.sort_by(|a, b| a.request.now_ms.total_cmp(&b.request.now_ms));
        let begin_ms = answered.first().map_or(0.0, |record| record.request.now_ms);
        let overall = Judged::of(&answered);
        let questions = answered.iter().zip(0..).map(|(record, number)| Question {
            edge: number % edges,
            arrives_ms: (record.request.now_ms - begin_ms) / pace,
            ..self.question(record, &overall)
        });
        let traffic = Traffic {
            questions: questions.collect(),
            arrivals: Arrivals::ByClock,
        };
        traffic.check(edges)?;
        Ok(traffic)
    }

    fn question(&self, record: &DecisionRecord, overall: &Judged) -> Question {
        let request = &record.request;
        let text = record
            .parts
            .iter()
            .filter(|it| it.modality == modality::TEXT);
        let (mut text_tokens, mut text_bytes) = (0, 0.0);
        for part in text {
            text_tokens += part.tokens;
            text_bytes += part.bytes;
        }
        let media = record
            .parts
            .iter()
            .filter(|it| it.modality != modality::TEXT);
        let answer_tokens = tokens(record).min(MOST_TOKENS);
        let scoring = record.scoring.as_ref();
        Question {
            edge: 0,
            arrives_ms: 0.0,
            seed: request.seed,
            media: media.map(medium).collect(),
            text_tokens: text_tokens.max(1),
            text_bytes,
            max_tokens: request.max_tokens.max(answer_tokens),
            answer_tokens,
            deadline_ms: request.deadline_ms,
            temperature: request.temperature,
            tenant: request.tenant,
            flags: request.flags & !flag::PROBED,
            guessing: self.guessing(record, overall),
            report: scoring.and_then(|it| it.report.clone()).map(Arc::new),
        }
    }

    fn guessing(&self, record: &DecisionRecord, overall: &Judged) -> Guessing {
        let drafted = record
            .steps
            .iter()
            .filter(|step| step.input.kind == kind::DRAFTED);
        let said: Vec<Said> = drafted
            .map(|step| Said {
                p_accept: step.input.p_accept,
                top1: step.input.top1,
                entropy_nats: step.input.entropy_nats,
                margin: step.input.margin,
            })
            .collect();
        if said.is_empty() {
            return Guessing::Drawn(Drawn {
                doubt: overall.doubt().unwrap_or(self.drafts.doubt),
                ..self.drafts
            });
        }
        Guessing::Recorded {
            said: said.into(),
            stood: Judged::of(&[record]).stood(overall),
            blind: self.drafts.blind,
        }
    }
}

/// Tokens of the answer; 0 where there is none, or it was cut short.
fn tokens(record: &DecisionRecord) -> u32 {
    let outcome = record.outcome.as_ref();
    let whole = outcome.filter(|it| it.status <= Status::Degraded as u8);
    whole.map_or(0, |it| it.tokens)
}

fn medium(part: &Part) -> Medium {
    let probed = |value: f64, otherwise: f64| if value < 0.0 { otherwise } else { value };
    Medium {
        modality: part.modality,
        tokens: part.tokens,
        frames: part.frames,
        width_px: part.width_px,
        height_px: part.height_px,
        duration_ms: part.duration_ms,
        bytes: part.bytes,
        cached: false,
        necessity: probed(part.necessity, 1.0),
        mas: probed(part.mas, 0.0),
        unusual: probed(part.unusual, 0.0),
    }
}

/// How often drafts stood, by what was said of them.
struct Judged {
    drafted: [f64; BINS],
    accepted: [f64; BINS],
}

impl Judged {
    fn of(records: &[&DecisionRecord]) -> Judged {
        let mut judged = Judged {
            drafted: [0.0; BINS],
            accepted: [0.0; BINS],
        };
        for outcome in records.iter().filter_map(|it| it.outcome.as_ref()) {
            for (sum, count) in judged.drafted.iter_mut().zip(&outcome.drafted) {
                *sum += f64::from(*count);
            }
            for (sum, count) in judged.accepted.iter_mut().zip(&outcome.accepted) {
                *sum += f64::from(*count);
            }
        }
        judged
    }

    /// None: no draft was judged.
    fn doubt(&self) -> Option<f64> {
        let drafted: f64 = self.drafted.iter().sum();
        let accepted: f64 = self.accepted.iter().sum();
        (drafted > 0.0).then(|| (1.0 - accepted / drafted).clamp(0.0, 1.0))
    }

    /// Of one answer by bins. A few drafts say little, so each bin has two more of all answers' kind; and where there are none,
    /// of what the bin itself says.
    fn stood(&self, overall: &Judged) -> [f64; BINS] {
        const MORE: f64 = 2.0;
        let mut stood = [0.0; BINS];
        let own = self.drafted.iter().zip(&self.accepted);
        let all = overall.drafted.iter().zip(&overall.accepted);
        for (bin, (stood, (own, all))) in stood.iter_mut().zip(own.zip(all)).enumerate() {
            let said = (bin as f64 + 0.5) / BINS as f64;
            let usual = (all.1 + MORE * said) / (all.0 + MORE);
            *stood = ((own.1 + MORE * usual) / (own.0 + MORE)).clamp(0.0, 1.0);
        }
        stood
    }
}

/// A link like those that the records' requests saw to their first peer: medians of what was known. None where nothing was.
pub fn link_of(records: &[DecisionRecord]) -> Option<LinkConfig> {
    let known = |of: fn(&msao_core::offload::Node) -> f64| {
        let peers = records.iter().filter_map(|record| record.nodes.get(1));
        let mut values: Vec<f64> = peers
            .filter(|peer| peer.up)
            .map(of)
            .filter(|value| value.is_finite() && *value >= 0.0)
            .collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    let rtt_ms = known(|peer| peer.rtt_ms)?.min(100_000.0);
    let jitter_ms = known(|peer| peer.jitter_ms).unwrap_or(0.0);
    let direction = |bps: Option<f64>| DirectionConfig {
        bandwidth: bps.and_then(|bps| Bandwidth::from_bps(bps as u64).ok()),
        trace: None,
        delay_ms: rtt_ms / 2.0,
        jitter_ms: (jitter_ms / 2.0).min(rtt_ms / 2.0),
    };
    Some(LinkConfig {
        up: direction(known(|peer| peer.uplink_bps)),
        down: direction(known(|peer| peer.downlink_bps)),
        ..LinkConfig::default()
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::BufReader;
    use std::path::Path;

    use msao_registry::state::read_jsonl;

    use super::*;

    fn records(name: &str) -> Vec<DecisionRecord> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/decisions");
        let file = File::open(folder.join(format!("{name}.jsonl.zst"))).unwrap();
        read_jsonl(BufReader::new(file)).unwrap().decisions
    }

    #[test]
    fn recorded_requests_are_asked_again() {
        let records = records("fixed-speculate");
        let recorded = Recorded {
            edges: 2,
            pace: 2.0,
            ..Recorded::default()
        };
        let traffic = recorded.traffic(&records).unwrap();
        let answered = records.iter().filter(|record| tokens(record) > 0).count();
        assert_eq!(traffic.questions.len(), answered);
        let first = traffic.questions.first().unwrap();
        assert_eq!((first.arrives_ms, first.edge), (0.0, 0));
        for question in &traffic.questions {
            let record = records
                .iter()
                .find(|it| it.request.seed == question.seed)
                .unwrap();
            assert_eq!(question.prompt_tokens(), record.request.prompt_tokens);
            assert_eq!(question.answer_tokens, tokens(record));
            let drafts = record
                .steps
                .iter()
                .any(|step| step.input.kind == kind::DRAFTED);
            assert_eq!(
                matches!(question.guessing, Guessing::Recorded { .. }),
                drafts
            );
        }
        let link = link_of(&records).unwrap();
        assert_eq!(link.check(), Ok(()));
        assert!(link.up.delay_ms > 0.0 && link.up.bandwidth.is_some());
    }

    #[test]
    fn every_recorded_set_makes_traffic_and_none_of_nothing() {
        for name in ["cloud-draft", "cloud-only", "edge-only", "mas-joint"] {
            assert!(
                Recorded::default().traffic(&records(name)).is_ok(),
                "{name}"
            );
        }
        let error = Recorded::default().traffic(&[]).unwrap_err().to_string();
        assert!(error.starts_with("questions: has 0 entries"), "{error}");
        assert_eq!(link_of(&[]), None);
    }

    #[test]
    fn few_drafts_say_little() {
        let none = Judged {
            drafted: [0.0; BINS],
            accepted: [0.0; BINS],
        };
        let usual = none.stood(&none);
        // Nothing is known: a bin says the middle of itself.
        assert!((usual[8] - 8.5 / 16.0).abs() < 1e-12);
        let mut own = Judged {
            drafted: [0.0; BINS],
            accepted: [0.0; BINS],
        };
        own.drafted[8] = 98.0;
        assert!(own.stood(&none)[8] < 0.02);
        assert_eq!(none.doubt(), None);
        assert_eq!(own.doubt(), Some(1.0));
    }
}
