//! A coordinator, put together: what happens becomes an event, the core answers with actions, and each is
//! performed. It decides nothing by itself. `start.rs` has what comes before it runs.

mod agreed_key;
mod answers;
mod custody;
mod desk;
mod disk;
mod fence;
mod handover;
mod hooks;
mod key_alarm;
mod key_name;
mod links;
mod marks;
mod members;
mod moment;
mod orders;
mod performer;
mod place;
mod prepare;
mod proposals;
mod publisher;
mod pulse;
mod rehearsal;
mod report;
mod sentries;
mod settings;
mod signing;
mod sources;
mod standbys;
mod start;
mod then;
mod told_by_core;
mod turns;
mod upgrades;

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::service::Routes;
use tracing::{error, info, warn};

use crate::base::guard_frame::LinesAs;
use crate::base::ids::Role;
use crate::base::privval_address::PrivvalAddress;
use crate::base::time::BootTime;
use crate::cluster::gossip::Gossip;
use crate::cluster::identity::{Identity, Known};
use crate::cluster::introduce::{Doorbell, cluster_exists};
use crate::cluster::raft::{self, Consensus, Origin};
use crate::cluster::roster::Roster;
use crate::cluster::store::Store;
use crate::cluster::transport::{self, Entrance, Homes};
use crate::config::{self, Config};
use crate::core::agreed::members::Member;
use crate::core::{Core, Memory};
use crate::core_handle::SharedCore;
use crate::host::chain::Driver;
use crate::host::effects::{self, Effects};
use crate::host::guard_client::GuardSettings;
use crate::host::key_links::KeyLinks;
use crate::host::privval::PrivvalSettings;
use crate::host::signer_client::SignerClient;
use crate::host::upgrade::Upgrades;
use crate::operator::admin::{self, Ask};
use crate::operator::metrics::Metrics;
use crate::operator::relay::Relay;
use crate::record::{self, Recorder};
use answers::Answers;
pub use fence::fence;
use links::HostLinks;
use marks::Marks;
use performer::Performer;
pub use place::check_host;
pub use prepare::{KeyUse, Prepared, prepare};
use publisher::Publisher;
pub use rehearsal::{Beside, rehearse};
use report::Reporter;
pub use settings::key_reader;
use settings::{core_settings, guard_settings, own_member, signer_settings};
pub use then::then;

/// Connections of admins that wait for the desk.
const CALLERS_MAX: usize = 16;

impl Prepared {
    /// Runs until SIGTERM or SIGINT, or until something is broken that only a restart can mend. SIGTERM leaves guard
    /// and standby node running for the next coordinator, unless `stop_node`; SIGINT leaves nothing. A guard that is
    /// started says its lines in the form of `guard_says`.
    ///
    /// # Errors
    /// What was broken. The chain node is stopped then, and the guard with it.
    pub async fn run(self, stop_node: bool, guard_says: LinesAs) -> Result<()> {
        let Prepared {
            config,
            chain,
            certificates,
            opened,
            start,
            reserve,
            mark_file,
            promises,
            remembered,
            promise_lost,
            listener,
            admin,
            metrics,
            manager,
            place,
            ..
        } = self;
        // To the end of all that runs below.
        let _place = place;
        let exporter_listener = metrics;
        let started_at = BootTime::now();
        let memory = Memory {
            fresh: opened.fresh,
            vote_term: opened.store.vote().map_or(0, |vote| vote.leader_id.term),
            released_term: opened.store.last_release_term(),
            view: opened.store.applied().borrow().replicated.view(),
            promised: remembered,
            promise_lost,
            mark_seen: mark_file.kept(),
        };
        let core = Core::new(core_settings(&config, chain.as_ref().map(|(driver, _)| driver)), memory, started_at);
        let (core, actions) = SharedCore::new(core, recorder(&config));
        let core = Arc::new(core);
        let let_go = tokio::sync::watch::Sender::new(None);
        let let_go_seen = let_go.subscribe();
        tokio::spawn(sources::changes(core.changes(), let_go));
        let metrics = Metrics::new(started_at);

        let known = Known {
            listed: config.cluster.members.iter().map(|member| member.id.clone()).collect(),
            members: opened.store.members(),
            applied: opened.store.applied(),
        };
        let identity = Identity::new(&config.cluster.name, config.id.clone(), opened.incarnation, known);
        let identity = Arc::new(identity.in_session(start, &config.timing));
        let cluster = &config.cluster;
        let roster =
            Roster::new(config.id.clone(), cluster, opened.store.members(), certificates.clone(), config.timing);
        let origin = origin(&config, opened.fresh, &roster, &identity).await;
        let joins = opened.joined || origin == Origin::Join && opened.fresh;
        let doorbell = doorbell(&config, joins, identity.clone(), opened.store.clone());
        let gossip = Gossip::start(identity.clone(), roster.clone());
        let relay = Relay::new(identity.clone(), roster.clone());
        let (asks_in, asks) = mpsc::channel::<Ask>(16);
        let consensus = Consensus::start(raft::Start {
            cluster: config.cluster.name.clone(),
            origin,
            joined: opened.joined,
            identity: identity.clone(),
            roster: roster.clone(),
            timing: config.timing,
            log: opened.log,
            state_machine: opened.state_machine,
            core: core.clone(),
            promises,
            snapshot_every: config.snapshot_every,
        })
        .await?;
        let services = Routes::new(consensus.service())
            .add_service(gossip.service())
            .add_service(relay.service(asks_in.clone()))
            .add_service(doorbell.service())
            .add_service(admin::NotHere);
        let (admins, callers) = mpsc::channel(CALLERS_MAX);
        let entrance =
            certificates.clone().map(|certificates| Entrance { certificates, admins, homes: Homes::default() });
        serve_peers(&config, entrance, listener, services);

        // Before the guard: whatever is started from here on is ended in good order.
        tokio::spawn(sources::signals(core.clone(), manager.clone(), stop_node).context("catch SIGTERM and SIGINT")?);
        tokio::spawn(disk::tell_full(core.clone(), reserve.full()));
        tokio::spawn(disk::look_after(reserve));
        pulse::watch(&config, &core, &metrics).context("start the threads that feel the disks")?;
        let signs_for = match &chain {
            Some((driver, _)) if config.chain.as_ref().is_some_and(|chain| chain.signer.is_some()) => {
                driver.chain_id().await?
            }
            Some(_) | None => None,
        };
        let signing = config.chain.as_ref().and_then(|chain| chain.signer.as_ref()).zip(signs_for);
        let signing = match signing {
            Some((section, chain)) => Some(signing::start(signing::Setup {
                me: config.id.clone(),
                chain,
                signer: SignerClient::start(signer_settings(&config, section, guard_says)?),
                key_file: section.key.clone(),
                node: PrivvalSettings {
                    address: PrivvalAddress::Unix(section.node.clone()),
                    node: config.id.to_string(),
                },
                sentries: section.sentries.clone(),
                timing: config.timing,
                core: core.clone(),
                consensus: consensus.clone(),
                applied: opened.store.applied(),
                metrics: metrics.clone(),
            })),
            None => None,
        };
        let effects = match chain {
            Some((driver, links)) => Some(start_effects(&config, driver, links, guard_says, &core).await?),
            None => None,
        };
        let answers = Answers::default();
        let next_of_plan = tokio::sync::watch::Sender::new(None);
        let reporter = Reporter {
            changing: Arc::default(),
            next_of_plan: next_of_plan.subscribe(),
            disk: disk::watch(config.state_dir.clone()),
            let_go: let_go_seen,
            config: Arc::new(config),
            core: core.clone(),
            consensus: consensus.clone(),
            gossip: gossip.clone(),
            identity,
            roster,
            effects: effects.clone(),
            applied: opened.store.applied(),
            metrics: metrics.clone(),
            certificates: certificates.clone(),
            signing,
        };
        let (publisher, published) = Publisher::new(reporter.clone(), manager.clone());
        if let Some(certificates) = certificates {
            tokio::spawn(certificates.follow_files());
        }
        let hooks = hooks::follow(&reporter.config, published.overview.clone(), metrics.clone())?;
        let doors = desk::Doors { admin, callers, exporter: exporter_listener };
        desk::open(doors, asks_in, published)?;
        tokio::spawn(answers::answer(reporter.clone(), relay, answers.clone(), asks));
        tokio::spawn(sources::applied(core.clone(), opened.news, reporter.clone()));
        tokio::spawn(sources::peers(core.clone(), gossip.table()));
        tokio::spawn(sources::clocks(core.clone(), gossip.table()));
        tokio::spawn(sources::rivals(core.clone(), reporter.identity.rivals()));
        let marks = Marks::follow(core.clone(), gossip.table(), effects.clone(), mark_file);
        tokio::spawn(key_alarm::hear(core.clone(), gossip.table()));
        tokio::spawn(key_alarm::log(core.clone()));
        tokio::spawn(sources::joins(reporter.clone()));
        tokio::spawn(sources::unfinished_changes(reporter.clone()));
        tokio::spawn(sources::differences(reporter.clone()));
        tokio::spawn(upgrades::follow(reporter.clone(), answers.clone(), next_of_plan));
        tokio::spawn(sources::time(core.clone(), reporter.config.timing));
        tokio::spawn(publisher.run());
        info!(cluster = %reporter.config.cluster.name, member = %reporter.config.id, "coordinator runs");

        let me = reporter.config.id.clone();
        let proposals = Arc::default();
        let hands = Performer { me, core: core.clone(), consensus: consensus.clone(), effects, answers, proposals };
        // Not awaited from here itself: this thread would be woken by everything that Raft measures.
        let failure = tokio::spawn(sources::broken(opened.store.health(), consensus.clone()));
        let broken = tokio::select! {
            stop_node = hands.perform_all(actions) => {
                tokio::join!(hands.leave(stop_node), reporter.take_leave());
                None
            }
            reason = failure => {
                manager.stopping();
                hands.leave_at_once().await;
                Some(reason.unwrap_or_else(|error| error.to_string()))
            }
        };
        tokio::join!(consensus.shutdown(), marks.end());
        if let Some(hooks) = hooks {
            hooks.end(reporter.overview_now()).await;
        }
        core.close_record();
        match broken {
            None => Ok(()),
            Some(reason) => bail!("{reason}"),
        }
    }
}

fn recorder(config: &Config) -> Recorder {
    match config.record_bytes {
        0 => Recorder::off(),
        bytes_max => Recorder::start(config.state_dir.join(record::DIRECTORY), bytes_max, config.id.clone()),
    }
}

/// What this host's store begins with, if it is empty.
async fn origin(config: &Config, fresh: bool, roster: &Roster, identity: &Arc<Identity>) -> Origin {
    if config.join {
        return Origin::Join;
    }
    if let Some(member) = if fresh { cluster_exists(roster, identity).await } else { None } {
        warn!(
            "{member} says that the cluster exists: this empty store does not form it once more and waits for the \
             leader; if {} was wiped or is new, see \"Replace a dead host\" in docs/operating.md",
            config.id
        );
        return Origin::Follow;
    }
    let member = |member: &config::Member| {
        let config::Member { id, addr, role, priority } = member.clone();
        (id, Member { addr, role, priority, incarnation: None })
    };
    Origin::Found(config.cluster.members.iter().map(member).collect())
}

fn doorbell(config: &Config, joins: bool, identity: Arc<Identity>, store: Store) -> Doorbell {
    let own = own_member(config);
    Doorbell {
        identity,
        role: own.map_or(Role::Arbiter, |member| member.role),
        priority: own.map_or(0, |member| member.priority),
        joins,
        has_been_led: Box::new(move || store.vote().is_some_and(|vote| vote.leader_id.term > 0)),
    }
}

fn serve_peers(config: &Config, entrance: Option<Entrance>, listener: TcpListener, services: Routes) {
    if let Some(Entrance { homes, .. }) = &entrance {
        let (homes, names) = (homes.clone(), config.cluster.members.iter().map(|member| member.addr.clone()));
        let names: Vec<String> = names.collect();
        tokio::spawn(async move { homes.look_up(names).await });
    }
    let mut server = transport::server(&config.timing);
    let router = server.add_routes(services);
    let incoming = transport::incoming(listener, entrance, &config.timing);
    tokio::spawn(async move {
        if let Err(error) = router.serve_with_incoming(incoming).await {
            error!("peers are not answered any more: {error}");
        }
    });
}

async fn start_effects(
    config: &Config,
    chain: Driver,
    links: HostLinks,
    guard_says: LinesAs,
    core: &Arc<SharedCore>,
) -> Result<Effects> {
    let section = config.chain.as_ref().context("a chain node without [chain]")?;
    links.lay_routes()?;
    let guard = GuardSettings { lines_as: guard_says, ..guard_settings(config, &links)? };
    let setup = effects::Setup {
        chain,
        links: KeyLinks::new(links.switched)?,
        guard,
        stop_timeout: section.stop_timeout,
        probe_every: section.probe.every,
        node_log: section.log.clone(),
        upgrades: section.upgrade.clone().map(Upgrades::new),
        core: core.clone(),
        custody: section.custody(),
    };
    Ok(Effects::start(setup).await?)
}
