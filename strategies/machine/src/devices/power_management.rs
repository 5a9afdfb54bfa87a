//! The fixed hardware of ACPI: event and control registers, and the power-management timer.
//!
//! Offset 0 is the PM1a event block (status, enable), offset 4 the PM1a control block, offset 8 the
//! timer: 24 bits at 3.579545 MHz. On the bus they lie from port 0x600 on, as on PCs with a PIIX4
//! under QEMU. The machine is always in ACPI mode: there is no SMI to switch with. It has one sleep
//! state, S5, which is "off".
//!
//! Nothing ticks: the timer's status is computed from the time that passed since it was last looked
//! at. Follows the ACPI specification 6.4, sections 4.8.2 and 4.8.3.

use crate::bus::Device;
use crate::clock::{Clock, LATEST, Nanos};
use crate::devices::state::{require, saved};
use crate::signals::{Interrupt, Request, Signals};
use std::sync::Arc;

/// The timer's clocks a second.
const TIMER_FREQUENCY: u64 = 3_579_545;
/// SLP_TYP of the sleep state S5: what is written into the control register to switch off.
pub const S5_SLEEP_TYPE: u8 = 0;

/// Bytes of all registers.
const SIZE: usize = 12;
const NANOS: u64 = 1_000_000_000;
/// The status is set whenever the timer's highest bit, 23, changes.
const HALF_TURN: u64 = 1 << 23;

bitflags::bitflags! {
    /// Events, in the status and in the enable register.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
    struct Events: u16 {
        /// The timer's highest bit has changed.
        const TIMER = 1 << 0;
        /// Firmware gave up the global lock.
        const GLOBAL_LOCK = 1 << 5;
        /// The power button.
        const POWER_BUTTON = 1 << 8;
        /// The real-time clock's alarm.
        const RTC = 1 << 10;
    }
}

/// Control register: the machine is in ACPI mode.
const SCI_ENABLED: u16 = 1 << 0;
/// Control register: what of it holds what was written.
const CONTROL_KEPT: u16 = 1 << 1 | 7 << SLEEP_TYPE_SHIFT;
const SLEEP_TYPE_SHIFT: u16 = 10;
const SLEEP_ENABLE: u16 = 1 << 13;

/// The fixed hardware.
pub struct PowerManagement {
    clock: Arc<Clock>,
    /// Asked for power-off, and told when a guest access moves the next interrupt.
    signals: Arc<Signals>,
    line: Arc<dyn Interrupt>,
    status: Events,
    enabled: Events,
    control: u16,
    /// Up to when the status is computed.
    looked_at: Nanos,
}

impl PowerManagement {
    /// Registers as after power-up. `line` is the system control interrupt.
    #[must_use]
    pub fn new(
        signals: Arc<Signals>,
        clock: Arc<Clock>,
        line: Arc<dyn Interrupt>,
    ) -> PowerManagement {
        let looked_at = clock.now();
        let (status, enabled) = (Events::empty(), Events::empty());
        PowerManagement { clock, signals, line, status, enabled, control: 0, looked_at }
    }

    fn check(&self, state: &PowerManagementState) -> Result<(), &'static str> {
        require(state.looked_at < LATEST, "it was looked at in the far future")
    }

    /// Computes the timer's status for the time since the last look and drives the line.
    fn settle(&mut self) {
        let now = self.clock.now();
        if ticks(now) / HALF_TURN > ticks(self.looked_at) / HALF_TURN {
            self.status |= Events::TIMER;
        }
        self.looked_at = now;
        self.line.set(self.status.intersects(self.enabled));
    }

    /// All registers as they read.
    fn registers(&self) -> [u8; SIZE] {
        let [s0, s1] = self.status.bits().to_le_bytes();
        let [e0, e1] = self.enabled.bits().to_le_bytes();
        let [c0, c1] = (self.control | SCI_ENABLED).to_le_bytes();
        let [t0, t1, t2, _] = (ticks(self.looked_at) as u32).to_le_bytes();
        [s0, s1, e0, e1, c0, c1, 0, 0, t0, t1, t2, 0]
    }

    fn write_byte(&mut self, offset: u32, value: u8) {
        let (shift, mask) = if offset & 1 == 0 { (0, 0xff00) } else { (8, 0x00ff) };
        let value = u16::from(value) << shift;
        match offset & !1 {
            // What is written as 1 is cleared.
            0 => self.status &= !Events::from_bits_truncate(value),
            2 => {
                let kept = self.enabled.bits() & mask;
                self.enabled = Events::from_bits_truncate(kept | value);
            }
            4 => {
                self.control = self.control & mask | value & CONTROL_KEPT;
                let kind = (value >> SLEEP_TYPE_SHIFT & 7) as u8;
                if value & SLEEP_ENABLE != 0 && kind == S5_SLEEP_TYPE {
                    self.signals.request(Request::PowerOff);
                }
            }
            // The timer cannot be written.
            _ => {}
        }
    }
}

saved! {
    PowerManagement as PowerManagementState;
    saved { status: Events, enabled: Events, control: u16, looked_at: Nanos, }
    kept { clock, signals, line }
    check PowerManagement::check;
}

impl Device for PowerManagement {
    fn read(&mut self, offset: u32, data: &mut [u8]) {
        self.settle();
        let registers = self.registers();
        let start = (offset as usize).min(SIZE);
        for (to, &from) in data.iter_mut().zip(&registers[start..]) {
            *to = from;
        }
    }

    fn write(&mut self, offset: u32, data: &[u8]) {
        self.settle();
        for (offset, &value) in (offset..).zip(data) {
            self.write_byte(offset, value);
        }
        self.line.set(self.status.intersects(self.enabled));
        self.signals.raise_attention();
    }

    fn width(&self) -> usize {
        4
    }

    fn next_event(&self) -> Option<Nanos> {
        let waits = self.enabled.contains(Events::TIMER) && !self.status.contains(Events::TIMER);
        waits.then(|| nanos((ticks(self.looked_at) / HALF_TURN + 1) * HALF_TURN))
    }

    fn advance(&mut self) {
        self.settle();
    }

    fn reset(&mut self) {
        self.line.set(false);
        *self = PowerManagement::new(self.signals.clone(), self.clock.clone(), self.line.clone());
    }
}

/// Clocks of the timer that have passed at a moment.
fn ticks(at: Nanos) -> u64 {
    at / NANOS * TIMER_FREQUENCY + at % NANOS * TIMER_FREQUENCY / NANOS
}

/// The first moment at which `ticks` clocks have passed.
fn nanos(ticks: u64) -> Nanos {
    let (seconds, rest) = (ticks / TIMER_FREQUENCY, ticks % TIMER_FREQUENCY);
    seconds * NANOS + (rest * NANOS).div_ceil(TIMER_FREQUENCY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ClockSource;
    use crate::devices::testing::Line;

    struct Rig {
        device: PowerManagement,
        signals: Arc<Signals>,
        clock: Arc<Clock>,
        line: Line,
    }

    fn rig() -> Rig {
        let (signals, line) = (Arc::new(Signals::default()), Line::default());
        let clock = Arc::new(Clock::new(ClockSource::Virtual));
        let device = PowerManagement::new(signals.clone(), clock.clone(), Arc::new(line.clone()));
        Rig { device, signals, clock, line }
    }

    fn read16(rig: &mut Rig, offset: u32) -> u16 {
        let mut data = [0xff; 2];
        rig.device.read(offset, &mut data);
        u16::from_le_bytes(data)
    }

    fn timer(rig: &mut Rig) -> u32 {
        let mut data = [0xff; 4];
        rig.device.read(8, &mut data);
        u32::from_le_bytes(data)
    }

    #[test]
    fn the_timer_runs_at_its_frequency_and_has_24_bits() {
        let mut rig = rig();
        assert_eq!(timer(&mut rig), 0);
        rig.clock.skip_to(1_000_000_000);
        assert_eq!(timer(&mut rig), TIMER_FREQUENCY as u32);
        rig.clock.skip_to(10_000_000_000);
        assert_eq!(timer(&mut rig), (10 * TIMER_FREQUENCY % (1 << 24)) as u32);
    }

    #[test]
    fn moments_and_clocks_agree() {
        for count in [0, 1, 2, 3_579_544, 3_579_545, HALF_TURN, 1 << 40] {
            let at = nanos(count);
            assert_eq!(ticks(at), count);
            assert!(at == 0 || ticks(at - 1) < count);
        }
    }

    #[test]
    fn the_timer_interrupts_every_half_turn_where_it_may() {
        let mut rig = rig();
        assert_eq!(rig.device.next_event(), None);
        rig.device.write(2, &1u16.to_le_bytes());
        let at = rig.device.next_event().unwrap();
        assert_eq!(at, nanos(HALF_TURN));
        rig.clock.skip_to(at);
        rig.device.advance();
        assert!(rig.line.level());
        assert_eq!((read16(&mut rig, 0), rig.device.next_event()), (1, None));
        rig.device.write(0, &1u16.to_le_bytes());
        assert!(!rig.line.level());
        assert_eq!(rig.device.next_event(), Some(nanos(2 * HALF_TURN)));
    }

    #[test]
    fn acpi_mode_is_always_on() {
        let mut rig = rig();
        rig.device.write(4, &[0, 0]);
        assert_eq!(read16(&mut rig, 4), 1);
        rig.device.write(2, &0x521u16.to_le_bytes());
        assert_eq!(read16(&mut rig, 2), 0x521);
    }

    #[test]
    fn sleep_switches_off_in_words_and_bytes() {
        let mut rig = rig();
        rig.device.write(4, &[0x01, 0x14]);
        rig.device.write(4, &[0x00, 0x34]);
        assert_eq!(rig.signals.take_request(), None, "not S5");
        rig.device.write(4, &[0x00, 0x20]);
        assert_eq!(rig.signals.take_request(), Some(Request::PowerOff));
        rig.device.write(5, &[0x20]);
        assert_eq!(rig.signals.take_request(), Some(Request::PowerOff));
    }

    #[test]
    fn no_access_leaves_the_registers() {
        let mut rig = rig();
        for offset in 0..16 {
            rig.device.read(offset, &mut [0xff; 4]);
            rig.device.write(offset, &[0xff; 4]);
        }
    }
}
