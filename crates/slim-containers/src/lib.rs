//! For tests only: nodes and applications of the image `slim`, each in a container of
//! its own, on networks that a test makes and cuts.
//!
//! The programs are asked as a user would ask them: members of a [`group`] by lines and
//! JSON events, nodes by their health check and `slim top`. [`judge`] says what
//! everybody should have heard. Whatever a test started is gone when it ends, whatever
//! way that is, see [`site`].
//!
//! Without the feature `engine` there is only the judge, so that building and testing
//! everything else needs no engine and no client of one.

pub mod judge;

#[cfg(feature = "engine")]
pub mod group;
#[cfg(feature = "engine")]
pub mod member;
#[cfg(feature = "engine")]
pub mod node;
#[cfg(feature = "engine")]
pub mod program;
#[cfg(feature = "engine")]
pub mod site;

#[cfg(feature = "engine")]
pub use self::wait::{DEADLINE, until, within};

#[cfg(feature = "engine")]
mod wait;
