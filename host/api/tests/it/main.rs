//! How requests are read and answers written.

mod answers;
mod properties;
mod requests;
mod streams;
mod support;
