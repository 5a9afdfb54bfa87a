//! Loads of segment registers without the monitor.
//!
//! A kernel loads the same few selectors at each entry and exit. The host's registers hold selectors
//! of its own, of descriptors that stand for the guest's; what a load comes to is known if the same one
//! was made before and the guest's descriptor is as it was then. So the virtual CPU's page remembers
//! the last loads of each register, and a stub compares: the selector, and the eight bytes of the
//! descriptor in the guest's table.

use crate::emit::{self, EAX, ECX, EDX, Hole, short};
use crate::stub::{Assembly, Part, Step, bit};
use crate::view::PAGE;
use crate::virtual_cpu::{self, Word};
use iced_x86::{Code, Encoder, Instruction, MemoryOperand, OpKind, Register as Named};
use machine::cpu::{Descriptor, SegmentRegister, TableRegister};
use machine::{LinearAddress, Machine, Selector};

/// Where in the virtual CPU's page the loads are.
pub(crate) const OFFSET: usize = 128;
/// Bytes of all.
pub(crate) const BYTES: usize = 6 * KEPT * ENTRY;
/// Loads of each register that are remembered.
const KEPT: usize = 2;
/// Bytes of one.
const ENTRY: usize = 24;

const _: () = assert!(virtual_cpu::BYTES <= OFFSET && OFFSET + BYTES <= PAGE);

/// Offsets in an entry. What is compared is there negated, for without touching the flags there is
/// only addition.
mod field {
    pub(super) const NEGATED_SELECTOR: u8 = 0;
    pub(super) const ADDRESS: u8 = 4;
    pub(super) const NEGATED_LOW: u8 = 8;
    pub(super) const NEGATED_HIGH: u8 = 12;
    pub(super) const HOST_SELECTOR: u8 = 16;
    pub(super) const SELECTOR: u8 = 20;
}

/// A load and what came of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Load {
    selector: u16,
    /// Where its descriptor is, and the descriptor; nothing for the null selector.
    descriptor: Option<(u32, u64)>,
    host: u16,
}

/// The loads that are known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Loads {
    known: [[Option<Load>; KEPT]; 6],
    /// Which of a register's is to be replaced next.
    oldest: [usize; 6],
    gdtr: Option<TableRegister>,
    generation: u64,
    /// Whether the page has not been told yet.
    pub(crate) is_new: bool,
}

impl Loads {
    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        *self = Loads { is_new: true, ..Loads::default() };
    }

    /// Remembers what the segment registers hold, for which the host has these selectors; with another
    /// `generation` they mean something else than before.
    pub(crate) fn learn(&mut self, m: &mut Machine, host: &[u16; 6], generation: u64) {
        if self.generation != generation || self.gdtr != Some(m.cpu.gdtr) {
            self.clear();
            (self.generation, self.gdtr) = (generation, Some(m.cpu.gdtr));
        }
        use SegmentRegister::{Ds, Es, Fs, Gs, Ss};
        for register in [Es, Ss, Ds, Fs, Gs] {
            let number = register as usize;
            let (selector, host) = (m.cpu.segment(register).selector, host[number]);
            let is_known = |load: &Load| load.selector == selector && load.host == host;
            if self.known[number].iter().flatten().any(is_known) {
                continue;
            }
            let Some(load) = load(m, register, host) else { continue };
            let place = self.known[number]
                .iter()
                .position(|known| known.is_none_or(|known| known.selector == selector));
            let place = place.unwrap_or(self.oldest[number]);
            self.known[number][place] = Some(load);
            self.oldest[number] = (place + 1) % KEPT;
            self.is_new = true;
        }
    }

    /// What the virtual CPU's page, which lies at `page`, has of them.
    pub(crate) fn bytes(&self, page: u32) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        let all = self.known.iter().flatten().enumerate();
        for ((number, load), entry) in all.zip(bytes.chunks_exact_mut(ENTRY)) {
            let mut set = |field: u8, value: u32| {
                entry[usize::from(field)..][..4].copy_from_slice(&value.to_le_bytes());
            };
            // No selector of 16 bits makes this 0.
            set(field::NEGATED_SELECTOR, 1);
            let Some(load) = load else { continue };
            set(field::NEGATED_SELECTOR, u32::from(load.selector).wrapping_neg());
            // The null selector's descriptor is where there are zeros.
            let zeros = page + (OFFSET + number * ENTRY) as u32 + u32::from(field::NEGATED_LOW);
            let (address, descriptor) = load.descriptor.unwrap_or((zeros, 0));
            set(field::ADDRESS, address);
            set(field::NEGATED_LOW, (descriptor as u32).wrapping_neg());
            set(field::NEGATED_HIGH, ((descriptor >> 32) as u32).wrapping_neg());
            set(field::HOST_SELECTOR, load.host.into());
            set(field::SELECTOR, load.selector.into());
        }
        bytes
    }
}

/// The load that made a register what it is; nothing if the guest's table says something else now, or
/// it was no load from there.
fn load(m: &mut Machine, register: SegmentRegister, host: u16) -> Option<Load> {
    let segment = *m.cpu.segment(register);
    let selector = Selector(segment.selector);
    if selector.0 == 0 {
        return (host == 0).then_some(Load { selector: 0, descriptor: None, host });
    }
    let end = selector.table_offset().saturating_add(7);
    if host == 0 || selector.is_local() || end > m.cpu.gdtr.limit.into() {
        return None;
    }
    let address = m.cpu.gdtr.base.wrapping_add(selector.table_offset());
    let found = emulator::mapping(m, LinearAddress(address))?;
    let mut bytes = [0; 8];
    let in_page = address & 0xfff <= 0xff8;
    if !in_page || !m.memory.read(found.physical, &mut bytes) {
        return None;
    }
    let descriptor = u64::from_le_bytes(bytes);
    let is_same = Descriptor(descriptor).to_segment(selector) == segment;
    is_same.then_some(Load { selector: selector.0, descriptor: Some((address, descriptor)), host })
}

/// The register that an instruction loads, if a stub can do that.
pub(crate) fn register(instruction: &Instruction) -> Option<u8> {
    let register = match instruction.code() {
        Code::Mov_Sreg_rm16 | Code::Mov_Sreg_r32m16 => instruction.op0_register(),
        Code::Popd_ES | Code::Popd_DS | Code::Popd_FS | Code::Popd_GS => instruction.op0_register(),
        _ => return None,
    };
    let is_data = matches!(register, Named::ES | Named::DS | Named::FS | Named::GS);
    let has_source = instruction.op_count() == 1 || has_source(instruction, 1);
    (is_data && has_source).then_some(register.number() as u8)
}

/// Whether a stub can read the selector that is this operand.
pub(crate) fn has_source(instruction: &Instruction, operand: u32) -> bool {
    instruction.op_kind(operand) != OpKind::Memory || from_memory(instruction).is_some()
}

/// `movzx ecx, word [..]` with the instruction's memory operand, if it can be encoded.
fn from_memory(instruction: &Instruction) -> Option<Vec<u8>> {
    if instruction.memory_displ_size() == 2 || instruction.memory_base().size() == 2 {
        return None;
    }
    let memory = MemoryOperand::new(
        instruction.memory_base(),
        instruction.memory_index(),
        instruction.memory_index_scale(),
        i64::from(instruction.memory_displacement32() as i32),
        4,
        false,
        // The code segment need not show data, and both are flat where there are stubs.
        match instruction.memory_segment() {
            Named::CS => Named::SS,
            other => other,
        },
    );
    let load = Instruction::with2(Code::Movzx_r32_rm16, Named::ECX, memory).ok()?;
    let mut encoder = Encoder::new(32);
    encoder.encode(&load, 0).ok()?;
    Some(encoder.take_buffer())
}

const SS: u8 = 0x36;
/// `mov ecx, ss:[edx + field]`
const fn field_to_ecx(field: u8) -> [u8; 4] {
    [SS, 0x8b, 0x4a, field]
}
/// `mov eax, ss:[edx + field]`
const fn field_to_eax(field: u8) -> [u8; 4] {
    [SS, 0x8b, 0x42, field]
}
/// `mov eax, ecx`
const COPY_ECX_TO_EAX: [u8; 2] = [0x89, 0xc8];
/// `lea ecx, [ecx + eax]`
const ADD_EAX_TO_ECX: [u8; 3] = [0x8d, 0x0c, 0x01];
/// `mov ecx, ss:[esp]; movzx ecx, cx`
const TOP_TO_ECX: [u8; 7] = [SS, 0x8b, 0x0c, 0x24, 0x0f, 0xb7, 0xc9];
/// `or ah, 0x40`
const SET_ZF_IN_AH: [u8; 3] = [0x80, 0xcc, 0x40];
/// `add al, 0x7f; sahf`: OF and the others from what `lahf; seto al` has left.
const EAX_TO_FLAGS: [u8; 3] = [0x04, 0x7f, 0x9e];
/// `lea esp, [esp + 4]`
const DROP_TOP: [u8; 4] = [0x8d, 0x64, 0x24, 4];

impl Assembly {
    /// Loads a segment register as it was loaded before, or leaves for the monitor.
    pub(crate) fn load_segment(&mut self, part: &Part<'_>, register: u8) {
        let pops = part.instruction.op_count() == 1;
        let others = self.compare_with(part, register);
        self.e.raw(&field_to_ecx(field::HOST_SELECTOR));
        self.e.raw(&[0x8e, 0xc1 | register << 3]); // mov register, cx
        self.e.raw(&field_to_ecx(field::SELECTOR));
        self.e.store(Word::Selector(register), ECX);
        if pops {
            self.e.raw(&DROP_TOP);
        }
        self.done(part);
        [EDX, EAX, ECX].into_iter().for_each(|saved| self.restore(saved));
        self.cross_unless_known(part, others);
    }

    /// Sets ZF if the selector is one that SS was loaded with, or leaves for the monitor. CPUs forget
    /// what they have read ahead at each VERW, so that kernels have it on the way to ring 3.
    pub(crate) fn verify_writable(&mut self, part: &Part<'_>) {
        let others = self.compare_with(part, SegmentRegister::Ss as u8);
        self.restore(EDX);
        self.e.raw(&emit::FLAGS_TO_EAX);
        self.e.store(Word::Saved(EDX), EAX);
        self.step(|step| step.flags_saved = true);
        self.e.raw(&SET_ZF_IN_AH);
        self.e.store(Word::Saved(EDX), EAX);
        let saved = bit(EAX) | bit(ECX);
        self.step(|step| {
            *step = Step { eip: part.next(), saved, flags_saved: true, ..Step::default() };
        });
        self.e.raw(&EAX_TO_FLAGS);
        self.step(|step| step.flags_saved = false);
        [EAX, ECX].into_iter().for_each(|saved| self.restore(saved));
        self.cross_unless_known(part, others);
    }

    /// Compares the selector that the instruction names with those that a register was loaded with.
    /// Goes on where it is one of them, and its descriptor the same; EDX has the entry's address then.
    /// Returns where it is not.
    fn compare_with(&mut self, part: &Part<'_>, register: u8) -> Vec<Hole> {
        self.save(ECX);
        self.selector_to_ecx(&part.instruction);
        self.save(EAX);
        self.save(EDX);
        self.e.raw(&COPY_ECX_TO_EAX);
        let entry = |kept: usize| OFFSET + (usize::from(register) * KEPT + kept) * ENTRY;
        let hits = [0, 1].map(|kept| {
            self.e.constant(EDX, self.setting.page + entry(kept) as u32);
            self.e.raw(&field_to_ecx(field::NEGATED_SELECTOR));
            self.e.raw(&ADD_EAX_TO_ECX);
            self.e.short(short::IF_ECX_IS_0)
        });
        let mut others = vec![self.e.short(short::JUMP)];
        hits.into_iter().for_each(|hit| self.e.land(hit));
        for (field, half) in [(field::NEGATED_LOW, 0), (field::NEGATED_HIGH, 4)] {
            self.e.raw(&field_to_ecx(field));
            self.e.raw(&field_to_eax(field::ADDRESS));
            self.e.raw(&[SS, 0x8b, 0x40, half]); // mov eax, ss:[eax + half]
            self.e.raw(&ADD_EAX_TO_ECX);
            let same = self.e.short(short::IF_ECX_IS_0);
            others.push(self.e.short(short::JUMP));
            self.e.land(same);
        }
        others
    }

    /// Ends what [`Assembly::compare_with`] began: the monitor does what is not known.
    fn cross_unless_known(&mut self, part: &Part<'_>, others: Vec<Hole>) {
        let over = self.e.short(short::JUMP);
        others.into_iter().for_each(|other| self.e.land(other));
        let saved = bit(EAX) | bit(ECX) | bit(EDX);
        self.step(|step| *step = Step { eip: part.eip(), saved, ..Step::default() });
        [EDX, EAX, ECX].into_iter().for_each(|saved| self.restore(saved));
        self.cross(part);
        self.e.land(over);
    }

    /// The operand that is a selector: MOV's second, VERW's only one, or what POP finds on the stack.
    fn selector_to_ecx(&mut self, instruction: &Instruction) {
        let operand = instruction.op_count() - 1;
        let is_pop = operand == 0 && instruction.op0_register().is_segment_register();
        if is_pop {
            self.e.raw(&TOP_TO_ECX);
        } else if instruction.op_kind(operand) == OpKind::Register {
            let number = instruction.op_register(operand).number() as u8;
            self.e.raw(&[0x0f, 0xb7, 0xc8 | number]); // movzx ecx, number
        } else if let Some(load) = from_memory(instruction) {
            // `has_source` has seen that there is one.
            self.e.raw(&load);
        }
    }
}
