//! The file of a socket that a node leaves behind.

use std::io::ErrorKind;
use std::os::unix::net::UnixListener;

use baton::host::privval::{StaleSocketError, remove_stale_socket};

#[test]
fn only_a_socket_at_which_nobody_listens_is_removed() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("privval.sock");
    assert!(!remove_stale_socket(&path).expect("there is none"));
    let node = UnixListener::bind(&path).expect("bind");
    node.set_nonblocking(true).expect("nonblocking");
    let refused = remove_stale_socket(&path).expect_err("a node listens");
    assert!(matches!(refused, StaleSocketError::InUse { .. }), "{refused}");
    assert_eq!(node.accept().expect_err("nobody dialled").kind(), ErrorKind::WouldBlock, "the node is left alone");
    drop(node);
    assert!(path.exists(), "what a node leaves");
    assert!(remove_stale_socket(&path).expect("nobody listens any more"));
    assert!(!path.exists());
    UnixListener::bind(&path).expect("the next node starts");
}

#[test]
fn what_is_no_socket_is_left_alone() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("privval.sock");
    std::fs::write(&path, "text").expect("a file");
    let refused = remove_stale_socket(&path).expect_err("a file");
    assert!(matches!(refused, StaleSocketError::NoSocket { .. }), "{refused}");
    let link = folder.path().join("link.sock");
    std::os::unix::fs::symlink(&path, &link).expect("a link");
    let refused = remove_stale_socket(&link).expect_err("a link");
    assert!(refused.to_string().contains("is no socket; move it away"), "{refused}");
    assert!(path.exists() && link.symlink_metadata().is_ok());
}
