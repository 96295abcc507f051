//! What processors make of files and chats.

mod parity;
mod refusals;
