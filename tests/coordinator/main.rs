//! `baton run` and `baton check` on one host, with real guards and chain nodes that are scripts.

mod bad_files;
mod bad_input;
mod bad_near;
mod containment;
mod copied_store;
mod credentials;
mod foreign_node;
mod hooks;
#[path = "../kit/mod.rs"]
mod kit;
mod near;
mod node_arguments;
mod open_files;
mod secret_key;
mod service_manager;
mod short_life;
mod signing;
