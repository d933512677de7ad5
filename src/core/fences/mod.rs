//! The safety argument: the lease of a leader (fence 1), the votes that its followers refuse meanwhile (fence 2), and
//! what the last holder may have signed at most (fence 3). `docs/safety.md` has the proof.

pub mod floor;
pub mod lease;
pub mod votes;
