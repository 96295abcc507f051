use clap::{CommandFactory as _, Parser};

use super::*;
use crate::run::tests::{SPEC, Simulated};

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    bench: BenchArgs,
}

fn command(args: &[&str]) -> anyhow::Result<ExitCode> {
    let all = ["bench"].iter().chain(args);
    Cli::try_parse_from(all)?
        .bench
        .run(|_, _, _| Ok(Simulated::default()))
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
    let told = args
        .bench
        .run(|_, _, _| anyhow::bail!("no engine") as anyhow::Result<Simulated>);
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
