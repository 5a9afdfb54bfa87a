//! RDTSC without the monitor: the host's counter and an offset.
//!
//! Two words are to be added to two words, and the guest's flags are not to be touched. So the carry is
//! counted in halves of a word: LEA adds them, RORX (BMI2) and MOVZX move what overflows down.

use crate::emit::{EAX, EBX, ECX, EDX, short};
use crate::stub::{Assembly, Part, Step, bit};
use crate::virtual_cpu::Word;

/// Whether the host has what it takes.
pub(crate) fn can_be_added() -> bool {
    std::is_x86_feature_detected!("bmi2")
}

/// `rdtsc`
const RDTSC: [u8; 2] = [0x0f, 0x31];
/// `movzx ecx, ax`
const LOWER_HALF: [u8; 3] = [0x0f, 0xb7, 0xc8];
/// `rorx ebx, eax, 16; movzx ebx, bx`
const UPPER_HALF: [u8; 9] = [0xc4, 0xe3, 0x7b, 0xf0, 0xd8, 0x10, 0x0f, 0xb7, 0xdb];
/// `rorx ecx, ecx, 16; movzx ecx, cx`
const CARRY: [u8; 9] = [0xc4, 0xe3, 0x7b, 0xf0, 0xc9, 0x10, 0x0f, 0xb7, 0xc9];
/// `lea ecx, [ecx + ebx]`
const ADD_EBX_TO_ECX: [u8; 3] = [0x8d, 0x0c, 0x19];
/// `lea edx, [edx + ecx]`
const ADD_ECX_TO_EDX: [u8; 3] = [0x8d, 0x14, 0x0a];
/// `lea eax, [eax + ecx]`
const ADD_ECX_TO_EAX: [u8; 3] = [0x8d, 0x04, 0x08];

impl Assembly {
    /// Reads the counter, or leaves for the monitor where what it gives is recorded, or not the host's.
    pub(crate) fn rdtsc(&mut self, part: &Part<'_>) {
        self.save(ECX);
        self.e.load(ECX, Word::NoTimeStamps);
        let simple = self.e.short(short::IF_ECX_IS_0);
        self.restore(ECX);
        self.cross(part);
        self.e.land(simple);
        self.step(|step| step.saved = bit(ECX));
        [EAX, EDX, EBX].into_iter().for_each(|register| self.save(register));
        self.e.raw(&RDTSC);
        self.e.raw(&LOWER_HALF);
        self.e.load(EBX, Word::TimeStampFirst);
        self.e.raw(&ADD_EBX_TO_ECX);
        self.e.raw(&CARRY);
        self.e.raw(&UPPER_HALF);
        self.e.raw(&ADD_EBX_TO_ECX);
        self.e.load(EBX, Word::TimeStampSecond);
        self.e.raw(&ADD_EBX_TO_ECX);
        self.e.raw(&CARRY);
        self.e.raw(&ADD_ECX_TO_EDX);
        self.e.load(ECX, Word::TimeStampHigh);
        self.e.raw(&ADD_ECX_TO_EDX);
        self.e.load(ECX, Word::TimeStampLow);
        self.e.raw(&ADD_ECX_TO_EAX);
        let saved = bit(ECX) | bit(EBX);
        self.step(|step| *step = Step { eip: part.next(), saved, ..Step::default() });
        [EBX, ECX].into_iter().for_each(|register| self.restore(register));
    }
}
