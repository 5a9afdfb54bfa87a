//! One 8259A: priorities, masks, modes and command words. How two of them are wired in a PC, and
//! which lines reach them, is the parent's concern.
//!
//! Follows the 8259A data sheet (Intel 231468). An edge-triggered request is dropped when its line
//! falls before the acknowledge, as the data sheet says; that is where spurious interrupts come
//! from. MCS-80 mode (a CALL in place of a vector) is not there: no PC uses it.

#[cfg(test)]
mod tests;

/// What the next write to the data port is (ICW2 to ICW4 follow ICW1; otherwise it is OCW1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
enum Expect {
    Mask,
    VectorBase,
    Cascade,
    Mode,
}

/// One 8259A.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Chip {
    requested: u8,
    in_service: u8,
    mask: u8,
    /// Lines that are level-triggered, from the edge/level control register.
    level_lines: u8,
    /// Bits of the edge/level control register that can be set.
    level_writable: u8,
    /// ICW1's LTIM: all lines are level-triggered.
    all_level: bool,
    vector_base: u8,
    /// The line with the lowest priority; the one after it has the highest.
    lowest: u8,
    /// The line on which a slave hangs, as a bit: where special fully nested mode makes exceptions.
    slaves: u8,
    expect: Expect,
    single: bool,
    wants_icw4: bool,
    auto_eoi: bool,
    rotate_on_auto_eoi: bool,
    special_mask: bool,
    special_fully_nested: bool,
    read_in_service: bool,
    poll: bool,
}

/// The line that is reported when an acknowledge finds no request.
const SPURIOUS: u8 = 7;

impl Chip {
    /// A chip whose vectors begin at `vector_base`, all lines masked. `slaves` has a bit for the
    /// line with a cascaded chip; `level_writable` says which lines can be made level-triggered.
    pub(super) fn new(vector_base: u8, slaves: u8, level_writable: u8) -> Chip {
        Chip {
            requested: 0,
            in_service: 0,
            mask: 0xff,
            level_lines: 0,
            level_writable,
            all_level: false,
            vector_base,
            lowest: 7,
            slaves,
            expect: Expect::Mask,
            single: false,
            wants_icw4: false,
            auto_eoi: false,
            rotate_on_auto_eoi: false,
            special_mask: false,
            special_fully_nested: false,
            read_in_service: false,
            poll: false,
        }
    }

    /// Whether a chip can be in this state: lines are numbered from 0 to 7.
    pub(super) fn is_plausible(&self) -> bool {
        self.lowest <= 7
    }

    /// Takes over the levels of the eight lines and which of them rose.
    pub(super) fn update(&mut self, levels: u8, edges: u8) {
        let level = if self.all_level { 0xff } else { self.level_lines };
        self.requested = (self.requested | edges | level) & levels;
    }

    /// Drives the cascade line: it follows the slave's output at once.
    pub(super) fn drive(&mut self, lines: u8, level: bool) {
        if level {
            self.requested |= lines;
        } else {
            self.requested &= !lines;
        }
    }

    /// The request that the INT output stands for.
    pub(super) fn request(&self) -> Option<u8> {
        let pending = self.requested & !self.mask;
        if pending == 0 {
            return None;
        }
        let blocking = self.blocking();
        for line in self.by_priority() {
            let bit = 1 << line;
            if blocking & bit != 0 {
                // A slave in service may still deliver something of higher priority.
                let nested = self.special_fully_nested && self.slaves & pending & bit != 0;
                return nested.then_some(line);
            }
            if pending & bit != 0 {
                return Some(line);
            }
        }
        None
    }

    /// In-service lines that hold back their own and lower priorities.
    fn blocking(&self) -> u8 {
        if self.special_mask { self.in_service & !self.mask } else { self.in_service }
    }

    fn by_priority(&self) -> impl Iterator<Item = u8> + use<> {
        let lowest = self.lowest;
        (1..=8).map(move |distance| (lowest + distance) & 7)
    }

    /// INTA: puts the request with the highest priority in service and returns its line, or the
    /// spurious one, which is not put in service.
    pub(super) fn acknowledge(&mut self) -> u8 {
        self.request().map_or(SPURIOUS, |line| {
            self.serve(line);
            line
        })
    }

    fn serve(&mut self, line: u8) {
        // A level-triggered line that is still high requests again at the next update.
        self.requested &= !(1 << line);
        if !self.auto_eoi {
            self.in_service |= 1 << line;
        } else if self.rotate_on_auto_eoi {
            self.lowest = line;
        }
    }

    /// The vector of one of this chip's lines.
    pub(super) fn vector(&self, line: u8) -> u8 {
        self.vector_base | line & 7
    }

    pub(super) fn read_command_port(&mut self) -> u8 {
        match self.take_poll() {
            Some(answer) => answer,
            None if self.read_in_service => self.in_service,
            None => self.requested,
        }
    }

    pub(super) fn read_data_port(&mut self) -> u8 {
        self.take_poll().unwrap_or(self.mask)
    }

    /// After a poll command, the next read of either port is an acknowledge.
    fn take_poll(&mut self) -> Option<u8> {
        if !std::mem::take(&mut self.poll) {
            return None;
        }
        Some(self.request().map_or(0, |line| {
            self.serve(line);
            0x80 | line
        }))
    }

    pub(super) fn write_command_port(&mut self, value: u8) {
        if value & 0x10 != 0 {
            self.initialize(value);
        } else if value & 0x08 != 0 {
            self.operation_control_3(value);
        } else {
            self.operation_control_2(value);
        }
    }

    pub(super) fn write_data_port(&mut self, value: u8) {
        match self.expect {
            Expect::Mask => self.mask = value,
            Expect::VectorBase => {
                self.vector_base = value & 0xf8;
                self.expect = if self.single { self.after_cascade() } else { Expect::Cascade };
            }
            // The wiring of a PC is fixed, so ICW3 tells nothing.
            Expect::Cascade => self.expect = self.after_cascade(),
            Expect::Mode => {
                self.auto_eoi = value & 0x02 != 0;
                self.special_fully_nested = value & 0x10 != 0;
                self.expect = Expect::Mask;
            }
        }
    }

    fn after_cascade(&self) -> Expect {
        if self.wants_icw4 { Expect::Mode } else { Expect::Mask }
    }

    /// ICW1. Without a later ICW4, all that ICW4 selects is off.
    fn initialize(&mut self, value: u8) {
        let fresh = Chip::new(self.vector_base, self.slaves, self.level_writable);
        *self = Chip {
            mask: 0,
            level_lines: self.level_lines,
            all_level: value & 0x08 != 0,
            single: value & 0x02 != 0,
            wants_icw4: value & 0x01 != 0,
            expect: Expect::VectorBase,
            ..fresh
        };
    }

    /// OCW2: end of interrupt and rotation.
    fn operation_control_2(&mut self, value: u8) {
        let line = value & 7;
        match value >> 5 {
            0b000 => self.rotate_on_auto_eoi = false,
            0b100 => self.rotate_on_auto_eoi = true,
            0b001 => {
                self.end_highest();
            }
            0b101 => self.lowest = self.end_highest().unwrap_or(self.lowest),
            0b011 => self.in_service &= !(1 << line),
            0b111 => {
                self.in_service &= !(1 << line);
                self.lowest = line;
            }
            0b110 => self.lowest = line,
            _ => {}
        }
    }

    /// Non-specific EOI: ends what has the highest priority. In special mask mode it leaves masked
    /// lines alone.
    fn end_highest(&mut self) -> Option<u8> {
        let blocking = self.blocking();
        let line = self.by_priority().find(|&line| blocking & 1 << line != 0)?;
        self.in_service &= !(1 << line);
        Some(line)
    }

    /// OCW3: special mask mode, poll, and which register a read shows.
    fn operation_control_3(&mut self, value: u8) {
        if value & 0x40 != 0 {
            self.special_mask = value & 0x20 != 0;
        }
        self.poll = value & 0x04 != 0;
        if value & 0x02 != 0 && !self.poll {
            self.read_in_service = value & 0x01 != 0;
        }
    }

    pub(super) fn level_lines(&self) -> u8 {
        self.level_lines
    }

    pub(super) fn set_level_lines(&mut self, value: u8) {
        self.level_lines = value & self.level_writable;
    }
}
