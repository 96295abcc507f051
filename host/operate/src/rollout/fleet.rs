//! The nodes of a rollout, and how many of them each wave takes.

use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::client::Client;
use crate::connect::{ca_of, token_of};
use crate::files;
use crate::output::warn;

/// Bytes of the file at most.
const MAX_BYTES: u64 = 1 << 20;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Entry {
    name: String,
    url: String,
    token_file: Option<PathBuf>,
    ca: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    #[serde(default)]
    node: Vec<Entry>,
}

/// A node of the fleet.
#[derive(Clone, Debug)]
pub struct Member {
    /// For people.
    pub name: String,
    /// It.
    pub client: Client,
}

/// Reads the nodes, in the order in which they are taken. Paths in the file are relative to it.
///
/// # Errors
/// What is wrong, with the line where the file is no such list.
pub fn read(path: &Path) -> anyhow::Result<Vec<Member>> {
    let text = files::read_text(path, MAX_BYTES)?;
    let listed: Listed = toml::from_str(&text).with_context(|| {
        format!("{} is no list of nodes: each is [[node]] with name, url and, if it wants one, token-file", path.display())
    })?;
    if listed.node.is_empty() {
        bail!(
            "{} lists no node: each is [[node]] with name, url and, if it wants one, token-file",
            path.display()
        );
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    let (mut names, mut urls) = (HashSet::new(), HashSet::new());
    let mut members = Vec::new();
    for entry in listed.node {
        let at = || format!("{}, node \"{}\"", path.display(), entry.name);
        let token = entry
            .token_file
            .as_ref()
            .map(|file| token_of(&folder.join(file)));
        let ca = entry.ca.as_ref().map(|file| ca_of(&folder.join(file)));
        let client = Client::new(
            &entry.url,
            token.transpose().with_context(at)?,
            ca.transpose().with_context(at)?.as_deref(),
        );
        let client = client.with_context(at)?;
        // The same node twice would be changed twice and judged by the half of it.
        if !names.insert(entry.name.clone()) {
            bail!("{} is listed twice", at());
        }
        if !urls.insert(client.url().to_owned()) {
            bail!("{}: another node has the same url {}", at(), client.url());
        }
        if let Some(risk) = client.risk() {
            warn(format_args!("note: {}: {risk}", entry.name));
        }
        members.push(Member {
            name: entry.name,
            client,
        });
    }
    Ok(members)
}

/// How many nodes have the release after a wave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wave {
    /// So many.
    Nodes(usize),
    /// So many of a hundred.
    Percent(f64),
}

impl FromStr for Wave {
    type Err = String;

    fn from_str(text: &str) -> Result<Wave, String> {
        let wrong = || format!("\"{text}\" is no wave: a number of nodes, or a share such as 10%");
        let wave = match text.trim().strip_suffix('%') {
            Some(share) => share
                .trim()
                .parse()
                .map(Wave::Percent)
                .map_err(|_| wrong())?,
            None => text.trim().parse().map(Wave::Nodes).map_err(|_| wrong())?,
        };
        match wave {
            Wave::Percent(share) if !(share > 0.0 && share <= 100.0) => Err(wrong()),
            Wave::Nodes(0) => Err(wrong()),
            wave => Ok(wave),
        }
    }
}

/// The nodes that each wave adds. Waves that add none (10% of three nodes after the first one) are left out; a share is
/// rounded up.
///
/// # Errors
/// A wave that is smaller than the one before it.
pub fn cut(waves: &[Wave], nodes: usize) -> anyhow::Result<Vec<Range<usize>>> {
    let mut cuts = Vec::new();
    let mut done = 0;
    let mut asked = 0.0_f64;
    for wave in waves {
        let (until, exact) = match *wave {
            Wave::Nodes(count) => (count.min(nodes), count as f64),
            Wave::Percent(share) => {
                let exact = share * nodes as f64 / 100.0;
                // What is whole but for the last bits of a product is whole.
                (((exact - 1e-9).ceil().max(1.0) as usize).min(nodes), exact)
            }
        };
        if until < done && exact < asked {
            bail!(
                "a wave of {until} nodes comes after one of {done}: waves name how many nodes have the release after them, so \
                 they grow"
            );
        }
        asked = exact;
        if until > done {
            cuts.push(done..until);
            done = until;
        }
    }
    Ok(cuts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn waves(text: &str) -> Vec<Wave> {
        text.split(',').map(|it| it.parse().unwrap()).collect()
    }

    #[test]
    fn waves_grow() {
        let cut = |text: &str, nodes| cut(&waves(text), nodes).map_err(|it| it.to_string());
        assert_eq!(cut("1,10%,100%", 30), Ok(vec![0..1, 1..3, 3..30]));
        assert_eq!(cut("1,10%,100%", 3), Ok(vec![0..1, 1..3]));
        assert_eq!(cut("2,50%", 10), Ok(vec![0..2, 2..5]));
        let one = |range: Range<usize>| Ok(Vec::from([range]));
        assert_eq!(cut("10", 3), one(0..3));
        assert_eq!(cut("30%", 10), one(0..3));
        assert!(cut("50%,10%", 10).unwrap_err().contains("grow"));
        assert!(cut("3,2", 10).unwrap_err().contains("grow"));
        for wrong in ["0", "0%", "101%", "-1", "x", "", "nan%"] {
            assert!(wrong.parse::<Wave>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_node_is_in_two_waves(counts in prop::collection::vec(1_usize..40, 1..6), nodes in 1_usize..30) {
            let waves: Vec<Wave> = counts.into_iter().map(Wave::Nodes).collect();
            if let Ok(cuts) = cut(&waves, nodes) {
                let taken: Vec<usize> = cuts.into_iter().flatten().collect();
                prop_assert_eq!(&taken, &(0..taken.len()).collect::<Vec<_>>());
                prop_assert!(taken.len() <= nodes && !taken.is_empty());
            }
        }
    }

    #[test]
    fn a_list_of_nodes_is_read_or_told_what_is_wrong_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("one.token"), "secret\n").unwrap();
        let list = |text: &str| {
            std::fs::write(at("nodes.toml"), text).unwrap();
            read(&at("nodes.toml")).map_err(|it| format!("{it:#}"))
        };
        let good = list(
            "[[node]]\nname = \"one\"\nurl = \"http://127.0.0.1:1\"\ntoken-file = \"one.token\"\n\
             [[node]]\nname = \"two\"\nurl = \"http://127.0.0.1:2\"\n",
        )
        .unwrap();
        let names: Vec<&str> = good.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["one", "two"]);
        assert_eq!(good[0].client.token().unwrap().expose(), "secret");
        for (text, told) in [
            ("", "lists no node"),
            ("[[node]]\nname = \"a\"\n", "missing field `url`"),
            (
                "[[node]]\nname = \"a\"\nurl = \"http://h\"\ntoken = \"t\"\n",
                "unknown field `token`",
            ),
            (
                "[[node]]\nname = \"a\"\nurl = \"ftp://h\"\n",
                "neither http nor https",
            ),
            (
                "[[node]]\nname = \"a\"\nurl = \"http://h\"\ntoken-file = \"none\"\n",
                "cannot read",
            ),
            (
                "[[node]]\nname = \"a\"\nurl = \"http://h\"\n[[node]]\nname = \"a\"\nurl = \"http://i\"\n",
                "listed twice",
            ),
            (
                "[[node]]\nname = \"a\"\nurl = \"http://h\"\n[[node]]\nname = \"b\"\nurl = \"h/\"\n",
                "the same url",
            ),
        ] {
            let error = list(text).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
