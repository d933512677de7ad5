//! Checksums of what lies on disk, in hexadecimal digits of lower case.

use std::fs::File;
use std::io::{self, Read};

use ring::digest::{Algorithm, Context, Digest, SHA256, digest};

const BLOCK_BYTES: usize = 1 << 20;

pub(super) fn sha256(bytes: &[u8]) -> String {
    hexadecimal(&digest(&SHA256, bytes))
}

pub(super) fn sha256_of(file: &mut File) -> io::Result<String> {
    read_blocks(file, &SHA256, |_| Ok(()))
}

/// Hands what `file` has to `each`, and returns its checksum.
pub(super) fn read_blocks(
    file: &mut File,
    algorithm: &'static Algorithm,
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<String> {
    let mut context = Context::new(algorithm);
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        match file.read(&mut block) {
            Ok(0) => return Ok(hexadecimal(&context.finish())),
            Ok(length) => {
                context.update(&block[..length]);
                each(&block[..length])?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn hexadecimal(digest: &Digest) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
