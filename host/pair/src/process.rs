//! One node as a process of its own.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;

/// A model is loaded within.
const UP_WITHIN: Duration = Duration::from_secs(120);

#[derive(Deserialize)]
struct Up {
    api: String,
    nodes: Option<String>,
    operator: Option<String>,
}

/// A node that runs. Killed when it is dropped.
pub struct NodeProcess {
    child: Child,
    /// Where clients connect.
    pub api: SocketAddr,
    /// Where other nodes connect.
    pub nodes: Option<SocketAddr>,
    /// Where operators connect.
    pub operator: Option<SocketAddr>,
}

impl NodeProcess {
    /// Starts `msao serve` and waits until it is up. What it logs goes to `log`. `core`: the processor core that it is to
    /// stay on.
    ///
    /// # Errors
    /// It does not come up; the log's last lines stand in the message.
    pub fn start(
        msao: &Path,
        config: &Path,
        log: &Path,
        core: Option<usize>,
    ) -> Result<NodeProcess> {
        let file = File::create(log).with_context(|| log.display().to_string())?;
        let mut command = match core {
            Some(core) => {
                let mut command = Command::new("taskset");
                command.args(["-c", &core.to_string()]).arg(msao);
                command
            }
            None => Command::new(msao),
        };
        let mut child = command
            .arg("serve")
            .arg("--config")
            .arg(config)
            .arg("--json")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot run {}", msao.display()))?;
        let output = child.stdout.take().context("the node's output")?;
        let (line, said) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut text = String::new();
            let read = BufReader::new(output).read_line(&mut text);
            // Whoever does not wait any more has given up.
            let _gone = line.send(read.map(|_| text));
        });
        let began = Instant::now();
        let text = said.recv_timeout(UP_WITHIN.saturating_sub(began.elapsed()));
        let up = match text {
            Ok(Ok(text)) => serde_json::from_str::<Up>(&text).ok(),
            _ => None,
        };
        let Some(up) = up else {
            // It may have ended already.
            let _ended = child.kill();
            let _ended = child.wait();
            bail!(
                "the node of {} has not come up:\n{}",
                config.display(),
                last_lines(log)
            );
        };
        let address = |url: &str| {
            let host = url.trim_start_matches("http://").trim_end_matches("/v1");
            host.parse().map_err(|_| anyhow!("\"{url}\" is no address"))
        };
        Ok(NodeProcess {
            child,
            api: address(&up.api)?,
            nodes: up.nodes.as_deref().map(address).transpose()?,
            operator: up.operator.as_deref().map(address).transpose()?,
        })
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it at once, as a power cut would.
    ///
    /// # Errors
    /// The system refuses.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill().context("kill")?;
        self.child.wait().context("wait")?;
        Ok(())
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn last_lines(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(10);
    lines.get(from..).unwrap_or_default().join("\n")
}
