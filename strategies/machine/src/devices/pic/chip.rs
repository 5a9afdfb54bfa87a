//! One 8259A: priorities, masks, modes and command words. How two of them are wired in a PC, and
//! which lines reach them, is the parent's concern.
//!
//! Follows the 8259A data sheet (Intel 231468). An edge-triggered request is dropped when its line
//! falls before the acknowledge, as the data sheet says; that is where spurious interrupts come
//! from. MCS-80 mode (a CALL in place of a vector) is not there: no PC uses it.

/// What the next write to the data port is (ICW2 to ICW4 follow ICW1; otherwise it is OCW1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expect {
    Mask,
    VectorBase,
    Cascade,
    Mode,
}

/// One 8259A.
#[derive(Debug)]
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors from 0x20, nothing masked, the given ICW4.
    fn chip(icw4: u8) -> Chip {
        let mut chip = Chip::new(0, 1 << 2, 0xf8);
        chip.write_command_port(0x11);
        for word in [0x20, 0x04, icw4] {
            chip.write_data_port(word);
        }
        chip
    }

    fn raise(chip: &mut Chip, lines: u8) {
        chip.update(0xff, lines);
    }

    #[test]
    fn the_lowest_line_wins_and_holds_back_the_others_until_its_end() {
        let mut chip = chip(1);
        raise(&mut chip, 0b1010);
        assert_eq!(chip.acknowledge(), 1);
        assert_eq!(chip.request(), None);
        raise(&mut chip, 0b0001);
        assert_eq!(chip.acknowledge(), 0, "a higher priority interrupts");
        chip.write_command_port(0x20);
        assert_eq!(chip.request(), None, "the first is still in service");
        chip.write_command_port(0x20);
        assert_eq!(chip.acknowledge(), 3);
    }

    #[test]
    fn initialization_can_leave_out_the_third_and_fourth_words() {
        let mut chip = Chip::new(0, 4, 0xf8);
        chip.write_command_port(0x12);
        chip.write_data_port(0x4f);
        chip.write_data_port(0xfe);
        assert_eq!(chip.vector(3), 0x4b);
        assert_eq!(chip.read_data_port(), 0xfe);
    }

    #[test]
    fn a_masked_request_is_remembered() {
        let mut chip = chip(1);
        chip.write_data_port(0xff);
        raise(&mut chip, 0x10);
        assert_eq!(chip.request(), None);
        assert_eq!(chip.read_command_port(), 0x10);
        chip.write_data_port(0);
        assert_eq!(chip.request(), Some(4));
    }

    #[test]
    fn an_edge_that_went_away_acknowledges_as_spurious() {
        let mut chip = chip(1);
        raise(&mut chip, 0x10);
        chip.update(0, 0);
        assert_eq!(chip.acknowledge(), 7);
        chip.write_command_port(0x0b);
        assert_eq!(chip.read_command_port(), 0, "a spurious interrupt is not in service");
    }

    #[test]
    fn a_level_line_requests_again_while_it_is_high() {
        let mut chip = chip(3);
        chip.set_level_lines(0xff);
        assert_eq!(chip.level_lines(), 0xf8);
        chip.update(0x20, 0);
        assert_eq!(chip.acknowledge(), 5);
        assert_eq!(chip.request(), None);
        chip.update(0x20, 0);
        assert_eq!(chip.request(), Some(5));
        chip.update(0x01, 0);
        assert_eq!(chip.request(), None, "line 0 stays edge-triggered");
    }

    #[test]
    fn auto_eoi_leaves_nothing_in_service_and_may_rotate() {
        let mut chip = chip(3);
        chip.write_command_port(0x80);
        raise(&mut chip, 0b11);
        assert_eq!(chip.acknowledge(), 0);
        raise(&mut chip, 0b01);
        assert_eq!(chip.acknowledge(), 1, "line 0 now has the lowest priority");
        chip.write_command_port(0x00);
        chip.write_command_port(0x0b);
        assert_eq!(chip.read_command_port(), 0);
    }

    #[test]
    fn rotation_on_eoi_makes_the_served_line_the_lowest() {
        let mut chip = chip(1);
        raise(&mut chip, 0b100);
        chip.acknowledge();
        chip.write_command_port(0xa0);
        raise(&mut chip, 0b1100);
        assert_eq!(chip.acknowledge(), 3);
        chip.write_command_port(0xe3);
        raise(&mut chip, 0b1_1001);
        assert_eq!(chip.acknowledge(), 4, "a specific rotation put line 3 last");
    }

    #[test]
    fn set_priority_and_specific_eoi_name_their_line() {
        let mut chip = chip(1);
        chip.write_command_port(0xc5);
        raise(&mut chip, 0b0110_0001);
        assert_eq!(chip.acknowledge(), 6);
        chip.write_command_port(0x61);
        assert_eq!(chip.request(), None, "the end of line 1 ends nothing");
        chip.write_command_port(0x66);
        assert_eq!(chip.acknowledge(), 0);
    }

    #[test]
    fn special_mask_mode_lets_lower_priorities_through() {
        let mut chip = chip(1);
        raise(&mut chip, 0b0000_0010);
        chip.acknowledge();
        raise(&mut chip, 0b0001_0000);
        assert_eq!(chip.request(), None);
        chip.write_data_port(0b0000_0010);
        chip.write_command_port(0x68);
        assert_eq!(chip.acknowledge(), 4);
        chip.write_command_port(0x20);
        chip.write_command_port(0x0b);
        assert_eq!(chip.read_command_port(), 0b10, "EOI ended line 4, not the masked line 1");
        chip.write_command_port(0x48);
        assert!(!chip.special_mask);
    }

    #[test]
    fn special_fully_nested_mode_lets_the_slave_interrupt_itself() {
        let mut nested = chip(0x11);
        raise(&mut nested, 0b100);
        nested.acknowledge();
        raise(&mut nested, 0b1000);
        assert_eq!(nested.request(), None);
        raise(&mut nested, 0b100);
        assert_eq!(nested.request(), Some(2));
        let mut plain = chip(1);
        raise(&mut plain, 0b100);
        plain.acknowledge();
        raise(&mut plain, 0b100);
        assert_eq!(plain.request(), None);
    }

    #[test]
    fn a_poll_acknowledges_without_an_interrupt() {
        let mut chip = chip(1);
        chip.write_command_port(0x0c);
        assert_eq!(chip.read_command_port(), 0, "no request");
        raise(&mut chip, 0x20);
        chip.write_command_port(0x0c);
        assert_eq!(chip.read_data_port(), 0x85);
        assert_eq!(chip.read_data_port(), 0, "the mask again");
        chip.write_command_port(0x0b);
        assert_eq!(chip.read_command_port(), 0x20);
    }
}
