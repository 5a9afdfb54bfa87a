//! The few instructions that stubs are made of, as bytes of 32-bit code.
//!
//! The virtual CPU's words are named by absolute addresses with an SS prefix: stubs run only where the
//! guest's stack segment is flat, while its DS may be anything.

use crate::virtual_cpu::Word;

/// A general register's number.
pub(crate) type Register = u8;

pub(crate) const EAX: Register = 0;
pub(crate) const ECX: Register = 1;
pub(crate) const EDX: Register = 2;
pub(crate) const EBX: Register = 3;

const SS: u8 = 0x36;
/// ModRM with mod 0 and r/m 5: a 32-bit displacement alone.
const ABSOLUTE: u8 = 5;

/// Code being written.
pub(crate) struct Emitter {
    base: u32,
    /// Where the virtual CPU's page lies.
    page: u32,
    code: Vec<u8>,
}

/// A displacement of 8 bits that is still to be filled in.
pub(crate) struct Hole(usize);

impl Emitter {
    /// Code that will lie at `base`, with the virtual CPU at `page`.
    pub(crate) fn new(base: u32, page: u32) -> Emitter {
        Emitter { base, page, code: Vec::new() }
    }

    /// Bytes so far.
    pub(crate) fn length(&self) -> u32 {
        self.code.len() as u32
    }

    /// Where the next byte will lie.
    pub(crate) fn here(&self) -> u32 {
        self.base.wrapping_add(self.length())
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.code
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.code.extend_from_slice(bytes);
    }

    fn raw32(&mut self, value: u32) {
        self.raw(&value.to_le_bytes());
    }

    fn word(&mut self, opcode: &[u8], digit: u8, word: Word) {
        self.raw(&[SS]);
        self.raw(opcode);
        self.raw(&[digit << 3 | ABSOLUTE]);
        self.raw32(self.page.wrapping_add(word.offset()));
    }

    /// `mov word, register`
    pub(crate) fn store(&mut self, word: Word, register: Register) {
        self.word(&[0x89], register, word);
    }

    /// `mov register, word`
    pub(crate) fn load(&mut self, register: Register, word: Word) {
        self.word(&[0x8b], register, word);
    }

    /// `mov` of the low half of a word to a 16-bit register.
    pub(crate) fn load_half(&mut self, register: Register, word: Word) {
        self.raw(&[0x66]);
        self.load(register, word);
    }

    /// `mov word, value`
    pub(crate) fn store_constant(&mut self, word: Word, value: u32) {
        self.word(&[0xc7], 0, word);
        self.raw32(value);
    }

    /// `push word`
    pub(crate) fn push(&mut self, word: Word) {
        self.word(&[0xff], 6, word);
    }

    /// `push` of the low half of a word, by 16 bits.
    pub(crate) fn push_half(&mut self, word: Word) {
        self.raw(&[0x66]);
        self.push(word);
    }

    /// `xor register, word`
    pub(crate) fn xor(&mut self, register: Register, word: Word) {
        self.word(&[0x33], register, word);
    }

    /// `cmp word, 0`
    pub(crate) fn compare_with_zero(&mut self, word: Word) {
        self.word(&[0x83], 7, word);
        self.raw(&[0]);
    }

    /// `mov register, value`
    pub(crate) fn constant(&mut self, register: Register, value: u32) {
        self.raw(&[0xb8 + register]);
        self.raw32(value);
    }

    /// `push value`
    pub(crate) fn push_constant(&mut self, value: u32) {
        self.raw(&[0x68]);
        self.raw32(value);
    }

    /// A jump or branch by its opcode, with a 32-bit displacement.
    pub(crate) fn jump_by(&mut self, opcode: &[u8], target: u32) {
        self.raw(opcode);
        self.raw32(target.wrapping_sub(self.here().wrapping_add(4)));
    }

    /// `jmp target`
    pub(crate) fn jump(&mut self, target: u32) {
        self.jump_by(&[0xe9], target);
    }

    /// `jmp selector:target`
    pub(crate) fn far_jump(&mut self, selector: u16, target: u32) {
        self.raw(&[0xea]);
        self.raw32(target);
        self.raw(&selector.to_le_bytes());
    }

    /// A short jump or branch by its opcode, forward to where [`Emitter::land`] says.
    pub(crate) fn short(&mut self, opcode: u8) -> Hole {
        self.raw(&[opcode, 0]);
        Hole(self.code.len() - 1)
    }

    /// Lets a short jump lead here.
    pub(crate) fn land(&mut self, hole: Hole) {
        self.code[hole.0] = (self.code.len() - hole.0 - 1) as u8;
    }
}

/// `lahf; seto al`: the arithmetic flags without a stack.
pub(crate) const FLAGS_TO_EAX: [u8; 4] = [0x9f, 0x0f, 0x90, 0xc0];
/// `mov eax, [esp]`
pub(crate) const LOAD_TOP: [u8; 3] = [0x8b, 0x04, 0x24];
/// `mov [esp], eax`
pub(crate) const STORE_TOP: [u8; 3] = [0x89, 0x04, 0x24];
/// `lea esp, [esp - 2]`
pub(crate) const LOWER_ESP_BY_2: [u8; 4] = [0x8d, 0x64, 0x24, 0xfe];
pub(crate) const PUSHF: [u8; 1] = [0x9c];
pub(crate) const POPF: [u8; 1] = [0x9d];
/// `mov ecx, eax`
pub(crate) const COPY_EAX_TO_ECX: [u8; 2] = [0x89, 0xc1];
/// `lea eax, [eax + ecx]`
pub(crate) const ADD_ECX: [u8; 3] = [0x8d, 0x04, 0x08];

/// `lea eax, [eax + ecx + displacement]`
pub(crate) fn add_ecx_and(displacement: i32) -> [u8; 7] {
    let [a, b, c, d] = displacement.to_le_bytes();
    [0x8d, 0x84, 0x08, a, b, c, d]
}

/// `test eax, mask`
pub(crate) fn test_eax(mask: u32) -> [u8; 5] {
    let [a, b, c, d] = mask.to_le_bytes();
    [0xa9, a, b, c, d]
}

/// `and eax, mask`
pub(crate) fn and_eax(mask: u32) -> [u8; 5] {
    let [a, b, c, d] = mask.to_le_bytes();
    [0x25, a, b, c, d]
}

/// Opcodes of short jumps.
pub(crate) mod short {
    pub(crate) const JUMP: u8 = 0xeb;
    pub(crate) const IF_ECX_IS_0: u8 = 0xe3;
    pub(crate) const IF_0: u8 = 0x74;
    pub(crate) const UNLESS_0: u8 = 0x75;
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions};

    fn text(fill: impl FnOnce(&mut Emitter)) -> Vec<String> {
        let mut emitter = Emitter::new(0x1000, 0x8000);
        fill(&mut emitter);
        let code = emitter.finish();
        let decoder = Decoder::with_ip(32, &code, 0x1000, DecoderOptions::NONE);
        decoder.into_iter().map(|instruction| instruction.to_string()).collect()
    }

    #[test]
    fn each_form_is_what_it_says() {
        let listing = text(|e| {
            e.store(Word::Saved(1), ECX);
            e.load(EAX, Word::Pending);
            e.load_half(EDX, Word::Cr0);
            e.store_constant(Word::InterruptFlag, 0x200);
            e.push(Word::Tr);
            e.raw(&LOWER_ESP_BY_2);
            e.push_half(Word::Tr);
            e.xor(EAX, Word::IoPrivilege);
            e.compare_with_zero(Word::Pending);
            e.constant(EBX, 7);
            e.push_constant(8);
            e.jump(0x2000);
            e.jump_by(&[0x0f, 0x84], 0x2000);
            e.far_jump(0x33, 0x3000);
            let hole = e.short(short::IF_ECX_IS_0);
            e.raw(&add_ecx_and(-0x200));
            e.raw(&ADD_ECX);
            e.land(hole);
            e.raw(&test_eax(0x3100));
            e.raw(&and_eax(0x200));
            e.raw(&FLAGS_TO_EAX);
            e.raw(&LOAD_TOP);
            e.raw(&STORE_TOP);
            e.raw(&COPY_EAX_TO_ECX);
        });
        let expected = [
            "mov ss:[8004h],ecx",
            "mov eax,ss:[8028h]",
            "mov dx,ss:[802Ch]",
            "mov dword ptr ss:[8020h],200h",
            "push dword ptr ss:[8050h]",
            "lea esp,[esp-2]",
            "push word ptr ss:[8050h]",
            "xor eax,ss:[8024h]",
            "cmp dword ptr ss:[8028h],0",
            "mov ebx,7",
            "push 8",
            "jmp near ptr 00002000h",
            "je near ptr 00002000h",
            "jmp far ptr 0033h:00003000h",
            "jecxz 0000106Bh",
            "lea eax,[eax+ecx-200h]",
            "lea eax,[eax+ecx]",
            "test eax,3100h",
            "and eax,200h",
            "lahf",
            "seto al",
            "mov eax,[esp]",
            "mov [esp],eax",
            "mov ecx,eax",
        ];
        let listing: Vec<&str> = listing.iter().map(String::as_str).collect();
        assert_eq!(listing.len(), expected.len(), "{listing:#?}");
        for (found, expected) in listing.iter().zip(expected) {
            assert_eq!(*found, expected);
        }
    }
}
