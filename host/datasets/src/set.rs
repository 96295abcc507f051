//! A set of questions in a folder.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::DataError;
use crate::item::Item;
use crate::{mmbench, vqa};

/// What is in a folder. Written as `vqav2`, `vqav2:val2014`, `mmbench` or `mmbench:MMBench_DEV_EN.tsv`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// VQAv2's questions and annotations; the demo world's have the same layout.
    Vqav2 {
        /// Such as `val2014` or `demo`; not needed where there is only one.
        split: Option<String>,
    },
    /// One of MMBench's tables.
    Mmbench {
        /// The table's name; not needed where there is only one.
        file: Option<String>,
    },
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, which) = match self {
            Kind::Vqav2 { split } => ("vqav2", split),
            Kind::Mmbench { file } => ("mmbench", file),
        };
        match which {
            Some(which) => write!(out, "{name}:{which}"),
            None => out.write_str(name),
        }
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Kind, String> {
        let (name, which) = match text.split_once(':') {
            Some((name, which)) => (name, Some(which.to_owned())),
            None => (text, None),
        };
        match name {
            _ if which.as_deref() == Some("") => {
                Err(format!("{text:?}: nothing follows the colon"))
            }
            "vqav2" => Ok(Kind::Vqav2 { split: which }),
            "mmbench" => Ok(Kind::Mmbench { file: which }),
            _ => Err(format!(
                "{text:?} is no kind of data set: write vqav2, vqav2:SPLIT, mmbench or mmbench:FILE"
            )),
        }
    }
}

/// The questions of a set, in the order of its file.
#[derive(Clone, Debug, PartialEq)]
pub struct Set {
    /// `vqav2-val2014`, `demo`, `MMBench_DEV_EN`.
    pub name: Arc<str>,
    /// Never empty.
    pub items: Vec<Item>,
}

impl Set {
    /// Reads a set, whole. That its media files are there is seen to; they are not read.
    ///
    /// ```no_run
    /// use msao_datasets::{Set, Tally, score};
    /// # fn ask(item: &msao_datasets::Item) -> String { String::new() }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let set = Set::load("models/heldout".as_ref(), &"vqav2:demo".parse()?)?;
    /// let mut tally = Tally::default();
    /// for item in &set.items {
    ///     tally.add(item, &score(item, &ask(item)));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// A file is missing, damaged, too large, or does not fit the others.
    pub fn load(folder: &Path, kind: &Kind) -> Result<Set, DataError> {
        match kind {
            Kind::Vqav2 { split } => vqa::load(folder, split.as_deref(), false),
            Kind::Mmbench { file } => mmbench::load(folder, file.as_deref()),
        }
    }

    /// Reads a set of the demo world that may be for training or calibration: questions of such sets have one answer rather than
    /// ten. It stands for all ten, which are equal in the demo world.
    ///
    /// # Errors
    /// As [`Set::load`].
    pub fn load_demo(folder: &Path) -> Result<Set, DataError> {
        vqa::load(folder, Some("demo"), true)
    }
}
