//! What a run goes by: models, data, components, and how much of it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use msao_core::digest::Digest;
use msao_processor::Processor;

use super::interrupt::Interrupt;
use crate::nodes::pair::Places;
use crate::plugins::shipped::Shelf;

/// What all parts share.
pub struct Setting {
    /// The folder that holds `demo-target` and `demo-draft`.
    pub models: PathBuf,
    /// Questions that figures are of.
    pub heldout: PathBuf,
    /// Questions that post-processors are calibrated with.
    pub calibration: PathBuf,
    /// Components.
    pub shelf: Shelf,
    /// Where what was measured is kept until all of it is.
    pub scratch: PathBuf,
    /// Threads.
    pub workers: usize,
    /// Questions over mixes that the models were trained on; over others there are half as many.
    pub questions: usize,
    /// Whether to measure again what an earlier run has measured.
    pub fresh: bool,
    /// Whether somebody wants it to end.
    pub interrupt: Interrupt,
}

impl Setting {
    /// What both models read by.
    ///
    /// # Errors
    /// The target's folder is not there, or not whole.
    pub fn processor(&self) -> Result<Processor> {
        let dir = self.models.join("demo-target");
        Processor::load(&dir).with_context(|| dir.display().to_string())
    }

    /// Names both models.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn pair(&self) -> Result<String> {
        let [target, draft] =
            ["demo-target", "demo-draft"].map(|name| weights(&self.models.join(name)));
        Ok(format!("target {}, draft {}", target?, draft?))
    }

    /// Fails if the data to calibrate with are those that figures are of.
    ///
    /// # Errors
    /// They are.
    pub fn check_apart(&self) -> Result<()> {
        let (calibration, heldout) = (questions(&self.calibration)?, questions(&self.heldout)?);
        ensure!(
            calibration != heldout,
            "{} and {} hold the same questions: figures must be of questions that nothing was calibrated with",
            self.calibration.display(),
            self.heldout.display()
        );
        Ok(())
    }

    /// What nodes that are processes are made of: the program beside this one, and the same models and components.
    ///
    /// # Errors
    /// This program does not know where it lies.
    pub fn places(&self) -> Result<Places> {
        let prover = std::env::current_exe().context("this program's own path")?;
        Ok(Places {
            msao: prover.with_file_name("msao"),
            models: self.models.clone(),
            plugins: self.shelf.folder().to_owned(),
        })
    }

    /// The file that the figures of a part are kept in.
    pub fn kept(&self, part: &str) -> PathBuf {
        self.scratch.join(format!("adaptive-{part}.jsonl"))
    }

    /// What is said where a part was interrupted.
    pub fn to_go_on(&self, part: &str) -> String {
        format!(
            "what was measured is in {}, and the same command goes on from there",
            self.kept(part).display()
        )
    }
}

/// Names a folder's questions, by what they say and not by how they are packed.
///
/// # Errors
/// They cannot be read.
pub fn questions(folder: &Path) -> Result<Digest> {
    let file = folder.join("v2_OpenEnded_mscoco_demo_questions.json");
    let bytes = msao_golden::stored(&file).with_context(|| {
        format!(
            "{}: `python models/recipe/data.py` writes such a folder",
            file.display()
        )
    })?;
    Ok(Digest::of(&bytes))
}

/// Names a model's weights.
fn weights(folder: &Path) -> Result<Digest> {
    let shown = || folder.display().to_string();
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(shown)? {
        let path = entry.with_context(shown)?.path();
        if path.extension().is_some_and(|it| it == "safetensors") {
            files.push(path);
        }
    }
    files.sort();
    let mut all = String::new();
    for file in files {
        let bytes = fs::read(&file).with_context(|| file.display().to_string())?;
        all += &Digest::of(&bytes).to_string();
    }
    Ok(Digest::of(all.as_bytes()))
}
