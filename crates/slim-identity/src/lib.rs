//! Identities and keys from files and issuers, kept fresh while they are in use.
//!
//! `slim-auth` decides what a token is worth and touches nothing; this crate is the
//! driver beside it. [`Credentials::load`] reads what [`Sources`] name and gives one
//! object that is both the identity of an application and the verifier of everybody
//! else's. From then on its files are looked at every [`WATCH_INTERVAL`], and the keys
//! of an issuer are fetched again when they are old or when a token names one that is
//! not among them. [`Bearers`] and [`LinkCredentials`] are the same for the two ends of
//! a link: whom a node lets in by a token, and what is shown to be let in. What cannot be
//! read leaves what is there in use, and is logged.
//!
//! With the feature `spiffe`, `Credentials::from_agent` has both from a SPIFFE agent on
//! this machine instead, which renews the token and hands out new keys by itself.

mod bearers;
mod config;
mod credentials;
mod fetch;
mod file;
mod issuer;
#[cfg(feature = "spiffe")]
mod workload;

pub use bearers::{BearerKeys, Bearers, LinkCredentials, Text};
pub use config::parse_duration;
pub use credentials::{Credentials, LoadError, Sources, Speaker, Trust};
pub use fetch::FetchError;
pub use file::{FileError, WATCH_INTERVAL};
pub use issuer::{Issuer, IssuerError};
#[cfg(feature = "spiffe")]
pub use workload::{Workload, WorkloadError};
