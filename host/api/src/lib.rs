//! The inference API in OpenAI's shape, as plain values and pure functions: no sockets, no clock, no threads.
//!
//! A node reads bytes from a client and hands them to [`ChatRequest::parse`], which answers with a request in
//! `msao-core`'s words or with an [`ApiError`] that names the field and what it may be. What the node then has to say
//! goes back as [`ChatCompletion`] or, chunk by chunk, through [`ChunkStream`] and [`sse`]. Promises:
//!
//! - **Nothing panics, whatever the bytes**, and memory is bounded by [`Limits`]: some four times the body's size at most, and
//!   10 MB.
//! - **Nothing is ignored by accident.** A parameter is honoured, or it is on the short list of those that may be ignored,
//!   or the request is refused with the parameter's name.
//! - **The official clients understand every answer**: what is ours stands under one key, `msao` ([`Report`]), and in a
//!   few headers.
//!
//! Read first: [`ChatRequest`], [`ApiError`], [`ChunkStream`].
//!
//! ```
//! use msao_api::{ChatRequest, Limits};
//!
//! let body = br#"{"model": "target", "messages": [{"role": "user", "content": "Hello"}], "stop": "\n"}"#;
//! let request = ChatRequest::parse(body, &Limits::default())?;
//! assert_eq!(request.stop, ["\n"]);
//!
//! let body = br#"{"model": "target", "messages": [{"role": "user", "content": "Hello"}], "n": 0}"#;
//! let refused = ChatRequest::parse(body, &Limits::default()).unwrap_err();
//! assert_eq!((refused.status, refused.param.as_deref()), (400, Some("n")));
//! # Ok::<(), msao_api::ApiError>(())
//! ```
#![forbid(unsafe_code)]

mod answer;
mod error;
pub mod headers;
mod json;
mod limits;
mod models;
mod request;
pub mod sse;

pub use self::answer::{
    AnswerMessage, ChatCompletion, Choice, Chunk, ChunkChoice, ChunkStream, Cost, Delta,
    FinishReason, Head, ItemReport, Logprobs, NodeCost, Piece, PromptTokens, PromptTokensDetails,
    Report, Retention, Role, TokenLogprob, TopLogprob, Usage, completion_id, system_fingerprint,
};
pub use self::error::{ApiError, ErrorType};
pub use self::limits::Limits;
pub use self::models::{Model, ModelList};
pub use self::request::{ChatRequest, Detail, Medium, Sampling, Source, Streaming, drawn_seed};
