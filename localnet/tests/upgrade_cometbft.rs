//! Rolling upgrades of a real chain: CometBFT, from one patch version to another and on to the first again. Needs two
//! `cometbft` programs, and says how to install them where one is missing. `BATON_COMETBFT_ROUNDS` for more of them.

mod common;

use common::upgrades::{UPGRADE_BOUND, await_plan, leads_to, link, show, tenure, until, upgrade};
use common::{Ground, TestNet};
use localnet::chains::cometbft;
use localnet::judge::measure::{Watch, head, missed_blocks};
use localnet::net::http;
use localnet::net::{ChainKind, Profile, Shape};
use localnet::process::launch;
use localnet::runs::demo::Pair;

const ARBITER: &str = "host-c";
/// Blocks after a plan is done, so that a late miss is counted too.
const AFTERWARDS: usize = 3;
/// Of one rolling plan: one move, and a restart of either node.
const MISSED_MAX: usize = 2;

fn rounds() -> usize {
    std::env::var("BATON_COMETBFT_ROUNDS").map_or(1, |text| text.parse().expect("BATON_COMETBFT_ROUNDS is a number"))
}

fn version(t: &TestNet, host: &str) -> Result<String, String> {
    let answer = http::get_json(t.net.host(host).unwrap().rpc(), "/status").map_err(|error| format!("{error:#}"))?;
    let version = answer["result"]["node_info"]["version"].as_str();
    version.map(str::to_owned).ok_or_else(|| answer.to_string())
}

/// As the program itself says.
fn version_of(program: &str) -> String {
    let output = std::process::Command::new(program).arg("version").output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
#[ignore = "needs two cometbft; see docs/localnet.md"]
fn a_shared_validator_is_upgraded_from_patch_version_to_patch_version() {
    let ground = Ground::new();
    let next = cometbft::find_next().unwrap().to_str().unwrap().to_owned();
    // A lease that a busy machine keeps: who loses it on the way has not taken the baton, and the plan has failed.
    let shape = Shape { cosmovisor: true, profile: Profile::Wan, ..Shape::usual(ChainKind::Cometbft) };
    let net = launch::up(&ground.dir, shape, |_| ()).unwrap_or_else(|error| panic!("{error:#}"));
    let t = TestNet { ground, net };
    let first = t.net.programs.chain_node.to_str().unwrap().to_owned();
    let versions = [version_of(&next), version_of(&first)];
    assert_ne!(versions[0], versions[1], "{next} and {first} are of one version");
    let mut pair = t.pair();
    let mut table = vec!["plan  to       missed blocks".to_owned()];
    for round in 0..2 * rounds() {
        let (program, wanted) = [(&next, &versions[0]), (&first, &versions[1])][round % 2];
        let name = format!("r{}", round + 1);
        let mut watch = t.or_logs(Watch::begin(&t.net));
        t.or_logs(watch.await_by(&pair.holder, 4, UPGRADE_BOUND));
        let from = t.or_logs(head(&t.net));
        let epoch = tenure(&t).0;
        upgrade(&t, ARBITER, &["plan", &name, "--binary", program], 0);
        for host in [&pair.standby, &pair.holder] {
            until(&t, &format!("{host} runs {wanted}"), || match (version(&t, host), link(&t, host, "current")) {
                (Ok(version), current) if version == *wanted && current == leads_to(&name) => Ok(()),
                seen => Err(format!("{seen:?}")),
            });
        }
        let moved = Pair { holder: pair.standby.clone(), standby: pair.holder.clone() };
        assert_eq!(t.pair(), moved);
        assert_eq!(tenure(&t).0, epoch + 1, "one move");
        await_plan(&t, ARBITER, &name, "done");
        let mut watch = t.or_logs(Watch::begin(&t.net));
        t.or_logs(watch.await_by(&moved.holder, AFTERWARDS * 2, UPGRADE_BOUND));
        let to = t.or_logs(head(&t.net)) - 1;
        let missed = t.or_logs(missed_blocks(&t.net, from, to));
        table.push(format!("{name:<5} {wanted:<8} {missed:>3} of {:<6}", to - from));
        assert!(missed <= MISSED_MAX, "{missed} blocks missed in {from}..{to}\n{}", table.join("\n"));
        pair = moved;
    }
    show(&t, ARBITER, "at the end");
    println!("{}", table.join("\n"));
    t.assert_nothing_signed_twice();
}
