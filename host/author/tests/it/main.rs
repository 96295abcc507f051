//! What authors of plug-ins do, through the real program.

mod commands;
mod common;
mod recorded;
mod tutorial;
mod wrong;
