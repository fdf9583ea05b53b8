//! The image in containers of a real engine: `cargo xtask containers`.

mod health;
mod mesh;
mod one_node;
