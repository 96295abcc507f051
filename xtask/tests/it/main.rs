//! Rules for what is in the tree.

mod dependencies;
mod tree;
