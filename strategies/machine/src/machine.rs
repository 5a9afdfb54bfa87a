//! One PC: CPU, memory, bus, clock, and the lines between them.

use crate::breakpoints::Breakpoints;
use crate::bus::Bus;
use crate::clock::{Clock, Nanos};
use crate::counters::Counters;
use crate::memory::Memory;
use crate::signals::{Request, Signals};
use crate::tlb::Tlb;
use crate::{Cpu, Error, MachineConfig, Vector};
use std::sync::Arc;

/// One guest PC with its whole architectural state.
pub struct Machine {
    /// The CPU.
    pub cpu: Cpu,
    /// Physical memory.
    pub memory: Memory,
    /// Ports, device memory and the devices.
    pub bus: Bus,
    /// Cached translations. No architectural state: may be flushed at any time.
    pub tlb: Tlb,
    /// What the emulator did.
    pub counters: Counters,
    /// Where the guest is stopped for a debugger.
    pub breakpoints: Breakpoints,
    pub(crate) signals: Arc<Signals>,
    pub(crate) clock: Arc<Clock>,
    /// When a device next does something by itself.
    next_event: Option<Nanos>,
    /// Whether the interrupt controller asks for the CPU, as of the last [`Machine::service`].
    pub(crate) interrupt_requested: bool,
    interrupts_held: bool,
}

/// What a machine is made of, the devices aside.
pub(crate) struct Parts {
    pub(crate) cpu: Cpu,
    pub(crate) memory: Memory,
    pub(crate) signals: Signals,
    pub(crate) clock: Clock,
}

impl Machine {
    /// A machine after power-up.
    ///
    /// # Errors
    /// When a size makes no sense, the host gives no memory, or the disk image cannot be opened.
    pub fn new(config: &MachineConfig) -> Result<Machine, Error> {
        let parts = Parts {
            cpu: Cpu::new(config.cpu),
            memory: Memory::new(config.memory_bytes, &config.rom)?,
            signals: Signals::default(),
            clock: Clock::new(config.clock),
        };
        Machine::assemble(config, parts)
    }

    /// A machine with the devices that `config` asks for around its parts.
    pub(crate) fn assemble(config: &MachineConfig, parts: Parts) -> Result<Machine, Error> {
        let Parts { cpu, memory, signals, clock } = parts;
        let (signals, clock) = (Arc::new(signals), Arc::new(clock));
        Ok(Machine {
            cpu,
            memory,
            bus: Bus::new(config, &signals, &clock)?,
            tlb: Tlb::default(),
            counters: Counters::default(),
            breakpoints: Breakpoints::default(),
            signals,
            clock,
            next_event: Some(0),
            interrupt_requested: false,
            interrupts_held: false,
        })
    }

    /// Goes on with devices whose state was put back.
    pub(crate) fn resume(&mut self, interrupt_requested: bool) {
        self.next_event = self.bus.devices.next_event();
        self.interrupt_requested = interrupt_requested;
    }

    /// The lines to devices and host; clone the `Arc` to reach a running machine.
    #[inline]
    #[must_use]
    pub fn signals(&self) -> &Arc<Signals> {
        &self.signals
    }

    /// Guest time.
    #[inline]
    #[must_use]
    pub fn clock(&self) -> &Arc<Clock> {
        &self.clock
    }

    /// Lets the devices do what is due, takes host input, and looks at the interrupt lines.
    /// Strategies call it when [`Signals::attention`] is set and at least every 100 µs while the
    /// guest runs. Returns what the guest or the host asked for; the run then ends.
    pub fn service(&mut self) -> Option<Request> {
        if self.bus.tap.replays() {
            return self.service_from_log();
        }
        if self.signals.take_attention() {
            self.bus.devices.take_host_input();
            // Guest writes may have moved any deadline.
            self.next_event = self.bus.devices.next_event();
        }
        if self.next_event.is_some_and(|at| at <= self.clock.now()) {
            self.bus.devices.advance();
            self.next_event = self.bus.devices.next_event();
        }
        self.bus.devices.pic.update(&self.signals);
        self.interrupt_requested = self.bus.devices.pic.requests_interrupt();
        if self.interrupts_held && std::mem::take(&mut self.interrupt_requested) && self.cpu.halted
        {
            // Nothing else would end the wait.
            self.signals.request(Request::Stop);
        }
        self.signals.take_request()
    }

    /// Holds interrupts back, or does so no more: a strategy then sees none, and a run whose guest
    /// waits for one ends with [`Request::Stop`]. For who delivers them between runs.
    pub fn hold_interrupts(&mut self, hold: bool) {
        self.interrupts_held = hold;
        self.signals.raise_attention();
    }

    /// Whether the interrupt controller asks for the CPU, as of the last [`Machine::service`].
    #[inline]
    #[must_use]
    pub fn interrupt_requested(&self) -> bool {
        self.interrupt_requested
    }

    /// Acknowledges the interrupt with the highest priority and returns its vector (INTA).
    pub fn acknowledge_interrupt(&mut self) -> Vector {
        if self.bus.tap.replays() {
            return self.replay_interrupt();
        }
        let vector = self.bus.devices.pic.acknowledge(&self.signals);
        self.interrupt_requested = self.bus.devices.pic.requests_interrupt();
        if !self.bus.tap.is_off() {
            self.record_interrupt(vector);
        }
        vector
    }

    /// When a device next does something by itself: a halted CPU need not wake before, unless
    /// [`Signals::attention`] is raised.
    #[must_use]
    pub fn next_event(&self) -> Option<Nanos> {
        self.next_event
    }

    /// Waits, in a halted guest, until a device event is due, host input arrives, or `limit` has
    /// passed. A virtual clock jumps instead.
    pub fn wait_for_event(&mut self, limit: std::time::Duration) {
        if self.bus.tap.replays() {
            return self.halt_in_log();
        }
        match self.next_event {
            Some(at) => {
                self.clock.skip_to(at);
                self.signals.wait(self.clock.until(at).min(limit));
            }
            None => self.signals.wait(limit),
        }
    }

    /// Puts CPU and devices into their state after a reset; memory keeps its contents.
    pub fn reset(&mut self) {
        self.cpu = Cpu::new(self.cpu.model);
        self.bus.devices.reset();
        self.tlb.flush();
        self.signals.raise_attention();
    }
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine")
            .field("cpu", &self.cpu)
            .field("memory", &self.memory)
            .finish_non_exhaustive()
    }
}
