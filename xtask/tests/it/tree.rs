//! What is tracked stays small enough to clone and keep anywhere.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

/// What the tracked files may take on a disk, in bytes.
const LIMIT: u64 = 30_000_000;

/// What a disk gives out at once, in bytes.
const BLOCK: u64 = 4096;

#[test]
fn tracked_files_take_less_than_30_mb_of_disk_blocks() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut git = Command::new("git");
    let listed = match git.arg("-C").arg(root).args(["ls-files", "-z"]).output() {
        Ok(listed) if listed.status.success() => listed.stdout,
        Ok(refused) => {
            let why = String::from_utf8_lossy(&refused.stderr).into_owned();
            return eprintln!("skipped: git does not list the files here: {why}");
        }
        Err(error) => return eprintln!("skipped: no git to list the files with: {error}"),
    };
    let mut taken = 0;
    for name in listed.split(|&byte| byte == 0).filter(|it| !it.is_empty()) {
        // One that was just deleted takes nothing, nor does a link, whose few bytes lie where its name does.
        if let Ok(file) = fs::symlink_metadata(root.join(OsStr::from_bytes(name)))
            && !file.is_symlink()
        {
            taken += file.len().div_ceil(BLOCK) * BLOCK;
        }
    }
    if taken == 0 {
        return eprintln!("skipped: git tracks none of the files here");
    }
    assert!(
        taken < LIMIT,
        "tracked files take {taken} bytes of disk in blocks of {BLOCK}, and {LIMIT} are the limit: pack what is large (`msao_golden::stored`)"
    );
}
