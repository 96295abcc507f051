use std::collections::BTreeSet;
use std::io::Write as _;

use proptest::prelude::*;

use super::*;
use crate::rows::{Class, Results, Route, Status};

/// Answers out of the air, as fast as can be: what a row says depends on policy, item and repeat alone.
pub(crate) struct Simulated {
    /// Rows until it fails. None: it never does.
    pub fails_after: Option<u32>,
    /// Rows until the flag is set.
    pub interrupts_after: Option<u32>,
    pub facts: Facts,
    pub asked: u32,
    /// How long an answer takes, in ms.
    pub takes: fn(&Turn, &ItemRef) -> f64,
    pub scores: fn(&Turn, &ItemRef) -> f64,
}

impl Default for Simulated {
    fn default() -> Simulated {
        Simulated {
            fails_after: None,
            interrupts_after: None,
            facts: Facts {
                commit: "c0ffee".to_owned(),
                emulated: vec!["everything".to_owned()],
                ..Facts::default()
            },
            asked: 0,
            takes: |turn, item| {
                let base = match turn.policy.name.as_str() {
                    "msao" => 40.0,
                    "cloud-only" => 100.0,
                    _ => 80.0,
                };
                base + f64::from(item.index % 7) + f64::from(turn.repeat)
            },
            scores: |_, item| f64::from(u8::from(item.index % 5 != 0)),
        }
    }
}

impl Asker for Simulated {
    fn facts(&mut self) -> anyhow::Result<Facts> {
        Ok(self.facts.clone())
    }

    fn turn(&mut self, turn: &Turn, items: &[ItemRef], sink: &mut Sink) -> anyhow::Result<()> {
        for item in items {
            if self.fails_after == Some(self.asked) {
                bail!("the node is gone");
            }
            if self.interrupts_after == Some(self.asked) {
                sink.interrupt().store(true, Ordering::SeqCst);
            }
            self.asked += 1;
            if item.warm {
                sink.warmed()?;
                continue;
            }
            let total = (self.takes)(turn, item);
            let measured = Measured {
                item: format!("q{}", item.index),
                group: format!("g{}", item.index / 2),
                kind: ["image", "video", "audio", "text"][item.index as usize % 4].to_owned(),
                mix: turn.data.workload.clone(),
                status: Status::Answered,
                score: Some((self.scores)(turn, item)),
                parsed: Some(true),
                route: Some(Route::Speculate),
                class: Some(if turn.policy.exact {
                    Class::Exact
                } else {
                    Class::Confident
                }),
                arrival_ms: item.at_ms,
                total_ms: (turn.purpose == Purpose::Timed).then_some(total),
                ttft_ms: (turn.purpose == Purpose::Timed).then_some(total / 3.0),
                itl_p50_ms: Some(2.0),
                bytes_up: Some(1_000),
                bytes_down: Some(100),
                flops_edge: Some(total * 1e8),
                flops_cloud: Some(total * 1e9),
                busy_edge_ms: Some(total / 4.0),
                busy_cloud_ms: Some(total / 2.0),
                cache_byte_seconds_cloud: Some(total * 10.0),
                ..Measured::default()
            };
            sink.put(item, measured)?;
        }
        Ok(())
    }
}

pub(crate) const SPEC: &str = r#"
name = "simulated"
repeats = 3
requests = 6
warm-up = 2
pair = "demo"
accuracy = { requests = 40, chunk = 20 }
data = [{ set = "demo", n = 40 }]
policies = [
  { name = "cloud-only", policy = "cloud-only", exact = true, paper-kind = true },
  { name = "edge-only", policy = "edge-only" },
  { name = "msao", policy = "msao" },
  { name = "no-mas", policy = "msao", ablation = "MAS" },
]
links = [
  { name = "200", up-mbit = 200, down-mbit = 200, rtt-ms = 20 },
  { name = "5", up-mbit = 5, down-mbit = 5, rtt-ms = 80 },
]
arrivals = [
  { kind = "closed", concurrency = 1 },
  { kind = "poisson", rate-per-s = 2 },
  { kind = "poisson", rate-per-s = 4 },
]
prices = { currency = "USD", edge = { per-1000-node-s = 0.1 }, cloud = { per-1000-node-s = 1.0 }, egress-per-gb = 0.1 }
"#;

pub(crate) fn spec() -> Spec {
    Spec::parse(SPEC).unwrap()
}

/// Accuracy in two rounds, over one link; 24 timed turns, and 8 turns of each round at most.
pub(crate) fn in_rounds() -> Spec {
    let rounds = "{ rounds = [200, 400], chunk = 100, margin-points = 5.0, links = [\"200\"] }";
    let text = SPEC
        .replace("repeats = 3", "repeats = 1")
        .replace("{ requests = 40, chunk = 20 }", rounds)
        .replace("n = 40 }", "n = 400 }");
    Spec::parse(&text).unwrap()
}

/// 4% of the subject's answers are wrong, which 400 items do not decide, and 25% of the edge's, which 200 do.
pub(crate) fn some_wrong(turn: &Turn, item: &ItemRef) -> f64 {
    let wrong = match turn.policy.name.as_str() {
        "msao" => item.index.is_multiple_of(25),
        "edge-only" => item.index.is_multiple_of(4),
        _ => false,
    };
    f64::from(u8::from(!wrong))
}

pub(crate) fn go(spec: &Spec, asker: &mut Simulated, folder: &Path) -> anyhow::Result<Outcome> {
    run(
        spec,
        Path::new(""),
        asker,
        folder,
        &mut |_| {},
        &AtomicBool::new(false),
    )
}

/// All that rows say, but for the run that asked them.
fn said(folder: &Path) -> BTreeSet<String> {
    let rows = Results::read(folder).unwrap().rows;
    let count = rows.len();
    let lines: BTreeSet<String> = rows
        .into_iter()
        .map(|mut row| {
            row.key.run = String::new();
            row.line()
        })
        .collect();
    assert_eq!(lines.len(), count);
    lines
}

/// Turns: 3 repeats of 6 blocks of 4 policies, and 2 chunks over 2 links of 4 policies.
const TURNS: usize = 3 * 6 * 4 + 2 * 2 * 4;
const ROWS: usize = 3 * 6 * 4 * 6 + 2 * 2 * 4 * 20;

#[test]
fn everything_is_asked_once_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut told = Vec::new();
    let mut progress = |it: &Progress| told.push((it.turns_done, it.asked, it.left_s.is_some()));
    let outcome = run(
        &spec(),
        Path::new(""),
        &mut Simulated::default(),
        folder.path(),
        &mut progress,
        &AtomicBool::new(false),
    );
    let wanted = Outcome {
        finished: true,
        turns_done: TURNS,
        turns: TURNS,
    };
    assert_eq!(outcome.unwrap(), wanted);
    assert_eq!(said(folder.path()).len(), ROWS);
    assert_eq!(told[0], (0, 0, false));
    assert!(told.contains(&(1, 8, true)));
    // Nothing is left to do.
    let mut again = Simulated::default();
    assert_eq!(go(&spec(), &mut again, folder.path()).unwrap(), wanted);
    assert_eq!(again.asked, 0);
    let runs = Results::read(folder.path()).unwrap().manifest.runs;
    assert_eq!(runs.len(), 2);
}

#[test]
fn who_learns_does_so_once_a_run_over_each_link_and_nothing_of_it_counts() {
    /// Who was asked what does not count: link, policy, requests, whether some are about what counts.
    #[derive(Default)]
    struct Learner {
        asker: Simulated,
        learned: Vec<(String, String)>,
        turns: usize,
    }
    impl Asker for Learner {
        fn facts(&mut self) -> anyhow::Result<Facts> {
            self.asker.facts()
        }

        fn turn(&mut self, turn: &Turn, items: &[ItemRef], sink: &mut Sink) -> anyhow::Result<()> {
            let key = (turn.link.name.clone(), turn.policy.name.clone());
            if turn.counted() == 0 {
                assert_eq!((turn.purpose, items.len()), (Purpose::Accuracy, 9));
                assert!(items.iter().all(|it| it.warm && it.at_ms.is_none()));
                self.learned.push(key);
            } else {
                assert!(self.learned.contains(&key));
                self.turns += 1;
            }
            self.asker.turn(turn, items, sink)
        }
    }
    let mut spec = spec();
    spec.learn = 9;
    let folder = tempfile::tempdir().unwrap();
    let go = |learner: &mut Learner| {
        let mut told = BTreeSet::new();
        let outcome = run(
            &spec,
            Path::new(""),
            learner,
            folder.path(),
            &mut |it| {
                told.insert((it.turn.arrival.name().to_owned(), it.requests));
            },
            &AtomicBool::new(false),
        );
        (outcome, told)
    };
    // It stops in the second turn over the first link.
    let mut first = Learner::default();
    first.asker.fails_after = Some(9 + 8 + 9 + 3);
    assert!(go(&mut first).0.is_err());
    assert_eq!((first.learned.len(), first.turns), (2, 2));
    let mut second = Learner::default();
    let (outcome, told) = go(&mut second);
    let wanted = Outcome {
        finished: true,
        turns_done: TURNS,
        turns: TURNS,
    };
    assert_eq!(outcome.unwrap(), wanted);
    // Four policies over two links, those of the run before among them.
    let each: BTreeSet<_> = second.learned.iter().collect();
    assert_eq!((second.learned.len(), each.len()), (8, 8));
    assert_eq!(second.turns, TURNS - 1);
    assert!(told.contains(&("learning-4".to_owned(), 9)));
    let results = Results::read(folder.path()).unwrap();
    assert_eq!(results.rows.len(), ROWS);
    assert!(results.rows.iter().all(|it| it.key.arrival != "learning-4"));
}

#[test]
fn who_is_interrupted_while_learning_is_asked_nothing_more() {
    let mut spec = spec();
    spec.learn = 9;
    for after in [3, 8] {
        let folder = tempfile::tempdir().unwrap();
        let mut asker = Simulated {
            interrupts_after: Some(after),
            ..Simulated::default()
        };
        let outcome = go(&spec, &mut asker, folder.path()).unwrap();
        assert_eq!((outcome.finished, outcome.turns_done), (false, 0));
        assert_eq!(asker.asked, after + 1);
    }
}

#[test]
fn who_is_decided_is_asked_no_further() {
    let folder = tempfile::tempdir().unwrap();
    let mut asker = Simulated {
        scores: some_wrong,
        ..Simulated::default()
    };
    let mut told = BTreeSet::new();
    let mut progress = |it: &Progress| {
        told.insert((it.turn.purpose, it.turn.round, it.turns, it.open));
    };
    let outcome = run(
        &in_rounds(),
        Path::new(""),
        &mut asker,
        folder.path(),
        &mut progress,
        &AtomicBool::new(false),
    );
    // Four turns of the second round are left out: two policies are decided.
    let wanted = Outcome {
        finished: true,
        turns_done: 36,
        turns: 36,
    };
    assert_eq!(outcome.unwrap(), wanted);
    assert_eq!(
        told,
        BTreeSet::from([
            (Purpose::Timed, 0, 32, true),
            (Purpose::Accuracy, 0, 32, true),
            (Purpose::Accuracy, 1, 36, false),
        ])
    );
    let rows = Results::read(folder.path()).unwrap().rows;
    let asked = |policy: &str| {
        let one = |it: &&Row| it.key.purpose == Purpose::Accuracy && it.key.policy == policy;
        rows.iter().filter(one).count()
    };
    let policies = ["cloud-only", "msao", "edge-only", "no-mas"];
    assert_eq!(policies.map(asked), [400, 400, 200, 200]);
    // Nothing is left to do.
    let mut again = Simulated {
        scores: some_wrong,
        ..Simulated::default()
    };
    assert_eq!(go(&in_rounds(), &mut again, folder.path()).unwrap(), wanted);
    assert_eq!(again.asked, 0);
    // Where nobody differs, the first round decides everybody.
    let folder = tempfile::tempdir().unwrap();
    let outcome = go(&in_rounds(), &mut Simulated::default(), folder.path());
    assert_eq!(outcome.unwrap().turns, 32);
}

#[test]
fn rounds_that_were_interrupted_go_on_as_they_would_have() {
    let asker = |fails_after| Simulated {
        scores: some_wrong,
        fails_after,
        ..Simulated::default()
    };
    let whole = tempfile::tempdir().unwrap();
    go(&in_rounds(), &mut asker(None), whole.path()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (mut runs, mut finished) = (0, false);
    while !finished {
        // Each ends somewhere else: within a turn, between two, at a round's end.
        let mut asker = asker(Some(150 + 50 * (runs % 4)));
        finished = go(&in_rounds(), &mut asker, folder.path()).is_ok();
        runs += 1;
        assert!(runs < 100);
    }
    assert!(runs > 5, "{runs}");
    assert_eq!(said(folder.path()), said(whole.path()));
}

#[test]
fn a_run_that_was_interrupted_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut asker = Simulated {
        interrupts_after: Some(20),
        ..Simulated::default()
    };
    let outcome = go(&spec(), &mut asker, folder.path()).unwrap();
    assert!(!outcome.finished && outcome.turns_done == 2);
    // The request under way was kept, no other was asked.
    assert_eq!(asker.asked, 21);
    let whole = tempfile::tempdir().unwrap();
    go(&spec(), &mut Simulated::default(), whole.path()).unwrap();
    assert!(
        go(&spec(), &mut Simulated::default(), folder.path())
            .unwrap()
            .finished
    );
    assert_eq!(said(folder.path()), said(whole.path()));
}

#[test]
fn what_is_left_unanswered_because_the_run_is_to_end_does_not_count() {
    struct Cut;
    impl Asker for Cut {
        fn facts(&mut self) -> anyhow::Result<Facts> {
            Simulated::default().facts()
        }
        fn turn(&mut self, turn: &Turn, items: &[ItemRef], sink: &mut Sink) -> anyhow::Result<()> {
            let (last, others) = items.split_last().unwrap();
            Simulated::default().turn(turn, others, sink)?;
            // The nodes have heard of it as well, and take nothing more.
            sink.interrupt().store(true, Ordering::SeqCst);
            let refused = Measured {
                status: Status::Shed,
                ..Measured::default()
            };
            Ok(sink.put(last, refused)?)
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let outcome = run(
        &spec(),
        Path::new(""),
        &mut Cut,
        folder.path(),
        &mut |_| {},
        &AtomicBool::new(false),
    );
    let outcome = outcome.unwrap();
    assert_eq!((outcome.finished, outcome.turns_done), (false, 0));
    let whole = tempfile::tempdir().unwrap();
    for folder in [&folder, &whole] {
        let outcome = go(&spec(), &mut Simulated::default(), folder.path());
        assert!(outcome.unwrap().finished);
    }
    assert_eq!(said(folder.path()), said(whole.path()));
}

#[test]
fn what_fails_is_told_with_its_turn_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut asker = Simulated {
        fails_after: Some(30),
        ..Simulated::default()
    };
    let told = format!("{:#}", go(&spec(), &mut asker, folder.path()).unwrap_err());
    assert!(
        told.contains("turn 3 (demo-mixed, 200, closed-1, ") && told.contains("the node is gone"),
        "{told}"
    );
    assert_eq!(Results::read(folder.path()).unwrap().finished.len(), 3);
    assert!(
        go(&spec(), &mut Simulated::default(), folder.path())
            .unwrap()
            .finished
    );
    assert_eq!(said(folder.path()).len(), ROWS);
}

#[test]
fn something_else_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut asker = Simulated {
        fails_after: Some(30),
        ..Simulated::default()
    };
    go(&spec(), &mut asker, folder.path()).unwrap_err();
    let before = said(folder.path());
    let mut other = spec();
    other.requests = 7;
    let told = go(&other, &mut Simulated::default(), folder.path())
        .unwrap_err()
        .to_string();
    assert!(told.contains("spec.requests was 6, is 7"), "{told}");
    let mut asker = Simulated::default();
    asker.facts.commit = "other".to_owned();
    let told = go(&spec(), &mut asker, folder.path())
        .unwrap_err()
        .to_string();
    assert!(
        told.contains("facts.commit was \"c0ffee\", is \"other\""),
        "{told}"
    );
    // More of the same is no other thing.
    let mut more = spec();
    more.repeats = 4;
    assert!(
        go(&more, &mut Simulated::default(), folder.path())
            .unwrap()
            .finished
    );
    assert!(said(folder.path()).is_superset(&before));
    let told = go(&spec(), &mut Simulated::default(), folder.path())
        .unwrap_err()
        .to_string();
    assert!(
        told.contains("repeats is 3, but the folder's run has 4"),
        "{told}"
    );
    std::fs::remove_file(folder.path().join("manifest.json")).unwrap();
    let told = go(&more, &mut Simulated::default(), folder.path())
        .unwrap_err()
        .to_string();
    assert!(told.contains("no manifest.json"), "{told}");
}

#[test]
fn rows_that_may_not_be_end_the_run() {
    struct Odd(fn(&[ItemRef], &mut Sink) -> anyhow::Result<()>);
    impl Asker for Odd {
        fn facts(&mut self) -> anyhow::Result<Facts> {
            Ok(Facts::default())
        }
        fn turn(&mut self, _: &Turn, items: &[ItemRef], sink: &mut Sink) -> anyhow::Result<()> {
            (self.0)(items, sink)
        }
    }
    type Way = fn(&[ItemRef], &mut Sink) -> anyhow::Result<()>;
    let ways: [(Way, &str); 4] = [
        (|_, _| Ok(()), "6 requests have no row"),
        (
            |items, sink| {
                sink.put(&items[2], Measured::default())?;
                Ok(sink.put(&items[2], Measured::default())?)
            },
            "two rows for item",
        ),
        (
            |items, sink| Ok(sink.put(&items[0], Measured::default())?),
            "does not count",
        ),
        (
            |items, sink| {
                let nan = Measured {
                    total_ms: Some(f64::NAN),
                    ..Measured::default()
                };
                // Whoever passes over it does not get on either.
                let _ignored = sink.put(&items[2], nan);
                Ok(sink.check()?)
            },
            "total_ms is no number",
        ),
    ];
    for (way, wanted) in ways {
        let folder = tempfile::tempdir().unwrap();
        let error = run(
            &spec(),
            Path::new(""),
            &mut Odd(way),
            folder.path(),
            &mut |_| {},
            &AtomicBool::new(false),
        );
        let told = format!("{:#}", error.unwrap_err());
        assert!(told.contains(wanted) && told.contains("turn 0 "), "{told}");
    }
}

#[test]
fn a_full_disk_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec();
    let open = || Loop {
        spec: spec.clone(),
        plan: Plan::new(&spec, Path::new("")).unwrap(),
        store: Folder::open(folder.path()).unwrap(),
        run: "r1".to_owned(),
        began: Instant::now(),
        spent: BTreeMap::new(),
        taught: BTreeSet::new(),
        energy: Energy::default(),
    };
    let mut manifest = Manifest::new(
        spec.clone(),
        spec.digest().unwrap(),
        Machine::here(),
        Simulated::default().facts,
    );
    manifest.runs.clear();
    manifest.write(folder.path()).unwrap();
    let mut full = open();
    full.store.room = Some(5_000);
    let told = full
        .go(
            &mut Simulated::default(),
            &mut |_| {},
            &AtomicBool::new(false),
        )
        .unwrap_err()
        .to_string();
    assert!(
        told.contains("rows.csv cannot be written") && told.contains("finished turns stay"),
        "{told}"
    );
    let before = said(folder.path());
    assert!(!before.is_empty() && before.len().is_multiple_of(6));
    // Two at once would mix their rows.
    let held = open();
    let told = Folder::open(folder.path()).unwrap_err().to_string();
    assert!(told.contains("another run"), "{told}");
    drop(held);
    go(&spec, &mut Simulated::default(), folder.path()).unwrap();
    let after = said(folder.path());
    assert!(after.is_superset(&before) && after.len() == ROWS);
}

/// Answers as [`Simulated`] does, and the machine's counter says that each request, warm-up too, takes 2 J.
struct Burning {
    asker: Simulated,
    counters: std::path::PathBuf,
    burnt_uj: u64,
}

impl Asker for Burning {
    fn facts(&mut self) -> anyhow::Result<Facts> {
        self.asker.facts()
    }

    fn turn(&mut self, turn: &Turn, items: &[ItemRef], sink: &mut Sink) -> anyhow::Result<()> {
        for item in items {
            self.burnt_uj += 2_000_000;
            let counted = crate::energy::tests::zone;
            counted(&self.counters, "intel-rapl:0", "package-0", self.burnt_uj);
            self.asker.turn(turn, std::slice::from_ref(item), sink)?;
        }
        Ok(())
    }
}

#[test]
fn what_the_machine_says_of_its_energy_is_kept_by_turn_and_told_by_answer() {
    let (folder, counters) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut spec = spec();
    spec.accuracy = None;
    let mut manifest = Manifest::new(
        spec.clone(),
        spec.digest().unwrap(),
        Machine::here(),
        Simulated::default().facts,
    );
    manifest.runs.clear();
    manifest.write(folder.path()).unwrap();
    crate::energy::tests::zone(counters.path(), "intel-rapl:0", "package-0", 0);
    let all = Loop {
        spec: spec.clone(),
        plan: Plan::new(&spec, Path::new("")).unwrap(),
        store: Folder::open(folder.path()).unwrap(),
        run: "r1".to_owned(),
        began: Instant::now(),
        spent: BTreeMap::new(),
        taught: BTreeSet::new(),
        energy: Energy::of(counters.path()),
    };
    let mut asker = Burning {
        asker: Simulated::default(),
        counters: counters.path().to_owned(),
        burnt_uj: 0,
    };
    let outcome = all.go(&mut asker, &mut |_| {}, &AtomicBool::new(false));
    assert!(outcome.unwrap().finished);
    let mut results = Results::read(folder.path()).unwrap();
    // Six that count; the two before them do not.
    assert!(
        results
            .finished
            .values()
            .all(|it| it.energy_j == Some(12.0))
    );
    // One of six has no answer: what it took is the others' cost.
    let turn = results.rows[0].key.turn.clone();
    results.rows[0].measured.status = Status::Failed;
    let told = |results: &Results, turn: &str| {
        let analysis = crate::report::Analysis::of(results);
        let row = results.rows.iter().find(|row| row.key.turn == turn);
        let key = &row.unwrap().key;
        let block = crate::report::Block {
            data: key.data.clone(),
            link: key.link.clone(),
            arrival: key.arrival.clone(),
        };
        let figures = analysis.figures(&block, &key.policy).unwrap();
        figures.mean("energy_j")
    };
    // Three repeats: 36 J for 17 answers.
    assert_eq!(told(&results, &turn), Some(36.0 / 17.0));
    // Where a turn's is not known, it is of the others.
    results.finished.get_mut(&turn).unwrap().energy_j = None;
    assert_eq!(told(&results, &turn), Some(2.0));
    for mark in results.finished.values_mut() {
        mark.energy_j = None;
    }
    assert_eq!(told(&results, &turn), None);
}

#[test]
fn files_that_were_changed_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    go(&spec(), &mut Simulated::default(), folder.path()).unwrap();
    let path = folder.path().join("rows.csv");
    let rows = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, &rows[..rows.len() - 10]).unwrap();
    for told in [
        Results::read(folder.path()).unwrap_err().to_string(),
        Folder::open(folder.path()).unwrap_err().to_string(),
    ] {
        assert!(
            told.contains("rows.csv: has ") && told.contains("was cut"),
            "{told}"
        );
    }
    std::fs::write(&path, rows.replacen(",answered,", ",answerde,", 1)).unwrap();
    let told = Results::read(folder.path()).unwrap_err().to_string();
    assert!(told.contains("line 2 has status \"answerde\""), "{told}");
    let none = tempfile::tempdir().unwrap();
    assert!(
        Results::read(none.path())
            .unwrap_err()
            .to_string()
            .contains("has no results")
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// However often it is killed, and whatever of its last writes is on the disk: in the end all rows are there, once.
    #[test]
    fn kills_lose_nothing(kills in prop::collection::vec((1..200_u32, 0..400_usize, 0..60_usize), 1..5)) {
        let folder = tempfile::tempdir().unwrap();
        for (after, torn, mark) in kills {
            let mut asker = Simulated { fails_after: Some(after), ..Simulated::default() };
            let outcome = go(&spec(), &mut asker, folder.path());
            prop_assert!(outcome.is_err() || asker.asked < after);
            // Half a row and half a mark that were under way.
            let add = |name: &str, text: &str| {
                let mut file = std::fs::OpenOptions::new().append(true).open(folder.path().join(name)).unwrap();
                file.write_all(text.as_bytes()).unwrap();
            };
            add("rows.csv", &"r1,0123456789abcdef,\"0,".repeat(20)[..torn]);
            add("turns.csv", &"0123456789abcdef,r1,6,99999999,1,1\n".repeat(2)[..mark.min(30)]);
            let before = Results::read(folder.path()).unwrap();
            prop_assert_eq!(before.rows.len(), before.finished.values().map(|it| it.rows as usize).sum::<usize>());
        }
        prop_assert!(go(&spec(), &mut Simulated::default(), folder.path()).unwrap().finished);
        let rows = said(folder.path());
        prop_assert_eq!(rows.len(), ROWS);
        let whole = tempfile::tempdir().unwrap();
        go(&spec(), &mut Simulated::default(), whole.path()).unwrap();
        prop_assert_eq!(rows, said(whole.path()));
    }
}
