//! From KVM's error numbers to the strategies' error.

use std::io;
use strategy::Error;

/// Says what was attempted when KVM refused.
pub(crate) fn refused(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> Error {
    move |error| Error::Host { what, source: io::Error::from_raw_os_error(error.errno()) }
}
