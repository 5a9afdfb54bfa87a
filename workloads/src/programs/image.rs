//! Putting a program together: its tables, kernel, contexts and code as one multiboot image.

use super::layout::{self, PAGE};
use super::{Block, Error, Link, LinkKind, Mode, Program, Random, kernel, tables};

/// An image under construction.
pub(super) struct Bytes(Vec<u8>);

impl Bytes {
    /// Puts bytes at an address.
    pub(super) fn put(&mut self, address: u32, bytes: &[u8]) -> Result<(), Error> {
        let place = address
            .checked_sub(layout::LOAD)
            .and_then(|at| self.0.get_mut(at as usize..at as usize + bytes.len()));
        let place = place.ok_or_else(|| Error(format!("{address:#x} is not in the image")))?;
        place.copy_from_slice(bytes);
        Ok(())
    }

    /// Puts a doubleword at an address.
    pub(super) fn put_u32(&mut self, address: u32, value: u32) -> Result<(), Error> {
        self.put(address, &value.to_le_bytes())
    }
}

/// INT with the vector that ends a block.
const END_OF_BLOCK: [u8; 2] = [0xcd, layout::NEXT_VECTOR];

/// What lies between blocks.
const FILLER: u8 = 0xcc;

impl Program {
    /// The multiboot image.
    ///
    /// # Errors
    /// When the program makes no sense: one from [`Program::generate`] always does.
    pub fn assemble(&self) -> Result<Vec<u8>, Error> {
        if self.blocks.len() > layout::MOST_BLOCKS || self.rounds > 1 << 16 {
            return Err(Error("there are too many blocks or rounds".to_owned()));
        }
        let mut bytes = Bytes(vec![0; (layout::END - layout::LOAD) as usize]);
        let kernel = kernel::assemble(self)?;
        bytes.put(layout::LOAD, &header())?;
        bytes.put(layout::ENTRY, &kernel.code)?;
        tables::descriptors(&mut bytes, self)?;
        tables::gates(&mut bytes, self, &kernel)?;
        tables::tasks(&mut bytes, &kernel)?;
        tables::pages(&mut bytes, self)?;
        bytes.put(kernel::POLICIES + u32::from(layout::IRQ_BASE), &[1; 16])?;
        for handler in &self.handlers {
            let policy = kernel::policy_byte(handler.policy);
            bytes.put(kernel::POLICIES + u32::from(handler.vector), &[policy])?;
        }
        self.put_data(&mut bytes)?;
        for text in [layout::KERNEL_TEXT, layout::USER_TEXT] {
            bytes.put(text, &[FILLER; layout::TEXT_BYTES as usize])?;
        }
        let places = self.places()?;
        for (number, (block, &place)) in (0u32..).zip(self.blocks.iter().zip(&places)) {
            bytes.put(place, &code(block, place)?)?;
            let context = self.context(block, place, number);
            for (at, value) in (0u32..).step_by(4).zip(context) {
                bytes.put_u32(layout::CONTEXTS + number * layout::CONTEXT_BYTES + at, value)?;
            }
        }
        Ok(bytes.0)
    }

    /// The linear address of each block.
    ///
    /// # Errors
    /// When they do not fit.
    pub fn places(&self) -> Result<Vec<u32>, Error> {
        let mut free = [layout::USER_TEXT, layout::KERNEL_TEXT];
        let mut places = Vec::new();
        for block in &self.blocks {
            let free = &mut free[usize::from(block.mode.is_kernel())];
            let place = free.saturating_add(block.gap);
            let start = *free & !(layout::TEXT_BYTES - 1);
            *free = place.saturating_add(block.length());
            if *free > start + layout::TEXT_BYTES {
                return Err(Error("the code does not fit".to_owned()));
            }
            places.push(place);
        }
        Ok(places)
    }

    /// Numbers of many kinds, loop counters, and a state for FXRSTOR.
    fn put_data(&self, bytes: &mut Bytes) -> Result<(), Error> {
        let mut random = Random::new(self.data);
        for at in (layout::DATA..layout::COUNTERS).step_by(4) {
            bytes.put_u32(at, datum(&mut random))?;
        }
        for counter in 0..layout::MOST_BLOCKS as u32 {
            let rounds = random.below(24);
            bytes.put_u32(layout::COUNTERS + counter * 4, 1 << rounds)?;
        }
        bytes.put_u32(layout::FLOATING, 0x37f)?;
        bytes.put_u32(layout::FLOATING + 4, 0xff)?;
        for at in (8..24).step_by(4) {
            bytes.put_u32(layout::FLOATING + at, 0)?;
        }
        bytes.put_u32(layout::FLOATING + 24, 0x1f80)?;
        bytes.put_u32(layout::FLOATING + 28, 0)
    }

    /// What the kernel lays on the stack to enter a block, its page directory last.
    fn context(&self, block: &Block, place: u32, number: u32) -> Vec<u32> {
        let mut random = Random::new(self.data ^ u64::from(number) << 32);
        let [es, ds, fs, gs] = block.data.map(u32::from);
        let [cs, ss] = block.code_and_stack.map(u32::from);
        let [eax, ecx, edx, ebx, esp, ebp, esi, edi] = block.registers;
        let mut context = vec![gs, fs, es, ds];
        let low = block.mode == Mode::Virtual8086;
        if low {
            // The data registers of virtual-8086 mode come from IRET.
            context = vec![u32::from(layout::USER_DATA); 4];
        }
        context.extend([edi, esi, ebp, 0, ebx, edx, ecx, eax]);
        let flags = block.flags & !VM;
        context.extend([block.offset(place), cs, if low { flags | VM } else { flags }]);
        if !block.mode.is_kernel() {
            context.extend([esp, ss]);
        }
        if low {
            context.extend([es, ds, fs, gs]);
        }
        let words = layout::CONTEXT_BYTES as usize / 4 - 1;
        while context.len() < words {
            context.push(datum(&mut random));
        }
        let directory = block.directory.map(|number| 1 | (u32::from(number & 1) * PAGE));
        context.push(directory.unwrap_or(0));
        context
    }
}

const VM: u32 = 1 << 17;

impl Block {
    /// Bytes of its code.
    #[must_use]
    pub fn length(&self) -> u32 {
        let code: usize = self.code.iter().map(|item| item.bytes.len()).sum();
        (code + END_OF_BLOCK.len()) as u32
    }

    /// The offset in its code segment of a linear address.
    fn offset(&self, linear: u32) -> u32 {
        match self.mode {
            Mode::Kernel | Mode::User => linear,
            Mode::Kernel16 => linear.wrapping_sub(layout::KERNEL_TEXT),
            Mode::User16 | Mode::Virtual8086 => linear.wrapping_sub(layout::USER_TEXT),
        }
    }

    /// The offset in its data segment of a linear address.
    fn data_offset(&self, linear: u32) -> u32 {
        match self.mode {
            Mode::Kernel | Mode::User => linear,
            _ => linear.wrapping_sub(layout::DATA),
        }
    }

    /// Where each item begins from `place` on, and where the last ends.
    #[must_use]
    pub fn boundaries(&self, place: u32) -> Vec<u32> {
        let mut at = place;
        let mut boundaries = vec![at];
        for item in &self.code {
            at = at.wrapping_add(item.bytes.len() as u32);
            boundaries.push(at);
        }
        boundaries
    }
}

/// The bytes of a block that begins at `place`.
pub(super) fn code(block: &Block, place: u32) -> Result<Vec<u8>, Error> {
    let boundaries = block.boundaries(place);
    let mut code = Vec::new();
    for (number, item) in block.code.iter().enumerate() {
        let mut bytes = item.bytes.clone();
        if let Some(Link { at, size, kind, target }) = item.link {
            let target = boundaries.get(target);
            let target = *target
                .ok_or_else(|| Error(format!("a link leads to no item of {}", block.code.len())))?;
            let value = match kind {
                LinkKind::Relative => target.wrapping_sub(boundaries[number + 1]),
                LinkKind::Offset => block.offset(target),
                LinkKind::Data => block.data_offset(target),
            };
            let place = bytes.get_mut(at..at + size);
            let place = place.ok_or_else(|| Error("a link lies outside its item".to_owned()))?;
            place.copy_from_slice(&value.to_le_bytes()[..size]);
        }
        code.extend(bytes);
    }
    code.extend(END_OF_BLOCK);
    Ok(code)
}

/// A doubleword such as programs work on.
fn datum(random: &mut Random) -> u32 {
    match random.below(8) {
        0 => random.below(16) as u32,
        1 => layout::DATA + random.below(u64::from(layout::DATA_BYTES)) as u32,
        2 => (random.number() as u32) & 0xed7,
        3 => 0x3f80_0000 ^ (random.below(1 << 12) as u32) << 12,
        4 => [0, u32::MAX, 0x8000_0000, 0x7fff_ffff, 0x7ff0_0000, 0x7fc0_0000]
            [random.below(6) as usize],
        _ => random.number() as u32,
    }
}

/// A multiboot 1 header with the a.out kludge.
fn header() -> Vec<u8> {
    const MAGIC: u32 = 0x1bad_b002;
    const FLAGS: u32 = 0x0001_0000;
    let checksum = 0u32.wrapping_sub(MAGIC).wrapping_sub(FLAGS);
    [MAGIC, FLAGS, checksum, layout::LOAD, layout::LOAD, layout::END, layout::END, layout::ENTRY]
        .iter()
        .flat_map(|field| field.to_le_bytes())
        .collect()
}
