//! Decision records: what is kept, what goes, and that an export reads back to the bit.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use std::sync::Arc;

use msao_core::digest::Digest;
use msao_core::offload::kept::{Extent, MediumKept, Reading, TokenSet};
use msao_core::offload::record::{
    Called, DecisionRecord, GenerationId, Given, Scoring, Step, VERSION,
};
use msao_core::offload::{
    Action, Calibration, Decision, Item, Node, Outcome, Part, Plan, Report, Request, Route, Score,
    Scores, StepInput,
};
use msao_state::{
    Line, MemoryStorage, RecordConfig, RecordRing, Redact, Snapshot, Storage, read_jsonl,
    write_line,
};
use proptest::prelude::*;

use crate::failing::Failing;

fn snapshot(number: u32) -> Arc<Snapshot> {
    let value = f64::from(number) / 3.0;
    Arc::new(Snapshot::new(Calibration {
        keys: vec![number],
        mean: vec![value],
        variance: vec![value * value],
        count: vec![1.0],
    }))
}

fn record(number: u32, snapshot: &Snapshot) -> DecisionRecord {
    let given = |params| Given {
        params,
        calibration: snapshot.digest(),
    };
    DecisionRecord {
        version: VERSION,
        id: format!("request-{number}"),
        generation: GenerationId {
            policy: Some(Digest::of(b"policy")),
            postprocessor: None,
            revision: 1,
        },
        request: Request {
            seed: u64::MAX - u64::from(number),
            tenant: 7,
            ..Request::default()
        },
        parts: vec![Part::default()],
        nodes: vec![Node::default()],
        given: given(vec![0.1, 1.0 / 3.0]),
        scoring: Some(Scoring {
            given: given(Vec::new()),
            report: Some(Report {
                items: vec![Item::default()],
                saliency: vec![0.1, 1e-40, f32::MAX],
                ..Report::default()
            }),
            scores: Called::Answered(Scores {
                items: vec![Score::default()],
                updates: Vec::new(),
            }),
        }),
        asked: None,
        replanned: false,
        planned: Some(Called::Answered(Decision::Run(Plan::plain(
            Route::Cloud,
            1,
        )))),
        ran: Plan::plain(Route::Cloud, 1),
        steps: vec![Step {
            input: StepInput::default(),
            action: Called::Answered(Action::Send),
        }],
        media: vec![medium()],
        ahead: None,
        outcome: Some(Outcome::default()),
        updates: Some(Called::Failed("trap".into())),
    }
}

/// A clip of two frames, of which the target has read all and the draft model three tokens.
fn medium() -> MediumKept {
    MediumKept {
        digest: Digest::of(b"clip"),
        extent: Extent {
            frames: 2,
            rows: 3,
            columns: 2,
        },
        sampled: vec![0, 12, 24, 36],
        draft: Some(Reading {
            extent: None,
            kept: Some(TokenSet::new(&[0, 5, 11], 12)),
        }),
        target: Some(Reading::default()),
    }
}

fn ring(storage: &Arc<MemoryStorage>, config: RecordConfig) -> RecordRing {
    RecordRing::open(Arc::clone(storage) as Arc<dyn Storage>, config).unwrap()
}

fn keeping(keep: u64) -> RecordConfig {
    RecordConfig {
        keep,
        reports: 1.0,
        queue: 65_536,
        ..RecordConfig::default()
    }
}

fn push(ring: &RecordRing, number: u32, snapshot: &Arc<Snapshot>) -> bool {
    ring.push(record(number, snapshot), vec![Arc::clone(snapshot)])
}

/// The line that tells a snapshot.
fn told(snapshot: &Snapshot) -> Vec<u8> {
    let mut text = Vec::new();
    let line = Line::Snapshot {
        digest: snapshot.digest(),
        calibration: snapshot.calibration().clone(),
    };
    write_line(&mut text, &line).unwrap();
    text
}

#[test]
fn the_oldest_go_and_snapshots_stay_as_long_as_they_are_named() {
    let storage = Arc::new(MemoryStorage::default());
    let ring = ring(&storage, keeping(4));
    let (first, second) = (snapshot(1), snapshot(2));
    for number in 0..6 {
        push(&ring, number, if number < 4 { &first } else { &second });
    }
    ring.settle().unwrap();
    let ids: Vec<String> = ring.tail(10).unwrap().into_iter().map(|it| it.id).collect();
    assert_eq!(ids, ["request-2", "request-3", "request-4", "request-5"]);
    assert_eq!(ring.get("request-1").unwrap(), None);
    assert_eq!(ring.get("request-3").unwrap(), Some(record(3, &first)));
    assert_eq!(ring.stats().snapshots, 2);
    for number in 6..8 {
        push(&ring, number, &second);
    }
    ring.settle().unwrap();
    assert_eq!(ring.stats().snapshots, 1);
    assert!(ring.snapshot(first.digest()).unwrap().is_none());
    assert!(ring.snapshot(second.digest()).unwrap().is_some());
}

#[test]
fn the_ring_goes_on_after_a_restart_in_what_it_counts_as_well() {
    let storage = Arc::new(MemoryStorage::default());
    let before = {
        let ring = ring(&storage, keeping(5));
        for number in 0..7 {
            push(&ring, number, &snapshot(number / 3));
        }
        ring.settle().unwrap();
        ring.stats()
    };
    let ring = ring(&storage, keeping(5));
    let after = ring.stats();
    assert_eq!(
        (after.kept, after.bytes, after.snapshots, after.unreadable),
        (before.kept, before.bytes, before.snapshots, 0)
    );
    push(&ring, 9, &snapshot(9));
    ring.settle().unwrap();
    assert_eq!(ring.tail(1).unwrap()[0].id, "request-9");
    assert_eq!(ring.stats().kept, 5);
}

#[test]
fn the_size_is_kept_to_snapshots_included() {
    let storage = Arc::new(MemoryStorage::default());
    let ring = ring(
        &storage,
        RecordConfig {
            mib: 1,
            ..keeping(1_000_000)
        },
    );
    let large = |number: u32| {
        let keys: Vec<u32> = (0..4096).collect();
        let column = vec![f64::from(number); 4096];
        Arc::new(Snapshot::new(Calibration {
            keys,
            mean: column.clone(),
            variance: column.clone(),
            count: column,
        }))
    };
    for number in 0..40 {
        push(&ring, number, &large(number));
        ring.settle().unwrap();
        let stats = ring.stats();
        assert!(stats.bytes <= 1 << 20, "{stats:?}");
        assert_eq!(stats.kept, stats.snapshots);
    }
    assert!(ring.stats().kept >= 5);
    assert_eq!(ring.stats().failed, 0);
}

#[test]
fn what_the_operator_redacts_is_not_there() {
    let storage = Arc::new(MemoryStorage::default());
    let config = RecordConfig {
        redact: vec![Redact::Tenant, Redact::Report, Redact::Steps, Redact::Media],
        ..keeping(10)
    };
    let ring = ring(&storage, config);
    push(&ring, 1, &snapshot(1));
    ring.settle().unwrap();
    let kept = ring.get("request-1").unwrap().unwrap();
    assert_eq!(kept.request.tenant, 0);
    assert!(kept.steps.is_empty());
    // Without what came with version 2 it is one of version 1, which older programs can read.
    assert_eq!((kept.media.len(), kept.version), (0, 1));
    let scoring = kept.scoring.unwrap();
    assert_eq!(scoring.report, None);
    assert!(scoring.scores.answer().is_some());
}

#[test]
fn a_record_without_its_snapshot_is_refused_and_counted() {
    let storage = Arc::new(MemoryStorage::default());
    let ring = ring(&storage, keeping(10));
    ring.push(record(1, &snapshot(1)), vec![snapshot(2)]);
    ring.settle().unwrap();
    assert_eq!((ring.stats().kept, ring.stats().failed), (0, 1));
}

#[test]
fn too_many_at_once_are_dropped_and_counted() {
    let storage = Arc::new(MemoryStorage::default());
    let ring = ring(
        &storage,
        RecordConfig {
            queue: 1,
            ..keeping(100_000)
        },
    );
    let snapshot = snapshot(1);
    let taken = (0..5000)
        .filter(|&number| push(&ring, number, &snapshot))
        .count() as u64;
    ring.settle().unwrap();
    let stats = ring.stats();
    assert_eq!(stats.written, taken);
    assert_eq!(stats.written + stats.dropped, 5000);
    assert!(
        stats.dropped > 0,
        "five thousand pushes found a queue of one always empty"
    );
}

#[test]
fn an_export_reads_back_to_the_bit() {
    let storage = Arc::new(MemoryStorage::default());
    let ring = ring(&storage, keeping(100));
    for number in 0..10 {
        push(&ring, number, &snapshot(number / 4));
    }
    ring.settle().unwrap();
    let mut text = Vec::new();
    let exported = ring.export(&mut text, 6).unwrap();
    assert_eq!((exported.decisions, exported.snapshots), (6, 2));
    let read = read_jsonl(text.as_slice()).unwrap();
    let expected: Vec<DecisionRecord> = (4..10).map(|n| record(n, &snapshot(n / 4))).collect();
    assert_eq!(read.decisions, expected);
    assert_eq!(read.snapshots.len(), 2);
}

#[test]
fn what_was_packed_by_zstd_is_read_as_it_is() {
    let snapshot = snapshot(1);
    let mut text = told(&snapshot);
    for number in 0..5 {
        write_line(
            &mut text,
            &Line::Decision(Box::new(record(number, &snapshot))),
        )
        .unwrap();
    }
    let packed = zstd::encode_all(text.as_slice(), 3).unwrap();
    let (plain, read) = (
        read_jsonl(text.as_slice()).unwrap(),
        read_jsonl(packed.as_slice()).unwrap(),
    );
    assert_eq!(read.decisions.len(), 5);
    assert_eq!(read.decisions, plain.decisions);
    assert_eq!(read.snapshots.len(), 1);
    // Cut off or damaged: an error, not half of the decisions.
    let error = read_jsonl(&packed[..packed.len() - 9]).unwrap_err();
    assert!(!error.problem.is_empty(), "{error}");
    let mut damaged = packed;
    damaged[5] ^= 0x41;
    assert!(read_jsonl(damaged.as_slice()).is_err());
}

#[test]
fn records_of_programs_that_knew_no_media_are_read() {
    let snapshot = snapshot(1);
    let mut text = told(&snapshot);
    let mut old = serde_json::to_value(record(1, &snapshot)).unwrap();
    assert_eq!(old["media"][0]["draft"]["kept"]["bits"], "2108");
    old.as_object_mut().unwrap().remove("media");
    old["version"] = 1.into();
    let line = serde_json::json!({ "decision": old });
    text.extend(line.to_string().bytes());
    let read = read_jsonl(text.as_slice()).unwrap();
    let [decision] = read.decisions.as_slice() else {
        panic!("{read:?}");
    };
    assert_eq!((decision.version, decision.media.len()), (1, 0));
    // It is written again as it was read, and kept so.
    assert_eq!(serde_json::to_value(decision).unwrap(), old);
    let storage = Arc::new(MemoryStorage::default());
    let ring = ring(&storage, keeping(10));
    assert!(ring.push(decision.clone(), vec![Arc::clone(&snapshot)]));
    ring.settle().unwrap();
    assert_eq!(ring.get("request-1").unwrap().as_ref(), Some(decision));
    // What is told of media is held against itself.
    let mut wrong = serde_json::to_value(record(2, &snapshot)).unwrap();
    wrong["media"][0]["draft"]["kept"]["bits"] = "ff".into();
    let line = serde_json::json!({ "decision": wrong }).to_string();
    let text = [&text[..], b"\n", line.as_bytes()].concat();
    let read = read_jsonl(text.as_slice()).unwrap();
    assert_eq!((read.decisions.len(), read.skipped), (1, 1));
    let problem = read.first_skipped.unwrap().problem;
    assert!(problem.contains("12 tokens take 4"), "{problem}");
}

#[test]
fn what_is_wrong_with_a_file_is_named_with_its_line() {
    let snapshot = snapshot(1);
    let mut good = told(&snapshot);
    let decision = Line::Decision(Box::new(record(1, &snapshot)));
    write_line(&mut good, &decision).unwrap();
    let good = String::from_utf8(good).unwrap();
    assert!(read_jsonl(good.as_bytes()).is_ok());
    let (line, rest) = good.split_once('\n').unwrap();
    for (text, named) in [
        (
            format!("{rest}{line}\n"),
            "line 1: the decision names the snapshot",
        ),
        (
            good.replace("\"count\":[1.0]", "\"count\":[2.0]"),
            "line 1: the snapshot is not",
        ),
        (
            good.replace("\"count\":[1.0]", "\"count\":[]"),
            "line 1: the snapshot's columns",
        ),
        (
            good.replace("\"version\":3", "\"version\":4"),
            "line 2: the record has version 4",
        ),
        (
            good.replace("\"seed\"", "\"sead\""),
            "line 2: unknown field `sead`",
        ),
        (good[..good.len() - 9].to_owned(), "line 2: EOF"),
    ] {
        let error = read_jsonl(text.as_bytes()).unwrap_err().to_string();
        assert!(
            error.starts_with(named),
            "{error}\nshould begin with {named}"
        );
    }
}

#[test]
fn a_bad_line_is_left_out_and_counted() {
    let snapshot = snapshot(1);
    let mut text = told(&snapshot);
    let mut endless = record(2, &snapshot);
    endless.nodes[0].rtt_ms = f64::INFINITY;
    let decisions = [record(1, &snapshot), endless, record(3, &snapshot)];
    for decision in &decisions {
        write_line(&mut text, &Line::Decision(Box::new(decision.clone()))).unwrap();
    }
    text.extend_from_slice(b"\xff\xfe\n");
    let read = read_jsonl(text.as_slice()).unwrap();
    let [first, _, third] = decisions;
    assert_eq!(read.decisions, [first, third]);
    assert_eq!(read.skipped, 2);
    let told = read.first_skipped.unwrap().to_string();
    assert!(told.starts_with("line 3: invalid type: null"), "{told}");
}

#[test]
fn a_record_that_could_not_be_read_again_is_not_kept_and_counted() {
    let storage = Arc::new(MemoryStorage::default());
    let ring = ring(&storage, keeping(100));
    let snapshot = snapshot(1);
    let mut endless = record(1, &snapshot);
    endless.request.deadline_ms = f64::NAN;
    assert!(!ring.push(endless, vec![Arc::clone(&snapshot)]));
    let mut inside = record(2, &snapshot);
    inside
        .scoring
        .as_mut()
        .unwrap()
        .report
        .as_mut()
        .unwrap()
        .saliency[0] = f32::INFINITY;
    assert!(!ring.push(inside, vec![Arc::clone(&snapshot)]));
    assert!(push(&ring, 3, &snapshot));
    ring.settle().unwrap();
    let stats = ring.stats();
    assert_eq!((stats.kept, stats.written, stats.failed), (1, 1, 2));
}

#[test]
fn a_write_that_fails_leaves_no_trace() {
    let storage = Arc::new(Failing::default());
    let shared = || Arc::clone(&storage) as Arc<dyn Storage>;
    let config = RecordConfig {
        keep: 3,
        reports: 1.0,
        ..RecordConfig::default()
    };
    let ring = RecordRing::open(shared(), config.clone()).unwrap();
    for number in 0..3 {
        push(&ring, number, &snapshot(1));
    }
    ring.settle().unwrap();
    let before = ring.stats();
    storage.fail(true);
    // Together they would have taken every place, and one that was theirs.
    for number in 3..7 {
        push(&ring, number, &snapshot(2));
    }
    ring.settle().unwrap();
    storage.fail(false);
    let after = ring.stats();
    assert_eq!((after.kept, after.bytes), (before.kept, before.bytes));
    assert_eq!((after.failed, after.snapshots), (4, 1));
    assert_eq!((before.written, after.written), (3, 3));
    // The next one brings its snapshot, and takes the place of the oldest.
    push(&ring, 7, &snapshot(2));
    ring.settle().unwrap();
    let export = |ring: &RecordRing| {
        let mut text = Vec::new();
        ring.export(&mut text, 10).unwrap();
        read_jsonl(text.as_slice()).unwrap().decisions
    };
    let ids: Vec<String> = export(&ring).into_iter().map(|it| it.id).collect();
    assert_eq!(ids, ["request-1", "request-2", "request-7"]);
    let stats = ring.stats();
    assert_eq!((stats.written, stats.failed), (4, 4));
    drop(ring);
    let again = RecordRing::open(shared(), config).unwrap();
    assert_eq!((again.stats().bytes, again.stats().kept), (stats.bytes, 3));
    assert_eq!(export(&again).len(), 3);
}

proptest! {
    #[test]
    fn any_number_survives_the_text(
        cells in prop::collection::btree_map(any::<u32>(), (any::<f64>(), any::<f64>(), any::<f64>()), 0..20),
    ) {
        prop_assume!(cells.values().all(|(a, b, c)| a.is_finite() && b.is_finite() && c.is_finite()));
        let calibration = Calibration {
            keys: cells.keys().copied().collect(),
            mean: cells.values().map(|it| it.0).collect(),
            variance: cells.values().map(|it| it.1).collect(),
            count: cells.values().map(|it| it.2).collect(),
        };
        let digest = calibration.digest();
        let mut text = Vec::new();
        write_line(&mut text, &Line::Snapshot { digest, calibration }).unwrap();
        // The digest is over the bits of every number.
        prop_assert!(read_jsonl(text.as_slice()).unwrap().snapshots.contains_key(&digest));
    }
}
