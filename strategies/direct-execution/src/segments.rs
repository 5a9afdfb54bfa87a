//! The guest's segments as LDT descriptors with DPL 3.
//!
//! A guest register that holds selector 0x10 with some base and limit becomes a host register with
//! the selector of an LDT entry of that base and limit. Guest code that reads a segment register
//! sees that selector: this is one of the things that direct execution cannot hide. One that it
//! merely saves and loads back (PUSH DS, POP DS) finds its way here again, because the table knows
//! which guest segment each of its entries stands for.

use host::ldt::{LdtEntry, SegmentDescriptor, SegmentKind};
use machine::cpu::{Segment, SegmentRegister, access};

/// Entries that are kept; more distinct segments make the table start anew.
const MOST: usize = 1024;

struct Shadow {
    segment: Segment,
    ceiling: Option<u32>,
    /// By how much the host's base is higher than the guest's.
    shift: u32,
    entry: LdtEntry,
}

/// The table of shadow descriptors.
#[derive(Default)]
pub(crate) struct ShadowSegments {
    shadows: Vec<Shadow>,
    /// The registers when the guest was last entered: mostly they are still so.
    entered: [Option<Entered>; 6],
    /// The ceiling and the code's shift then.
    ceiling: Option<u32>,
    code_shift: u32,
}

#[derive(Clone, Copy)]
struct Entered {
    segment: Segment,
    /// The host's selector for it.
    selector: u16,
}

impl ShadowSegments {
    /// The host selectors for the guest's six segment registers. With a `ceiling`, no segment reaches
    /// linear addresses from there on. Code is found `code_shift` higher than the guest has it.
    pub(crate) fn selectors(
        &mut self,
        segments: &[Segment; 6],
        ceiling: Option<u32>,
        code_shift: u32,
    ) -> Result<[u16; 6], host::Error> {
        if self.shadows.len() > MOST {
            self.entered = [None; 6];
            self.shadows.clear();
        }
        if (self.ceiling, self.code_shift) != (ceiling, code_shift) {
            self.entered = [None; 6];
            (self.ceiling, self.code_shift) = (ceiling, code_shift);
        }
        let mut selectors = [0; 6];
        for (number, segment) in segments.iter().enumerate() {
            let entered = self.entered[number].filter(|entered| entered.segment == *segment);
            let selector = match entered {
                Some(entered) => entered.selector,
                None if number == SegmentRegister::Cs as usize => {
                    self.selector(segment, code_shift)?
                }
                None => self.selector(segment, 0)?,
            };
            self.entered[number] = Some(Entered { segment: *segment, selector });
            selectors[number] = selector;
        }
        Ok(selectors)
    }

    fn selector(&mut self, segment: &Segment, shift: u32) -> Result<u16, host::Error> {
        // Null selectors of 1 to 3 would be 0 after the host's next interrupt anyway: IRET to an outer
        // level clears them.
        let ceiling = self.ceiling;
        let Some(descriptor) = descriptor(segment).and_then(|whole| below(whole, ceiling)) else {
            return Ok(0);
        };
        let descriptor =
            SegmentDescriptor { base: descriptor.base.wrapping_add(shift), ..descriptor };
        let same = |shadow: &&Shadow| {
            shadow.segment == *segment && (shadow.ceiling, shadow.shift) == (ceiling, shift)
        };
        if let Some(known) = self.shadows.iter().find(same) {
            return Ok(known.entry.selector());
        }
        let entry = LdtEntry::new(descriptor)?;
        let selector = entry.selector();
        self.shadows.push(Shadow { segment: *segment, ceiling, shift, entry });
        Ok(selector)
    }

    /// The guest's segment behind a register that now holds `selector`, if the guest loaded it
    /// without a trap; nothing if it is as it was on entry.
    pub(crate) fn loaded(&self, register: SegmentRegister, selector: u16) -> Option<Loaded> {
        if self.entered[register as usize].is_some_and(|entered| entered.selector == selector) {
            return None;
        }
        if selector & !3 == 0 {
            return Some(Loaded::Known(Segment::null(selector)));
        }
        let same = |shadow: &&Shadow| shadow.entry.selector() | 3 == selector | 3;
        match self.shadows.iter().find(same) {
            Some(shadow) => Some(Loaded::Known(shadow.segment)),
            None => Some(Loaded::Foreign(selector)),
        }
    }
}

/// What a segment register was loaded with, without a trap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Loaded {
    /// A null selector, or one of ours.
    Known(Segment),
    /// One of the host's own selectors, which mean something else to the guest.
    Foreign(u16),
}

/// The LDT descriptor that behaves as `segment` does; nothing for an unusable one.
fn descriptor(segment: &Segment) -> Option<SegmentDescriptor> {
    if !segment.has(access::PRESENT | access::NOT_SYSTEM) {
        return None;
    }
    let kind = match (segment.is_code(), segment.is_expand_down()) {
        (true, _) if segment.has(access::READABLE) => SegmentKind::Code,
        (true, _) => SegmentKind::ExecuteOnlyCode,
        (false, true) => SegmentKind::ExpandDown,
        (false, false) if segment.has(access::WRITABLE) => SegmentKind::Data,
        (false, false) => SegmentKind::ReadOnlyData,
    };
    let is_32bit = segment.is_32bit();
    Some(SegmentDescriptor { base: segment.base, limit: segment.limit, kind, is_32bit })
}

/// The part of a segment that lies below `ceiling`; nothing where there is none, or none that a limit
/// could express.
fn below(whole: SegmentDescriptor, ceiling: Option<u32>) -> Option<SegmentDescriptor> {
    let Some(ceiling) = ceiling else { return Some(whole) };
    if matches!(whole.kind, SegmentKind::ExpandDown) {
        return None;
    }
    let room = ceiling.checked_sub(whole.base).filter(|&room| room > 0)?;
    if whole.limit < room {
        return Some(whole);
    }
    // A limit above 1 MiB counts pages.
    let room = if room > 1 << 20 { room & !0xfff } else { room };
    Some(SegmentDescriptor { limit: room - 1, ..whole })
}

/// Whether the LDT can express this segment: the kernel has no read-only expand-down data, and a
/// limit above 1 MiB counts pages.
pub(crate) fn is_expressible(segment: &Segment) -> bool {
    let whole_pages = segment.limit <= 0xf_ffff || segment.limit & 0xfff == 0xfff;
    whole_pages && (!segment.is_expand_down() || segment.has(access::WRITABLE))
}
