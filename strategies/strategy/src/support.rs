//! Whether a strategy works on this host, and on what it rests there.

/// What a strategy finds on the host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Support {
    /// It works.
    Full,
    /// It works, with a remark that every table and plot shows behind the strategy's name, such as
    /// `KVM in software: kvm_pvm`.
    Qualified(String),
    /// It does not work, for this reason.
    Missing(String),
}

impl Support {
    /// Whether guests can be run.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        !matches!(self, Support::Missing(_))
    }

    /// The remark to show behind the strategy's name, if there is one.
    #[must_use]
    pub fn qualification(&self) -> Option<&str> {
        match self {
            Support::Qualified(remark) => Some(remark),
            Support::Full | Support::Missing(_) => None,
        }
    }
}
