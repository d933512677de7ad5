//! A member as it is named on the command line: `host-b=10.0.0.2:7401,arbiter,priority=90`.

use crate::base::ids::{NodeId, Role};
use crate::config::{PRIORITY_MAX, check_address, check_id};

/// What somebody has written of a member; the rest is not decided yet.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Named {
    pub id: NodeId,
    pub addr: Option<String>,
    pub role: Option<Role>,
    pub priority: Option<u32>,
}

impl Named {
    /// `ID[=HOST:PORT][,validator|arbiter][,priority=N]`.
    ///
    /// # Errors
    /// The end of a sentence.
    pub(super) fn parse(text: &str) -> Result<Named, String> {
        let mut parts = text.split(',').map(str::trim);
        let first = parts.next().unwrap_or_default();
        let (id, addr) = match first.split_once('=') {
            Some((id, addr)) => (id.trim(), Some(addr.trim().to_owned())),
            None => (first, None),
        };
        let id = check_id(id.to_owned())?;
        if let Some(addr) = &addr {
            check_address(addr)?;
        }
        let mut named = Named { id, addr, role: None, priority: None };
        for part in parts {
            named.take(part)?;
        }
        Ok(named)
    }

    /// As `parse`, of a member that has to have an address.
    pub(super) fn parse_peer(text: &str) -> Result<Named, String> {
        let named = Named::parse(text)?;
        match named.addr {
            Some(_) => Ok(named),
            None => Err(format!("has no address; write {0}=HOST:PORT, for example {0}=10.0.0.2:7401", named.id)),
        }
    }

    fn take(&mut self, part: &str) -> Result<(), String> {
        let twice = || Err(format!("{part:?} comes after another one of its kind; keep one"));
        let role = match part {
            "validator" => Role::Validator,
            "arbiter" => Role::Arbiter,
            _ => {
                let number = part.strip_prefix("priority=").and_then(|number| number.parse().ok());
                return match number.filter(|number| *number <= PRIORITY_MAX) {
                    Some(_) if self.priority.is_some() => twice(),
                    Some(number) => {
                        self.priority = Some(number);
                        Ok(())
                    }
                    None => Err(format!(
                        "{part:?} is not known; after the address comes arbiter or validator, or priority=N from 0 to \
                         {PRIORITY_MAX}"
                    )),
                };
            }
        };
        if self.role.is_some() {
            return twice();
        }
        self.role = Some(role);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(id: &str, addr: Option<&str>, role: Option<Role>, priority: Option<u32>) -> Result<Named, String> {
        Ok(Named { id: id.into(), addr: addr.map(Into::into), role, priority })
    }

    #[test]
    fn a_member_has_a_name_and_what_else_is_said_of_it() {
        let (arbiter, validator) = (Some(Role::Arbiter), Some(Role::Validator));
        assert_eq!(Named::parse("host-a"), named("host-a", None, None, None));
        assert_eq!(Named::parse("a,priority=7"), named("a", None, None, Some(7)));
        assert_eq!(Named::parse("a=h:1,arbiter"), named("a", Some("h:1"), arbiter, None));
        assert_eq!(Named::parse("a = [::1]:7, priority=0, validator"), named("a", Some("[::1]:7"), validator, Some(0)));
    }

    #[test]
    fn what_is_wrong_with_a_member_is_said() {
        for (text, part) in [
            ("", "is not a member id"),
            ("host a=h:1", "\"host a\" is not a member id"),
            ("a=h", "\"h\" is not HOST:PORT"),
            ("a=", "\"\" is not HOST:PORT"),
            ("a=h:1:arbiter", "\"h:1:arbiter\" is not HOST:PORT"),
            ("a=h:1,arbitrer", "\"arbitrer\" is not known; after the address comes arbiter or validator"),
            ("a=h:1,90", "\"90\" is not known"),
            ("a=h:1,priority=1000001", "priority=N from 0 to 1000000"),
            ("a=h:1,arbiter,validator", "\"validator\" comes after another one"),
            ("a=h:1,priority=1,priority=2", "\"priority=2\" comes after another one"),
            ("a=h:1,", "\"\" is not known"),
            ("a", "has no address; write a=HOST:PORT"),
        ] {
            let refused = Named::parse_peer(text).expect_err(text);
            assert!(refused.contains(part), "{text}: {refused}");
        }
    }
}
