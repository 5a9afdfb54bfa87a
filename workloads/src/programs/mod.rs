//! Random programs: whole guests that are made to be run under two strategies and compared.
//!
//! A [`Program`] is data: descriptors, page tables, what its exception handlers do, and blocks of
//! code for rings 0 and 3 with the state in which each begins. [`Program::generate`] makes the one that belongs
//! to a seed; it can be written down as TOML, made smaller piece by piece ([`shrink`]), and
//! assembled to a multiboot image that any loader takes.
//!
//! Around the blocks stands a small kernel (`kernel`): every vector leads to it. It notes what it
//! finds, and then does what the program says for that vector: goes back, behind some bytes, makes
//! the missing page present, or begins the next block. So whatever random code comes to, the program goes on,
//! through each of its blocks as many times as it has rounds, and ends at the exit port:
//!
//! ```text
//! entry    tables, paging, PIC and PIT, then `next`
//! next     lays the context of the next block on the stack, POP GS … POPAD, IRET into the block
//! block    random code, INT 0x81
//! vector   PUSHAD, note the frame, then: back, or behind, or the page is mapped, or `next`
//! ```
//!
//! Instructions are not taken from a table: opcode bytes are random, a decoder tells how long the
//! result is, and whoever asks says which he wants ([`Repertoire`]).
//!
//! Parts: `layout` says where things are, `scene` and `code` are the random part, `idioms` what random
//! bytes would not come to, `tables` and `kernel` make the image, `text` writes code down.

mod code;
mod idioms;
mod image;
mod kernel;
pub mod layout;
mod random;
mod scene;
pub mod shrink;
mod tables;
mod text;

pub use code::{KeptOut, Repertoire};
pub use random::Random;

use serde::{Deserialize, Serialize};

/// The version of the form in which programs are written down.
pub const VERSION: u32 = 1;

/// A program.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// The number from which it was made.
    #[serde(with = "text::hexadecimal")]
    pub seed: u64,
    /// How many times its blocks are run.
    pub rounds: u32,
    /// Paging.
    pub paging: Paging,
    /// Bits of CR0 beside PE, ET and PG.
    pub cr0: u32,
    /// Bits of CR4 beside PAE.
    pub cr4: u32,
    /// Whether the kernel puts CR0, CR4 and DR7 back before each block.
    pub restores: bool,
    /// What the contents of the data pages are made from.
    #[serde(with = "text::hexadecimal")]
    pub data: u64,
    /// Entries of page tables that are not as usual.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pages: Vec<Page>,
    /// Descriptors beside the usual ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub descriptors: Vec<Slot>,
    /// Gates that are not as usual.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<Gate>,
    /// What is done about vectors, where it is not [`Policy::Next`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub handlers: Vec<Handler>,
    /// The code.
    #[serde(default, rename = "block", skip_serializing_if = "Vec::is_empty")]
    pub blocks: Vec<Block>,
}

/// How a program's memory is paged.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Paging {
    /// Not at all.
    Off,
    /// With two levels.
    Plain,
    /// With PAE.
    Wide,
}

/// An entry of a page table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Page {
    /// Of which directory: 0 or 1.
    pub directory: u8,
    /// Which page of the first 4 MiB.
    pub number: u32,
    /// The entry; with PAE its high half is 0.
    pub entry: u32,
}

/// A descriptor in the GDT or the LDT.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slot {
    /// Its selector; bit 2 says that it is in the LDT.
    pub selector: u16,
    /// Its eight bytes.
    #[serde(with = "text::hexadecimal")]
    pub value: u64,
}

/// A gate of the IDT.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// Its vector.
    pub vector: u8,
    /// Its access byte: type, DPL, present.
    pub access: u8,
    /// The selector it leads to.
    pub selector: u16,
}

/// What the kernel does about a vector.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handler {
    /// The vector.
    pub vector: u8,
    /// What it does.
    pub policy: Policy,
}

/// What the kernel does about a vector.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// It begins the next block.
    Next,
    /// It goes back to where it came from.
    Return,
    /// It makes the page at CR2 present, writable and the user's, and goes back.
    Map,
    /// It goes on so many bytes behind.
    Skip(u8),
}

/// The mode of a block.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Ring 0, 32 bits.
    Kernel,
    /// Ring 0, 16 bits.
    Kernel16,
    /// Ring 3, 32 bits.
    User,
    /// Ring 3, 16 bits.
    User16,
    /// Virtual-8086 mode.
    Virtual8086,
}

impl Mode {
    /// Whether this is ring 0.
    #[must_use]
    pub fn is_kernel(self) -> bool {
        matches!(self, Mode::Kernel | Mode::Kernel16)
    }

    /// 16 or 32.
    #[must_use]
    pub fn bits(self) -> u32 {
        if matches!(self, Mode::Kernel | Mode::User) { 32 } else { 16 }
    }
}

/// A piece of code, and the state in which it begins.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Block {
    /// Its mode.
    pub mode: Mode,
    /// Which page directory is loaded before: 0 or 1, or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<u8>,
    /// Bytes between the block before and this one.
    pub gap: u32,
    /// EFLAGS, VM aside.
    pub flags: u32,
    /// CS and SS.
    pub code_and_stack: [u16; 2],
    /// ES, DS, FS and GS.
    pub data: [u16; 4],
    /// The general registers, in encoding order; ring 0 has its own ESP.
    pub registers: [u32; 8],
    /// Its instructions.
    #[serde(with = "text::items")]
    pub code: Vec<Item>,
}

/// An instruction, or some that belong together.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Item {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What is filled in when it is known where the items are.
    pub link: Option<Link>,
}

/// A reference from one item to the beginning of another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Link {
    /// Where in the bytes.
    pub at: usize,
    /// 1, 2 or 4 bytes.
    pub size: usize,
    /// Relative to the end of the item, or an offset in the code segment, or a linear address.
    pub kind: LinkKind,
    /// Which item of the block; behind the last is the block's end.
    pub target: usize,
}

/// How a link is filled in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LinkKind {
    /// The distance from the end of the item.
    Relative,
    /// The offset in the block's code segment.
    Offset,
    /// The offset in a data segment through which the block reaches it.
    Data,
}

impl Item {
    /// An item without a link.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Item {
        Item { bytes, link: None }
    }
}

/// A program that makes no sense: only one that was written by hand.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

#[cfg(test)]
mod tests {
    use super::*;

    fn program(seed: u64) -> Program {
        let kept_out = KeptOut::default();
        Program::generate(seed, &Repertoire { allows: &|_| true, kept_out })
    }

    #[test]
    fn every_seed_gives_a_program_that_can_be_assembled() {
        for seed in 0..500 {
            let image = program(seed).assemble();
            let length = image.map(|image| image.len());
            assert_eq!(length, Ok((layout::END - layout::LOAD) as usize), "seed {seed}");
        }
    }

    #[test]
    fn a_program_is_the_same_after_it_was_written_down() {
        for seed in 0..100 {
            let text = toml::to_string(&program(seed)).unwrap();
            assert_eq!(toml::from_str(&text), Ok(program(seed)), "seed {seed}");
        }
    }

    #[test]
    fn programs_come_to_all_modes_and_kinds_of_paging() {
        let programs: Vec<_> = (0..100).map(program).collect();
        let modes = [Mode::Kernel, Mode::Kernel16, Mode::User, Mode::User16, Mode::Virtual8086];
        for mode in modes {
            let has = |program: &Program| program.blocks.iter().any(|block| block.mode == mode);
            assert!(programs.iter().any(has), "{mode:?}");
        }
        for paging in [Paging::Off, Paging::Plain, Paging::Wide] {
            assert!(programs.iter().any(|program| program.paging == paging), "{paging:?}");
        }
    }

    #[test]
    fn what_is_not_allowed_is_in_no_item() {
        use iced_x86::{Decoder, DecoderOptions, Mnemonic};
        let allows = |instruction: &iced_x86::Instruction| {
            !matches!(instruction.mnemonic(), Mnemonic::Mov | Mnemonic::Push)
        };
        let kept_out = KeptOut { rare: true, ..KeptOut::default() };
        for seed in 0..200 {
            let program = Program::generate(seed, &Repertoire { allows: &allows, kept_out });
            assert_ne!(program.paging, Paging::Off);
            for block in &program.blocks {
                assert!(matches!(block.mode, Mode::Kernel | Mode::User), "seed {seed}");
                for item in &block.code {
                    let decoder = Decoder::new(32, &item.bytes, DecoderOptions::NONE);
                    // Nobody knows how long an invalid one is, and what follows is not executed.
                    let mut valid = decoder.into_iter().take_while(|one| !one.is_invalid());
                    assert!(valid.all(|one| allows(&one)), "seed {seed}: {item:?}");
                }
            }
        }
    }
}
