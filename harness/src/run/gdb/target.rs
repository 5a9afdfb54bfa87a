//! What gdb may ask of a stopped guest.

use super::registers;
use super::running::{Debugger, Pace};
use gdbstub::common::Signal;
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::singlethread::{
    SingleThreadBase, SingleThreadResume, SingleThreadResumeOps, SingleThreadSingleStep,
    SingleThreadSingleStepOps,
};
use gdbstub::target::ext::breakpoints::{
    Breakpoints, BreakpointsOps, HwBreakpoint, HwBreakpointOps, SwBreakpoint, SwBreakpointOps,
};
use gdbstub::target::{Target, TargetError, TargetResult};
use gdbstub_arch::x86::X86_SSE;
use gdbstub_arch::x86::reg::X86CoreRegs;
use machine::{LinearAddress, Machine, PhysicalAddress};

const PAGE: u32 = 0x1000;

impl Target for Debugger {
    type Arch = X86_SSE;
    type Error = anyhow::Error;

    fn base_ops(&mut self) -> BaseOps<'_, Self::Arch, Self::Error> {
        BaseOps::SingleThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }
}

impl SingleThreadBase for Debugger {
    fn read_registers(&mut self, to: &mut X86CoreRegs) -> TargetResult<(), Self> {
        *to = registers::read(&self.machine().cpu);
        Ok(())
    }

    fn write_registers(&mut self, from: &X86CoreRegs) -> TargetResult<(), Self> {
        match registers::write(&mut self.machine().cpu, from) {
            true => Ok(()),
            false => Err(TargetError::NonFatal),
        }
    }

    fn read_addrs(&mut self, start: u32, data: &mut [u8]) -> TargetResult<usize, Self> {
        let machine = self.machine();
        let mut read = 0;
        for (linear, at, length) in pieces(start, data.len()) {
            let physical = physical(machine, linear);
            let piece = &mut data[at..at + length];
            if !physical.is_some_and(|physical| machine.memory.read(physical, piece)) {
                break;
            }
            read = at + length;
        }
        // Device memory is not read: that would be an access.
        if read == 0 { Err(TargetError::NonFatal) } else { Ok(read) }
    }

    fn write_addrs(&mut self, start: u32, data: &[u8]) -> TargetResult<(), Self> {
        let machine = self.machine();
        for (linear, at, length) in pieces(start, data.len()) {
            let physical = physical(machine, linear);
            let piece = &data[at..at + length];
            if !physical.is_some_and(|physical| machine.memory.write(physical, piece)) {
                return Err(TargetError::NonFatal);
            }
        }
        Ok(())
    }

    fn support_resume(&mut self) -> Option<SingleThreadResumeOps<'_, Self>> {
        Some(self)
    }
}

fn physical(machine: &mut Machine, linear: u32) -> Option<PhysicalAddress> {
    emulator::mapping(machine, LinearAddress(linear)).map(|mapping| mapping.physical)
}

/// The parts of a range that lie within a page each: the address, the offset in the range, the length.
fn pieces(start: u32, length: usize) -> impl Iterator<Item = (u32, usize, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let linear = start.wrapping_add(at as u32);
        let piece = (length - at).min((PAGE - linear % PAGE) as usize);
        let result = (piece > 0).then_some((linear, at, piece));
        at += piece;
        result
    })
}

impl SingleThreadResume for Debugger {
    /// A signal means nothing to a machine.
    fn resume(&mut self, _: Option<Signal>) -> anyhow::Result<()> {
        self.pace = Pace::Start;
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<SingleThreadSingleStepOps<'_, Self>> {
        Some(self)
    }
}

impl SingleThreadSingleStep for Debugger {
    fn step(&mut self, _: Option<Signal>) -> anyhow::Result<()> {
        self.pace = Pace::Step;
        Ok(())
    }
}

impl Breakpoints for Debugger {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }
}

impl SwBreakpoint for Debugger {
    fn add_sw_breakpoint(&mut self, address: u32, _: usize) -> TargetResult<bool, Self> {
        self.breakpoints.insert(LinearAddress(address));
        Ok(true)
    }

    fn remove_sw_breakpoint(&mut self, address: u32, _: usize) -> TargetResult<bool, Self> {
        Ok(self.breakpoints.remove(&LinearAddress(address)))
    }
}

/// The same as the others: none is visible in a stopped guest, and there is no end to them.
impl HwBreakpoint for Debugger {
    fn add_hw_breakpoint(&mut self, address: u32, kind: usize) -> TargetResult<bool, Self> {
        self.add_sw_breakpoint(address, kind)
    }

    fn remove_hw_breakpoint(&mut self, address: u32, kind: usize) -> TargetResult<bool, Self> {
        self.remove_sw_breakpoint(address, kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_at_pages() {
        let cut = |start, length| pieces(start, length).collect::<Vec<_>>();
        assert_eq!(cut(0x1ffe, 0x1003), [(0x1ffe, 0, 2), (0x2000, 2, 0x1000), (0x3000, 0x1002, 1)]);
        assert_eq!(cut(0xffff_ffff, 2), [(0xffff_ffff, 0, 1), (0, 1, 1)]);
        assert_eq!(cut(5, 0), []);
    }
}
