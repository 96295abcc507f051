//! Twins: pairs with random weights in the shape of larger models, made by `msao model twin` and kept for later runs.
//!
//! They have the speed of such models and no accuracy. The draft model is the target's own first layers, about a twelfth of
//! them.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::Models;
use crate::pair::Places;

/// How often the draft model agrees with the target.
const AGREEMENT: f64 = 0.9;
/// Shapes that `msao model twin` knows, and layers of the draft model.
const TWINS: [(&str, u32); 5] = [("demo", 1), ("0.5b", 2), ("1.5b", 2), ("3b", 3), ("7b", 2)];

/// The twin of this name, made if it is not there.
///
/// # Errors
/// There is none of this name, or it cannot be made.
pub(super) fn made(places: &Places, twins: &Path, name: &str) -> Result<Models> {
    let Some((_, draft_layers)) = TWINS.iter().find(|(known, _)| *known == name) else {
        bail!(
            "pair = {{ twin = \"{name}\" }}: there is no such twin; allowed: {}",
            TWINS.map(|(known, _)| known).join(", ")
        );
    };
    // The nodes' configurations lie elsewhere.
    let folder = std::path::absolute(twins.join(name))?;
    if !folder.is_dir() {
        make(places, &folder, name, *draft_layers)?;
    }
    Ok(Models {
        draft: folder.join("draft"),
        target: folder.join("target"),
    })
}

/// Made beside its place and then put there, so that a half of one is never taken for it. The program tells of its steps on
/// standard error.
fn make(places: &Places, folder: &Path, name: &str, draft_layers: u32) -> Result<()> {
    let shown = || folder.display().to_string();
    let beside = folder.with_file_name(format!("{name}.new"));
    if beside.exists() {
        // What an interrupted run has left.
        std::fs::remove_dir_all(&beside).with_context(shown)?;
    }
    let mut command = Command::new(&places.msao);
    command.args(["model", "twin", "--shape", name]);
    command.args(["--draft-layers", &draft_layers.to_string()]);
    command.args(["--agreement", &AGREEMENT.to_string()]);
    command
        .arg("--tokenizer")
        .arg(places.models.join("demo-target"));
    command.arg("--out").arg(&beside);
    let told = || places.msao.display().to_string();
    let status = command.stdout(Stdio::null()).status().with_context(told)?;
    if !status.success() {
        bail!("pair = {{ twin = \"{name}\" }}: `msao model twin` failed ({status}), and said why");
    }
    std::fs::rename(&beside, folder).with_context(shown)
}

/// What is not real of it.
pub(super) fn told(name: &str) -> String {
    format!(
        "the models are a twin: random weights in the shape {name}, a draft model that agrees with the target {:.0}% of the time, \
         the demo pair's encoders; they have speed, but no accuracy",
        100.0 * AGREEMENT
    )
}

#[cfg(test)]
mod tests {
    use msao_evaluate::spec::{Pair, Spec};

    use super::*;

    #[test]
    fn twins_of_the_shipped_specifications_are_there() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/bench");
        let mut twins = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            if let Pair::Twin(name) = Spec::parse(&text).unwrap().pair {
                assert!(TWINS.iter().any(|(known, _)| *known == name), "{name}");
                twins += 1;
            }
        }
        assert!(twins > 0);
    }

    #[test]
    fn what_cannot_be_made_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places {
            msao: "false".into(),
            models: folder.path().to_owned(),
            plugins: folder.path().to_owned(),
        };
        let told = made(&places, folder.path(), "demo").err().unwrap();
        assert!(told.to_string().contains("failed"), "{told}");
        assert!(!folder.path().join("demo").exists());
        let told = made(&places, folder.path(), "4b").err().unwrap();
        assert!(told.to_string().contains("allowed: demo, 0.5b"), "{told}");
    }
}
