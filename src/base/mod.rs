//! Words that all floors use, and what the operating system is asked for.

pub mod chain_node;
pub mod closed_memory;
pub mod guard_frame;
pub mod hooks;
pub mod ids;
pub mod private_file;
pub mod privval_address;
pub mod processes;
pub mod public_key;
pub mod realtime;
pub mod service_manager;
pub mod signing;
pub mod time;
pub mod timing;
