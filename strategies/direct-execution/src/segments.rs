//! The guest's segments as LDT descriptors with DPL 3.
//!
//! A guest register that holds selector 0x10 with some base and limit becomes a host register with
//! the selector of an LDT entry of that base and limit. Guest code that reads a segment register
//! sees that selector: this is one of the things that direct execution cannot hide. One that it
//! merely saves and loads back (PUSH DS, POP DS) finds its way here again, because the table knows
//! which guest segment each of its entries stands for.

//! Thread-local storage has its variables on both sides of a base, and a wrapped negative offset is
//! above any limit that keeps ring 3 out of somewhere. So GS can be *split*: it becomes an expand-down
//! segment for what is below the base, and FS, if the guest has no use for it, shows what is above.

use host::ldt::{LdtEntry, SegmentDescriptor, SegmentKind};
use machine::cpu::{Segment, SegmentRegister, access};

/// Entries that are kept; more distinct segments make the table start anew.
const MOST: usize = 1024;

/// How the guest's segments are shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Arrangement {
    /// The linear address that no segment reaches.
    pub(crate) ceiling: Option<u32>,
    /// How far above its linear addresses code is found.
    pub(crate) code_shift: u32,
    /// Whether GS shows what is below its base only, and FS the rest.
    pub(crate) splits_gs: bool,
}

/// What becomes of one segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shape {
    /// All below the ceiling, with a base that is so much higher.
    Below { ceiling: Option<u32>, shift: u32 },
    /// What is below its base, by wrapped offsets.
    Negative,
}

struct Shadow {
    segment: Segment,
    shape: Shape,
    entry: LdtEntry,
}

/// The table of shadow descriptors.
#[derive(Default)]
pub(crate) struct ShadowSegments {
    shadows: Vec<Shadow>,
    /// How often it has begun anew.
    generation: u64,
    /// The registers when the guest was last entered: mostly they are still so.
    entered: [Option<Entered>; 6],
    arrangement: Arrangement,
}

#[derive(Clone, Copy)]
struct Entered {
    segment: Segment,
    /// The host's selector for it.
    selector: u16,
}

impl ShadowSegments {
    /// As long as this number is the same, a host selector stands for the same segment.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// The host selectors for the guest's six segment registers.
    pub(crate) fn selectors(
        &mut self,
        segments: &[Segment; 6],
        arrangement: Arrangement,
    ) -> Result<[u16; 6], host::Error> {
        if self.shadows.len() > MOST {
            self.entered = [None; 6];
            self.shadows.clear();
            self.generation += 1;
        }
        if self.arrangement != arrangement {
            self.entered = [None; 6];
            self.arrangement = arrangement;
        }
        let mut selectors = [0; 6];
        for (number, segment) in segments.iter().enumerate() {
            let (shown, shape) = arrangement.of(number, segments);
            let is_lent = number == SegmentRegister::Fs as usize && arrangement.splits_gs;
            let same = |entered: &Entered| entered.segment == *segment && !is_lent;
            let selector = match self.entered[number].filter(same) {
                Some(entered) => entered.selector,
                None => self.selector(shown, shape)?,
            };
            self.entered[number] = Some(Entered { segment: *segment, selector });
            selectors[number] = selector;
        }
        Ok(selectors)
    }

    fn selector(&mut self, segment: &Segment, shape: Shape) -> Result<u16, host::Error> {
        // Null selectors of 1 to 3 would be 0 after the host's next interrupt anyway: IRET to an outer
        // level clears them.
        let Some(descriptor) = descriptor(segment).and_then(|whole| shape.apply(whole)) else {
            return Ok(0);
        };
        let same = |shadow: &&Shadow| shadow.segment == *segment && shadow.shape == shape;
        if let Some(known) = self.shadows.iter().find(same) {
            return Ok(known.entry.selector());
        }
        let entry = LdtEntry::new(descriptor)?;
        let selector = entry.selector();
        self.shadows.push(Shadow { segment: *segment, shape, entry });
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

impl Arrangement {
    /// Which of the guest's segments a register shows, and how.
    fn of(self, number: usize, segments: &[Segment; 6]) -> (&Segment, Shape) {
        const CS: usize = SegmentRegister::Cs as usize;
        const FS: usize = SegmentRegister::Fs as usize;
        const GS: usize = SegmentRegister::Gs as usize;
        let below = Shape::Below { ceiling: self.ceiling, shift: 0 };
        match number {
            CS => (&segments[CS], Shape::Below { ceiling: self.ceiling, shift: self.code_shift }),
            FS if self.splits_gs => (&segments[GS], below),
            GS if self.splits_gs && self.ceiling.is_some() => (&segments[GS], Shape::Negative),
            _ => (&segments[number], below),
        }
    }
}

impl Shape {
    fn apply(self, whole: SegmentDescriptor) -> Option<SegmentDescriptor> {
        match self {
            Shape::Below { ceiling, shift } => {
                let part = below(whole, ceiling)?;
                Some(SegmentDescriptor { base: part.base.wrapping_add(shift), ..part })
            }
            // Offsets above this limit; it counts pages, and those that are not whole stay out.
            Shape::Negative => Some(SegmentDescriptor {
                limit: whole.base.wrapping_neg().wrapping_sub(1) | 0xfff,
                kind: SegmentKind::ExpandDown,
                ..whole
            }),
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
