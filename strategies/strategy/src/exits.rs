//! Exit kinds and their counts. Names, CSV columns and plots all come from the one list here.

macro_rules! exit_kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal,)*) => {
        /// Why control went from guest execution to the monitor.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum ExitKind { $($(#[$doc])* $kind,)* }

        impl ExitKind {
            /// All kinds, in the order in which they are shown.
            pub const ALL: &[ExitKind] = &[$(ExitKind::$kind,)*];

            /// The name in CSV files and plots.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(ExitKind::$kind => $name,)* }
            }
        }
    };
}

exit_kinds! {
    /// IN, OUT, INS, OUTS.
    PortIo = "port-io",
    /// An access to device memory.
    Mmio = "mmio",
    /// An instruction that traps at CPL above 0.
    Privileged = "privileged",
    /// An instruction that shows or changes privileged state and does not trap.
    Sensitive = "sensitive",
    /// A page fault that the guest's own page tables ask for.
    GuestPageFault = "guest-page-fault",
    /// A fault that the monitor resolves without the guest's knowledge.
    HiddenPageFault = "hidden-page-fault",
    /// Another exception or a software interrupt.
    Exception = "exception",
    /// A write to a control register.
    ControlRegisterWrite = "control-register-write",
    /// A flush of all translations.
    TlbFlush = "tlb-flush",
    /// INVLPG.
    TlbInvalidation = "tlb-invalidation",
    /// An external interrupt delivered to the guest.
    Interrupt = "interrupt",
    /// The guest waits until it can take an interrupt.
    InterruptWindow = "interrupt-window",
    /// HLT.
    Halt = "halt",
    /// A write to code that was decoded, translated or patched.
    CodeWrite = "code-write",
    /// Code decoded, translated or patched.
    Translation = "translation",
    /// An instruction emulated because the strategy could not run it.
    Emulation = "emulation",
    /// The host took control: a timer, a request to stop.
    Host = "host",
}

/// How often each kind of exit happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExitCounts([u64; ExitKind::ALL.len()]);

impl Default for ExitCounts {
    fn default() -> ExitCounts {
        ExitCounts([0; ExitKind::ALL.len()])
    }
}

impl ExitCounts {
    /// Counts one exit.
    #[inline]
    pub fn count(&mut self, kind: ExitKind) {
        self.add(kind, 1);
    }

    /// Counts `number` exits.
    #[inline]
    pub fn add(&mut self, kind: ExitKind, number: u64) {
        self.0[kind as usize] += number;
    }

    /// How often this kind happened.
    #[must_use]
    pub fn get(&self, kind: ExitKind) -> u64 {
        self.0[kind as usize]
    }

    /// All kinds with their counts, in the order of the list.
    pub fn iter(&self) -> impl Iterator<Item = (ExitKind, u64)> + '_ {
        ExitKind::ALL.iter().map(|&kind| (kind, self.get(kind)))
    }

    /// All exits.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// What happened since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &ExitCounts) -> ExitCounts {
        ExitCounts(std::array::from_fn(|i| self.0[i] - earlier.0[i]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_kept_by_kind() {
        let mut counts = ExitCounts::default();
        counts.count(ExitKind::Halt);
        let earlier = counts.clone();
        counts.add(ExitKind::Host, 3);
        assert_eq!(counts.get(ExitKind::Host), 3);
        assert_eq!(counts.total(), 4);
        assert_eq!(counts.since(&earlier).get(ExitKind::Halt), 0);
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = ExitKind::ALL.iter().map(|kind| kind.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ExitKind::ALL.len());
    }
}
