//! The stand-in chain, CometBFT and cosmovisor as a network uses them.

pub mod cometbft;
pub mod cosmovisor;
pub mod sim;
pub mod stand_in;
