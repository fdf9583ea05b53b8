//! What opens a link says in its header `authorization`: a user and a password
//! (RFC 7617), or a token (RFC 6750).

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::identity::VerifyError;

const BASIC: &str = "Basic";
const BEARER: &str = "Bearer";

/// The header that shows a user and a password.
#[must_use]
pub fn basic(user: &str, password: &str) -> String {
    let pair = Zeroizing::new(format!("{user}:{password}"));
    format!("{BASIC} {}", STANDARD.encode(pair.as_bytes()))
}

/// The header that shows a token, white space around it ignored.
#[must_use]
pub fn bearer(token: &str) -> String {
    format!("{BEARER} {}", token.trim())
}

/// The token that a header shows.
///
/// # Errors
///
/// [`AuthorizationError`] if it shows none.
pub fn bearer_token(header: Option<&str>) -> Result<&str, AuthorizationError> {
    of_scheme(header, BEARER)
}

/// What stands behind the scheme, which may be written in any case.
fn of_scheme<'h>(
    header: Option<&'h str>,
    scheme: &'static str,
) -> Result<&'h str, AuthorizationError> {
    let header = header.ok_or(AuthorizationError::Missing { expected: scheme })?;
    let (found, rest) = header.split_once(' ').unwrap_or((header, ""));
    if !found.eq_ignore_ascii_case(scheme) {
        return Err(AuthorizationError::OtherScheme { expected: scheme });
    }
    Ok(rest.trim_matches(' '))
}

/// Users and their passwords.
///
/// What is kept are MACs under a key that is drawn for this, so comparing them takes the
/// same time whatever is shown, and each user is compared.
pub struct Users {
    key: hmac::Key,
    known: Vec<(String, hmac::Tag)>,
}

impl Users {
    /// These users, each with a password.
    ///
    /// # Errors
    ///
    /// [`UsersError`].
    pub fn new<U, P>(users: impl IntoIterator<Item = (U, P)>) -> Result<Self, UsersError>
    where
        U: Into<String>,
        P: AsRef<str>,
    {
        let mut secret = Zeroizing::new([0; 32]);
        SystemRandom::new().fill(&mut *secret).map_err(|_| UsersError::NoRandom)?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &*secret);
        let mut known: Vec<(String, hmac::Tag)> = Vec::new();
        for (user, password) in users {
            let (user, password) = (user.into(), password.as_ref());
            // RFC 7617 §2: where it ends nobody could tell.
            if user.is_empty() || user.contains(':') {
                return Err(UsersError::Name(user));
            }
            if password.is_empty() {
                return Err(UsersError::NoPassword(user));
            }
            if known.iter().any(|(other, _)| *other == user) {
                return Err(UsersError::Twice(user));
            }
            let pair = Zeroizing::new(format!("{user}:{password}"));
            let tag = hmac::sign(&key, pair.as_bytes());
            known.push((user, tag));
        }
        if known.is_empty() {
            return Err(UsersError::Nobody);
        }
        Ok(Self { key, known })
    }

    /// The user that a header shows, if the password is that of the user.
    ///
    /// # Errors
    ///
    /// [`AuthorizationError`]. It does not tell whether there is such a user.
    pub fn check(&self, header: Option<&str>) -> Result<&str, AuthorizationError> {
        let shown = of_scheme(header, BASIC)?;
        let pair = STANDARD.decode(shown).map_err(|_| AuthorizationError::NotBase64)?;
        let pair = Zeroizing::new(pair);
        let is = |tag: &hmac::Tag| hmac::verify(&self.key, &pair, tag.as_ref()).is_ok();
        let found = self.known.iter().fold(None, |found, (user, tag)| match is(tag) {
            true => Some(user),
            false => found,
        });
        found.map(String::as_str).ok_or(AuthorizationError::NoSuchUser)
    }
}

/// Shows how many there are.
impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Users({})", self.known.len())
    }
}

/// A header proves nobody. The texts are for whoever sent it, too, and hold nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AuthorizationError {
    /// There is none.
    #[error("no authorization is shown, expected {expected}")]
    Missing {
        /// The scheme.
        expected: &'static str,
    },
    /// One of another kind. Which is not said: where the scheme belongs there may be a
    /// token.
    #[error("the authorization is of another scheme, expected {expected}")]
    OtherScheme {
        /// The scheme.
        expected: &'static str,
    },
    /// It is not encoded as it should be.
    #[error("the authorization is not base64 of user:password")]
    NotBase64,
    /// One of both is wrong.
    #[error("unknown user or wrong password")]
    NoSuchUser,
    /// The token is not good.
    #[error(transparent)]
    Token(#[from] VerifyError),
}

/// Such users there cannot be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UsersError {
    /// A name that cannot be shown.
    #[error("{0:?} is no user: the name must not be empty, nor contain a colon")]
    Name(String),
    /// Everybody would be this user.
    #[error("user {0:?} has no password")]
    NoPassword(String),
    /// The same name again.
    #[error("user {0:?} is there twice")]
    Twice(String),
    /// Nobody could ever come in.
    #[error("there are no users")]
    Nobody,
    /// The system has no random numbers.
    #[error("no random numbers")]
    NoRandom,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users() -> Users {
        Users::new([("alice", "wonderland"), ("bob", "a:b é")]).unwrap()
    }

    #[test]
    fn a_user_is_who_has_the_password() {
        let users = users();
        for (user, password) in [("alice", "wonderland"), ("bob", "a:b é")] {
            assert_eq!(users.check(Some(&basic(user, password))), Ok(user));
        }
        for (user, password) in
            [("alice", "a:b é"), ("alice", ""), ("alice", "wonderland "), ("carol", "x"), ("", "")]
        {
            let checked = users.check(Some(&basic(user, password)));
            assert_eq!(checked, Err(AuthorizationError::NoSuchUser), "{user}");
        }
        // As RFC 7617 §2 has it.
        assert_eq!(basic("Aladdin", "open sesame"), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(users.check(Some("bAsIc  YWxpY2U6d29uZGVybGFuZA==")), Ok("alice"));
    }

    #[test]
    fn what_is_no_password_is_told_and_not_repeated() {
        let users = users();
        let check = |header, expected: &str| {
            let error = users.check(header).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("c2VjcmV0"), "{error}");
        };
        check(None, "no authorization is shown, expected Basic");
        check(Some(""), "another scheme");
        check(Some("c2VjcmV0"), "another scheme");
        check(Some("Bearer c2VjcmV0"), "another scheme, expected Basic");
        check(Some("Basic"), "unknown user or wrong password");
        check(Some("Basic c2VjcmV0!"), "not base64");
        check(Some("Basic c2VjcmV0"), "unknown user or wrong password");
        assert!(!format!("{users:?}").contains("wonderland"));
    }

    #[test]
    fn a_token_is_taken_out() {
        assert_eq!(bearer_token(Some(&bearer(" a.b.c\n"))), Ok("a.b.c"));
        assert_eq!(bearer_token(Some("bearer a.b.c")), Ok("a.b.c"));
        let expected = "Bearer";
        assert_eq!(bearer_token(None), Err(AuthorizationError::Missing { expected }));
        let other = Err(AuthorizationError::OtherScheme { expected });
        assert_eq!(bearer_token(Some("Basic YQ==")), other);
        assert_eq!(bearer_token(Some("a.b.c")), other);
    }

    #[test]
    fn users_that_cannot_be() {
        let error = |users: &[(&str, &str)]| Users::new(users.iter().copied()).unwrap_err();
        assert_eq!(error(&[]), UsersError::Nobody);
        assert_eq!(error(&[("a:b", "c")]), UsersError::Name("a:b".to_owned()));
        assert_eq!(error(&[("", "c")]), UsersError::Name(String::new()));
        assert_eq!(error(&[("a", "")]), UsersError::NoPassword("a".to_owned()));
        assert_eq!(error(&[("a", "b"), ("a", "c")]), UsersError::Twice("a".to_owned()));
    }
}
