//! Certificates as baton makes and reads them: whom one names, until when it is valid, and the files it
//! comes in. `transport` decides with it who may connect, `baton cert` makes them. Nothing here opens
//! a connection, and it knows nothing of validator keys.

mod error;
mod files;
mod make;
mod name;

pub use error::CertificateError;
pub use files::{read_certificates, read_key};
pub use make::{Authority, Made, Validity};
pub use name::{Bearer, Facts};
