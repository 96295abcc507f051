//! Runs the tutorial as it is written.
//!
//! A code block's line says what becomes of it: ```` ```sh rust ```` is run, ```` ```sh rust fails ```` must fail,
//! ```` ```toml rust write FILE ```` is written and `append FILE` appended, in the plug-in's folder.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use msao_guests::{Language, Tools};

use crate::common::{program, root};

struct Block {
    /// The words behind the fence but for the language of the block.
    words: Vec<String>,
    shell: bool,
    text: String,
}

fn blocks(tutorial: &str, language: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for line in tutorial.lines() {
        let fence = line.strip_prefix("```");
        match (&mut open, fence) {
            (None, Some(words)) => {
                let mut words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
                let shell = words.first().is_some_and(|word| word == "sh");
                words = words.into_iter().skip(1).collect();
                open = Some(Block {
                    words,
                    shell,
                    text: String::new(),
                });
            }
            (Some(_), Some("")) => blocks.extend(open.take()),
            (Some(block), _) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks.retain(|block| block.words.first().is_some_and(|word| word == language));
    blocks
}

/// A folder with a program called `msao` whose one subcommand is `policy`.
fn with_msao(folder: &Path) -> PathBuf {
    let bin = folder.join("bin");
    fs::create_dir(&bin).unwrap();
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = policy ] || exit 2\nshift\nexec '{}' \"$@\"\n",
        program().get_program().to_str().unwrap()
    );
    let msao = bin.join("msao");
    fs::write(&msao, script).unwrap();
    let mut permissions = fs::metadata(&msao).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
    fs::set_permissions(&msao, permissions).unwrap();
    bin
}

fn follow(language: &str, plugin: &str) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let bin = with_msao(folder.path());
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let tutorial = fs::read_to_string(root().join("docs/tutorial-policy.md")).unwrap();
    let mut here = folder.path().to_owned();
    let blocks = blocks(&tutorial, language);
    let mut commands = 0;
    for block in &blocks {
        let words: Vec<&str> = block.words.iter().skip(1).map(String::as_str).collect();
        match (block.shell, words.as_slice()) {
            (true, [] | ["fails"]) => {
                let mut shell = Command::new("bash");
                for (name, value) in program().get_envs() {
                    match value {
                        Some(value) => shell.env(name, value),
                        None => shell.env_remove(name),
                    };
                }
                let output = shell
                    .args(["-e", "-c", &block.text])
                    .current_dir(&here)
                    .env("PATH", &path)
                    .output()
                    .unwrap();
                let said = format!(
                    "{}\n{}\n{}",
                    block.text,
                    String::from_utf8_lossy(&output.stdout),
                    String::from_utf8_lossy(&output.stderr)
                );
                assert_eq!(output.status.success(), words.is_empty(), "{said}");
                commands += block.text.lines().count();
                // The first block ends in the plug-in's folder.
                here = folder.path().join(plugin);
            }
            (false, ["write", file]) => fs::write(here.join(file), &block.text).unwrap(),
            (false, ["append", file]) => {
                let before = fs::read_to_string(here.join(file)).unwrap();
                fs::write(here.join(file), format!("{before}\n{}", block.text)).unwrap();
            }
            (_, other) => panic!("the tutorial has a block that says {other:?}"),
        }
    }
    commands
}

#[test]
fn the_tutorial_in_rust_runs_as_written() {
    assert!(follow("rust", "patient") >= 15);
}

#[test]
fn the_tutorial_in_python_runs_as_written() {
    // A tool that is missing is a failure: `cargo xtask test` fetches it.
    assert!(Tools::find().state(Language::Python).is_ok());
    assert!(follow("python", "patient-py") >= 12);
}
