//! From guest bytes to a unit: the translator's heart.
//!
//! A unit begins where execution enters it and goes on past conditional jumps and calls, up to an
//! unconditional jump, a return, the end of the page, or [`MOST_INSTRUCTIONS`]. Each instruction is
//! given to the module that knows it; what none of them knows is left to the emulator, by an exit
//! that comes back ([`Translator::step`]).
//!
//! An example (a unit test of `explain` keeps it true; `ringside translate` shows any other):
//!
//! ```text
//! 8b 43 04    mov eax,[ebx+4]    65 67 8b 43 04       mov eax,gs:[ebx+4]
//! 01 d0       add eax,edx        01 d0                add eax,edx
//! 50          push eax           65 67 41 89 46 fc    mov gs:[r14d-4],eax
//!                                45 8d 76 fc          lea r14d,[r14-4]
//! fa          cli                41 c7 45 …           mov dword [r13+INTERRUPT_FLAG],0
//! c3          ret                65 67 45 8b 06       mov r8d,gs:[r14d]
//!                                45 8d 76 04          lea r14d,[r14+4]
//!                                c3                   ret
//! ```

mod call;
mod control;
mod descriptors;
mod far;
mod flags;
mod operand;
mod stack;
mod strings;
mod system;

use crate::class::{self, Class};
use crate::context::{Exit, at};
use crate::emit::{Address, Emitter, R8, R12, R15, Reg, context};
use crate::mode::Mode;
use crate::sites::Sites;
use crate::stubs::Stubs;
use control::Shape;
use iced_x86::{Decoder, DecoderOptions, Encoder, Instruction};

/// The most instructions in a unit.
const MOST_INSTRUCTIONS: usize = 64;
/// A unit ends once it has so many bytes of host code.
const MOST_HOST_BYTES: usize = 6 << 10;

/// As the emulator decodes.
pub(crate) const OPTIONS: u32 = DecoderOptions::FORCE_RESERVED_NOP
    | DecoderOptions::NO_MPFX_0FBC
    | DecoderOptions::NO_MPFX_0FBD
    | DecoderOptions::NO_WBNOINVD;

/// What is to be translated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    /// The guest's bytes from the entry to the end of the page.
    pub(crate) code: &'a [u8],
    pub(crate) eip: u32,
    pub(crate) physical: u64,
    pub(crate) mode: Mode,
}

/// Where the host code of a guest instruction begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) offset: u32,
    pub(crate) eip: u32,
    pub(crate) kind: PlaceKind,
}

/// What a fault there means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PlaceKind {
    /// It is the instruction's.
    Instruction,
    /// The same, while EAX and the arithmetic flags are in R12 and R11.
    Borrowed,
    /// A poll failed; the guest goes on at this EIP.
    Poll,
}

/// A jump that can be linked to a unit, and the exit that it takes until then. Offsets in the unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Link {
    /// The 32 bits of distance.
    pub(crate) site: u32,
    pub(crate) exit: u32,
}

/// A unit before it is entered into the cache.
#[derive(Debug)]
pub(crate) struct Translation {
    pub(crate) bytes: Vec<u8>,
    /// Bytes of guest code.
    pub(crate) length: u32,
    pub(crate) places: Vec<Place>,
    pub(crate) links: Vec<Link>,
    /// Where returns come back to.
    pub(crate) returns: Vec<u32>,
    /// Where the code off the common path begins.
    pub(crate) cold: u32,
}

/// How translation goes on after an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    Continue,
    End,
}

/// Code that is put behind the unit, off its common path.
enum Cold {
    /// An exit to the emulator from `hole`, back to `back` or for good. EAX and the flags may be
    /// borrowed.
    Step { hole: usize, eip: u32, next: u32, back: Option<usize>, exit: Exit, borrowed: bool },
    /// An exit to link the jump at `site`.
    Link { site: usize, eip: u32 },
    /// A lookup that is called.
    Lookup { hole: usize },
}

/// Translates one unit.
struct Translator<'a> {
    e: Emitter,
    encoder: Encoder,
    stubs: &'a Stubs,
    sites: &'a Sites,
    request: Request<'a>,
    places: Vec<Place>,
    links: Vec<Link>,
    returns: Vec<u32>,
    cold: Vec<Cold>,
    /// Whether the floating-point state is known to be loaded here.
    fpu_ready: bool,
    shape: Shape,
    /// Host offset of the first instruction, for jumps from within.
    entry: usize,
}

/// Translates the unit at `request`, to lie at the host address `base`.
pub(crate) fn translate(
    request: Request<'_>,
    sites: &Sites,
    stubs: &Stubs,
    base: u64,
) -> Translation {
    let mut translator = Translator {
        e: Emitter::new(base),
        encoder: Encoder::new(64),
        stubs,
        sites,
        request,
        places: Vec::with_capacity(MOST_INSTRUCTIONS),
        links: Vec::new(),
        returns: Vec::new(),
        cold: Vec::new(),
        fpu_ready: false,
        shape: control::shape(&request),
        entry: 0,
    };
    let length = translator.unit();
    let cold = translator.e.offset() as u32;
    translator.finish();
    Translation {
        bytes: translator.e.bytes,
        length,
        places: translator.places,
        links: translator.links,
        returns: translator.returns,
        cold,
    }
}

impl Translator<'_> {
    /// Translates instructions; returns how many bytes of guest code they are.
    fn unit(&mut self) -> u32 {
        let Request { code, eip, .. } = self.request;
        let mut decoder = Decoder::with_ip(32, code, u64::from(eip), OPTIONS);
        if self.shape.loops {
            if self.shape.floats {
                self.ensure_fpu();
            }
            self.entry = self.e.offset();
            self.poll(eip);
        }
        for _ in 0..MOST_INSTRUCTIONS {
            let at = decoder.position();
            let here = eip.wrapping_add(at as u32);
            if at >= code.len() || self.e.offset() > MOST_HOST_BYTES {
                self.jump_to(here);
                return at as u32;
            }
            let instruction = decoder.decode();
            self.place(here, PlaceKind::Instruction);
            if instruction.is_invalid() || !emulator::is_ia32(&instruction) {
                // Undefined, or it goes on in the next page, which nobody watches.
                self.step_and_leave(here, false);
                return code.len().min(at + 15) as u32;
            }
            if self.instruction(&instruction) == Next::End {
                return decoder.position() as u32;
            }
        }
        self.jump_to(eip.wrapping_add(decoder.position() as u32));
        decoder.position() as u32
    }

    fn place(&mut self, eip: u32, kind: PlaceKind) {
        self.places.push(Place { offset: self.e.offset() as u32, eip, kind });
    }

    fn instruction(&mut self, i: &Instruction) -> Next {
        let class = class::of(i);
        let usable = match class {
            Class::Plain => true,
            Class::Fpu => self.request.mode.has_fpu(),
            Class::Sse => self.request.mode.has_sse(),
            Class::Other => false,
        };
        if class != Class::Plain && usable {
            self.ensure_fpu();
        }
        if usable && !self.is_hopeless(i) && self.operands(i) {
            return Next::Continue;
        }
        if class == Class::Fpu || class == Class::Sse {
            return self.step(i);
        }
        if let Some(next) = self.control(i) {
            return next;
        }
        if self.stack(i) || self.string(i) || self.system(i) {
            return Next::Continue;
        }
        if system::ends_unit(i) {
            self.step_and_leave(i.ip32(), true);
            return Next::End;
        }
        self.step(i)
    }

    /// Lets the emulator execute the instruction and come back behind it.
    fn step(&mut self, i: &Instruction) -> Next {
        let exit = if system::is_light(i) { Exit::LightStep } else { Exit::Step };
        self.exit_constants(i.ip32(), exit);
        self.e.store_constant(context(at::EXIT_NEXT), i.next_ip32());
        let hole = self.e.lea_here(R8);
        self.e.store64(context(at::RESUME), R8);
        self.e.store64(context(at::PLACE), R8);
        self.e.jump_through(context(at::EXIT));
        self.e.land(hole);
        self.fpu_ready = false;
        Next::Continue
    }

    /// Lets the emulator execute the instruction at `eip`; wherever that leads is looked up. `known`
    /// if all of its bytes are this unit's.
    fn step_and_leave(&mut self, eip: u32, known: bool) {
        self.exit_constants(eip, Exit::Step);
        self.e.constant(R8, 0);
        self.e.store64(context(at::RESUME), R8);
        if known {
            let hole = self.e.lea_here(R8);
            self.e.land(hole);
        }
        self.e.store64(context(at::PLACE), R8);
        self.e.jump_through(context(at::EXIT));
    }

    fn exit_constants(&mut self, eip: u32, exit: Exit) {
        self.e.store_constant(context(at::EXIT_EIP), eip);
        self.e.store_constant(context(at::REASON), exit as u32);
    }

    /// Loads the guest's floating-point state unless that is known to be there.
    fn ensure_fpu(&mut self) {
        if !std::mem::replace(&mut self.fpu_ready, true) {
            self.e.call_through(context(at::FPU_ENSURE));
        }
    }

    /// Reads by the pointer that a kick makes unusable; the guest is then about to execute `eip`.
    fn poll(&mut self, eip: u32) {
        self.place(eip, PlaceKind::Poll);
        self.e.load(R12, Address::new(R15, 0));
    }

    /// Emits what lies off the common path.
    fn finish(&mut self) {
        for cold in std::mem::take(&mut self.cold) {
            match cold {
                Cold::Step { hole, eip, next, back, exit, borrowed } => {
                    self.e.land(hole);
                    if borrowed {
                        self.e.take_flags_back();
                    }
                    self.cold_step(eip, next, back, exit);
                }
                Cold::Link { site, eip } => self.cold_link(site, eip),
                Cold::Lookup { hole } => {
                    self.e.land(hole);
                    self.lookup();
                }
            }
        }
    }

    fn cold_step(&mut self, eip: u32, next: u32, back: Option<usize>, exit: Exit) {
        if exit == Exit::Miss {
            self.e.store(context(at::SOFT_ADDRESS), R8);
        }
        let Some(back) = back else { return self.step_and_leave(eip, true) };
        self.exit_constants(eip, exit);
        self.e.store_constant(context(at::EXIT_NEXT), next);
        let target = self.e.base + back as u64;
        let hole = self.e.lea_here(R8);
        self.e.aim(hole, target);
        self.e.store64(context(at::RESUME), R8);
        self.e.store64(context(at::PLACE), R8);
        self.e.jump_through(context(at::EXIT));
    }

    fn cold_link(&mut self, site: usize, eip: u32) {
        self.e.land(site);
        let exit = self.e.offset() as u32;
        self.exit_constants(eip, Exit::Link);
        let target = self.e.base + site as u64;
        let hole = self.e.lea_here(R8);
        self.e.aim(hole, target);
        self.e.store64(context(at::RESUME), R8);
        self.e.jump_through(context(at::EXIT));
        self.links.push(Link { site: site as u32, exit });
    }

    /// Points `base` to the machine's CPU; the address of a field of it.
    fn cpu(&mut self, base: Reg, offset: i32) -> Address {
        self.e.load64(base, context(at::CPU));
        Address::new(base, offset)
    }

    /// The host register of a guest register of 32 bits.
    fn register(&self, register: iced_x86::Register) -> Reg {
        crate::emit::guest(register.full_register32().number() as u8)
    }
}
