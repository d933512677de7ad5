//! Files that nobody but their owner may use: whether one is, and how one is made. For key files, certificates and
//! configurations alike; what is in them is not known here.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{fgetxattr, getxattr};
use rustix::io::Errno;

const ACCESS_LIST: &str = "system.posix_acl_access";
/// Longer than any list that says no more than one user.
const LIST_BYTES_MAX: usize = 4096;

/// Whether group or others may use the file at `path`, whose metadata is `found`.
///
/// The mode alone does not tell: a file that an access list opens to one user has that user's rights in the place of
/// the group's. Files of systemd's credentials are such, 0440 and root's; that user counts as their owner.
pub fn is_open_to_others(path: &Path, found: &Metadata) -> bool {
    is_open(found, |list| getxattr(path, ACCESS_LIST, list))
}

/// As [`is_open_to_others`], of an open file.
pub fn is_open_file_open_to_others(file: &File, found: &Metadata) -> bool {
    is_open(found, |list| fgetxattr(file.as_fd(), ACCESS_LIST, list))
}

fn is_open(found: &Metadata, list: impl FnOnce(&mut [u8]) -> Result<usize, Errno>) -> bool {
    let mode = found.permissions().mode();
    if mode & 0o077 == 0 || mode & 0o007 != 0 {
        return mode & 0o007 != 0;
    }
    let mut bytes = [0; LIST_BYTES_MAX];
    match list(&mut bytes) {
        Ok(length) => !is_for_one_user(&bytes[..length], found.uid()),
        // No list, or none that can be read: then the mode is all there is.
        Err(_) => true,
    }
}

/// Whether an access list, as the kernel shows it, gives nothing to anyone but `owner`, or, where that is root, to one
/// other user.
fn is_for_one_user(list: &[u8], owner: u32) -> bool {
    const USER: u16 = 0x02;
    const GROUP_OWNER: u16 = 0x04;
    const GROUP: u16 = 0x08;
    const MASK: u16 = 0x10;
    const OTHER: u16 = 0x20;
    let Some((version, entries)) = list.split_first_chunk() else { return false };
    let (entries, rest) = entries.as_chunks::<8>();
    if u32::from_le_bytes(*version) != 2 || !rest.is_empty() {
        return false;
    }
    let entries = entries.iter().map(|[t0, t1, r0, r1, id @ ..]| {
        (u16::from_le_bytes([*t0, *t1]), u16::from_le_bytes([*r0, *r1]), u32::from_le_bytes(*id))
    });
    let mask = entries.clone().find(|(tag, ..)| *tag == MASK).map_or(0o7, |(_, rights, _)| rights);
    let mut other_user = None;
    entries.into_iter().all(|(tag, rights, id)| match tag {
        USER if rights & mask == 0 || id == owner => true,
        USER => owner == 0 && other_user.replace(id).is_none(),
        GROUP_OWNER | GROUP => rights & mask == 0,
        OTHER => rights == 0,
        _ => true,
    })
}

/// Makes `path`, which nobody else can read at any moment, and which is whole or not there. With `replace` it takes the
/// place of a file that is there, and gets its owner and its mode if `like` is given.
///
/// # Errors
/// Nothing was changed. `AlreadyExists` when something is there, unless `replace`.
pub fn write(path: &Path, text: &str, replace: bool, like: Option<&Metadata>) -> io::Result<()> {
    let temporary = temporary(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    let placed = own(&file, like).and_then(|()| file.write_all(text.as_bytes())).and_then(|()| file.sync_all());
    let placed = placed.and_then(|()| {
        // A link refuses to take the place of anything, where a rename would not.
        if replace { fs::rename(&temporary, path) } else { fs::hard_link(&temporary, path) }
    });
    if placed.is_err() || !replace {
        let _ = fs::remove_file(&temporary);
    }
    placed?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

fn own(file: &File, like: Option<&Metadata>) -> io::Result<()> {
    let Some(like) = like else { return Ok(()) };
    let made = file.metadata()?;
    if (made.uid(), made.gid()) != (like.uid(), like.gid()) {
        fchown(file, Some(like.uid()), Some(like.gid()))?;
    }
    file.set_permissions(like.permissions())
}

/// Beside `path`, and of this process alone.
fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    name.into()
}

#[cfg(test)]
mod tests {
    use rustix::fs::{XattrFlags, setxattr};

    use super::*;

    const SERVICE: u32 = 990;
    const OWNER_READS: (u16, u16, u32) = (0x01, 4, u32::MAX);
    const SERVICE_READS: (u16, u16, u32) = (0x02, 4, SERVICE);
    const GROUP_NOTHING: (u16, u16, u32) = (0x04, 0, u32::MAX);
    const MASK_READ: (u16, u16, u32) = (0x10, 4, u32::MAX);
    const OTHERS_NOTHING: (u16, u16, u32) = (0x20, 0, u32::MAX);

    fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut bytes = 2u32.to_le_bytes().to_vec();
        for (tag, rights, id) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(rights.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn a_list_is_closed_when_it_lets_one_user_in_and_nobody_else() {
        let credential = [OWNER_READS, SERVICE_READS, GROUP_NOTHING, MASK_READ, OTHERS_NOTHING];
        assert!(is_for_one_user(&list(&credential), 0));
        assert!(is_for_one_user(&list(&credential), SERVICE), "the owner by name");
        assert!(!is_for_one_user(&list(&credential), 1000), "two users");
        for (place, entry) in [(2, (0x04, 4, u32::MAX)), (4, (0x20, 4, u32::MAX)), (1, (0x08, 4, 33))] {
            let mut open = credential;
            open[place] = entry;
            assert!(!is_for_one_user(&list(&open), 0), "{entry:?}");
        }
        let two = [OWNER_READS, SERVICE_READS, (0x02, 4, 33), GROUP_NOTHING, MASK_READ, OTHERS_NOTHING];
        assert!(!is_for_one_user(&list(&two), 0));
        let masked = [OWNER_READS, SERVICE_READS, (0x08, 2, 33), GROUP_NOTHING, MASK_READ, OTHERS_NOTHING];
        assert!(is_for_one_user(&list(&masked), 0), "what the mask takes is not given");
    }

    #[test]
    fn what_is_no_list_lets_everybody_in() {
        let whole = list(&[OWNER_READS]);
        for bytes in [&[][..], &[2, 0, 0], &[1, 0, 0, 0], &whole[..whole.len() - 1]] {
            assert!(!is_for_one_user(bytes, 0), "{bytes:?}");
        }
    }

    #[test]
    fn the_mode_tells_unless_a_list_explains_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(&path, "").unwrap();
        let is_open = |mode| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let (file, found) = (File::open(&path).unwrap(), fs::metadata(&path).unwrap());
            let open = is_open_to_others(&path, &found);
            assert_eq!(is_open_file_open_to_others(&file, &found), open);
            open
        };
        assert_eq!([0o600, 0o400, 0o440, 0o404, 0o660].map(is_open), [false, false, true, true, true]);
        let owner = fs::metadata(&path).unwrap().uid();
        let entries = [OWNER_READS, (0x02, 4, owner), GROUP_NOTHING, MASK_READ, OTHERS_NOTHING];
        match setxattr(&path, ACCESS_LIST, &list(&entries), XattrFlags::empty()) {
            Ok(()) => {
                assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o440);
                let found = fs::metadata(&path).unwrap();
                assert!(!is_open_to_others(&path, &found));
                assert!(!is_open_file_open_to_others(&File::open(&path).unwrap(), &found));
            }
            Err(error) => assert_eq!(error, Errno::OPNOTSUPP, "this file system has no access lists"),
        }
    }

    #[test]
    fn a_file_is_made_closed_and_takes_no_place_unasked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        write(&path, "one", false, None).unwrap();
        assert_eq!(mode(), 0o600);
        assert_eq!(write(&path, "two", false, None).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        write(&path, "two", true, Some(&fs::metadata(&path).unwrap())).unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode()), ("two", 0o640));
        write(&path, "three", true, None).unwrap();
        assert_eq!(mode(), 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }
}
