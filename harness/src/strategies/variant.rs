//! A strategy together with its options: what runs a guest, and what has a row in the tables.
//!
//! A setting of options that is worth comparing with the usual one has a name of its own,
//! `code-patching(on-trap)`, and stands wherever a strategy's name stands: in TOML, on the command
//! line, in CSV files and plots. [`NAMED`] is the one list of those.

use super::Watch;
use binary_translation::User;
use code_patching::Mode;
use serde::{Deserialize, Serialize};
use strategy::StrategyId;

/// The options of all strategies that have some.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Options {
    /// Those of `code-patching`.
    pub code_patching: code_patching::Options,
    /// Those of `binary-translation`.
    pub binary_translation: binary_translation::Options,
}

/// A strategy with its options.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Variant {
    /// The strategy.
    pub id: StrategyId,
    /// Its options; those of others are as they always are.
    #[serde(default)]
    options: Options,
}

/// A setting of a strategy's options that has a name.
#[derive(Clone, Copy, Debug)]
pub struct Named {
    /// The name.
    pub name: &'static str,
    /// The strategy.
    pub id: StrategyId,
    /// One line about it.
    pub summary: &'static str,
    /// Sets it, and leaves all else as it is.
    set: fn(&mut Options),
    is_set: fn(&Options) -> bool,
    /// As of a strategy, for one whose guests can go wrong by design.
    pub(super) watch: Option<Watch>,
}

/// All named settings.
pub const NAMED: [Named; 2] = [
    Named {
        name: "code-patching(on-trap)",
        id: StrategyId::CodePatching,
        summary: "only what has trapped often is rewritten; what does not trap goes wrong",
        set: |options| options.code_patching.mode = Mode::OnTrap,
        is_set: |options| options.code_patching.mode == Mode::OnTrap,
        // Until it is patched, code runs as it does there.
        watch: Some(super::watch_native),
    },
    Named {
        name: "binary-translation(direct)",
        id: StrategyId::BinaryTranslation,
        summary: "only the kernel is translated; user code runs natively, sensitive or not",
        set: |options| options.binary_translation.user = User::Direct,
        is_set: |options| options.binary_translation.user == User::Direct,
        watch: Some(super::watch_native_user),
    },
];

impl From<StrategyId> for Variant {
    fn from(id: StrategyId) -> Variant {
        Variant { id, options: Options::default() }
    }
}

impl Variant {
    /// The strategy with that of `options` which has a meaning for it.
    #[must_use]
    pub fn new(id: StrategyId, options: &Options) -> Variant {
        let mut own = Options::default();
        if id == StrategyId::CodePatching {
            own.code_patching = options.code_patching;
            if own.code_patching.mode == Mode::Prescan {
                own.code_patching.threshold = code_patching::Options::DEFAULT_THRESHOLD;
            }
        }
        if id == StrategyId::BinaryTranslation {
            own.binary_translation = options.binary_translation;
        }
        Variant { id, options: own }
    }

    /// All strategies as they are when nothing is said, and all named settings behind theirs: in the
    /// order in which they are shown.
    pub fn all() -> impl Iterator<Item = Variant> {
        StrategyId::ALL.into_iter().flat_map(|id| {
            let named = NAMED.iter().filter(move |named| named.id == id);
            std::iter::once(Variant::from(id))
                .chain(named.map(|named| named.of(&Options::default())))
        })
    }

    /// The strategy or the setting of that name; what the name leaves open is as in `options`.
    #[must_use]
    pub fn find(name: &str, options: &Options) -> Option<Variant> {
        let plain = StrategyId::ALL.into_iter().find(|id| id.name() == name);
        let plain = plain.map(|id| Variant::new(id, options));
        plain.or_else(|| {
            NAMED.iter().find(|named| named.name == name).map(|named| named.of(options))
        })
    }

    /// The name in TOML, on the command line, in CSV files and plots.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.named().map_or(self.id.name(), |named| named.name)
    }

    /// Its options.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// What the name does not say about the options, if there is something.
    #[must_use]
    pub fn remark(self) -> Option<String> {
        let threshold = self.options.code_patching.threshold;
        let is_other = threshold != code_patching::Options::DEFAULT_THRESHOLD;
        is_other.then(|| format!("threshold {threshold}"))
    }

    /// The named setting that it is.
    pub(super) fn named(self) -> Option<&'static Named> {
        NAMED.iter().find(|named| named.id == self.id && (named.is_set)(&self.options))
    }
}

impl Named {
    fn of(&self, options: &Options) -> Variant {
        let mut options = *options;
        (self.set)(&mut options);
        Variant::new(self.id, &options)
    }
}

impl std::fmt::Display for Variant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_means_what_bears_it() {
        for variant in Variant::all() {
            assert_eq!(Variant::find(variant.name(), &Options::default()), Some(variant));
        }
        let names: std::collections::HashSet<_> = Variant::all().map(Variant::name).collect();
        assert_eq!(names.len(), Variant::all().count());
    }

    #[test]
    fn a_named_setting_stands_behind_its_strategy() {
        for named in &NAMED {
            assert!(named.name.starts_with(named.id.name()), "{}", named.name);
        }
    }

    #[test]
    fn options_of_other_strategies_do_not_count() {
        let mut options = Options::default();
        options.code_patching.threshold = 7.try_into().unwrap();
        assert_eq!(Variant::new(StrategyId::CodePatching, &options).remark(), None);
        options.code_patching.mode = Mode::OnTrap;
        let variant = Variant::new(StrategyId::BinaryTranslation, &options);
        assert_eq!(variant, StrategyId::BinaryTranslation.into());
        let patching = Variant::new(StrategyId::CodePatching, &options);
        assert_eq!(patching.name(), "code-patching(on-trap)");
        assert_eq!(patching.remark().as_deref(), Some("threshold 7"));
        assert_eq!(Variant::find(patching.name(), &options), Some(patching));
    }

    #[test]
    fn options_survive_the_way_to_the_guests_process() {
        for variant in Variant::all() {
            let text = toml::to_string(variant.options()).unwrap();
            let options: Options = toml::from_str(&text).unwrap();
            assert_eq!(Variant::find(variant.name(), &options), Some(variant), "{text}");
        }
    }
}
