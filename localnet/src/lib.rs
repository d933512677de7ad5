//! Parts of the localnet that its binaries and tests share: the stand-in chain and the signature log.

pub mod signlog;
pub mod simchain;
