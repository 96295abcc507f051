use std::collections::{BTreeSet, HashSet};

use proptest::prelude::*;

use super::*;

fn spec(repeats: u32, accuracy: Option<u32>) -> Spec {
    let accuracy = accuracy.map_or(String::new(), |requests| {
        format!("accuracy = {{ requests = {requests}, chunk = 20, links = [\"slow\"] }}")
    });
    let policy = |name: &str| format!("[[policies]]\nname = \"{name}\"\npolicy = \"{name}\"\n");
    let text = format!(
        "name = \"t\"\nrepeats = {repeats}\nrequests = 10\nwarm-up = 3\npair = \"demo\"\n{accuracy}\n\
         [[data]]\nset = \"demo\"\nn = 50\n[[data]]\nset = \"demo\"\nworkload = \"long\"\nn = 30\n{}{}{}\
         [[links]]\nname = \"fast\"\nup-mbit = 200\ndown-mbit = 200\nrtt-ms = 20\n\
         [[links]]\nname = \"slow\"\nup-mbit = 5\ndown-mbit = 5\nrtt-ms = 80\n\
         [[arrivals]]\nkind = \"closed\"\nconcurrency = 1\n[[arrivals]]\nkind = \"poisson\"\nrate-per-s = 4\n",
        policy("cloud-only"),
        policy("msao"),
        policy("edge-only")
    );
    Spec::parse(&text).unwrap()
}

fn plan(spec: &Spec) -> Plan {
    Plan::new(spec, Path::new("")).unwrap()
}

fn block(turn: &Turn) -> (Purpose, u32, String, String, String) {
    let cell = turn.cell();
    (
        cell.purpose,
        turn.repeat,
        cell.data,
        cell.link,
        cell.arrival,
    )
}

#[test]
fn policies_take_turns_within_blocks() {
    let plan = plan(&spec(3, None));
    let turns = plan.turns();
    assert_eq!(turns.len(), 3 * 2 * 2 * 2 * 3);
    for of_block in turns.chunks(3) {
        let blocks: HashSet<_> = of_block.iter().map(block).collect();
        assert_eq!(blocks.len(), 1);
        let policies: HashSet<_> = of_block.iter().map(|it| &it.policy.name).collect();
        assert_eq!(policies.len(), 3);
        // The same items, moments and seeds.
        let items = plan.items(&of_block[0]);
        assert!(of_block.iter().all(|it| plan.items(it) == items));
    }
    // Each policy is once in each place of a block.
    let mut places: BTreeSet<(String, String, String, String, usize)> = BTreeSet::new();
    for (number, turn) in turns.iter().enumerate() {
        let cell = turn.cell();
        assert!(places.insert((cell.data, cell.link, cell.arrival, cell.policy, number % 3)));
    }
    let ids: HashSet<_> = turns.iter().map(|it| &it.id).collect();
    assert_eq!(ids.len(), turns.len());
    assert!(
        turns
            .iter()
            .enumerate()
            .all(|(place, it)| it.place == place && it.id.len() == 16)
    );
}

#[test]
fn no_item_is_asked_twice_while_there_are_others() {
    let plan = plan(&spec(5, None));
    let of_cell = plan.turns().iter().filter(|it| {
        it.data.name == "demo-mixed"
            && it.link.name == "fast"
            && it.policy.name == "msao"
            && it.arrival.is_unloaded()
    });
    let mut seen = HashSet::new();
    for turn in of_cell {
        let items = plan.items(turn);
        assert_eq!((items.len(), turn.requests()), (13, 13));
        assert!(items[..3].iter().all(|it| it.warm && it.at_ms.is_none()));
        let counted: HashSet<u32> = items[3..].iter().map(|it| it.index).collect();
        assert!(items[..3].iter().all(|it| !counted.contains(&it.index)));
        seen.extend(counted);
    }
    assert_eq!(seen.len(), 50);
}

#[test]
fn blocks_ask_questions_of_their_own() {
    let mut spec = spec(2, None);
    // Two repeats of four blocks of ten.
    spec.data.truncate(1);
    spec.data[0].n = 80;
    let plan = plan(&spec);
    let of_one = plan.turns().iter().filter(|it| it.policy.name == "msao");
    let asked: Vec<u32> = of_one
        .flat_map(|it| plan.items(it).into_iter().filter(|item| !item.warm))
        .map(|item| item.index)
        .collect();
    assert_eq!(asked.len(), 80);
    assert_eq!(asked.into_iter().collect::<HashSet<u32>>().len(), 80);
}

#[test]
fn accuracy_comes_last_and_grows_by_whole_chunks() {
    let (small, large) = (plan(&spec(1, Some(30))), plan(&spec(1, Some(60))));
    let of = |plan: &Plan| {
        let turns = plan
            .turns()
            .iter()
            .filter(|it| it.purpose == Purpose::Accuracy);
        turns.cloned().collect::<Vec<Turn>>()
    };
    let (few, many) = (of(&small), of(&large));
    // 50 items: 20, 20, 10; 30 items: 20, 10. Of one link, for three policies.
    assert_eq!(few.len(), 4 * 3);
    assert_eq!(many.len(), 5 * 3);
    assert!(few.iter().all(|it| it.link.name == "slow"));
    let ids: HashSet<&str> = many.iter().map(|it| &*it.id).collect();
    assert!(few.iter().all(|it| ids.contains(&*it.id)));
    let asked: HashSet<u32> = (many.iter())
        .filter(|it| it.data.name == "demo-mixed" && it.policy.name == "msao")
        .flat_map(|it| large.items(it).into_iter().map(|item| item.index))
        .collect();
    assert_eq!(asked.len(), 50);
    let first = small
        .turns()
        .iter()
        .position(|it| it.purpose == Purpose::Accuracy);
    assert!(
        small.turns()[first.unwrap()..]
            .iter()
            .all(|it| it.purpose == Purpose::Accuracy)
    );
}

/// The same with accuracy as it is told.
fn with_accuracy(accuracy: &str) -> Spec {
    let mut spec = spec(1, Some(1));
    let text = format!("{accuracy}\nmargin-points = 0.4\n");
    spec.accuracy = Some(toml::from_str(&text).unwrap());
    spec
}

fn about_accuracy(plan: &Plan) -> Vec<&Turn> {
    let turns = plan.turns().iter();
    turns.filter(|it| it.purpose == Purpose::Accuracy).collect()
}

#[test]
fn later_rounds_have_only_who_may_go_on() {
    let spec =
        with_accuracy("rounds = [20, 40]\nchunk = 10\nlinks = [\"slow\"]\ngrow = [\"msao\"]");
    let plan = plan(&spec);
    let turns = about_accuracy(&plan);
    // Of 50 items 40 are asked, of 30 the 20 of the first look: behind it nobody would look.
    let of = |data: &str, round: u32| -> Vec<&Turn> {
        let one = |it: &&&Turn| it.data.name == data && it.round == round;
        turns.iter().filter(one).copied().collect()
    };
    assert_eq!(of("demo-mixed", 0).len(), 2 * 3);
    assert_eq!(of("demo-long", 0).len(), 2 * 3);
    assert_eq!(of("demo-long", 1).len(), 0);
    let second = of("demo-mixed", 1);
    assert_eq!(second.len(), 2 * 2);
    assert!(second.iter().all(|it| it.policy.name != "edge-only"));
    // Rounds follow each other.
    assert!(turns.is_sorted_by_key(|it| it.round));
    // That there are rounds changes no turn's id.
    let at_once = with_accuracy("requests = 40\nchunk = 10\nlinks = [\"slow\"]");
    let at_once = Plan::new(&at_once, Path::new("")).unwrap();
    let ids: HashSet<&str> = at_once.turns().iter().map(|it| &*it.id).collect();
    assert!(turns.iter().all(|it| ids.contains(&*it.id)));
}

#[test]
fn pooled_links_take_turns() {
    let spec = with_accuracy("rounds = [20, 40]\nchunk = 10\npooled = true");
    let plan = plan(&spec);
    let mut asked = HashSet::new();
    for turn in about_accuracy(&plan) {
        let link = ["fast", "slow"][turn.repeat as usize % 2];
        assert_eq!(turn.link.name, link);
        if turn.data.name == "demo-mixed" && turn.policy.name == "msao" {
            asked.extend(plan.items(turn).iter().map(|it| it.index));
        }
    }
    // Each item over one link.
    assert_eq!(asked.len(), 40);
}

#[test]
fn accuracy_may_be_asked_of_other_files_by_the_same_name() {
    let spec = with_accuracy(
        "requests = 70\nchunk = 20\ndata = [{ instead-of = \"demo-long\", folder = \"more\", n = 60 }]",
    );
    let plan = plan(&spec);
    let mut indices = BTreeSet::new();
    for turn in plan.turns().iter().filter(|it| it.data.name == "demo-long") {
        match turn.purpose {
            Purpose::Timed => assert_eq!((turn.data.n, &turn.data.folder), (30, &None)),
            Purpose::Accuracy => {
                assert_eq!(turn.data.folder.as_deref(), Some(Path::new("more")));
                assert_eq!(turn.data.workload, "long");
                indices.extend(plan.items(turn).iter().map(|it| it.index));
            }
        }
    }
    assert_eq!(indices, (0..60).collect());
}

#[test]
fn what_is_learned_from_is_asked_like_accuracy() {
    let mut spec = spec(1, Some(30));
    assert_eq!(plan(&spec).learning(&spec, &plan(&spec).turns()[0]), []);
    // Of two data sets, one of which gets one more.
    spec.learn = 19;
    let plan = plan(&spec);
    let timed = &plan.turns()[0];
    let turns = plan.learning(&spec, timed);
    let asked: Vec<(&str, u32)> = (turns.iter())
        .map(|it| (it.data.name.as_str(), it.requests()))
        .collect();
    assert_eq!(asked, [("demo-mixed", 10), ("demo-long", 9)]);
    let turn = &turns[0];
    assert_eq!(turn.counted(), 0);
    // Whichever turn comes first.
    let last = plan
        .turns()
        .iter()
        .rfind(|it| it.link == timed.link && it.policy == timed.policy);
    assert_ne!(last.unwrap().data.name, timed.data.name);
    assert_eq!(plan.learning(&spec, last.unwrap())[0].data, turn.data);
    assert_eq!(turn.purpose, Purpose::Accuracy);
    assert_eq!(
        (&turn.link, &turn.policy, turn.arrival.name()),
        (&timed.link, &timed.policy, "learning-4")
    );
    let items = plan.items(turn);
    let asked: HashSet<u32> = items.iter().map(|it| it.index).collect();
    assert_eq!((items.len(), asked.len()), (10, 10));
    // Accuracy begins at the other end, and asks whole chunks: 40 of 50.
    let first = (plan.turns().iter())
        .filter(|it| it.purpose == Purpose::Accuracy && it.data.name == turn.data.name);
    let counted: HashSet<u32> = first
        .flat_map(|it| plan.items(it))
        .map(|it| it.index)
        .collect();
    assert!(!counted.is_empty() && counted.is_disjoint(&asked));
}

#[test]
fn ids_are_of_what_a_turn_is() {
    let one = plan(&spec(1, None));
    let more = plan(&spec(3, None));
    let ids: HashSet<&str> = more.turns().iter().map(|it| &*it.id).collect();
    assert!(one.turns().iter().all(|it| ids.contains(&*it.id)));
    let mut other = spec(1, None);
    other.decoding.max_tokens += 1;
    assert!(plan(&other).turns().iter().all(|it| !ids.contains(&*it.id)));
}

#[test]
fn what_comes_at_a_rate_goes_on_for_long_enough() {
    let mut spec = spec(2, None);
    let before = plan(&spec);
    spec.lasts_s = 4.2;
    let plan = plan(&spec);
    assert_eq!(plan.turns().len(), before.turns().len());
    let mut of_data: Vec<(u32, Vec<u32>)> = Vec::new();
    for turn in plan.turns().iter().filter(|it| {
        it.data.name == "demo-mixed" && it.policy.name == "msao" && it.link.name == "fast"
    }) {
        // Four a second for 4.2 s are more than the ten that are asked anyway; one at a time is as it was.
        let wanted = if turn.arrival.is_unloaded() { 10 } else { 17 };
        assert_eq!(turn.counted(), wanted);
        let items = plan.items(turn);
        let counted = items.iter().filter(|it| !it.warm);
        assert_eq!(counted.clone().count(), wanted as usize);
        of_data.push((wanted, counted.map(|it| it.index).collect()));
    }
    // Blocks of different lengths ask items of their own as well, as long as there are any: here 54 of 50.
    let first: HashSet<u32> = of_data.iter().take(2).flat_map(|it| it.1.clone()).collect();
    assert_eq!(first.len(), 27);
    // Where nothing lasts longer, turns are those that they were.
    spec.lasts_s = 2.0;
    let ids =
        |plan: &Plan| -> Vec<String> { plan.turns().iter().map(|it| it.id.clone()).collect() };
    assert_eq!(ids(&Plan::new(&spec, Path::new("")).unwrap()), ids(&before));
}

#[test]
fn recordings_are_cut_into_parts() {
    let folder = tempfile::tempdir().unwrap();
    let lines: String = (0..25)
        .map(|number| {
            format!(
                "{{\"timestamp\": {}, \"input_length\": 1, \"output_length\": 1}}\n",
                number * 100
            )
        })
        .collect();
    std::fs::write(folder.path().join("trace.jsonl"), lines).unwrap();
    let mut spec = spec(3, None);
    let arrival = |skip: u32| Arrival::Trace {
        name: "recorded".to_owned(),
        file: "trace.jsonl".into(),
        format: crate::spec::ArrivalFormat::Mooncake,
        speed: 2.0,
        skip,
    };
    spec.arrivals = vec![arrival(4)];
    let plan = Plan::new(&spec, folder.path()).unwrap();
    for turn in plan.turns() {
        let moments: Vec<f64> = plan.items(turn).iter().filter_map(|it| it.at_ms).collect();
        assert_eq!(
            moments,
            (0..10).map(|it| f64::from(it) * 50.0).collect::<Vec<_>>()
        );
    }
    spec.arrivals = vec![arrival(20)];
    let error = Plan::new(&spec, folder.path()).unwrap_err().to_string();
    assert!(
        error.contains("has 5 requests behind those that are skipped, a turn asks 10"),
        "{error}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn arrivals_are_in_order_and_of_their_rate(seed in any::<u64>(), rate in 0.5..50.0_f64, on in 200.0..2_000.0_f64, off in 200.0..2_000.0_f64) {
        for moments in [
            poisson(&mut Random::new(seed), rate, 20_000),
            bursty(&mut Random::new(seed), rate, on.min(40e3 / rate), off.min(40e3 / rate), 20_000),
        ] {
            prop_assert_eq!(moments.len(), 20_000);
            prop_assert!(moments.is_sorted() && moments[0] >= 0.0);
            let found = 20_000.0 / (moments[19_999] / 1e3);
            // Of bursts there are fewer than of requests, so that their mean is less sure.
            prop_assert!((found / rate - 1.0).abs() < 0.25, "{} for {}", found, rate);
        }
    }
}
