//! File systems of a host's own, for its store, its sockets and its chain node's home: each can be filled, and each can
//! be frozen as `fsfreeze` does it, which holds back every write and leaves network and processes alone. They are ext4
//! on loop devices, whose images lie in memory. Only in the mount namespace of a run (`namespaces.rs`); called by the
//! launcher, the nemesis and the keeper.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use rustix::ioctl::{Opcode, Setter, ioctl};
use rustix::mount::{UnmountFlags, unmount};

use crate::hosts::make_dir;
use crate::net::namespaces::small_disk;
use crate::net::{Host, Net};

/// For its store: some times of what a long run needs, and filled in a moment.
const STATE_BYTES: u64 = 24 << 20;
const HOME_BYTES: u64 = 64 << 20;
const RUN_BYTES: u64 = 8 << 20;
/// Of memory, for all images; they are sparse.
const IMAGES_BYTES: u64 = 1 << 30;

/// For the last process on a file system to be gone.
const UNUSED_BOUND: Duration = Duration::from_secs(5);

/// From linux/fs.h.
const FIFREEZE: Opcode = 0xc004_5877;
const FITHAW: Opcode = 0xc004_5878;

/// The folders of a host that lie on file systems of their own.
pub fn of_host(net: &Net, host: &Host) -> [PathBuf; 3] {
    [net.state_dir(&host.id), host.run_dir.clone(), net.chain_home(&host.id)]
}

/// Every host has its file systems, empty.
///
/// # Errors
/// This machine has no loop devices, no mkfs.ext4, or does not freeze file systems. What was mounted goes with the run.
pub fn mount_all(net: &Net) -> Result<()> {
    let images = net.dir.join("disks");
    make_dir(&images)?;
    small_disk(&images, IMAGES_BYTES)?;
    for host in &net.hosts {
        for (dir, bytes) in of_host(net, host).iter().zip([STATE_BYTES, RUN_BYTES, HOME_BYTES]) {
            make_dir(dir)?;
            make(dir, &image(net, host, dir), bytes)?;
        }
    }
    Ok(())
}

fn image(net: &Net, host: &Host, dir: &Path) -> PathBuf {
    // As on a host, where it is run/baton or the like.
    let kind = if *dir == host.run_dir { "run".into() } else { dir.file_name().unwrap_or_default().to_string_lossy() };
    net.dir.join("disks").join(format!("{}-{kind}.img", host.id))
}

fn make(dir: &Path, image: &Path, bytes: u64) -> Result<()> {
    let file = File::create(image).with_context(|| format!("create {}", image.display()))?;
    file.set_len(bytes).with_context(|| format!("size {}", image.display()))?;
    run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0", "-E", "nodiscard"]).arg(image))?;
    mount(dir, image)?;
    freeze(dir)?;
    thaw(dir)
}

/// What nobody syncs is written after five minutes, not after seconds: a power cut loses it.
fn mount(dir: &Path, image: &Path) -> Result<()> {
    run(Command::new("mount").args(["-o", "loop,nodev,nosuid,commit=300"]).arg(image).arg(dir))
}

/// From now on nothing of `dir` reaches its disk, not even what was written before and not synced, as when the power is
/// cut. Nobody can use it before [`mount_again`].
pub fn cut_power(dir: &Path) -> Result<()> {
    /// From the kernel's ext4.h: at once, without the journal that is still in memory.
    const EXT4_IOC_SHUTDOWN: Opcode = 0x8004_587d;
    const NO_LOG_FLUSH: u32 = 2;
    if !is_own(dir) {
        bail!("{} is no file system of a host's own", dir.display());
    }
    let what = || format!("cut the power of {}", dir.display());
    let dir = File::open(dir).with_context(what)?;
    // SAFETY: The kernel reads the one number that it is given.
    #[allow(unsafe_code)]
    unsafe {
        ioctl(&dir, Setter::<EXT4_IOC_SHUTDOWN, u32>::new(NO_LOG_FLUSH)).with_context(what)
    }
}

/// What was written so far outlives a power cut, as what an operator has installed does.
pub fn sync_all(net: &Net) -> Result<()> {
    for dir in net.hosts.iter().flat_map(|host| of_host(net, host)).filter(|dir| is_own(dir)) {
        let what = || format!("sync {}", dir.display());
        rustix::fs::syncfs(File::open(&dir).with_context(what)?).with_context(what)?;
    }
    Ok(())
}

/// `dir` has what had reached its disk.
///
/// # Errors
/// Somebody still uses it.
pub fn mount_again(net: &Net, host: &Host, dir: &Path) -> Result<()> {
    let began = Instant::now();
    loop {
        match unmount(dir, UnmountFlags::empty()) {
            Ok(()) => break,
            // Of a process that ends.
            Err(Errno::BUSY) if began.elapsed() < UNUSED_BOUND => std::thread::sleep(Duration::from_millis(20)),
            Err(error) => return Err(error).with_context(|| format!("unmount {}", dir.display())),
        }
    }
    mount(dir, &image(net, host, dir))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Nothing is written below `dir` any more until [`thaw`]: whoever tries waits, and no signal ends that.
pub fn freeze(dir: &Path) -> Result<()> {
    order::<FIFREEZE>(dir).with_context(|| format!("freeze {}", dir.display()))
}

/// What waits goes on. Also of one that is not frozen.
pub fn thaw(dir: &Path) -> Result<()> {
    match order::<FITHAW>(dir) {
        Err(Errno::INVAL) => Ok(()),
        thawed => thawed.with_context(|| format!("thaw {}", dir.display())),
    }
}

/// The kernel refuses to freeze it once more.
pub fn is_frozen(dir: &Path) -> Result<bool> {
    match order::<FIFREEZE>(dir) {
        Err(Errno::BUSY) => Ok(true),
        Ok(()) => thaw(dir).map(|()| false),
        Err(error) => Err(error).with_context(|| format!("ask whether {} is frozen", dir.display())),
    }
}

/// Whether `dir` is a file system of its own: nothing else of this machine is ever frozen.
pub fn is_own(dir: &Path) -> bool {
    let device = |dir: &Path| dir.metadata().map(|found| found.dev()).ok();
    dir.parent().is_some_and(|parent| device(dir).is_some() && device(dir) != device(parent))
}

fn order<const ORDER: Opcode>(dir: &Path) -> rustix::io::Result<()> {
    if !is_own(dir) {
        return Err(Errno::NOTSUP);
    }
    let dir = File::open(dir).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    // SAFETY: both orders read no argument.
    #[allow(unsafe_code)]
    unsafe {
        ioctl(&dir, Setter::<ORDER, u32>::new(0))
    }
}

/// Nothing of the network is frozen any more, and so everything of it can be ended.
pub fn thaw_all(net: &Net) {
    for dir in net.hosts.iter().flat_map(|host| of_host(net, host)) {
        // It may have none, or be gone.
        let _ = thaw(&dir);
    }
}

/// The folders are ordinary ones again, and can be removed. Called once nothing of the network runs.
pub fn unmount_all(net: &Net) {
    for dir in net.hosts.iter().flat_map(|host| of_host(net, host)).filter(|dir| is_own(dir)) {
        let _ = unmount(&dir, UnmountFlags::DETACH);
    }
}
