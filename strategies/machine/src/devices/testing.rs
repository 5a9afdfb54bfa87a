//! What the tests of several devices share.

use crate::bus::Device;
use crate::signals::Interrupt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// An interrupt line that remembers its level and counts its rises.
#[derive(Clone, Default)]
pub(super) struct Line {
    level: Arc<AtomicBool>,
    rises: Arc<AtomicUsize>,
}

impl Line {
    pub(super) fn level(&self) -> bool {
        self.level.load(Ordering::Relaxed)
    }

    pub(super) fn rises(&self) -> usize {
        self.rises.load(Ordering::Relaxed)
    }
}

impl Interrupt for Line {
    fn set(&self, level: bool) {
        if !self.level.swap(level, Ordering::Relaxed) && level {
            self.rises.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Reads one byte.
pub(super) fn read(device: &mut dyn Device, offset: u32) -> u8 {
    let mut data = [0xff];
    device.read(offset, &mut data);
    data[0]
}
