//! The `baton` program as an operator meets it: one clear line for bad input, exit codes, tables and
//! JSON. The coordinator is a small server in this process that answers the admin protocol.

#[path = "../chain/fake_node.rs"]
#[allow(dead_code)] // The driver's tests use the rest.
mod fake_node;
mod kit;
mod orders;
#[path = "../program_kit/mod.rs"]
mod program_kit;
mod refusals;
mod shown;
mod windows;
