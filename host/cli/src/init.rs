//! `msao node init`: what nodes prove to each other who they are by, and what operators show.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use msao_transport::pki::{self, Existing, Token};
use serde_json::json;

/// Make certificates and tokens for nodes.
///
/// The first folder gets a private CA beside the node's own certificate. Further nodes get theirs from it; ca.key stays
/// where it is, and only ca.pem, node.pem and node.key go to the other machine. Running nodes take new certificates up
/// by themselves.
///
///   msao node init --dir certs/cloud --host cloud.example --host 10.0.0.7
///   msao node init --dir certs/edge --host edge.example --ca certs/cloud
///   msao node init --token
#[derive(Args)]
#[command(verbatim_doc_comment)]
#[group(id = "what", required = true, multiple = true)]
pub struct InitArgs {
    /// The folder of ca.pem, node.pem and node.key: `tls` in [sessions].
    #[arg(long, value_name = "DIR", requires = "host", group = "what")]
    dir: Option<PathBuf>,
    /// A name or address by which other nodes reach this one; may be given several times.
    #[arg(long, value_name = "HOST", requires = "dir")]
    host: Vec<String>,
    /// The folder of the CA that another node's init has made.
    #[arg(long, value_name = "DIR", requires = "dir")]
    ca: Option<PathBuf>,
    /// Replace files that are there.
    #[arg(long)]
    force: bool,
    /// Draw a token for an operator or an API key for a client. It is shown once: the configuration holds its hash.
    #[arg(long, group = "what")]
    token: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &InitArgs) -> Result<()> {
    let mut lines = Vec::new();
    let mut told = serde_json::Map::new();
    if let Some(dir) = &args.dir {
        let existing = if args.force {
            Existing::Replace
        } else {
            Existing::Keep
        };
        match &args.ca {
            Some(ca) => pki::issue(ca, dir, &args.host, existing),
            None => pki::init(dir, &args.host, existing),
        }
        .context("nothing was made")?;
        told.insert("tls".into(), json!(dir));
        told.insert("hosts".into(), json!(args.host));
        lines.push(format!(
            "{}: a certificate for {}. In the node's configuration:",
            dir.display(),
            args.host.join(", ")
        ));
        lines.push(format!("\n  [sessions]\n  tls = \"{}\"\n", dir.display()));
        if args.ca.is_none() {
            lines.push(format!(
                "{} makes nodes of this CA: keep it here, and away from nodes.",
                dir.join(pki::CA_KEY).display()
            ));
        }
    }
    if args.token {
        let token = Token::draw().context("no token was drawn")?;
        let sha256 = token.sha256().to_string();
        lines.push(format!("Token, shown this once: {}", token.secret()));
        lines.push(format!(
            "\n  [operator.tokens.NAME]\n  sha256 = \"{sha256}\"\n  role = \"read\"    # or push, activate\n\n\
             or, for a client of the inference API:\n\n  [api.keys.NAME]\n  sha256 = \"{sha256}\""
        ));
        told.insert("token".into(), json!(token.secret()));
        told.insert("sha256".into(), json!(sha256));
    }
    let text = if args.json {
        serde_json::to_string_pretty(&told)?
    } else {
        lines.join("\n")
    };
    Ok(writeln!(std::io::stdout(), "{text}")?)
}
