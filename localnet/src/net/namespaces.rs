//! A network of this machine's own for a run, and in it one for each host: nothing of it can be seen from outside,
//! no interface or firewall of the machine is touched, and all of it is gone with the last process in it. A host's
//! only device besides its loopback is a TUN device, whose other end is the switch. Also the small file systems that
//! a fault can fill. Needs root and iproute2's `ip`; called by the nemesis, the switch and the launcher.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{Mode, OFlags, open};
use rustix::ioctl::{Setter, ioctl};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::geteuid;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// Of every device.
pub const MTU: usize = 1500;
const DEVICE: &str = "wire0";

/// The calling thread, and every thread and process that it starts from now on, has an empty network and its own
/// view of the file systems. Call it before there are other threads.
///
/// # Errors
/// This machine does not allow it; nothing has changed then.
pub fn enter() -> Result<()> {
    if !geteuid().is_root() {
        bail!("network namespaces need root");
    }
    // Tried by a thread that ends, so that a refusal leaves the caller where it was.
    in_thread(|| {
        leave_the_machine()?;
        small_disk(Path::new("/tmp"), 1 << 20)?;
        device(Ipv4Addr::new(10, 77, 1, 1)).map(drop)
    })?;
    leave_the_machine()
}

fn leave_the_machine() -> Result<()> {
    unshare(UnshareFlags::NEWNET | UnshareFlags::NEWNS).context("make namespaces for network and mounts")?;
    let own = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", own).context("keep mounts to this run")?;
    ip(&["link", "set", "lo", "up"])
}

/// A file system of its own at `dir`, empty and `bytes` large, until the run ends. Only after [`enter`].
pub fn small_disk(dir: &Path, bytes: u64) -> Result<()> {
    let (flags, data) = (MountFlags::NODEV | MountFlags::NOSUID, format!("size={bytes},mode=0700\0"));
    let data = std::ffi::CStr::from_bytes_with_nul(data.as_bytes()).expect("one zero, at the end");
    mount("localnet", dir, "tmpfs", flags, data).with_context(|| format!("mount a tmpfs at {}", dir.display()))
}

/// The network of one host, for as long as somebody holds `net` or runs in it.
pub struct Namespace {
    pub net: OwnedFd,
    /// Our end of its device: what the host sends is read here, what is written here it gets.
    pub device: OwnedFd,
}

impl Namespace {
    pub fn make(addr: Ipv4Addr) -> Result<Namespace> {
        in_thread(move || {
            unshare(UnshareFlags::NEWNET).context("make a network namespace")?;
            ip(&["link", "set", "lo", "up"])?;
            let device = device(addr)?;
            let net = File::open("/proc/thread-self/ns/net").context("open the new network namespace")?;
            Ok(Namespace { net: net.into(), device })
        })
    }
}

/// A device in the calling thread's network: the neighbours of `addr` are reached through it.
pub fn device(addr: Ipv4Addr) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let device = open("/dev/net/tun", flags, Mode::empty()).context("open /dev/net/tun")?;
    attach(&device).context("make a TUN device")?;
    ip(&["addr", "add", &format!("{addr}/24"), "dev", DEVICE])?;
    ip(&["link", "set", DEVICE, "mtu", &MTU.to_string(), "up"])?;
    Ok(device)
}

/// The kernel's `struct ifreq` as TUNSETIFF reads it.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

fn attach(device: &OwnedFd) -> rustix::io::Result<()> {
    const TUNSETIFF: rustix::ioctl::Opcode = 0x4004_54ca;
    const IP_PACKETS: u16 = 0x0001;
    const NO_HEADER: u16 = 0x1000;
    let mut name = [0; 16];
    name[..DEVICE.len()].copy_from_slice(DEVICE.as_bytes());
    let request = InterfaceRequest { name, flags: IP_PACKETS | NO_HEADER, rest: [0; 22] };
    // SAFETY: TUNSETIFF reads one `struct ifreq`, which is 40 bytes laid out as above.
    #[allow(unsafe_code)]
    unsafe {
        ioctl(device, Setter::<TUNSETIFF, InterfaceRequest>::new(request))
    }
}

/// Starts `command` in the network of `namespace`, a file as [`Namespace::net`] is one.
pub fn spawn_in(namespace: &Path, mut command: Command) -> Result<Child> {
    let what = format!("start {:?}", command.get_program());
    in_network(namespace, move || command.spawn().context(what))
}

/// Does `work` in that network. Sockets that it opens belong there for good.
pub fn in_network<T: Send + 'static>(namespace: &Path, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let what = || format!("enter the network {}", namespace.display());
    let file = File::open(namespace).with_context(what)?;
    let what = what();
    in_thread(move || {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).context(what)?;
        work()
    })
}

fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    // SAFETY: The table of descriptors stays shared.
    #[allow(unsafe_code)]
    unsafe {
        unshare_unsafe(flags)
    }
}

/// A namespace belongs to a thread: one that ends takes its own along, unless something else holds it.
fn in_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    thread::spawn(work).join().map_err(|_| anyhow!("a thread in a namespace panicked"))?
}

fn ip(args: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(args).stdin(Stdio::null()).output().context("run ip; install iproute2")?;
    if !output.status.success() {
        bail!("ip {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
