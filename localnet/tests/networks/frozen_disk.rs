//! A disk of the holder's host freezes (`fsfreeze` on a loop mount): the other host signs, and the frozen one says why
//! it does not, and is a standby again after the thaw. Without root, loop devices or mkfs.ext4 these tests say so and
//! pass, unless BATON_REQUIRE_NAMESPACES is set.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::common::Ground;
use localnet::hosts::disks;
use localnet::judge::check::check;
use localnet::judge::measure::Watch;
use localnet::judge::status::for_people;
use localnet::net::namespaces;
use localnet::net::{self, ChainKind, Host, Net, Shape};
use localnet::process::launch::{self, with_diagnosis};
use localnet::runs::demo::{Pair, await_pair};

/// From the freeze to the next signature: ten seconds on a machine that is not busy.
const SIGN_BOUND: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(60);

/// Thaws what it froze, however the test ends.
struct Frozen(Vec<PathBuf>);

impl Frozen {
    fn freeze(dirs: &[PathBuf]) -> Frozen {
        let frozen = Frozen(dirs.to_vec());
        for dir in dirs {
            disks::freeze(dir).unwrap();
            assert!(disks::is_frozen(dir).unwrap(), "{}", dir.display());
        }
        frozen
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.0.iter().for_each(|dir| disks::thaw(dir).unwrap());
    }
}

/// A network whose hosts stand on file systems of their own, or why there is none.
fn up(ground: &Ground) -> Option<Net> {
    let shape = Shape { ground: net::Ground::Namespaces, ..Shape::usual(ChainKind::Sim) };
    let laid_out = namespaces::enter().and_then(|()| launch::prepare(&ground.dir, shape)).and_then(|net| {
        // Of the first host, whether they are there at all.
        disks::of_host(&net, &net.hosts[0]).iter().try_for_each(|dir| disks::is_frozen(dir).map(drop))?;
        Ok(net)
    });
    match laid_out {
        Ok(net) => {
            launch::start(&net, |_| ()).unwrap();
            Some(net)
        }
        Err(error) => {
            assert!(std::env::var_os("BATON_REQUIRE_NAMESPACES").is_none(), "{error:#}");
            eprintln!("left out: {error:#}");
            None
        }
    }
}

/// Freezes what `which` names of the holder's host.
fn the_other_host_signs(which: impl Fn(&Net, &Host) -> Vec<PathBuf>, says: &str) {
    let ground = Ground::new();
    let Some(net) = up(&ground) else { return };
    let Pair { holder, standby } = with_diagnosis(&net, await_pair(&net, |_| ())).unwrap();
    let dirs = which(&net, net.host(&holder).unwrap());
    let mut watch = Watch::begin(&net).unwrap();
    with_diagnosis(&net, watch.await_by(&holder, 3, PATIENCE)).unwrap();
    let (struck_ns, struck) = (watch.now_ns(), Instant::now());
    let frozen = Frozen::freeze(&dirs);
    let next = with_diagnosis(&net, watch.await_next(struck_ns, &holder, SIGN_BOUND)).unwrap();
    println!("{holder} frozen, {standby} signs height {} after {:.1} s", next.height, struck.elapsed().as_secs_f64());

    // The frozen one still answers, and says what keeps it from the baton.
    let (since, says) = (Instant::now(), format!("not ready: the disk of {says}"));
    loop {
        let shown = for_people(&net, &holder).unwrap_or_else(|error| format!("{error:#}"));
        if shown.contains(&says) {
            break;
        }
        assert!(since.elapsed() < PATIENCE, "it does not say {says:?}: {shown}\n{}", launch::diagnosis(&net));
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(frozen);
    let pair = with_diagnosis(&net, await_pair(&net, |_| ())).unwrap();
    assert_eq!(pair, Pair { holder: standby, standby: holder });
    assert_eq!(check(&net).unwrap().failure(), None);
}

#[test]
fn a_host_whose_whole_disk_freezes_keeps_nobody_from_signing() {
    the_other_host_signs(|net, host| disks::of_host(net, host).to_vec(), "chain.home");
}

#[test]
fn a_host_whose_state_disk_freezes_keeps_nobody_from_signing() {
    the_other_host_signs(|net, host| vec![net.state_dir(&host.id)], "member.state_dir");
}

#[test]
fn a_host_whose_chain_disk_freezes_keeps_nobody_from_signing() {
    the_other_host_signs(|net, host| vec![net.chain_home(&host.id)], "chain.home");
}
