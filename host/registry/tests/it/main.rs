//! Plug-ins from the first push to their removal.

mod common;
mod driver;
mod generations;
mod golden_components;
mod hostile;
mod keys;
mod learned;
mod removal;
mod requests;
mod stops;
