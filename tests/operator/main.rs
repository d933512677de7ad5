//! What operators and monitors ask, and what they are shown.

mod admin;
mod exporter;
mod metrics;
mod relay;
