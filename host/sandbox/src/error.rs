//! What can go wrong while a sandbox is made, a plug-in loaded or called.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use msao_core::offload::check::Violation;
use msao_core::offload::manifest::World;
use thiserror::Error;

/// Why a sandbox could not be made.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// A value of the configuration that may not be.
    #[error("{field} {problem}")]
    Config {
        /// The key, for instance `limits.plan-ms`.
        field: String,
        /// What is wrong and what is allowed.
        problem: String,
    },
    /// The machine has no room, or the processor cannot do it.
    #[error("the WebAssembly engine cannot be set up: {0}")]
    Engine(String),
    /// The folder for compiled code cannot be used.
    #[error(
        "the cache of compiled plug-ins at {path}: {error}; choose another folder, or leave `cache` out"
    )]
    Cache {
        /// The folder or file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// An export has another type than the contract says.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{export} does not have the contract's type: {problem}")]
pub struct OtherType {
    /// The export, for instance `policy.plan`.
    pub export: &'static str,
    /// Where it differs.
    pub problem: String,
}

/// Why a plug-in was refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoadError {
    /// Nothing in it.
    #[error("the file is empty; a WebAssembly component is expected")]
    Empty,
    /// Larger than the operator allows.
    #[error(
        "the component has {bytes} bytes; artifact-mib allows {limit} bytes. Strip it of names and debug information, or \
         raise artifact-mib: what the manifest says itself, or what the operator allows (plugins.NAME.artifact-mib)"
    )]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// No WebAssembly at all.
    #[error("the file is no WebAssembly component: {0}")]
    NotWasm(&'static str),
    /// A core module.
    #[error(
        "the file is a core WebAssembly module, not a component; build for wasm32-wasip2, or wrap it with `wasm-tools \
         component new`"
    )]
    CoreModule,
    /// Machine code that somebody has compiled ahead of time.
    #[error(
        "the file is precompiled machine code, which is never accepted from outside: it would run without a sandbox; ship \
         the .wasm component"
    )]
    Precompiled,
    /// It ends too early, or a byte of it is wrong.
    #[error("the component is damaged: {0}")]
    Damaged(String),
    /// More names than a plug-in can mean.
    #[error(
        "the component has more than {limit} {what}; a plug-in needs a few dozen: leave out what it does not use"
    )]
    TooMany {
        /// `imports` or `exports`.
        what: &'static str,
        /// How many are allowed.
        limit: usize,
    },
    /// A function that would take long to compile.
    #[error(
        "the component has a function of {bytes} bytes; at most {limit} are allowed: divide it, or have the compiler inline less"
    )]
    LongFunction {
        /// Its size.
        bytes: usize,
        /// How large it may be.
        limit: usize,
    },
    /// It uses something of WebAssembly that is switched off here.
    #[error("the component cannot be compiled: {0}")]
    Compile(String),
    /// It exports nothing of the contract, or not what its manifest says.
    #[error(
        "the manifest says world {wanted}, which exports msao:offload/{export}; the component exports {found}"
    )]
    WrongWorld {
        /// The manifest's world.
        wanted: World,
        /// What that world exports.
        export: &'static str,
        /// What there is instead.
        found: String,
    },
    /// Made for another version of the contract.
    #[error(
        "{export} is of {age} version of the contract than this host speaks ({spoken}); build the plug-in against its wit/"
    )]
    OtherVersion {
        /// The export with its version.
        export: String,
        /// `a newer` or `an older`.
        age: &'static str,
        /// What this host speaks.
        spoken: String,
    },
    /// It wants something that plug-ins do not get.
    #[error(
        "the component imports {import}, which plug-ins do not get: all they may read is in their arguments{hint}"
    )]
    Import {
        /// The first such import.
        import: String,
        /// What to do about it; may be empty.
        hint: &'static str,
    },
    /// Exports whose types are not the contract's.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Types(Vec<OtherType>),
    /// The manifest asks for more than the operator allows.
    #[error(
        "{field}: the manifest asks for {asked}, the operator allows {limit}; lower it, or have the operator raise \
         plugins.NAME"
    )]
    LimitRaised {
        /// The manifest's key.
        field: &'static str,
        /// What it asks for.
        asked: u32,
        /// What is allowed.
        limit: u32,
    },
    /// Not even a first instance could be made.
    #[error("no instance can be made: {0}")]
    Instantiate(String),
    /// The sandbox itself has no room for it.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
}

impl LoadError {
    /// Whether what the component imports is in the way, rather than what it is or exports.
    pub fn is_about_imports(&self) -> bool {
        // An import of another version of the contract's types goes with the exports' version.
        matches!(self, LoadError::Import { .. })
    }
}

/// A function of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Export {
    /// `postprocessor.score`
    Score,
    /// `policy.plan`
    Plan,
    /// `policy.step`
    Step,
    /// `policy.observe`
    Observe,
    /// `explanation.explain`
    Explain,
}

impl Export {
    /// All of them.
    pub const ALL: [Export; 5] = [
        Export::Score,
        Export::Plan,
        Export::Step,
        Export::Observe,
        Export::Explain,
    ];

    /// The function's name in the contract.
    pub fn name(self) -> &'static str {
        match self {
            Export::Score => "score",
            Export::Plan => "plan",
            Export::Step => "step",
            Export::Observe => "observe",
            Export::Explain => "explain",
        }
    }
}

impl fmt::Display for Export {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What kind of failure a call ended in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The plug-in stopped itself, or did what no program may.
    Trap,
    /// It ran past its deadline.
    Deadline,
    /// It wanted more memory than it may have.
    Memory,
    /// Its answer breaks a rule of the contract.
    Answer(Box<Violation>),
    /// An instance could not be made.
    Instantiate,
    /// All instances that the sandbox may have are in use. Not the plug-in's fault.
    Overloaded,
    /// The host's own code failed. Not the plug-in's fault either.
    Host,
}

impl FailureKind {
    /// The kind as metrics and records name it.
    pub fn name(&self) -> &'static str {
        match self {
            FailureKind::Trap => "trap",
            FailureKind::Deadline => "deadline",
            FailureKind::Memory => "memory",
            FailureKind::Answer(_) => "answer",
            FailureKind::Instantiate => "instantiate",
            FailureKind::Overloaded => "overloaded",
            FailureKind::Host => "host",
        }
    }

    /// Whether the plug-in is to blame.
    pub fn is_plugins_fault(&self) -> bool {
        !matches!(self, FailureKind::Overloaded | FailureKind::Host)
    }
}

/// A call that failed. The instance is gone; the next call gets a fresh one.
#[derive(Clone, Debug, Error)]
#[error("{plugin}: {export}: {message}")]
pub struct Failure {
    /// The plug-in's name and version, for instance `patient 0.1.0`.
    pub plugin: Arc<str>,
    /// What was called.
    pub export: Export,
    /// What kind of failure.
    pub kind: FailureKind,
    /// What happened, in a line, with the plug-in's own last words where it wrote any.
    pub message: String,
    /// Functions of the plug-in that were running, innermost first.
    pub backtrace: Option<String>,
    /// Most bytes that the instance ever had, memories and tables.
    pub memory_peak: u64,
    /// How long the call ran: to the tick (1 ms) where deadlines are time, exactly in a deterministic sandbox.
    pub elapsed: Duration,
}
