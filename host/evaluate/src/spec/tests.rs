use std::fs;
use std::path::Path;

use super::*;

const SMALL: &str = r#"
name = "small"
repeats = 2
requests = 4
pair = "demo"

[[data]]
set = "demo"
n = 40

[[policies]]
name = "cloud-only"
policy = "cloud-only"
exact = true

[[links]]
name = "fast"
up-mbit = 200
down-mbit = 200
rtt-ms = 20

[[arrivals]]
kind = "closed"
concurrency = 1
"#;

fn told(text: &str) -> String {
    Spec::parse(text).unwrap_err().to_string()
}

#[test]
fn what_is_left_out_is_as_usual() {
    let spec = Spec::parse(SMALL).unwrap();
    assert_eq!(spec.data[0].name, "demo-mixed");
    assert_eq!(spec.arrivals[0].name(), "closed-1");
    assert!(spec.arrivals[0].is_unloaded());
    assert_eq!((spec.seed, spec.baseline.as_str()), (1, "cloud-only"));
    assert_eq!(spec.margin_points(), 0.4);
    // As it is kept with the results.
    let json = serde_json::to_string(&spec).unwrap();
    assert_eq!(serde_json::from_str::<Spec>(&json).unwrap(), spec);
}

#[test]
fn a_turn_that_would_ask_an_item_twice_says_by_what() {
    let at_a_rate = SMALL
        .replace("requests = 4", "requests = 4\nlasts-s = 6")
        .replace(
            "kind = \"closed\"\nconcurrency = 1",
            "kind = \"poisson\"\nrate-per-s = 8",
        );
    let told = told(&at_a_rate);
    let words = ["data[0].n is 40", "\"poisson-8\" asks 48 (lasts-s)"];
    assert!(words.iter().all(|it| told.contains(it)), "{told}");
    let spec = Spec::parse(&at_a_rate.replace("lasts-s = 6", "lasts-s = 5")).unwrap();
    assert_eq!(spec.counted(&spec.arrivals[0]), 40);
}

#[test]
fn what_is_wrong_is_named_with_line_and_what_is_allowed() {
    let changes: [(&str, &str, &[&str]); 25] = [
        (
            "repeats = 2",
            "repeats = 0",
            &["line 3: repeats is 0; allowed: 1 to 1000"],
        ),
        (
            "repeats = 2",
            "repeat = 2",
            &["line 3", "unknown field `repeat`", "`repeats`"],
        ),
        (
            "repeats = 2",
            "repeats = \"2\"",
            &["line 3", "invalid type"],
        ),
        ("repeats = 2", "repeats = -2", &["line 3", "u32"]),
        ("repeats = 2", "repeats = ", &["line 3"]),
        ("repeats = 2", "", &["missing field `repeats`"]),
        (
            "requests = 4",
            "requests = 41",
            &["line 9: data[0].n is 40", "41 (requests)"],
        ),
        (
            "requests = 4",
            "requests = 4\nlasts-s = -1",
            &["line 5: lasts-s is -1; allowed: 0 to 86400"],
        ),
        (
            "pair = \"demo\"",
            "pair = \"demi\"",
            &["line 5", "unknown variant `demi`", "`demo`"],
        ),
        (
            "pair = \"demo\"",
            "pair = { twin = \"a b\" }",
            &["line 5: pair.twin is \"a b\"", "allowed"],
        ),
        (
            "set = \"demo\"",
            "set = \"mmbench\"",
            &["line 7: data[0].folder is missing", "demo"],
        ),
        (
            "set = \"demo\"",
            "set = \"coco\"",
            &["line 8", "unknown variant `coco`", "`mmbench`"],
        ),
        (
            "name = \"cloud-only\"",
            "name = \"cloudy\"",
            &["baseline is \"cloud-only\"", "allowed: cloudy"],
        ),
        (
            "exact = true",
            "exact = true\nablation = \"x\"",
            &["baseline", "is an ablation"],
        ),
        (
            "exact = true",
            "exact = true\nparameters = { a = nan }",
            &["policies[0].parameters.a is NaN"],
        ),
        (
            "up-mbit = 200",
            "",
            &["line 16: links[0].up-mbit is missing; set it, or up-trace"],
        ),
        (
            "up-mbit = 200",
            "up-mbit = 0",
            &["line 18: links[0].up-mbit is 0; allowed: 0.01 to 1000000"],
        ),
        (
            "up-mbit = 200",
            "up-mbit = 200\nup-trace = { file = \"x\", format = \"mahimahi\" }",
            &["line 18: links[0].up-mbit is set beside up-trace"],
        ),
        (
            "rtt-ms = 20",
            "rtt-ms = 20\njitter-ms = 11",
            &["line 21: links[0].jitter-ms is 11; allowed: 0 to 10"],
        ),
        (
            "rtt-ms = 20",
            "rtt-ms = 20\nloss = 1",
            &["line 21", "unknown field `loss`", "`jitter-ms`"],
        ),
        (
            "concurrency = 1",
            "concurrency = 0",
            &["line 24: arrivals[0].concurrency is 0; allowed: 1 to 4096"],
        ),
        (
            "concurrency = 1",
            "rate-per-s = 1",
            &["rate-per-s", "concurrency"],
        ),
        (
            "kind = \"closed\"",
            "kind = \"open\"",
            &["unknown variant `open`", "`poisson`"],
        ),
        (
            "[[links]]",
            "[prices]\ncurrency = \"USD\"\nedge = { per-hour = 1 }\n[[links]]",
            &["per-hour", "per-1000-node-s"],
        ),
        (
            "[[links]]",
            "[accuracy]\nrequests = 9\nlinks = [\"slow\"]\n[[links]]",
            &["line 18: accuracy.links[0] is \"slow\"", "allowed: fast"],
        ),
    ];
    for (old, new, wanted) in changes {
        assert!(SMALL.contains(old), "{old}");
        let told = told(&SMALL.replacen(old, new, 1));
        for part in wanted {
            assert!(told.contains(part), "{new}: {told}");
        }
    }
    // Twice the same.
    let twice = format!("{SMALL}\n[[arrivals]]\nkind = \"closed\"\nconcurrency = 1\n");
    assert!(told(&twice).contains("arrivals[1].name is \"closed-1\", as that of an earlier entry"));
    let grid = SMALL.replacen(
        "pair = \"demo\"",
        "pair = { twin = \"7b\" }\naccuracy = { requests = 1 }",
        1,
    );
    assert!(told(&grid).contains("accuracy is set, but a twin's weights are random"));
}

/// With a section about accuracy.
fn accurate(section: &str) -> String {
    SMALL.replacen("[[links]]", &format!("[accuracy]\n{section}\n[[links]]"), 1)
}

#[test]
fn accuracy_is_asked_at_once_or_in_rounds() {
    let spec = Spec::parse(&accurate("rounds = [10, 20, 100]\nchunk = 10")).unwrap();
    let accuracy = spec.accuracy.as_ref().unwrap();
    assert_eq!(accuracy.most(), 100);
    // Of 40 items nobody is asked 100.
    assert_eq!(accuracy.looks(40), [10, 20]);
    assert_eq!(
        [0, 10, 19, 20].map(|it| accuracy.round_of(it)),
        [0, 1, 1, 2]
    );
    assert_eq!(
        Spec::parse(&accurate("requests = 9"))
            .unwrap()
            .accuracy
            .unwrap()
            .most(),
        9
    );
    let data = |instead_of: &str| {
        format!("[[accuracy.data]]\ninstead-of = \"{instead_of}\"\nfolder = \"more\"\nn = 60")
    };
    let unknown = format!("requests = 9\n{}", data("demo"));
    let twice = format!("requests = 9\n{0}\n{0}", data("demo-mixed"));
    let cases: [(&str, &str); 10] = [
        (
            "chunk = 5",
            "accuracy.requests is missing or 0; allowed: 1 to 1000000, or rounds",
        ),
        (
            "requests = 9\nrounds = [10]\nchunk = 10",
            "accuracy.requests is set beside rounds",
        ),
        (
            "rounds = [20, 10]\nchunk = 10",
            "accuracy.rounds[1] is 10; allowed: 21 to 20000",
        ),
        (
            "rounds = [20001]\nchunk = 1",
            "accuracy.rounds[0] is 20001; allowed: 1 to 20000",
        ),
        (
            "rounds = [15]\nchunk = 10",
            "accuracy.rounds[0] is 15; allowed: multiples of 10 (chunk)",
        ),
        (
            "rounds = [50]\nchunk = 10",
            "accuracy.rounds[0] is 50, but of demo-mixed no more than 40",
        ),
        (
            "rounds = [10]\nchunk = 10\ngrow = [\"cloud-only\"]",
            "accuracy.grow[0] is \"cloud-only\"",
        ),
        (
            "requests = 9\ngrow = [\"msao\"]",
            "accuracy.grow is set without rounds",
        ),
        (&unknown, "accuracy.data[0].instead-of is \"demo\""),
        (
            &twice,
            "accuracy.data[1].instead-of is \"demo-mixed\", as that of an earlier entry",
        ),
    ];
    for (section, wanted) in cases {
        let told = told(&accurate(section));
        assert!(told.contains(wanted), "{section}: {told}");
    }
    // Two links that are pooled have equal parts of each round.
    let second =
        "[[links]]\nname = \"slow\"\nup-mbit = 5\ndown-mbit = 5\nrtt-ms = 80\n[[arrivals]]";
    let pooled = |rounds: &str| {
        let text = accurate(&format!("rounds = [{rounds}]\nchunk = 10\npooled = true"));
        Spec::parse(&text.replace("[[arrivals]]", second))
    };
    assert!(pooled("20, 40").is_ok());
    let told = pooled("20, 30").unwrap_err().to_string();
    assert!(
        told.contains("accuracy.rounds[1] is 30; allowed: multiples of 20 (chunk times links)"),
        "{told}"
    );
}

#[test]
fn who_lacks_what_can_be_made_is_told_how() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spec.toml");
    let data = "requests = 9\n[[accuracy.data]]\ninstead-of = \"demo-mixed\"\nfolder = \"more\"\nmade-by = \"make more\"\nn = 60";
    fs::write(&path, accurate(data)).unwrap();
    let told = Spec::read(&path).unwrap_err().to_string();
    assert!(
        told.contains("accuracy.data[0].folder is ") && told.ends_with("`make more` makes it"),
        "{told}"
    );
    fs::create_dir(folder.path().join("more")).unwrap();
    let spec = Spec::read(&path).unwrap();
    let asked = spec.accuracy_data(&spec.data[0]);
    assert_eq!((asked.name.as_str(), asked.n), ("demo-mixed", 60));
    assert_eq!(asked.folder.as_deref(), Some(Path::new("more")));
}

#[test]
fn files_are_seen_from_the_specification() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spec.toml");
    let text = SMALL.replace(
        "up-mbit = 200",
        "up-trace = { file = \"up.txt\", format = \"mahimahi\" }",
    );
    fs::write(&path, &text).unwrap();
    let told = Spec::read(&path).unwrap_err().to_string();
    assert!(
        told.contains("links[0].up-trace.file is ") && told.contains("up.txt"),
        "{told}"
    );
    fs::write(folder.path().join("up.txt"), "1\n").unwrap();
    assert!(Spec::read(&path).is_ok());
    fs::write(&path, text.replace("repeats = 2", "repeats = 0")).unwrap();
    let told = Spec::read(&path).unwrap_err().to_string();
    assert!(told.contains("spec.toml: line 3: repeats is 0"), "{told}");
    let told = Spec::read(&folder.path().join("none"))
        .unwrap_err()
        .to_string();
    assert!(
        told.contains("none: ") && told.contains("name a file"),
        "{told}"
    );
}

#[test]
fn the_digest_is_of_what_results_depend_on() {
    let spec = Spec::parse(SMALL).unwrap();
    let of = |text: String| Spec::parse(&text).unwrap().digest().unwrap();
    let same = spec.digest().unwrap();
    assert_eq!(of(SMALL.replace("repeats = 2", "repeats = 3 # more")), same);
    assert_ne!(of(SMALL.replace("requests = 4", "requests = 5")), same);
    assert_ne!(of(SMALL.replace("rtt-ms = 20", "rtt-ms = 21")), same);
    // More requests may be asked later, other rounds may not: the looks were fixed before the first.
    let (few, more) = (accurate("requests = 10"), accurate("requests = 20"));
    assert_eq!(of(few), of(more));
    let rounds = |it: &str| of(accurate(&format!("rounds = [{it}]\nchunk = 10")));
    assert_ne!(rounds("10, 20"), rounds("10, 40"));
}

#[test]
fn the_examples_are_in_order() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/bench");
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|it| it == "toml") {
            let spec = Spec::parse(&fs::read_to_string(&path).unwrap())
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
            assert_eq!(spec.name, stem);
            names.push(stem);
        }
    }
    names.sort();
    for wanted in ["ablations", "paper-demo", "paper-twin", "prove", "quick"] {
        assert!(names.iter().any(|it| it == wanted), "{names:?}");
    }
}
