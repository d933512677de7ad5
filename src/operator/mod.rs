//! What people ask of a member and see of it: the admin service, `why`, the metrics and the status page.

pub mod admin;
pub mod explain;
pub mod exporter;
pub mod metrics;
pub mod order;
pub mod relay;
pub mod shared_answer;
