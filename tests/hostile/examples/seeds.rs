//! Fills a folder with components to start from: honest ones, and the hostile corpus as far as it is small: `seeds FOLDER`.
#![allow(clippy::print_stdout)] // it says what it has done

use std::path::PathBuf;

use msao_hostile::build::Core;

/// What is longer than the fuzzer's `-max_len` teaches it nothing.
const MOST: usize = 65_536;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.ok_or("say into which folder: seeds FOLDER")?;
    std::fs::create_dir_all(&folder)?;
    let honest = [Core::policy().build()?, Core::postprocessor().build()?];
    let hostile = msao_hostile::corpus()?.into_iter().map(|case| case.file);
    let mut written = 0;
    for (number, file) in honest.into_iter().chain(hostile).enumerate() {
        if file.len() <= MOST {
            std::fs::write(folder.join(format!("seed-{number:03}")), file)?;
            written += 1;
        }
    }
    println!("{written} files in {}", folder.display());
    Ok(())
}
