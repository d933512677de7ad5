//! Admins on other machines: the same questions over connections that were made at the port of the members with the
//! certificate of an admin. They are served where the socket is, on the desk's thread, and bounded apart from it.
//! What they order is told in the log under their names. Every other service refuses them, and this one all others.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::{Request, Status};

use super::{Desk, PING_EVERY, Questions, Stands};
use crate::cluster::certificates::Bearer;
use crate::cluster::transport::{Caller, Connection, Door, Limits, Speaker, Visit, Visitor, bounded_server};
use crate::cluster::wire::proto::admin_server::AdminServer;
use crate::cluster::wire::proto::member_change_request::Change;
use crate::cluster::wire::proto::sign_log_change::Change as SignLog;
use crate::cluster::wire::proto::upgrade_change_request::Change as Upgrade;
use crate::cluster::wire::proto::{
    AddMember, LayFloor, MemberChangeRequest, PlanUpgrade, SetMaintenance, SetPause, SetPriority, SignLogChange,
    UpgradeChangeRequest,
};
use crate::operator::order::{Order, WantedHandover};

/// More displace the oldest.
const CONNECTIONS_MAX: usize = 32;
/// Requests that one connection may have under way.
const STREAMS_MAX: u32 = 16;
/// Longest name shown in the log: nobody has checked it yet.
const NAME_CHARS_MAX: usize = 64;
/// After a connection that could not be taken over, which is a lack of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Until nobody brings callers any more, at once when there is no TLS.
pub(super) async fn serve(callers: mpsc::Receiver<Caller>, questions: Arc<Questions>) {
    let door = Door::new(Limits { connections_max: CONNECTIONS_MAX, silence_max: 3 * PING_EVERY });
    let (admitted, connections) = mpsc::channel(1);
    let desk = Desk { questions, stands: Stands::AtThePort };
    let routes = Routes::from(Routes::new(desk.service()).into_axum_router().fallback(not_for_admins));
    let server = bounded_server(PING_EVERY)
        .max_concurrent_streams(STREAMS_MAX)
        .concurrency_limit_per_connection(STREAMS_MAX as usize)
        .add_routes(routes)
        .serve_with_incoming(ReceiverStream::new(connections).map(Ok::<Visit<Connection>, io::Error>));
    let ((), served) = tokio::join!(admit(callers, door, admitted), server);
    if let Err(error) = served {
        tracing::error!(%error, "admins on other machines are no longer served");
    }
}

async fn admit(mut callers: mpsc::Receiver<Caller>, door: Door, admitted: mpsc::Sender<Visit<Connection>>) {
    while let Some(caller) = callers.recv().await {
        match caller.move_here() {
            Ok((connection, visitor)) => {
                if admitted.send(door.admit(connection, visitor)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot take over the connection of an admin");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Whatever else an admin asks for.
async fn not_for_admins(request: http::Request<axum::body::Body>) -> http::Response<Body> {
    let visitor: Visitor = request.extensions().get().cloned().unwrap_or_default();
    let who = match visitor.speaker() {
        Some(Speaker::Proven(bearer)) => bearer.to_string(),
        Some(Speaker::Unproven) | None => "somebody unknown".to_owned(),
    };
    let asked = request.uri().path();
    Status::permission_denied(format!("{who} asks for {asked}; the certificate of an admin is good for orders alone"))
        .into_http()
}

/// Stands in the place of the admin service among those of the members: says where it is.
#[derive(Clone, Copy)]
pub struct NotHere;

impl NamedService for NotHere {
    const NAME: &'static str = <AdminServer<Desk> as NamedService>::NAME;
}

impl Service<http::Request<Body>> for NotHere {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let visitor: Visitor = request.extensions().get().cloned().unwrap_or_default();
        ready(Ok(Status::permission_denied(why_not_here(&visitor)).into_http()))
    }
}

fn why_not_here(visitor: &Visitor) -> String {
    match visitor.speaker() {
        Some(Speaker::Proven(bearer)) => format!(
            "{bearer} gives no orders: they need the certificate of an admin, as baton cert issue --admin NAME makes it"
        ),
        Some(Speaker::Unproven) | None => {
            "this coordinator has no [tls], so it takes orders only on its own host: run \
                                           baton there, or give every member [tls]"
                .to_owned()
        }
    }
}

/// Who orders something.
pub(super) enum Teller {
    /// A process on this host.
    Local,
    Admin {
        name: String,
        from: Option<SocketAddr>,
    },
}

impl Teller {
    /// # Errors
    /// It came to a desk that is not for it.
    pub(super) fn of<T>(request: &Request<T>, stands: Stands) -> Result<Teller, Status> {
        let visitor = Visitor::of(request);
        match (stands, visitor.speaker()) {
            (Stands::AtTheSocket, None) => Ok(Teller::Local),
            (Stands::AtThePort, Some(Speaker::Proven(Bearer::Admin(name)))) => {
                Ok(Teller::Admin { name: name.clone(), from: visitor.address() })
            }
            (Stands::AtTheSocket | Stands::AtThePort, _) => Err(Status::permission_denied(why_not_here(&visitor))),
        }
    }

    pub(super) fn tells(self, what: impl FnOnce() -> String) -> Told {
        match self {
            Teller::Local => Told(None),
            Teller::Admin { name, from } => {
                let (what, from) = (what(), from.map(|from| from.to_string()).unwrap_or_default());
                tracing::info!(%from, "admin {name} orders: {what}");
                Told(Some((name, what)))
            }
        }
    }
}

/// An order of an admin that stands in the log.
pub(super) struct Told(Option<(String, String)>);

impl Told {
    pub(super) fn ended<T>(self, ended: Result<T, Status>) -> Result<T, Status> {
        if let Some((name, what)) = self.0 {
            match &ended {
                Ok(_) => tracing::info!("the order of admin {name} is done: {what}"),
                Err(status) => tracing::info!("the order of admin {name} is not done: {what}: {}", status.message()),
            }
        }
        ended
    }
}

fn handover_in_words(wanted: &WantedHandover) -> String {
    let to = wanted.to.as_ref().map_or("the best standby".to_owned(), |id| named(id.as_str()));
    format!("handover to {to}{}", dry(wanted.dry_run))
}

pub(super) fn order_in_words(order: &Order) -> String {
    let switched = |on: &bool| if *on { "on" } else { "off" };
    match order {
        Order::Maintenance(SetMaintenance { member, on, .. }) if member.is_empty() => {
            format!("maintenance {} for this member", switched(on))
        }
        Order::Maintenance(SetMaintenance { member, on, .. }) => {
            format!("maintenance {} for {}", switched(on), named(member))
        }
        Order::Pause(SetPause { on: true, .. }) => "pause".to_owned(),
        Order::Pause(SetPause { on: false, .. }) => "resume".to_owned(),
        Order::Priority(SetPriority { member, priority: Some(priority) }) => {
            format!("priority {priority} for {}", named(member))
        }
        Order::Priority(SetPriority { member, priority: None }) => {
            format!("the configured priority for {}", named(member))
        }
        Order::Floor(LayFloor { above, .. }) => format!("a floor above {above}"),
        Order::SignLog(SignLogChange { change: Some(SignLog::Open(_)) }) => {
            "that the log decides what is signed".to_owned()
        }
        Order::SignLog(SignLogChange { change: Some(SignLog::Close(_)) }) => {
            "that the holder's chain node has the key".to_owned()
        }
        Order::SignLog(SignLogChange { change: None }) => "no change of the key's custody".to_owned(),
        Order::Handover(request) => handover_in_words(&WantedHandover::read(request.clone())),
        Order::Member(request) => change_in_words(request),
        Order::Upgrade(request) => upgrade_in_words(request),
    }
}

fn change_in_words(request: &MemberChangeRequest) -> String {
    let change = match &request.change {
        Some(Change::Add(AddMember { id, addr, .. })) => format!("add member {} at {}", named(id), named(addr)),
        Some(Change::Promote(id)) => format!("promote member {}", named(id)),
        Some(Change::Remove(id)) => format!("remove member {}", named(id)),
        None => "no change of the members".to_owned(),
    };
    format!("{change}{}{}", if request.force { ", by force" } else { "" }, dry(request.dry_run))
}

fn upgrade_in_words(request: &UpgradeChangeRequest) -> String {
    let change = match &request.change {
        Some(Upgrade::Plan(PlanUpgrade { name, height: Some(height), .. })) => {
            format!("upgrade {} at height {height}", named(name))
        }
        Some(Upgrade::Plan(PlanUpgrade { name, .. })) => format!("upgrade {}, host after host", named(name)),
        Some(Upgrade::Cancel(name)) => format!("no upgrade {} any more", named(name)),
        Some(Upgrade::Rollback(_)) => "back to what ran before the last upgrade".to_owned(),
        None => "no change of upgrades".to_owned(),
    };
    format!("{change}{}", dry(request.dry_run))
}

fn dry(run: bool) -> &'static str {
    if run { " (dry run)" } else { "" }
}

/// On one line and not long, whatever it is.
fn named(text: &str) -> String {
    let begins: String = text.chars().take(NAME_CHARS_MAX).collect();
    let quoted = format!("{begins:?}");
    if begins.len() < text.len() { format!("{quoted}…") } else { quoted }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_the_log_are_short_and_on_one_line() {
        let order = |member: &str| {
            order_in_words(&Order::Maintenance(SetMaintenance { member: member.into(), on: true, at_ns: 0 }))
        };
        assert_eq!(order("host-b"), "maintenance on for \"host-b\"");
        assert_eq!(order("b\n2026 INFO all is well"), "maintenance on for \"b\\n2026 INFO all is well\"");
        assert!(order(&"x".repeat(60_000)).len() < 200);
    }

    #[test]
    fn a_desk_listens_to_those_that_it_stands_for_and_to_nobody_else() {
        let listens = |stands, speaker: Option<Speaker>| {
            let mut request = Request::new(());
            request.extensions_mut().insert(speaker.map(Visitor::from).unwrap_or_default());
            Teller::of(&request, stands).is_ok()
        };
        let admin = Some(Speaker::Proven(Bearer::Admin("a".into())));
        let member = Some(Speaker::Proven(Bearer::Member("a".into())));
        assert!(listens(Stands::AtThePort, admin.clone()) && listens(Stands::AtTheSocket, None));
        for nobody in [None, Some(Speaker::Unproven), member.clone()] {
            assert!(!listens(Stands::AtThePort, nobody));
        }
        for nobody in [admin, Some(Speaker::Unproven), member] {
            assert!(!listens(Stands::AtTheSocket, nobody));
        }
    }
}
