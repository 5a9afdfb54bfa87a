//! The two 8259 interrupt controllers. To be written.

use crate::Vector;
use crate::bus::Device;
use crate::signals::Signals;
use std::sync::Arc;

/// The master and the slave controller with their cascade.
pub struct Pic {
    _signals: Arc<Signals>,
}

impl Pic {
    /// Controllers after power-up. `signals` is told when guest writes change what is requested.
    #[must_use]
    pub fn new(signals: Arc<Signals>) -> Pic {
        Pic { _signals: signals }
    }

    /// Takes over levels and edges of the interrupt lines.
    pub fn update(&mut self, _signals: &Signals) {}

    /// Whether the INT output is high.
    #[must_use]
    pub fn requests_interrupt(&self) -> bool {
        false
    }

    /// INTA: the vector of the request with the highest priority, or the spurious one.
    pub fn acknowledge(&mut self, _signals: &Signals) -> Vector {
        Vector(7)
    }
}

impl Device for Pic {
    fn read(&mut self, _offset: u32, _data: &mut [u8]) {}
    fn write(&mut self, _offset: u32, _data: &[u8]) {}
}
