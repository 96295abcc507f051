use super::*;
use crate::offload::kept::TokenSet;
use crate::offload::record::{GenerationId, Given, OpenedAhead, Scoring, VERSION, version_with};
use crate::offload::{Node, Outcome, Request, Score, flag};

fn manifest() -> Manifest {
    Manifest::parse(
        "name = \"sure\"\nversion = \"1.2.3\"\nworld = \"offload-policy\"\ndescription = \"\"\nstate-schema = 0\n\
         [[reason]]\nname = \"unknown\"\nmeaning = \"Nothing is known\"\n\
         [[reason]]\nname = \"quick\"\nmeaning = \"The cloud is quickest\"\nterm = \"cloud\"\n\
         [[term]]\nname = \"edge\"\nmeaning = \"Time here\"\nunit = \"ms\"\n\
         [[term]]\nname = \"cloud\"\nmeaning = \"Time there\"\nunit = \"ms\"\n",
    )
    .unwrap()
}

fn keeping(draft: f64, target: f64) -> PartPlan {
    let keep = |keep| Treatment {
        keep,
        ..Treatment::WHOLE
    };
    PartPlan {
        draft: keep(draft),
        target: keep(target),
    }
}

/// A picture of 2 x 4 tokens and text, of which the draft model got a quarter and the target a half.
fn record() -> DecisionRecord {
    let given = Given {
        params: Vec::new(),
        calibration: Digest::of(b""),
    };
    let parts = vec![keeping(0.25, 0.5), keeping(1.0, 1.0)];
    let plan = Plan {
        parts: parts.clone(),
        reason: 1,
        terms: vec![900.0, 400.0, 7.0],
        ..Plan::plain(Route::Speculate, 1)
    };
    let set = |kept: &[u32]| {
        Some(Reading {
            extent: None,
            kept: Some(TokenSet::new(kept, 8)),
        })
    };
    let media = vec![MediumKept {
        digest: Digest::of(b"picture"),
        extent: Extent {
            frames: 1,
            rows: 2,
            columns: 4,
        },
        sampled: Vec::new(),
        draft: set(&[1, 6]),
        target: set(&[1, 2, 5, 6]),
    }];
    DecisionRecord {
        version: version_with(&media, None),
        id: "req".into(),
        generation: GenerationId {
            policy: Some(Digest::of(b"policy")),
            postprocessor: Some(Digest::of(b"scores")),
            revision: 1,
        },
        request: Request {
            flags: flag::PROBED,
            ..Request::default()
        },
        parts: vec![
            Part {
                modality: modality::IMAGE,
                tokens: 8,
                necessity: 0.75,
                mas: 0.5,
                unusual: 0.25,
                ..Part::default()
            },
            Part {
                tokens: 10,
                necessity: 1.0,
                ..Part::default()
            },
        ],
        nodes: vec![Node::default()],
        given: given.clone(),
        scoring: Some(Scoring {
            given,
            report: None,
            scores: Called::Answered(Scores {
                items: vec![Score {
                    necessity: 0.75,
                    mas: 0.5,
                    spatial: 0.4,
                    temporal: 0.1,
                    unusual: 0.25,
                    keep_order: vec![6, 1, 2, 5],
                }],
                updates: Vec::new(),
            }),
        }),
        asked: None,
        planned: Some(Called::Answered(Decision::Run(plan.clone()))),
        replanned: false,
        ran: plan,
        steps: Vec::new(),
        media,
        ahead: None,
        outcome: Some(Outcome {
            parts,
            ..Outcome::default()
        }),
        updates: None,
    }
}

#[test]
fn scores_have_their_parts_and_sides_what_was_planned_and_read() {
    let account = Account::of(&record(), Some(&manifest()));
    let [image] = account.media.as_slice() else {
        panic!("{account:?}");
    };
    assert_eq!((image.modality, image.tokens), ("image", 8));
    assert_eq!(image.digest, Some(Digest::of(b"picture")));
    let scores = image.scores.as_ref().unwrap();
    assert_eq!(
        (scores.necessity, scores.mas, scores.unusual),
        (0.75, 0.5, 0.25)
    );
    assert_eq!((scores.spatial, scores.temporal), (Some(0.4), Some(0.1)));
    assert_eq!((scores.ranked, &scores.fallback), (4, &None));
    for (side, tokens) in [(&image.draft, 2), (&image.target, 4)] {
        for portion in [&side.planned, &side.ran] {
            let portion = portion.as_ref().unwrap();
            assert_eq!(
                (portion.tokens, portion.of, portion.frames),
                (tokens, 8, Some(1))
            );
            assert_eq!(portion.share, f64::from(tokens) / 8.0);
            assert_eq!(portion.treatment.keep, portion.share);
        }
    }
}

#[test]
fn the_term_that_decides_is_the_one_that_the_reason_names() {
    let decided = Account::of(&record(), Some(&manifest())).decided;
    assert_eq!(decided.policy.as_deref(), Some("sure 1.2.3"));
    let reason = decided.reason.unwrap();
    assert_eq!(reason.name.as_deref(), Some("quick"));
    assert_eq!(reason.meaning.as_deref(), Some("The cloud is quickest"));
    let terms: Vec<(Option<&str>, f64, bool)> = decided
        .terms
        .iter()
        .map(|term| (term.name.as_deref(), term.value, term.decided))
        .collect();
    // A value more than the manifest has names for is shown as it is.
    assert_eq!(
        terms,
        [
            (Some("edge"), 900.0, false),
            (Some("cloud"), 400.0, true),
            (None, 7.0, false)
        ]
    );
    let unknown = Account::of(&record(), None).decided;
    assert_eq!((unknown.policy, unknown.failed), (None, None));
    assert_eq!(
        unknown.reason.map(|it| (it.number, it.name)),
        Some((1, None))
    );
    assert!(
        unknown
            .terms
            .iter()
            .all(|it| it.name.is_none() && !it.decided)
    );
}

#[test]
fn what_was_read_may_be_other_than_planned() {
    let mut record = record();
    // A plan without parts, which ran so; the target got the picture at half its size.
    let Some(Called::Answered(Decision::Run(plan))) = &mut record.planned else {
        panic!("there is a plan");
    };
    plan.parts.clear();
    record.outcome = Some(Outcome::default());
    record.media[0].draft = None;
    record.media[0].target = Some(Reading {
        extent: Some(Extent {
            frames: 1,
            rows: 1,
            columns: 2,
        }),
        kept: None,
    });
    let image = &Account::of(&record, None).media[0];
    let planned = image.draft.planned.as_ref().unwrap();
    assert_eq!((planned.tokens, planned.of, planned.share), (8, 8, 1.0));
    assert_eq!(image.draft.ran, None);
    let ran = image.target.ran.as_ref().unwrap();
    assert_eq!((ran.tokens, ran.of, ran.share), (2, 2, 1.0));
    assert_eq!(ran.treatment, Treatment::WHOLE);
    // Of a clip the frames count of which anything is read.
    record.media[0].extent = Extent {
        frames: 4,
        rows: 1,
        columns: 2,
    };
    record.media[0].draft = Some(Reading {
        extent: None,
        kept: Some(TokenSet::new(&[0, 1, 5], 8)),
    });
    let image = &Account::of(&record, None).media[0];
    assert_eq!(image.draft.ran.as_ref().unwrap().frames, Some(2));
}

#[test]
fn a_record_says_what_it_can() {
    let mut record = record();
    // As programs wrote it before media were recorded.
    let mut text = serde_json::to_value(&record).unwrap();
    text.as_object_mut().unwrap().remove("media");
    text["version"] = 1.into();
    let old: DecisionRecord = serde_json::from_value(text.clone()).unwrap();
    assert_eq!(
        (
            version_with(&old.media, old.ahead),
            version_with(&record.media, None),
            version_with(&[], Some(OpenedAhead::Wasted)),
        ),
        (1, 2, VERSION)
    );
    assert_eq!(serde_json::to_value(&old).unwrap(), text);
    let image = &Account::of(&old, None).media[0];
    assert_eq!((image.extent, image.digest), (None, None));
    assert_eq!((&image.draft.ran, &image.target.ran), (&None, &None));
    let planned = image.target.planned.as_ref().unwrap();
    assert_eq!((planned.tokens, planned.frames), (4, None));

    // The post-processor failed, or there was none; the policy saw the fallback's scores.
    let fallback = |record: &DecisionRecord| {
        let image = &Account::of(record, None).media[0];
        let scores = image.scores.clone().unwrap();
        assert_eq!((scores.spatial, scores.ranked), (None, 0));
        scores.fallback.unwrap()
    };
    if let Some(scoring) = &mut record.scoring {
        scoring.scores = Called::Failed("trap".into());
    }
    assert!(fallback(&record).contains("failed (trap)"));
    record.scoring = None;
    assert!(fallback(&record).contains("no post-processor"));
    // Not probed at all.
    record.parts[0].necessity = -1.0;
    assert_eq!(Account::of(&record, None).media[0].scores, None);

    // A plan that failed is none.
    record.planned = Some(Called::Failed("deadline".into()));
    let account = Account::of(&record, Some(&manifest()));
    assert_eq!(account.decided.failed.as_deref(), Some("deadline"));
    assert_eq!(
        (account.decided.reason, account.decided.terms),
        (None, Vec::new())
    );
    assert_eq!(account.media[0].draft.planned, None);
    // Nor is one there where nobody was asked.
    record.planned = None;
    assert_eq!(Account::of(&record, None).decided.reason, None);
}
