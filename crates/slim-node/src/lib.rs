//! The SLIM routing node: an embeddable library and the `slim-node` program.

mod table;

pub use table::{LinkRoutes, RouteTable, SubscriptionError};
