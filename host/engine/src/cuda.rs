//! What tch does not reach of CUDA: a stream for each thread, graphs, pinned memory, and what the device's memory holds.
//!
//! The functions are C++ (`cpp/cuda.cpp`) in a small library of their own, which this program carries in itself: they need
//! libtorch's CUDA half, which is opened only where there is a GPU, and are opened behind it.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd};
use std::ptr::NonNull;
use std::sync::OnceLock;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use tch::{Device, Tensor};

use crate::error::{EngineError, Result};

/// The library; empty where it could not be built for want of CUDA's headers.
static IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/libmsao_cuda.so"));

/// Null, or what went wrong, to be freed.
type Said = *mut c_char;

/// The library's functions. They catch whatever is thrown.
struct Functions {
    enter: unsafe extern "C" fn(c_int) -> Said,
    wait: unsafe extern "C" fn(c_int) -> Said,
    release: unsafe extern "C" fn() -> Said,
    memory: unsafe extern "C" fn(c_int, c_int, *mut u64, *mut u64) -> Said,
    fetch: unsafe extern "C" fn(*const torch_sys::C_tensor, *mut *mut torch_sys::C_tensor) -> Said,
    graph_pool: unsafe extern "C" fn(*mut u64) -> Said,
    graph_begin: unsafe extern "C" fn(*mut *mut c_void, u64) -> Said,
    graph_end: unsafe extern "C" fn(*mut c_void) -> Said,
    graph_replay: unsafe extern "C" fn(*mut c_void) -> Said,
    graph_free: unsafe extern "C" fn(*mut c_void) -> Said,
    /// Last, so that nothing outlives it.
    _library: Library,
}

static FUNCTIONS: OnceLock<std::result::Result<Option<Functions>, String>> = OnceLock::new();

/// Opens the library. libtorch's CUDA half must be open.
pub(crate) fn open() -> Result<()> {
    match FUNCTIONS.get_or_init(load) {
        Ok(_) => Ok(()),
        Err(said) => Err(EngineError::Device(said.clone())),
    }
}

fn functions() -> Option<&'static Functions> {
    FUNCTIONS.get()?.as_ref().ok()?.as_ref()
}

fn load() -> std::result::Result<Option<Functions>, String> {
    if IMAGE.is_empty() {
        tracing::warn!(
            "this build has no CUDA graphs, since CUDA's headers were not there when it was made: steps on a GPU take \
             several times as long (`cargo xtask setup --cuda` fetches the headers)"
        );
        return Ok(None);
    }
    let said = |error: &dyn std::fmt::Display| format!("the engine's own CUDA library: {error}");
    // SAFETY: the name is a string that ends with a zero; nothing else is handed over.
    let number = unsafe { libc::memfd_create(c"msao_cuda".as_ptr(), libc::MFD_CLOEXEC) };
    if number < 0 {
        return Err(said(&std::io::Error::last_os_error()));
    }
    // SAFETY: a file that was just made and that nobody else knows.
    let mut file = unsafe { std::fs::File::from_raw_fd(number) };
    file.write_all(IMAGE).map_err(|error| said(&error))?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    // SAFETY: the library was built beside this program; it has no initialisers but libtorch's own.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) };
    let library = library.map_err(|error| said(&error))?;
    // SAFETY: the types are those of `cpp/cuda.cpp`; the functions are kept beside the library, which is never closed.
    unsafe {
        macro_rules! function {
            ($name:literal) => {
                *library
                    .get(concat!("msao_cuda_", $name, "\0").as_bytes())
                    .map_err(|error| said(&error))?
            };
        }
        Ok(Some(Functions {
            enter: function!("enter"),
            wait: function!("wait"),
            release: function!("release"),
            memory: function!("memory"),
            fetch: function!("fetch"),
            graph_pool: function!("graph_pool"),
            graph_begin: function!("graph_begin"),
            graph_end: function!("graph_end"),
            graph_replay: function!("graph_replay"),
            graph_free: function!("graph_free"),
            _library: library,
        }))
    }
}

/// What a function had to say.
fn heard(said: Said) -> Result<()> {
    let Some(said) = NonNull::new(said) else {
        return Ok(());
    };
    // SAFETY: not null, made by strdup, ended by a zero, and the caller's.
    let text = unsafe { CStr::from_ptr(said.as_ptr()) };
    let text = text.to_string_lossy().into_owned();
    // SAFETY: strdup's memory is free's; nothing refers to it any more.
    unsafe { libc::free(said.as_ptr().cast()) };
    Err(tch::TchError::Torch(text).into())
}

/// Gives this thread a stream of its own on the device, once.
pub(crate) fn enter(device: usize) -> Result<()> {
    thread_local! {
        static ENTERED: Cell<Option<usize>> = const { Cell::new(None) };
    }
    let Some(functions) = functions() else {
        return Ok(());
    };
    if ENTERED.get() == Some(device) {
        return Ok(());
    }
    // SAFETY: takes a number.
    heard(unsafe { (functions.enter)(device as c_int) })?;
    ENTERED.set(Some(device));
    Ok(())
}

/// Waits for this thread's stream; `None` without the library.
pub(crate) fn wait(device: usize) -> Option<Result<()>> {
    let functions = functions()?;
    // SAFETY: takes a number.
    Some(heard(unsafe { (functions.wait)(device as c_int) }))
}

/// Gives back device memory that no tensor holds.
pub(crate) fn release() {
    if let Some(functions) = functions() {
        // SAFETY: takes nothing. Where it fails, nothing was given back.
        let _ = heard(unsafe { (functions.release)() });
    }
}

/// Bytes of a device's memory that tensors hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceMemory {
    /// Now.
    pub now: u64,
    /// The most since it was last asked with `restart`.
    pub peak: u64,
}

/// What tensors hold of a device's memory; `None` without the library.
pub(crate) fn memory(device: usize, restart: bool) -> Option<DeviceMemory> {
    let functions = functions()?;
    let mut held = DeviceMemory::default();
    // SAFETY: both pointers are to numbers of this type that live during the call.
    let said = unsafe {
        (functions.memory)(
            device as c_int,
            c_int::from(restart),
            &mut held.now,
            &mut held.peak,
        )
    };
    heard(said).ok().map(|()| held)
}

/// A contiguous copy on the processor of a contiguous tensor, once the device has got so far.
pub(crate) fn fetch(tensor: &Tensor) -> Result<Tensor> {
    let (Some(functions), Device::Cuda(_)) = (functions(), tensor.device()) else {
        return Ok(tensor.f_to_device(Device::Cpu)?);
    };
    let mut made = std::ptr::null_mut();
    // SAFETY: the tensor lives during the call, and the other pointer is to a place for a tensor's address.
    heard(unsafe { (functions.fetch)(tensor.as_ptr(), &mut made) })?;
    // SAFETY: it succeeded, so this is a tensor made with `new`, which is the caller's.
    Ok(unsafe { Tensor::from_ptr(made) })
}

/// Memory that graphs share, since they run one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GraphPool(u64);

impl GraphPool {
    /// `None` where there are no graphs.
    pub fn new() -> Option<GraphPool> {
        let functions = functions()?;
        let mut name = 0;
        // SAFETY: the pointer is to a number that lives during the call.
        let said = unsafe { (functions.graph_pool)(&mut name) };
        heard(said).ok().map(|()| GraphPool(name))
    }
}

/// What a device does at one word: everything that was asked of it while this was made.
#[derive(Debug)]
pub(crate) struct Graph(NonNull<c_void>);

// SAFETY: a graph may be used by any thread, by one at a time.
unsafe impl Send for Graph {}

impl Graph {
    /// Notes what `work` asks of the device, on this thread's stream, instead of doing it. What it gives are the tensors
    /// that a replay writes.
    pub fn of<T>(pool: GraphPool, work: impl FnOnce() -> Result<T>) -> Result<(Graph, T)> {
        let functions = functions()
            .ok_or_else(|| EngineError::Device("this build has no CUDA graphs".into()))?;
        let mut made = std::ptr::null_mut();
        // SAFETY: the pointer is to a place for the graph's address.
        heard(unsafe { (functions.graph_begin)(&mut made, pool.0) })?;
        let graph = NonNull::new(made).map(Graph);
        let graph = graph.ok_or_else(|| EngineError::Device("no CUDA graph was made".into()))?;
        let result = work();
        // Whatever came of it, the stream must be let out of noting.
        // SAFETY: a graph that was begun and is not ended yet.
        let ended = heard(unsafe { (functions.graph_end)(graph.0.as_ptr()) });
        let result = result?;
        ended?;
        Ok((graph, result))
    }

    /// Has the device do it all again.
    pub fn replay(&self) -> Result<()> {
        match functions() {
            // SAFETY: a graph that was ended and is not freed.
            Some(functions) => heard(unsafe { (functions.graph_replay)(self.0.as_ptr()) }),
            None => Ok(()),
        }
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if let Some(functions) = functions() {
            // SAFETY: nobody has it any more. What is wrong with a graph does not matter then.
            let _ = heard(unsafe { (functions.graph_free)(self.0.as_ptr()) });
        }
    }
}
