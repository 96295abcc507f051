use clap::{CommandFactory as _, Parser};

use super::*;
use crate::plan::{Cell, Purpose};
use crate::profiled::Figure;
use crate::run::tests::{SPEC, Simulated};
use crate::simulated::Played;

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    bench: BenchArgs,
}

/// The first policy's cells take half as long again when they are played, all others are not answered.
fn played(results: &Results) -> anyhow::Result<Plays> {
    let analysis = report::Analysis::of(results);
    let spec = analysis.spec();
    let mut plays = Plays::default();
    for block in analysis.blocks() {
        for (number, policy) in spec.policies.iter().enumerate() {
            let mean_ms = analysis
                .figures(&block, &policy.name)
                .unwrap()
                .mean("total_ms");
            plays.cells.push(Played {
                cell: Cell {
                    purpose: Purpose::Timed,
                    data: block.data.clone(),
                    link: block.link.clone(),
                    arrival: block.arrival.clone(),
                    policy: policy.name.clone(),
                },
                asked: 3,
                answered: if number == 0 { 3 } else { 0 },
                mean_ms: mean_ms.map(|it| 1.5 * it).filter(|_| number == 0),
            });
        }
    }
    plays.assumed.push("all of it".to_owned());
    Ok(plays)
}

/// Where everything can be had, but for what is named.
#[derive(Default)]
struct Made {
    without_asker: bool,
    interrupted: bool,
}

impl Elsewhere for Made {
    type Asker = Simulated;

    fn asker(&self, _: &Spec, _: &Path, _: &With) -> anyhow::Result<Simulated> {
        match self.without_asker {
            true => anyhow::bail!("no engine"),
            false => Ok(Simulated::default()),
        }
    }

    fn play(&self, results: &Results, _: &Path, _: &PlayArgs) -> anyhow::Result<Plays> {
        played(results)
    }

    fn capacity(
        &self,
        with: &CapacityArgs,
        told: &mut dyn FnMut(&str),
        _: &AtomicBool,
    ) -> anyhow::Result<Option<Capacity>> {
        told("one cloud");
        assert_eq!(with.clouds, [1, 10]);
        Ok((!self.interrupted).then(crate::capacity::tests::capacity))
    }

    fn measure(
        &self,
        with: &ProfileArgs,
        told: &mut dyn FnMut(&str),
        _: &AtomicBool,
    ) -> anyhow::Result<Option<Profiled>> {
        told("passes");
        let figure = |table: &str, name: &str, value| Figure {
            table: table.to_owned(),
            name: name.to_owned(),
            value,
            how: "made up".to_owned(),
        };
        let threads = f64::from(with.threads);
        Ok((!self.interrupted).then(|| Profiled {
            toml: "name = \"made up\"\n".to_owned(),
            figures: vec![
                figure("engines.draft", "pass-ms", threads),
                figure("engines.draft", "row-ms", 0.5),
                figure("engines.target", "pass-ms", 2.0),
            ],
        }))
    }
}

fn command_with(args: &[&str], made: &Made) -> anyhow::Result<ExitCode> {
    let all = ["bench"].iter().chain(args);
    Cli::try_parse_from(all)?.bench.run(made)
}

fn command(args: &[&str]) -> anyhow::Result<ExitCode> {
    command_with(args, &Made::default())
}

#[test]
fn a_profile_is_written_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("here.toml");
    let shown = out.display().to_string();
    let interrupted = Made {
        interrupted: true,
        ..Made::default()
    };
    let code = command_with(&["profile", "--out", &shown], &interrupted).unwrap();
    assert_eq!(code, ExitCode::from(INTERRUPTED));
    assert!(!out.exists());
    let code = command(&["profile", "--json", "--out", &shown]).unwrap();
    assert_eq!(code, ExitCode::SUCCESS);
    assert_eq!(
        std::fs::read_to_string(&out).unwrap(),
        "name = \"made up\"\n"
    );
    // One model alone is no pair.
    assert!(command(&["profile", "--draft", "here"]).is_err());
    assert!(command(&["profile", "--threads", "0"]).is_err());
    let nowhere = folder.path().join("none/here.toml").display().to_string();
    let told = command(&["profile", "--out", &nowhere]).unwrap_err();
    assert!(told.to_string().contains("cannot be written"), "{told}");
}

#[test]
fn capacity_is_told_or_was_interrupted() {
    let args = ["capacity", "spec.toml", "--clouds", "1,10"];
    assert_eq!(command(&args).unwrap(), ExitCode::SUCCESS);
    let interrupted = Made {
        interrupted: true,
        ..Made::default()
    };
    let code = command_with(&args, &interrupted).unwrap();
    assert_eq!(code, ExitCode::from(INTERRUPTED));
    assert!(command(&["capacity"]).is_err());
}

#[test]
fn figures_are_told_by_table() {
    let args = Cli::try_parse_from(["bench", "profile", "--threads", "2"]).unwrap();
    let BenchCommand::Profile(ProfileCommand { with }) = &args.bench.command else {
        panic!("another command");
    };
    let found = Made::default()
        .measure(with, &mut |_| {}, &AtomicBool::new(false))
        .unwrap()
        .unwrap();
    let text = found.text();
    assert_eq!(text.matches("engines.draft\n").count(), 1, "{text}");
    assert!(text.contains("pass-ms                    2\n"), "{text}");
    assert_eq!(text.lines().count(), 5);
}

#[test]
fn engines_go_by_the_names_that_a_profile_gives_them() {
    let mut args = PlayArgs {
        plugins: "plugins".into(),
        profile: None,
        draft: None,
        target: None,
        cores: None,
    };
    assert_eq!(args.engines(), ("demo-draft-zen3", "demo-target-zen3"));
    args.profile = Some("here.toml".into());
    assert_eq!(args.engines(), ("draft", "target"));
    args.target = Some("large".to_owned());
    assert_eq!(args.engines(), ("draft", "large"));
}

#[test]
fn the_whole_way() {
    Cli::command().debug_assert();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (spec, out, other) = (path("spec.toml"), path("out"), path("other"));
    std::fs::write(&spec, SPEC).unwrap();
    assert_eq!(
        command(&["run", &spec, "--check"]).unwrap(),
        ExitCode::SUCCESS
    );
    assert!(!Path::new(&out).exists());
    for out in [&out, &other] {
        assert_eq!(
            command(&["--json", "run", &spec, "--out", out]).unwrap(),
            ExitCode::SUCCESS
        );
    }
    assert_eq!(command(&["report", &out]).unwrap(), ExitCode::SUCCESS);
    let html = std::fs::read_to_string(Path::new(&out).join("report.html")).unwrap();
    assert!(html.starts_with("<!DOCTYPE html>") && html.ends_with("</html>\n"));
    assert!(Path::new(&out).join("report.md").exists());
    assert_eq!(
        command(&["report", &out, "--json", "--out", &path("elsewhere")]).unwrap(),
        ExitCode::SUCCESS
    );
    assert!(Path::new(&path("elsewhere")).join("report.html").exists());
    assert_eq!(
        command(&["compare", &out, &other]).unwrap(),
        ExitCode::SUCCESS
    );
    assert_eq!(command(&["simulate", &out]).unwrap(), ExitCode::SUCCESS);
    let results = Results::read(Path::new(&out)).unwrap();
    let found = Compared::of(&results, &played(&results).unwrap());
    // Only what was answered both times is compared.
    assert!((found.mean_error_percent.unwrap() - 50.0).abs() < 1e-9);
    let compared = found.cells.iter().filter(|it| it.error_percent.is_some());
    assert!(compared.count() < found.cells.len());
    let text = found.text();
    assert!(
        text.contains(": +50.0%\n") && text.contains(": -; simulated unanswered: 3\n"),
        "{text}"
    );
    assert!(
        text.contains("off by 50.0% in the mean") && text.ends_with("assumed: all of it\n"),
        "{text}"
    );
}

#[test]
fn what_would_be_asked_is_told_with_what_may_follow() {
    let would = |text: &str, json: bool| {
        let spec = Spec::parse(text).unwrap();
        would_ask(&spec, &Plan::new(&spec, Path::new("")).unwrap(), json)
    };
    assert_eq!(would(SPEC, false), "simulated: 88 turns, 896 requests\n");
    let learning = format!("learn = 30\n{SPEC}");
    assert_eq!(
        would(&learning, false),
        "simulated: 88 turns, 896 requests; 240 more come before, for nodes and policies to learn from\n"
    );
    let told: serde_json::Value = serde_json::from_str(&would(&learning, true)).unwrap();
    assert_eq!(told["learn-requests"], json!(240));
    let rounds = SPEC.replace(
        "{ requests = 40, chunk = 20 }",
        "{ rounds = [20, 40], chunk = 20 }",
    );
    let told = would(&rounds, false);
    let wanted = "simulated: 80 to 88 turns, 736 to 896 requests; 8 turns and 160 requests of them are the first round";
    assert!(told.starts_with(wanted), "{told}");
    let told: serde_json::Value = serde_json::from_str(&would(&rounds, true)).unwrap();
    assert_eq!(
        (&told["turns"], &told["most-turns"]),
        (&json!(80), &json!(88))
    );
    assert_eq!(
        (&told["requests"], &told["most-requests"]),
        (&json!(736), &json!(896))
    );
}

#[test]
fn what_goes_wrong_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let none = folder.path().join("none").display().to_string();
    let told = command(&["report", &none]).unwrap_err().to_string();
    assert!(told.contains("has no results"), "{told}");
    assert_eq!(
        command(&["report", &none, "--json"]).unwrap(),
        ExitCode::FAILURE
    );
    assert!(
        command(&["run", &none])
            .unwrap_err()
            .to_string()
            .contains("name a file")
    );
    assert!(command(&["run"]).is_err());
    // What cannot be made is not begun.
    let spec = folder.path().join("spec.toml");
    std::fs::write(&spec, SPEC).unwrap();
    let (spec, out) = (
        spec.display().to_string(),
        folder.path().join("out").display().to_string(),
    );
    let args = Cli::try_parse_from(["bench", "run", &spec, "--out", &out]).unwrap();
    let told = args.bench.run(&Made {
        without_asker: true,
        ..Made::default()
    });
    assert_eq!(told.unwrap_err().to_string(), "no engine");
    assert!(!Path::new(&out).exists());
}

#[test]
fn times_are_told_in_two_parts() {
    assert_eq!(
        [0.4, 59.6, 125.0, 7_260.0].map(span),
        ["0 s", "1 min 0 s", "2 min 5 s", "2 h 1 min"]
    );
}
