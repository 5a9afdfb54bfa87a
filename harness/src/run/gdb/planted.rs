//! INT3 in place of the first byte of instructions, for as long as a guest runs.

use machine::{LinearAddress, Machine, PhysicalAddress};

const INT3: u8 = 0xcc;

/// What was planted: where, and in place of what.
#[derive(Default, Debug)]
pub(super) struct Planted(Vec<(PhysicalAddress, u8)>);

impl Planted {
    /// Plants a breakpoint where its address leads to now. False when that is no memory.
    pub(super) fn plant(&mut self, machine: &mut Machine, address: LinearAddress) -> bool {
        let Some(mapping) = emulator::mapping(machine, address) else { return false };
        let mut before = [0];
        if !machine.memory.read(mapping.physical, &mut before) {
            return false;
        }
        if self.0.iter().all(|&(known, _)| known != mapping.physical) {
            machine.memory.write(mapping.physical, &[INT3]);
            self.0.push((mapping.physical, before[0]));
        }
        true
    }

    /// Takes all away. What the guest has written over meanwhile stays.
    pub(super) fn clear(&mut self, machine: &mut Machine) {
        for (address, before) in self.0.drain(..) {
            let mut now = [0];
            if machine.memory.read(address, &mut now) && now == [INT3] {
                machine.memory.write(address, &[before]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::MachineConfig;

    #[test]
    fn memory_is_as_it_was_when_breakpoints_are_gone() {
        let config = MachineConfig { memory_bytes: 1 << 20, ..MachineConfig::default() };
        let mut machine = Machine::new(&config).unwrap();
        let read = |machine: &Machine| {
            let mut bytes = [0; 3];
            assert!(machine.memory.read(PhysicalAddress(0x1000), &mut bytes));
            bytes
        };
        machine.memory.write(PhysicalAddress(0x1000), &[1, 2, 3]);
        let mut planted = Planted::default();
        for address in [0x1000, 0x1002, 0x1002] {
            assert!(planted.plant(&mut machine, LinearAddress(address)));
        }
        // The VGA's, and behind the end of memory.
        for address in [0xb_8000, 0x4000_0000] {
            assert!(!planted.plant(&mut machine, LinearAddress(address)));
        }
        assert_eq!(read(&machine), [INT3, 2, INT3]);
        machine.memory.write(PhysicalAddress(0x1002), &[9]);
        planted.clear(&mut machine);
        assert_eq!(read(&machine), [1, 2, 9]);
    }
}
