//! Where tensors live and in what precision.

use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tch::{Device, Kind};

use crate::cuda::{self, DeviceMemory};
use crate::error::{EngineError, Result};

/// A place to compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// The processor.
    #[default]
    Cpu,
    /// An NVIDIA GPU, by index.
    Cuda(usize),
}

impl std::str::FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text.split_once(':') {
            None if text == "cpu" => Ok(Place::Cpu),
            None if text == "cuda" => Ok(Place::Cuda(0)),
            Some(("cuda", index)) => index.parse().map(Place::Cuda).map_err(|_| bad_place(text)),
            _ => Err(bad_place(text)),
        }
    }
}

fn bad_place(text: &str) -> String {
    format!("\"{text}\" is not a device; use cpu, cuda or cuda:N")
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Cpu => write!(f, "cpu"),
            Place::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl Place {
    /// Makes the place ready. A process that will use a GPU does this before anything else with libtorch, which
    /// settles at the first question whether there is CUDA.
    pub fn open(self) -> Result<()> {
        self.device().map(|_| ())
    }

    /// What this thread asks of the place goes to a stream of its own, so that models on several threads do not wait for
    /// each other.
    pub(crate) fn enter(self) -> Result<()> {
        match self {
            Place::Cpu => Ok(()),
            Place::Cuda(index) => cuda::enter(index),
        }
    }

    /// Waits until the place has done all that this thread gave it: a GPU works behind the caller's back, and a clock that
    /// is read meanwhile shows nothing.
    pub(crate) fn wait(self) -> Result<()> {
        match self {
            Place::Cpu => Ok(()),
            Place::Cuda(index) => cuda::wait(index).unwrap_or_else(|| synchronize(index as i64)),
        }
    }

    /// What tensors hold of a GPU's memory, and the most that they held since it was last asked with `restart`; `None` for
    /// the processor and before anything was done on the GPU.
    pub fn memory(self, restart: bool) -> Option<DeviceMemory> {
        match self {
            Place::Cpu => None,
            Place::Cuda(index) => cuda::memory(index, restart),
        }
    }

    /// libtorch's device for this place, after opening the CUDA half of libtorch where it is needed.
    pub(crate) fn device(self) -> Result<Device> {
        match self {
            Place::Cpu => Ok(Device::Cpu),
            Place::Cuda(index) => {
                open_cuda()?;
                let count = tch::Cuda::device_count();
                if (index as i64) < count {
                    cuda::open()?;
                    cuda::enter(index)?;
                    Ok(Device::Cuda(index))
                } else {
                    Err(EngineError::Device(format!(
                        "cuda:{index} was asked for and libtorch sees {count} CUDA devices: check nvidia-smi and the driver"
                    )))
                }
            }
        }
    }
}

/// Waits for a GPU. An operation that failed behind the caller's back is told of here, and tch's own call panics then.
fn synchronize(index: i64) -> Result<()> {
    // SAFETY: takes a number; an exception is caught and kept as this thread's last error.
    unsafe { torch_sys::cuda::atc_synchronize(index) };
    last_error()
}

/// What libtorch's last call on this thread had to say.
fn last_error() -> Result<()> {
    // SAFETY: gives null or a string that was made with strdup and is the caller's from now on.
    let said = unsafe { torch_sys::get_and_reset_last_err() };
    if said.is_null() {
        return Ok(());
    }
    // SAFETY: not null, and ended by a zero as strdup's strings are.
    let text = unsafe { CStr::from_ptr(said) };
    let text = text.to_string_lossy().into_owned();
    // SAFETY: strdup's memory is free's; nothing refers to it any more.
    unsafe { libc::free(said.cast()) };
    Err(tch::TchError::Torch(text).into())
}

/// The precision that weights and activations are held in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// As the checkpoint stores them.
    #[default]
    Stored,
    /// 32-bit floats.
    F32,
    /// 16-bit floats with 8 bits of exponent.
    Bf16,
    /// 16-bit IEEE floats.
    F16,
}

impl std::str::FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "stored" => Ok(Precision::Stored),
            "f32" => Ok(Precision::F32),
            "bf16" => Ok(Precision::Bf16),
            "f16" => Ok(Precision::F16),
            _ => Err(format!(
                "\"{text}\" is not a precision; use stored, f32, bf16 or f16"
            )),
        }
    }
}

impl Precision {
    pub(crate) fn kind(self, stored: Kind) -> Kind {
        match self {
            Precision::Stored => stored,
            Precision::F32 => Kind::Float,
            Precision::Bf16 => Kind::BFloat16,
            Precision::F16 => Kind::Half,
        }
    }
}

/// The precision's usual short name.
pub(crate) fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::BFloat16 => "bf16",
        Kind::Half => "f16",
        _ => "f32",
    }
}

/// Opens libtorch's CUDA half into this process, once.
///
/// The binary links the CPU half alone, so that it runs where there is no GPU. The CUDA half registers its kernels
/// with the dispatcher when it is loaded, wherever that happens; its symbols must be global for its own companions.
fn open_cuda() -> Result<()> {
    static OPENED: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    OPENED
        .get_or_init(load_cuda_library)
        .clone()
        .map_err(EngineError::Device)
}

fn load_cuda_library() -> std::result::Result<(), String> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

    // Nothing may ask libtorch about CUDA before its CUDA half is in: the first question settles the answer.
    let mapped = mapped_libraries();
    if mapped.iter().any(|path| named(path, CUDA_HALF)) {
        return Ok(());
    }
    let advice = "run `cargo xtask setup --cuda`, or point LIBTORCH at a libtorch built for CUDA";
    let beside = library_folders(&mapped);
    for folder in &beside {
        let file = folder.join(CUDA_HALF);
        if !file.exists() {
            continue;
        }
        // SAFETY: loading runs the library's static initialisers; libtorch's own CUDA half is made to be loaded so.
        return match unsafe { Library::open(Some(&file), RTLD_NOW | RTLD_GLOBAL) } {
            Ok(library) => {
                // Its kernels stay registered for the life of the process.
                std::mem::forget(library);
                Ok(())
            }
            Err(e) => Err(format!("{}: {e}; {advice}", file.display())),
        };
    }
    let looked: Vec<String> = beside
        .iter()
        .map(|folder| folder.display().to_string())
        .collect();
    Err(format!(
        "{CUDA_HALF} is in none of {}; {advice}",
        looked.join(", ")
    ))
}

/// The file name of libtorch's CUDA half.
const CUDA_HALF: &str = "libtorch_cuda.so";

fn named(path: &Path, name: &str) -> bool {
    path.file_name().is_some_and(|file| file == name)
}

/// Files that this process has mapped.
fn mapped_libraries() -> Vec<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let paths = maps
        .lines()
        .filter_map(|line| line.find('/').and_then(|start| line.get(start..)));
    let mut paths: Vec<PathBuf> = paths.map(PathBuf::from).collect();
    paths.dedup();
    paths
}

/// Folders in which libtorch's halves lie: beside the half that this process has mapped, and where LIBTORCH says.
fn library_folders(mapped: &[PathBuf]) -> Vec<PathBuf> {
    let cpu_half = mapped.iter().filter(|path| named(path, "libtorch_cpu.so"));
    let mut folders: Vec<PathBuf> = cpu_half
        .filter_map(|path| path.parent().map(PathBuf::from))
        .collect();
    if let Some(libtorch) = std::env::var_os("LIBTORCH") {
        folders.push(PathBuf::from(libtorch).join("lib"));
    }
    folders.dedup();
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_for_a_gpu_that_is_not_there_is_an_error() {
        Place::Cpu.wait().unwrap();
        // None has this number, on any machine.
        let error = Place::Cuda(4096).wait().unwrap_err().to_string();
        assert!(error.starts_with("libtorch: "), "{error}");
        // It was taken: the next call finds none.
        last_error().unwrap();
    }
}
