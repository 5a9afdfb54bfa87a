//! The 8259 pair and the 8254, programmed as PC kernels do.

use super::descriptors::Gate;
use super::guest::Guest;
use super::layout;
use crate::x86;
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi};

const MASTER_COMMAND: u8 = 0x20;
const MASTER_DATA: u8 = 0x21;
const SLAVE_COMMAND: u8 = 0xA0;
const SLAVE_DATA: u8 = 0xA1;

/// The PIT's input clock in Hz.
pub const PIT_HZ: u32 = 1_193_182;

impl Guest {
    /// Writes `value` to `port` (ring 0). Changes AL.
    pub fn out_byte(&mut self, port: u8, value: u8) {
        x86!(self ; mov al, value as i8 ; out port as i8, al);
    }

    /// Sets both 8259s up with vectors from [`layout::IRQ_BASE`], edge triggered, and lets in the
    /// IRQs whose bits are set in `irqs` (and the cascade, where one of the slave's is). Spurious
    /// interrupts are taken and forgotten. Changes AL.
    pub fn set_up_pics(&mut self, irqs: u16) {
        let cascade = if irqs & 0xFF00 == 0 { 0 } else { 1 << 2 };
        let [master, slave] = (irqs | cascade).to_le_bytes();
        let commands = [
            (MASTER_COMMAND, 0x11), // ICW1: edge, cascade, ICW4 follows
            (SLAVE_COMMAND, 0x11),
            (MASTER_DATA, layout::IRQ_BASE), // ICW2: vectors
            (SLAVE_DATA, layout::IRQ_BASE + 8),
            (MASTER_DATA, 0x04), // ICW3: the slave is at IRQ 2
            (SLAVE_DATA, 0x02),
            (MASTER_DATA, 0x01), // ICW4: 8086 mode, normal EOI
            (SLAVE_DATA, 0x01),
            (MASTER_DATA, !master), // OCW1: masks
            (SLAVE_DATA, !slave),
        ];
        for (port, value) in commands {
            self.out_byte(port, value);
        }
        self.ignore_spurious_interrupts();
    }

    /// IRQ 7 and 15 without a request behind them: no EOI, but the master has seen the cascade.
    fn ignore_spurious_interrupts(&mut self) {
        let (over, master, slave) = (self.label(), self.label(), self.label());
        x86!(self ; jmp =>over ; =>slave ; push eax);
        self.end_of_interrupt(0);
        x86!(self ; pop eax ; =>master ; iretd ; =>over);
        self.gate(layout::IRQ_BASE + 7, Gate::Interrupt, master);
        self.gate(layout::IRQ_BASE + 15, Gate::Interrupt, slave);
    }

    /// Tells the 8259s that `irq` is done. Changes AL.
    pub fn end_of_interrupt(&mut self, irq: u8) {
        const EOI: u8 = 0x20;
        if irq >= 8 {
            self.out_byte(SLAVE_COMMAND, EOI);
        }
        self.out_byte(MASTER_COMMAND, EOI);
    }

    /// Makes `handler` the handler of `irq`.
    pub fn irq(&mut self, irq: u8, handler: DynamicLabel) {
        self.gate(layout::IRQ_BASE + irq, Gate::Interrupt, handler);
    }

    /// Channel 0 of the PIT in mode 2 (rate generator) at about `hertz`. Changes AL.
    pub fn start_pit(&mut self, hertz: u32) {
        let [low, high, ..] = (PIT_HZ / hertz).to_le_bytes();
        self.out_byte(0x43, 0x34); // channel 0, low then high byte, mode 2
        self.out_byte(0x40, low);
        self.out_byte(0x40, high);
    }

    /// An IRQ 0 handler that counts in [`layout::TICKS`].
    pub fn count_ticks(&mut self) {
        let (over, handler) = (self.label(), self.label());
        x86!(self
            ; jmp =>over
            ; =>handler
            ; push eax
            ; inc DWORD [layout::TICKS as i32]
        );
        self.end_of_interrupt(0);
        x86!(self ; pop eax ; iretd ; =>over);
        self.irq(0, handler);
    }
}
