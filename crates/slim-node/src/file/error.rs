//! What is wrong with a file.

/// Something in the file is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}{reason}", path, if path.is_empty() { "" } else { ": " })]
pub(crate) struct ConfigError {
    path: String,
    reason: String,
    is_shape: bool,
}

impl ConfigError {
    pub(crate) fn new(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { path: path.into(), reason: reason.into(), is_shape: false }
    }

    /// Of what a schema can see, too: keys that are unknown or missing, values of another
    /// kind.
    pub(super) fn shape(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { is_shape: true, ..Self::new(path, reason) }
    }

    /// The key at which it is.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Whether a schema has to see it, too.
    #[cfg(test)]
    pub(super) fn is_shape(&self) -> bool {
        self.is_shape
    }
}
