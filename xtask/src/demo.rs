//! `cargo xtask demo`: real answers about a committed image, clip and sound, by one model and then by two nodes together.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::places::{Places, target_folder};
use crate::run::{cargo, exit_code, must, run};
use crate::{plugins, setup};

const MODEL: &str = "models/demo-target";
const MEDIA: &str = "models/demo-media";
/// Of the demo's questions so many are asked of one model alone: of a picture, a clip and a sound.
const ASKED: usize = 7;

/// One question of `models/demo-media/demo.json`; file names are relative to that folder.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    #[serde(default)]
    image: Files,
    #[serde(default)]
    video: Files,
    #[serde(default)]
    audio: Files,
    question: String,
    /// The right answer, for the reader to compare: the model is small and may be wrong.
    expected: String,
}

/// One file name or several.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Files {
    One(PathBuf),
    Several(Vec<PathBuf>),
}

impl Default for Files {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl Files {
    fn all(&self) -> &[PathBuf] {
        match self {
            Self::One(file) => std::slice::from_ref(file),
            Self::Several(files) => files,
        }
    }
}

impl Question {
    /// The arguments of `msao chat`, with files relative to the checkout so that a line can be copied.
    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["chat".to_owned(), "--model".to_owned(), MODEL.to_owned()];
        for (option, files) in [
            ("--image", &self.image),
            ("--video", &self.video),
            ("--audio", &self.audio),
        ] {
            for file in files.all() {
                let file = Path::new(MEDIA).join(file);
                arguments.extend([option.to_owned(), file.display().to_string()]);
            }
        }
        arguments.push(self.question.clone());
        arguments
    }
}

/// Sets up, builds, asks one model, then two nodes. `stay`: the nodes go on running at the end.
pub fn command(places: &Places, stay: bool) -> Result<ExitCode> {
    setup::ensure(places, false)?;
    let questions = questions(places)?;

    println!(
        "\nBuilding. The first time takes some twenty minutes on two cores; later ones take seconds."
    );
    let start = Instant::now();
    build(places)?;
    let plugins = plugins::ensure_rust(places)?;
    println!("Built in {:.0} s.", start.elapsed().as_secs_f64());

    let msao = target_folder(places)?.join("debug/msao");
    for question in questions.iter().take(ASKED) {
        let arguments = question.arguments();
        println!("\n$ msao {}", shown(&arguments));
        let status = Command::new(&msao)
            .args(&arguments)
            .current_dir(&places.root)
            .status()
            .with_context(|| format!("cannot run {}", msao.display()))?;
        if !status.success() {
            return Ok(exit_code(status));
        }
        println!("  expected    {}", question.expected);
    }

    let target = target_folder(places)?;
    let mut nodes = Command::new(target.join("debug/msao-demo"));
    nodes
        .arg("--msao")
        .arg(&msao)
        .arg("--plugins")
        .arg(&plugins)
        .arg("--work")
        .arg(target.join("demo"))
        .args(stay.then_some("--stay"))
        .current_dir(&places.root);
    let status = run(&mut nodes)?;
    if !status.success() {
        return Ok(exit_code(status));
    }
    println!("{}", what_next(&msao, places));
    Ok(ExitCode::SUCCESS)
}

/// Builds the programs of the nodes and of the demo.
pub fn build(places: &Places) -> Result<()> {
    // `--workspace` chooses the same features of dependencies as the tests do, so that nothing is built twice.
    must(
        cargo()
            .args([
                "build",
                "--workspace",
                "--bin",
                "msao",
                "--bin",
                "msao-demo",
            ])
            .current_dir(&places.root),
    )
}

fn questions(places: &Places) -> Result<Vec<Question>> {
    let file = places.root.join(MEDIA).join("demo.json");
    let text = fs::read_to_string(&file).with_context(|| {
        format!(
            "cannot read {}: is the checkout whole (`git status`)?",
            file.display()
        )
    })?;
    let questions: Vec<Question> = serde_json::from_str(&text)
        .with_context(|| format!("{} is not understood", file.display()))?;
    ensure!(!questions.is_empty(), "{} asks nothing", file.display());
    Ok(questions)
}

/// A command line that a shell would take.
fn shown(arguments: &[String]) -> String {
    arguments
        .iter()
        .map(|argument| quoted(argument))
        .collect::<Vec<_>>()
        .join(" ")
}

fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        argument.to_owned()
    } else {
        format!("'{}'", argument.replace('\'', r"'\''"))
    }
}

fn what_next(msao: &Path, places: &Places) -> String {
    let msao = msao.strip_prefix(&places.root).unwrap_or(msao).display();
    format!(
        "
And with one model alone:
  {msao} chat --model models/demo-draft --image {MEDIA}/scene.png 'Describe the scene.'
      the smaller model of the pair; models/heldout has more media, and questions that neither has seen
  {msao} model inspect {MODEL}
      what a model's folder holds
  {msao} chat --model DIR --image photo.jpg 'What is on the table?'
      a real checkpoint: a folder of Qwen2-VL, Qwen2.5-VL or Qwen2.5-Omni as downloaded from Hugging Face
      (build it with `cargo build --release --bin msao` first)
  cargo xtask test
      the tests"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_becomes_a_command_line() {
        let questions: Vec<Question> = serde_json::from_str(
            r#"[{"image": ["a.png", "b.png"], "audio": "c.wav", "question": "What's there?", "expected": "x"}]"#,
        )
        .unwrap();
        assert_eq!(
            shown(&questions[0].arguments()),
            "chat --model models/demo-target --image models/demo-media/a.png --image models/demo-media/b.png \
             --audio models/demo-media/c.wav 'What'\\''s there?'"
        );
    }

    #[test]
    fn an_unknown_key_is_an_error() {
        let text = r#"[{"picture": "a.png", "question": "?", "expected": "x"}]"#;
        let error = serde_json::from_str::<Vec<Question>>(text).unwrap_err();
        assert!(
            error.to_string().contains("unknown field `picture`"),
            "{error}"
        );
    }
}
