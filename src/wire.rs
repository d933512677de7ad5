//! (to come)

pub mod proto {
    tonic::include_proto!("baton.v1");
}
