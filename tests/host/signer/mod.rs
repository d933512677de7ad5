//! `baton-signer` and its client: what is signed and what is not, whatever dies, hangs or is torn meanwhile.

mod client;
mod import;
mod keys;
mod kit;
mod power_cut;
mod process;
mod rules;
