//! Who signed what, by the logs of signatures alone; and how the members see it.

pub mod check;
pub mod logs;
pub mod measure;
pub mod records;
pub mod signers;
pub mod signlog;
pub mod status;
pub mod table;
pub mod votelog;
