//! Segment registers as KVM wants them, which is as VMX and SVM check them at each entry
//! (Intel SDM volume 3, 27.3.1.2), and back.

use kvm_bindings::{kvm_dtable, kvm_segment};
use machine::cpu::{Segment, TableRegister, access};

/// A segment register's contents. What the machine holds as not present is unusable.
pub(crate) fn to_kvm(segment: &Segment) -> kvm_segment {
    let bit = |mask| u8::from(segment.has(mask));
    let is_system = !segment.has(access::NOT_SYSTEM);
    // Hidden parts were loaded from descriptors that the load marked accessed; the check insists.
    let accessed = if segment.is_usable() && !is_system { access::ACCESSED as u8 } else { 0 };
    kvm_segment {
        base: segment.base.into(),
        limit: segment.limit,
        selector: segment.selector,
        type_: segment.kind() | accessed,
        present: bit(access::PRESENT),
        dpl: segment.dpl(),
        db: bit(access::DEFAULT_BIG),
        s: bit(access::NOT_SYSTEM),
        l: 0,
        g: granularity(segment),
        avl: bit(AVAILABLE),
        unusable: u8::from(!segment.is_usable()),
        padding: 0,
    }
}

/// The bit that belongs to the guest's software.
const AVAILABLE: u16 = 1 << 12;

/// G, made to fit the limit where it does not: the entry check compares the two.
fn granularity(segment: &Segment) -> u8 {
    if segment.limit >> 20 != 0 {
        1
    } else if segment.limit & 0xfff != 0xfff {
        0
    } else {
        u8::from(segment.has(access::GRANULARITY))
    }
}

/// The machine's form of a segment register.
pub(crate) fn from_kvm(segment: &kvm_segment) -> Segment {
    if segment.unusable != 0 || segment.present == 0 {
        return Segment::null(segment.selector);
    }
    let attributes = u16::from(segment.type_ & 15)
        | u16::from(segment.s & 1) << 4
        | u16::from(segment.dpl & 3) << 5
        | access::PRESENT
        | u16::from(segment.avl & 1) << 12
        | u16::from(segment.db & 1) << 14
        | u16::from(segment.g & 1) << 15;
    Segment::new(segment.selector, segment.base as u32, segment.limit, attributes)
}

/// What virtual-8086 mode has in a segment register: the entry check allows nothing else.
pub(crate) fn virtual_8086_to_kvm(segment: &Segment) -> kvm_segment {
    let rights = access::PRESENT | access::NOT_SYSTEM | access::WRITABLE | access::ACCESSED;
    let base = u32::from(segment.selector) << 4;
    to_kvm(&Segment::new(segment.selector, base, 0xffff, rights | 3 << 5))
}

/// The task register, which must hold a busy TSS. A null one becomes a TSS of one byte: whatever
/// consults it raises the same exception, for the limit instead of for the missing segment.
pub(crate) fn task_register_to_kvm(tr: &Segment) -> kvm_segment {
    if !tr.is_usable() {
        return to_kvm(&Segment::system(tr.selector, 0, 0, access::TSS32_BUSY));
    }
    kvm_segment { type_: tr.kind() | 2, ..to_kvm(tr) }
}

/// The task register; the stand-in for a null one is null again.
pub(crate) fn task_register_from_kvm(tr: &kvm_segment) -> Segment {
    if tr.base == 0 && tr.limit == 0 { Segment::null(tr.selector) } else { from_kvm(tr) }
}

/// GDTR or IDTR.
pub(crate) fn table_to_kvm(table: &TableRegister) -> kvm_dtable {
    kvm_dtable { base: table.base.into(), limit: table.limit, padding: [0; 3] }
}

/// GDTR or IDTR.
pub(crate) fn table_from_kvm(table: &kvm_dtable) -> TableRegister {
    TableRegister { base: table.base as u32, limit: table.limit }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_survive_the_way_there_and_back() {
        let expand_down = access::PRESENT | access::NOT_SYSTEM | access::WRITABLE;
        for segment in [
            Segment::real_mode(0x1234),
            Segment::flat(8, true, 0),
            Segment::flat(0x2b, false, 3),
            Segment::new(0x10, 0x8000, 0x7ff, expand_down | access::ACCESSED | 4 | AVAILABLE),
            Segment::system(0x28, 0x1000, 0xff, access::LDT),
            Segment::null(3),
        ] {
            assert_eq!(from_kvm(&to_kvm(&segment)), segment);
        }
    }

    #[test]
    fn a_null_task_register_stays_null() {
        let kvm = task_register_to_kvm(&Segment::null(0));
        assert_eq!((kvm.present, kvm.unusable, kvm.type_), (1, 0, 11));
        assert_eq!(task_register_from_kvm(&kvm), Segment::null(0));
    }

    #[test]
    fn granularity_fits_the_limit() {
        let rights = access::PRESENT | access::NOT_SYSTEM | access::WRITABLE;
        assert_eq!(to_kvm(&Segment::new(8, 0, u32::MAX, rights)).g, 1);
        assert_eq!(to_kvm(&Segment::new(8, 0, 0x10, rights | access::GRANULARITY)).g, 0);
    }
}
