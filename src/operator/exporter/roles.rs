//! `/holder`, `/standby` and `/arbiter`: 200 on a host in that role and 503 on any other, for load balancers, with the
//! role or the reason in a line. They ask with GET, HEAD or OPTIONS.

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::routing::get;

use crate::base::ids::Role;
use crate::cluster::wire::proto::{StatusResponse, TenureStage};

use super::{Shown, Vitals, alive, answer_to};

/// What a host is for, as its coordinator sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Its chain node signs.
    Holder,
    /// It has a chain node, and does not hold the baton; so many blocks below the highest head of a member in reach.
    Beside { behind: u64 },
    /// It has no chain node.
    Arbiter,
}

impl Place {
    /// Where the host that gave `status` is in it.
    pub fn of(status: &StatusResponse) -> Place {
        let Some(own) = status.members.iter().find(|member| member.id == status.member) else {
            return Place::Beside { behind: 0 };
        };
        if own.role == Role::Arbiter.as_str() {
            Place::Arbiter
        } else if own.meaning().stage() == TenureStage::Active {
            Place::Holder
        } else {
            let heads = status.members.iter().filter(|member| member.reachable).map(|member| member.height);
            Place::Beside { behind: heads.max().unwrap_or_default().saturating_sub(own.height) }
        }
    }
}

pub(super) fn routes() -> Router<Shown> {
    let holder = |State(shown): State<Shown>| async move { answer_to(holder(&shown.published.vitals.borrow())) };
    let standby = |State(shown): State<Shown>, RawQuery(query): RawQuery| async move {
        match lag_max(query.as_deref()) {
            Ok(lag_max) => answer_to(standby(&shown.published.vitals.borrow(), lag_max)),
            Err(reason) => (StatusCode::BAD_REQUEST, format!("{reason}\n")),
        }
    };
    let arbiter = |State(shown): State<Shown>| async move { answer_to(arbiter(&shown.published.vitals.borrow())) };
    Router::new()
        .route("/holder", get(holder).options(holder))
        .route("/standby", get(standby).options(standby))
        .route("/arbiter", get(arbiter).options(arbiter))
}

fn holder(vitals: &Vitals) -> Result<&'static str, String> {
    alive(vitals)?;
    match vitals.place {
        Place::Holder => Ok("holder"),
        Place::Beside { .. } | Place::Arbiter => Err("not the holder".to_owned()),
    }
}

/// How many blocks a standby may be behind, by the part of the address after its question mark.
fn lag_max(query: Option<&str>) -> Result<Option<u64>, String> {
    let Some(query) = query else { return Ok(None) };
    let blocks = query.strip_prefix("lag=").and_then(|blocks| blocks.parse().ok());
    blocks.map(Some).ok_or_else(|| format!("?{query}: write ?lag= and a number of blocks"))
}

fn standby(vitals: &Vitals, lag_max: Option<u64>) -> Result<&'static str, String> {
    alive(vitals)?;
    match vitals.place {
        Place::Holder => Err("the holder".to_owned()),
        Place::Arbiter => Err("an arbiter".to_owned()),
        Place::Beside { behind } => {
            vitals.ready.clone()?;
            match lag_max {
                Some(max) if behind > max => Err(format!("{behind} blocks behind another host, more than {max}")),
                Some(_) | None => Ok("standby"),
            }
        }
    }
}

fn arbiter(vitals: &Vitals) -> Result<&'static str, String> {
    alive(vitals)?;
    match vitals.place {
        Place::Arbiter => vitals.ready.clone().map(|()| "arbiter"),
        Place::Holder | Place::Beside { .. } => Err("not an arbiter".to_owned()),
    }
}
