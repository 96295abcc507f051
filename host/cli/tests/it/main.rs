//! The built command.

mod clients;
mod commands;
mod hostile;
mod operate;
mod twin;
