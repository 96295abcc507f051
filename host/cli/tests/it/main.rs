//! The built command.

mod bench;
mod clients;
mod commands;
mod hostile;
mod operate;
mod twin;
