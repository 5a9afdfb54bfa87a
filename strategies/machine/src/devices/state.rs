//! What of a device is saved, and how it comes back.
//!
//! A device is made as always and then takes over a saved state: what it holds besides (the clock,
//! its interrupt line, files and sinks of the host) is never saved. [`saved!`] makes a device's
//! state from the list of its fields; a field in neither of its two lists does not compile.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A device whose state can be saved.
pub(crate) trait Saved {
    /// All that the guest can tell, now or later.
    type State: Serialize + DeserializeOwned;

    /// The state now.
    fn state(&self) -> Self::State;

    /// Takes over a state. It may come from a file that somebody has made up: what the device could
    /// never have got into is refused, with the reason, and nothing is changed.
    fn restore(&mut self, state: Self::State) -> Result<(), &'static str>;
}

/// Implements [`Saved`]: `saved` are the fields that make the state, `kept` those that do not, and
/// `check` names a function that says what is wrong with a state, if anything can be.
macro_rules! saved {
    (
        $device:ident as $state:ident;
        saved { $($(#[$attribute:meta])* $field:ident: $kind:ty,)* }
        kept { $($kept:ident),* }
        $(check $check:path;)?
    ) => {
        #[doc = concat!("What is saved of a [`", stringify!($device), "`].")]
        #[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
        pub(crate) struct $state { $($(#[$attribute])* $field: $kind,)* }

        impl $crate::devices::state::Saved for $device {
            type State = $state;

            fn state(&self) -> $state {
                let $device { $($field,)* $($kept: _,)* } = self;
                $state { $($field: $field.clone(),)* }
            }

            fn restore(&mut self, state: $state) -> Result<(), &'static str> {
                $($check(self, &state)?;)?
                let $state { $($field,)* } = state;
                $(self.$field = $field;)*
                Ok(())
            }
        }
    };
}

pub(super) use saved;

/// Refuses a state for `reason` unless it is plausible.
pub(super) fn require(plausible: bool, reason: &'static str) -> Result<(), &'static str> {
    if plausible { Ok(()) } else { Err(reason) }
}

/// Arrays longer than serde knows, for `#[serde(with = ...)]`.
pub(super) mod array {
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::{Serialize, Serializer};

    pub(in super::super) fn serialize<S: Serializer, T: Serialize, const N: usize>(
        array: &[T; N],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        array.as_slice().serialize(serializer)
    }

    pub(in super::super) fn deserialize<
        'a,
        D: Deserializer<'a>,
        T: Deserialize<'a>,
        const N: usize,
    >(
        deserializer: D,
    ) -> Result<[T; N], D::Error> {
        let items = Vec::deserialize(deserializer)?;
        let length = items.len();
        items.try_into().map_err(|_| D::Error::invalid_length(length, &"as many as there are"))
    }
}
