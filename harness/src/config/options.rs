//! The options of strategies: `[options.STRATEGY]` in experiments and in descriptions of machines.

use super::experiment::check;
use super::{ConfigError, Source, suggest, target};
use crate::strategies::{Options, Variant};
use binary_translation::User;
use code_patching::Mode;
use serde::Deserialize;
use std::num::NonZeroU64;
use strategy::StrategyId;
use toml::Spanned;

/// The table `options`, with a table for each strategy that has some.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(super) struct File {
    code_patching: CodePatching,
    binary_translation: BinaryTranslation,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct CodePatching {
    mode: Option<Spanned<String>>,
    threshold: Option<Spanned<u64>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct BinaryTranslation {
    user: Option<Spanned<String>>,
}

const MODE: &str = "options.code-patching.mode";
const THRESHOLD: &str = "options.code-patching.threshold";
const USER: &str = "options.binary-translation.user";

impl File {
    /// The options, which must make sense together and with the strategies that the same file names.
    pub(super) fn check<'a>(
        &self,
        source: &Source,
        names: impl Iterator<Item = &'a str> + Clone,
    ) -> Result<Options, ConfigError> {
        let (said, said_user) = (&self.code_patching, &self.binary_translation.user);
        let mode = check(source, MODE, said.mode.as_ref(), |name| mode(name))?;
        let threshold = check(source, THRESHOLD, said.threshold.as_ref(), |&n| threshold(n))?;
        let user = check(source, USER, said_user.as_ref(), |name| user(name))?;
        let mut options = Options::default();
        options.code_patching.mode = mode.unwrap_or_default();
        options.code_patching.threshold = threshold.unwrap_or(options.code_patching.threshold);
        options.binary_translation.user = user.unwrap_or_default();
        let variants = names.filter_map(|name| target::variant(name, &options).ok());
        let patching = variants.clone().filter(|variant| variant.id == StrategyId::CodePatching);
        if let (Some(mode), Some(said)) = (mode, &said.mode) {
            let other = |variant: &Variant| variant.options().code_patching.mode != mode;
            agree(source, MODE, said, patching.clone().find(other))?;
        }
        if let (Some(user), Some(said)) = (user, said_user) {
            let mut translating =
                variants.filter(|variant| variant.id == StrategyId::BinaryTranslation);
            let other = |variant: &Variant| variant.options().binary_translation.user != user;
            agree(source, USER, said, translating.find(other))?;
        }
        if let Some(said) = &said.threshold {
            let traps = |variant: Variant| variant.options().code_patching.mode == Mode::OnTrap;
            if mode != Some(Mode::OnTrap) && !patching.clone().any(traps) {
                let message = "it is for on-trap mode; say mode = \"on-trap\" as well";
                return Err(source.error_at(&said.span(), format!("key {THRESHOLD:?}: {message}")));
            }
        }
        Ok(options)
    }
}

/// That no strategy is named whose name says otherwise.
fn agree(
    source: &Source,
    key: &str,
    said: &Spanned<String>,
    other: Option<Variant>,
) -> Result<(), ConfigError> {
    let Some(other) = other else { return Ok(()) };
    let message = format!("{:?} contradicts the strategy {:?}", said.get_ref(), other.name());
    Err(source.error_at(&said.span(), format!("key {key:?}: {message}")))
}

/// The tables that say what the options of `variants` are, where their names do not.
pub(super) fn to_toml(variants: impl Iterator<Item = Variant>) -> String {
    let mut thresholds = variants.map(|variant| variant.options().code_patching.threshold);
    let other = thresholds.find(|&n| n != Options::default().code_patching.threshold);
    other.map_or(String::new(), |n| format!("\n[options.code-patching]\nthreshold = {n}\n"))
}

fn mode(name: &str) -> Result<Mode, String> {
    let known = Mode::ALL.map(Mode::name);
    let found = Mode::ALL.into_iter().find(|mode| mode.name() == name);
    found.ok_or_else(|| suggest::unknown("mode", name, &known))
}

fn user(name: &str) -> Result<User, String> {
    let known = User::ALL.map(User::name);
    let found = User::ALL.into_iter().find(|user| user.name() == name);
    found.ok_or_else(|| suggest::unknown("way", name, &known))
}

fn threshold(traps: u64) -> Result<NonZeroU64, String> {
    NonZeroU64::new(traps).ok_or_else(|| "0 traps make no sense: at least 1".to_owned())
}
