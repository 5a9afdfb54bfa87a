//! What has been patched, for those who want to look.

/// Counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Statistics {
    /// Stubs that were made.
    pub stubs: u64,
    /// Sites for which there was no room.
    pub without_room: u64,
}
