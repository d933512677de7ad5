//! `baton member`: who belongs to the cluster, and one change at a time.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::base::ids::Vote;
use crate::cluster::wire::proto::member_change_request::Change;
use crate::cluster::wire::proto::{AddMember, MemberChangeRequest, MemberChangeResponse, MemberStatus, StatusResponse};
use crate::operator::explain::or_dash;
use crate::operator::order::Order;

use super::reach::{Reach, ReachVia};
use super::status::warnings;
use super::table::render;
use super::{Failure, ask, print, tell_change};

const HEADS: [&str; 7] = ["HOST", "VOTE", "ROLE", "PRIORITY", "ADDRESS", "UP", "STORE"];

#[derive(Debug, Subcommand)]
pub(super) enum Member {
    /// Show every member, its vote, address and store
    List {
        /// One JSON object
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        reach: Reach,
    },
    /// Take a host in, without a vote: its baton runs already, with member.join = true
    Add {
        /// Its member.id
        id: String,
        /// Where the other members reach it
        #[arg(long, value_name = "HOST:PORT")]
        addr: String,
        /// In the place of the one in its own configuration
        #[arg(long, value_name = "N")]
        priority: Option<u32>,
        /// Only say what would come of it (exit code 1: it would be refused)
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        reach: ReachVia,
    },
    /// Give a learner a vote
    Promote(OfVote),
    /// Take a host out for good; the holder hands over first
    Remove(OfVote),
}

#[derive(Debug, Args)]
pub(super) struct OfVote {
    id: String,
    /// Only say what would come of it (exit code 1: it would be refused)
    #[arg(long)]
    dry_run: bool,
    /// Also when no quorum would answer and nobody could sign
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    reach: Reach,
}

pub(super) fn run(member: Member) -> Result<ExitCode, Failure> {
    match member {
        Member::List { json: as_json, reach } => ask(&reach, async |client| {
            let answer = client.status().await?;
            print(&if as_json { json(&answer) } else { table(&answer) });
            Ok(ExitCode::SUCCESS)
        }),
        Member::Add { id, addr, priority, dry_run, reach } => {
            let change = Some(Change::Add(AddMember { id, addr, priority }));
            make(&reach.into(), "add", MemberChangeRequest { change, dry_run, force: false })
        }
        Member::Promote(promotion) => promotion.make("promote", Change::Promote),
        Member::Remove(removal) => removal.make("remove", Change::Remove),
    }
}

impl OfVote {
    fn make(self, what: &str, change: fn(String) -> Change) -> Result<ExitCode, Failure> {
        let OfVote { id, dry_run, force, reach } = self;
        make(&reach, what, MemberChangeRequest { change: Some(change(id)), dry_run, force })
    }
}

fn make(reach: &Reach, what: &str, change: MemberChangeRequest) -> Result<ExitCode, Failure> {
    ask(reach, async |client| {
        let what = format!("member {what}");
        let done: MemberChangeResponse = client.order(&what, Order::Member(change)).await?;
        tell_change(&what, &done.lines, &done.refused)
    })
}

fn table(status: &StatusResponse) -> String {
    let rows: Vec<_> = status.members.iter().map(|member| (cells(member), None)).collect();
    let voters = status.members.iter().filter(|member| member.vote == Vote::Voter.as_str()).count();
    let quorum = match voters {
        0 => "the cluster is not formed yet".to_owned(),
        1 => "1 voter".to_owned(),
        _ => format!("{voters} voters, quorum {}", voters / 2 + 1),
    };
    let mut out = format!("cluster {}, seen by {}: {quorum}\n\n", status.cluster, status.member);
    out.push_str(&render(&HEADS, &rows));
    out.push_str(&warnings(status));
    out
}

fn cells(member: &MemberStatus) -> Vec<String> {
    let reachable = if member.reachable { "yes" } else { "NO" };
    vec![
        member.id.clone(),
        or_dash(&member.vote),
        or_dash(&member.role),
        member.priority.to_string(),
        or_dash(&member.addr),
        reachable.to_owned(),
        or_dash(&store(member).unwrap_or_default()),
    ]
}

fn store(member: &MemberStatus) -> Option<String> {
    (member.incarnation != 0).then(|| format!("{:016x}", member.incarnation))
}

/// The object of `--json`. The order and the names are part of baton's contract.
#[derive(Serialize)]
struct MembersObject<'a> {
    cluster: &'a str,
    member: &'a str,
    leader: Option<&'a str>,
    members: Vec<MemberObject<'a>>,
    warnings: &'a [String],
}

#[derive(Serialize)]
struct MemberObject<'a> {
    id: &'a str,
    vote: &'a str,
    role: &'a str,
    priority: u32,
    addr: &'a str,
    reachable: bool,
    /// Null while it is not recorded.
    store: Option<String>,
}

fn json(status: &StatusResponse) -> String {
    let members = status.members.iter().map(|seen| MemberObject {
        id: &seen.id,
        vote: &seen.vote,
        role: &seen.role,
        priority: seen.priority,
        addr: &seen.addr,
        reachable: seen.reachable,
        store: store(seen),
    });
    let object = MembersObject {
        cluster: &status.cluster,
        member: &status.member,
        leader: Some(status.leader.as_str()).filter(|leader| !leader.is_empty()),
        members: members.collect(),
        warnings: &status.warnings,
    };
    let text = serde_json::to_string_pretty(&object).expect("strings, numbers and booleans have a JSON form");
    format!("{text}\n")
}
