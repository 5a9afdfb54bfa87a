//! The two 8259A interrupt controllers of a PC: fifteen lines into one request to the CPU.
//!
//! Offsets 0 and 1 are the master, 2 and 3 the slave on its line 2, 4 and 5 the edge/level control
//! registers (ports 0x20, 0xA0, 0x4D0). An acknowledge happens at one instant here, so a slave's
//! request cannot vanish between the two INTA pulses of an 80486; a request that vanishes before is
//! spurious at the master.
//!
//! Boot protocols skip the BIOS, so the vectors are after power-up where a BIOS puts them (0x08 and
//! 0x70), and all lines are masked until the guest programs the controllers.

mod chip;

use crate::Vector;
use crate::bus::Device;
use crate::devices::state::{require, saved};
use crate::signals::Signals;
use chip::Chip;
use std::sync::Arc;

/// The master's line on which the slave hangs.
const CASCADE: u8 = 2;

/// The master and the slave controller with their cascade.
pub struct Pic {
    signals: Arc<Signals>,
    master: Chip,
    slave: Chip,
}

impl Pic {
    /// Controllers after power-up. `signals` is told when guest writes change what is requested.
    #[must_use]
    pub fn new(signals: Arc<Signals>) -> Pic {
        Pic {
            signals,
            // Timer, keyboard and cascade, and clock and FPU, are edge-triggered on every PC.
            master: Chip::new(0x08, 1 << CASCADE, 0xf8),
            slave: Chip::new(0x70, 0, 0xde),
        }
    }

    /// Takes over levels and edges of the interrupt lines.
    pub fn update(&mut self, signals: &Signals) {
        // Edges first: a line that rises in between shows its level now and its edge next time.
        let edges = signals.take_edges();
        self.take_over(edges, signals.levels());
    }

    /// As [`Pic::update`], from the signals that this pair was made with.
    fn refresh(&mut self) {
        let edges = self.signals.take_edges();
        self.take_over(edges, self.signals.levels());
    }

    fn take_over(&mut self, edges: u16, levels: u16) {
        let (edges, levels) = (edges.to_le_bytes(), levels.to_le_bytes());
        self.slave.update(levels[1], edges[1]);
        self.master.update(levels[0], edges[0]);
        self.settle();
    }

    fn settle(&mut self) {
        self.master.drive(1 << CASCADE, self.slave.request().is_some());
    }

    /// Whether the INT output is high.
    #[must_use]
    pub fn requests_interrupt(&self) -> bool {
        self.master.request().is_some()
    }

    /// INTA: the vector of the request with the highest priority, or the spurious one.
    pub fn acknowledge(&mut self, signals: &Signals) -> Vector {
        self.update(signals);
        let line = self.master.acknowledge();
        let vector = if line == CASCADE {
            let line = self.slave.acknowledge();
            self.slave.vector(line)
        } else {
            self.master.vector(line)
        };
        self.settle();
        Vector(vector)
    }

    fn check(&self, state: &PicState) -> Result<(), &'static str> {
        let plausible = state.master.is_plausible() && state.slave.is_plausible();
        require(plausible, "a line above 7 has the lowest priority")
    }

    /// Does a guest access and tells the strategy if it changed the INT output.
    fn access<T>(&mut self, access: impl FnOnce(&mut Pic) -> T) -> T {
        let before = self.requests_interrupt();
        self.refresh();
        let result = access(self);
        // Lines that became level-triggered request at once.
        self.refresh();
        if self.requests_interrupt() != before {
            self.signals.raise_attention();
        }
        result
    }
}

saved! {
    Pic as PicState;
    saved { master: Chip, slave: Chip, }
    kept { signals }
    check Pic::check;
}

impl Device for Pic {
    fn read(&mut self, offset: u32, data: &mut [u8]) {
        data[0] = self.access(|pic| match offset {
            0 => pic.master.read_command_port(),
            1 => pic.master.read_data_port(),
            2 => pic.slave.read_command_port(),
            3 => pic.slave.read_data_port(),
            4 => pic.master.level_lines(),
            _ => pic.slave.level_lines(),
        });
    }

    fn write(&mut self, offset: u32, data: &[u8]) {
        let value = data[0];
        self.access(|pic| match offset {
            0 => pic.master.write_command_port(value),
            1 => pic.master.write_data_port(value),
            2 => pic.slave.write_command_port(value),
            3 => pic.slave.write_data_port(value),
            4 => pic.master.set_level_lines(value),
            _ => pic.slave.set_level_lines(value),
        });
    }

    fn reset(&mut self) {
        *self = Pic::new(self.signals.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::{Interrupt, InterruptLine};

    const MASTER: u32 = 0;
    const SLAVE: u32 = 2;

    /// Programmed as PC kernels do: vectors 0x20 and 0x28, nothing masked.
    fn programmed() -> (Arc<Signals>, Pic) {
        let signals = Arc::new(Signals::default());
        let mut pic = Pic::new(signals.clone());
        for (offset, base, cascade) in [(MASTER, 0x20, 4), (SLAVE, 0x28, 2)] {
            pic.write(offset, &[0x11]);
            for word in [base, cascade, 1, 0] {
                pic.write(offset + 1, &[word]);
            }
        }
        signals.take_attention();
        (signals, pic)
    }

    fn line(signals: &Arc<Signals>, irq: u8) -> InterruptLine {
        InterruptLine::new(signals.clone(), irq)
    }

    fn read(pic: &mut Pic, offset: u32) -> u8 {
        let mut data = [0xff];
        pic.read(offset, &mut data);
        data[0]
    }

    #[test]
    fn nothing_is_requested_before_the_guest_unmasks_it() {
        let signals = Arc::new(Signals::default());
        let mut pic = Pic::new(signals.clone());
        line(&signals, 0).set(true);
        pic.update(&signals);
        assert!(!pic.requests_interrupt());
        signals.take_attention();
        pic.write(1, &[0xfe]);
        assert!(signals.attention(), "unmasking a request is noticed");
        assert_eq!(pic.acknowledge(&signals), Vector(8));
    }

    #[test]
    fn the_slave_comes_through_the_master() {
        let (signals, mut pic) = programmed();
        line(&signals, 14).set(true);
        line(&signals, 3).set(true);
        pic.update(&signals);
        assert_eq!(read(&mut pic, MASTER), 0b1100);
        assert_eq!(pic.acknowledge(&signals), Vector(0x2e));
        assert!(!pic.requests_interrupt());
        pic.write(SLAVE, &[0x20]);
        assert!(!pic.requests_interrupt(), "the cascade is in service");
        pic.write(MASTER, &[0x20]);
        assert_eq!(pic.acknowledge(&signals), Vector(0x23));
    }

    #[test]
    fn an_end_of_interrupt_that_uncovers_a_request_raises_attention() {
        let (signals, mut pic) = programmed();
        line(&signals, 1).set(true);
        pic.update(&signals);
        pic.acknowledge(&signals);
        line(&signals, 5).set(true);
        pic.update(&signals);
        signals.take_attention();
        pic.write(MASTER, &[0x20]);
        assert!(signals.attention());
        assert_eq!(pic.acknowledge(&signals), Vector(0x25));
    }

    #[test]
    fn a_request_that_vanishes_is_spurious_at_the_master() {
        let (signals, mut pic) = programmed();
        line(&signals, 10).set(true);
        pic.update(&signals);
        line(&signals, 10).set(false);
        assert_eq!(pic.acknowledge(&signals), Vector(0x27));
    }

    #[test]
    fn an_acknowledge_that_finds_the_slave_empty_is_its_line_15() {
        let (signals, mut pic) = programmed();
        pic.slave.write_data_port(0xff);
        pic.master.drive(1 << CASCADE, true);
        assert_eq!(pic.slave.acknowledge(), 7);
        assert_eq!(pic.slave.vector(7), 0x2f);
        pic.update(&signals);
        assert!(!pic.requests_interrupt());
    }

    #[test]
    fn a_level_line_requests_until_its_device_lowers_it() {
        let (signals, mut pic) = programmed();
        pic.write(5, &[0xff]);
        assert_eq!(read(&mut pic, 5), 0xde);
        line(&signals, 11).set(true);
        pic.update(&signals);
        for _ in 0..3 {
            assert_eq!(pic.acknowledge(&signals), Vector(0x2b));
            pic.write(SLAVE, &[0x20]);
            pic.write(MASTER, &[0x20]);
            assert!(pic.requests_interrupt());
        }
        line(&signals, 11).set(false);
        pic.update(&signals);
        assert!(!pic.requests_interrupt());
    }

    #[test]
    fn initialization_forgets_earlier_edges() {
        let (signals, mut pic) = programmed();
        line(&signals, 4).set(true);
        pic.write(MASTER, &[0x11]);
        for word in [0x20, 4, 1] {
            pic.write(MASTER + 1, &[word]);
        }
        assert!(!pic.requests_interrupt());
    }
}
