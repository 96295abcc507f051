//! Which node, and with which token: options that every command has.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context;
use clap::Args;

use crate::client::{Client, Secret};
use crate::files;
use crate::output::{Output, warn};

/// Where a node's operator API is when nobody says otherwise; the default of `operator.listen`.
pub const DEFAULT: &str = "http://127.0.0.1:8081";

// A variable that overrides a key of a node's configuration has two underscores in a row (MSAO_API__LISTEN). These have
// none, so neither is ever taken for the other.
const URL: &str = "MSAO_OPERATOR_URL";
const TOKEN: &str = "MSAO_OPERATOR_TOKEN";
const TOKEN_FILE: &str = "MSAO_OPERATOR_TOKEN_FILE";
const CA: &str = "MSAO_OPERATOR_CA";

/// Bytes of a token's file at most.
const MAX_TOKEN: u64 = 4096;
/// Bytes of a file of certificates at most.
const MAX_CA: u64 = 1 << 20;

/// A token on the command line; not shown in messages.
#[derive(Clone)]
struct Given(String);

impl FromStr for Given {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Given, Self::Err> {
        Ok(Given(text.to_owned()))
    }
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("...")
    }
}

/// Options of every command that asks one node.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Node")]
pub struct Connect {
    /// The node's operator API [default: $MSAO_OPERATOR_URL, else http://127.0.0.1:8081].
    #[arg(long, value_name = "URL")]
    node: Option<String>,
    /// A token of [operator.tokens] in the node's configuration [default: $MSAO_OPERATOR_TOKEN]. Others on this machine can
    /// read it in the list of processes: a file is better.
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file")]
    token: Option<Given>,
    /// A file with the token [default: $MSAO_OPERATOR_TOKEN_FILE].
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Certificates (PEM) to trust, for a node behind https [default: $MSAO_OPERATOR_CA].
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

/// What is asked, and where the answer goes.
#[derive(Args, Clone, Debug)]
pub struct Common {
    // Before the options of the node, whose heading would go on over it.
    /// Answer with one JSON value on standard output; an error is {"error": "..."}.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

impl Common {
    /// The node.
    pub fn client(&self) -> anyhow::Result<Client> {
        self.connect.client()
    }

    /// Where the answer goes.
    pub fn output(&self) -> Output {
        Output { json: self.json }
    }
}

/// Reads a token from a file: its first line.
///
/// # Errors
/// The file cannot be read, or is empty.
pub fn token_of(path: &Path) -> anyhow::Result<Secret> {
    let text = files::read_text(path, MAX_TOKEN)?;
    if files::is_open_to_all(path) {
        warn(format_args!(
            "note: everyone on this machine can read the token in {0}; chmod 600 {0}",
            path.display()
        ));
    }
    let line = text.lines().next().unwrap_or_default().trim();
    Secret::new(line).with_context(|| format!("{} holds no token", path.display()))
}

/// Reads certificates.
pub fn ca_of(path: &Path) -> anyhow::Result<Vec<u8>> {
    files::read(path, MAX_CA)
}

impl Connect {
    /// The node of that address. What is left out the environment names.
    pub fn to(node: &str, token_file: Option<PathBuf>, ca: Option<PathBuf>) -> Connect {
        Connect {
            node: Some(node.to_owned()),
            token: None,
            token_file,
            ca,
        }
    }

    /// The node that the options or the environment name.
    ///
    /// # Errors
    /// An address or a token that cannot be one, a file that cannot be read.
    pub fn client(&self) -> anyhow::Result<Client> {
        let client =
            self.client_from(|name| std::env::var(name).ok().filter(|it| !it.is_empty()))?;
        if let Some(risk) = client.risk() {
            warn(format_args!("note: {risk}"));
        }
        Ok(client)
    }

    fn client_from(&self, environment: impl Fn(&str) -> Option<String>) -> anyhow::Result<Client> {
        let url = self.node.clone().or_else(|| environment(URL));
        let given = self.token.as_ref().map(|given| given.0.clone());
        // An option of the command line beats both variables.
        let from_file = self.token_file.clone().or_else(|| match given {
            Some(_) => None,
            None => environment(TOKEN)
                .is_none()
                .then(|| environment(TOKEN_FILE))
                .flatten()
                .map(PathBuf::from),
        });
        let token = match from_file {
            Some(path) => Some(token_of(&path)?),
            None => (given.or_else(|| environment(TOKEN)))
                .map(|text| Secret::new(text.trim()).context("that is no token"))
                .transpose()?,
        };
        let ca = self
            .ca
            .clone()
            .or_else(|| environment(CA).map(PathBuf::from));
        let ca = ca.map(|path| ca_of(&path)).transpose()?;
        Ok(Client::new(
            url.as_deref().unwrap_or(DEFAULT),
            token,
            ca.as_deref(),
        )?)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        connect: Connect,
    }

    fn client(line: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<Client> {
        let line = Line::parse_from(std::iter::once("msao").chain(line.iter().copied()));
        line.connect.client_from(|name| {
            let found = environment.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn an_option_beats_the_environment_which_beats_the_default() {
        let at = |line: &[&str], environment: &[(&str, &str)]| {
            client(line, environment).unwrap().url().to_owned()
        };
        let set = [(URL, "http://10.0.0.2:8081")];
        assert_eq!(at(&[], &[]), DEFAULT);
        assert_eq!(at(&[], &set), "http://10.0.0.2:8081");
        assert_eq!(
            at(&["--node", "localhost:9000/"], &set),
            "http://localhost:9000"
        );
    }

    #[test]
    fn a_token_comes_from_the_nearest_place() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "of-the-file\n").unwrap();
        let path = file.path().to_str().unwrap();
        let token = |line: &[&str], environment: &[(&str, &str)]| {
            let client = client(line, environment).unwrap();
            client.token().map(|it| it.expose().to_owned())
        };
        let both = [(TOKEN, "of-the-variable"), (TOKEN_FILE, path)];
        assert_eq!(token(&[], &[]), None);
        assert_eq!(token(&[], &both).unwrap(), "of-the-variable");
        assert_eq!(token(&[], &both[1..]).unwrap(), "of-the-file");
        assert_eq!(token(&["--token", "given"], &both[1..]).unwrap(), "given");
        assert_eq!(
            token(&["--token-file", path], &both).unwrap(),
            "of-the-file"
        );
    }

    #[test]
    fn tokens_are_not_shown() {
        let line = Line::parse_from(["msao", "--token", "hunter2"]);
        assert!(!format!("{:?}", line.connect).contains("hunter2"));
        let client = client(&["--token", "hunter2"], &[]).unwrap();
        assert!(!format!("{client:?}").contains("hunter2"));
    }

    #[test]
    fn no_variable_can_be_taken_for_a_key_of_the_configuration() {
        assert!(
            [URL, TOKEN, TOKEN_FILE, CA]
                .iter()
                .all(|name| !name.contains("__"))
        );
    }
}
