//! A guest and a host that do what they like with a machine's devices.

use machine::{Machine, PhysicalAddress};

/// Xorshift: enough randomness, and the same everywhere.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Mostly where devices are.
    pub(crate) fn port(&mut self) -> u16 {
        (match self.below(8) {
            0..=2 => 0x20 + self.below(0xe0),
            3 => 0x1f0 + self.below(8),
            4 => 0x3b0 + self.below(0x50),
            5 => 0x40 + self.below(4),
            6 => 0x60 + self.below(0x12),
            _ => self.below(0x1_0000),
        }) as u16
    }
}

/// One access or event.
pub(crate) fn act(machine: &mut Machine, random: &mut Random) {
    let size = 1 << random.below(3);
    let port = random.port();
    match random.below(16) {
        0..=6 => machine.bus.port_write(port, size, random.next() as u32),
        7..=12 => {
            let value = machine.bus.port_read(port, size);
            assert!(size == 4 || value < 1 << (8 * size), "port {port:#x}, {size} bytes");
        }
        13 => {
            let address = PhysicalAddress(0x9_fff0 + random.below(0x2_0020));
            let mut data = [0; 16];
            let length = random.below(17) as usize;
            machine.bus.mmio_read(address, &mut data[..length]);
            machine.bus.mmio_write(address, &data[..length]);
        }
        14 => {
            let jump = 1 << random.below(40);
            machine.clock().skip_to(machine.clock().now() + jump);
            machine.service();
            if machine.interrupt_requested() {
                machine.acknowledge_interrupt();
            }
        }
        _ => {
            let input = machine.bus.devices.input().clone();
            input.send_serial(&random.next().to_le_bytes());
            input.send_text("Hostile!\n");
            if random.below(1000) == 0 {
                machine.reset();
            }
        }
    }
}
