//! How often the coordinator of this store was started. Peers tell by it the newer of two processes that speak for one
//! member. In a file of its own, since it is raised before the store takes its first write.

use std::path::Path;

use super::StoreError;
use super::sealed_file::SealedFile;

const MAGIC: &[u8; 8] = b"BTNSTRT1";

/// The number of this start, higher than every one before it, is in `state_dir` for good when this returns. To be
/// called by who has opened the store there: nobody else may count at the same time.
///
/// # Errors
/// It cannot be read or written, and nothing has changed. Then this member must not speak: it could say a number that
/// was said before.
pub fn count_start(state_dir: &Path) -> Result<u64, StoreError> {
    let file = SealedFile::new(state_dir.join("starts"), MAGIC);
    let unread = |reason: String| StoreError::Damaged { dir: state_dir.join("store"), reason };
    let before = match file.read().map_err(|error| unread(error.to_string()))? {
        // Also of a store that was made before starts were counted.
        None => 0,
        Some(body) => {
            let number = body.as_slice().try_into().map(u64::from_le_bytes);
            number.map_err(|_| unread(format!("{} has no number of eight bytes", file.path().display())))?
        }
    };
    let start = before + 1;
    file.write(&start.to_le_bytes()).map_err(|error| StoreError::io("replace", file.path(), error))?;
    Ok(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_start_has_a_higher_number_and_a_damaged_one_is_no_start() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!([1, 2, 3].map(|_| count_start(dir.path()).unwrap()), [1, 2, 3]);
        let file = dir.path().join("starts");
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[9] ^= 1;
        std::fs::write(&file, &bytes).unwrap();
        assert!(matches!(count_start(dir.path()), Err(StoreError::Damaged { .. })));
        assert_eq!(std::fs::read(&file).unwrap(), bytes, "left as it was found");
    }
}
