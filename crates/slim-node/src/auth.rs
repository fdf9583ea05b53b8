//! Who may open links, by what they show in the header `authorization`.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use slim_auth::{Shown, Users};
use slim_identity::Bearers;
use slim_link::{Authenticator, Principal};

/// What an address takes as proof, to be given to
/// [`ListenConfig::auth`](crate::ListenConfig::auth).
#[derive(Debug)]
#[non_exhaustive]
pub enum LinkAuth {
    /// A user and a password (HTTP basic authentication).
    Basic(Users),
    /// A bearer token (JWT).
    Bearer {
        /// Who verifies it.
        bearers: Arc<Bearers>,
        /// The only subject that is let in. Default none: everybody whose token is good.
        subject: Option<String>,
    },
}

impl Authenticator for LinkAuth {
    fn authenticate(&self, authorization: Option<&str>) -> Result<Principal, String> {
        match self {
            Self::Basic(users) => {
                let user = users.check(authorization).map_err(|error| error.to_string())?;
                Ok(Principal::Basic(user.to_owned()))
            }
            Self::Bearer { bearers, subject } => {
                // Before 1970 no token is good.
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let bearer = bearers.check(authorization, now.as_secs());
                let bearer = bearer.map_err(|error| error.to_string())?;
                match subject {
                    Some(expected) if *expected != bearer.subject => {
                        let [found, expected] = [&bearer.subject, expected].map(|s| Shown::new(s));
                        Err(format!("the token is for {found}, expected {expected}"))
                    }
                    _ => Ok(Principal::Jwt { subject: bearer.subject, issuer: bearer.issuer }),
                }
            }
        }
    }
}
