//! What brings up a network of its own and judges it: the demo, benchmarks, random faults and longer looks.

pub mod bench;
pub mod cost;
pub mod demo;
pub mod etcd;
pub mod flood;
pub mod idle;
pub mod load;
pub mod nemesis;
pub mod requests;
pub mod slip;
pub mod soak;
pub mod timing;
