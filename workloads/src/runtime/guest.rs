//! The builder of an image: code, data, gates, the measured loop, and putting the file together.

use super::boot::{Setup, multiboot_header};
use super::descriptors::{self, Gate};
use super::{layout, report};
use crate::{Error, Image, protocol, x86};
use dynasmrt::x86::X86Relocation;
use dynasmrt::{DynamicLabel, DynasmApi, DynasmError, DynasmLabelApi, VecAssembler};
use std::ops::{Deref, DerefMut};

/// The assembler for 32-bit code at a given address.
pub type Asm = VecAssembler<X86Relocation>;

/// A segment register, by its number in a MOV.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Segment {
    /// ES.
    Es = 0,
    /// SS.
    Ss = 2,
    /// DS.
    Ds = 3,
    /// FS.
    Fs = 4,
    /// GS.
    Gs = 5,
}

/// A guest under construction. It dereferences to its [`Asm`], so `x86!(guest ; …)` emits into it.
pub struct Guest {
    name: &'static str,
    asm: Asm,
    data: Vec<u8>,
    gates: Vec<(u8, Gate, DynamicLabel)>,
    problem: Option<String>,
    disk_sectors: u32,
    pub(super) labels: report::Routines,
}

impl Deref for Guest {
    type Target = Asm;

    fn deref(&self) -> &Asm {
        &self.asm
    }
}

impl DerefMut for Guest {
    fn deref_mut(&mut self) -> &mut Asm {
        &mut self.asm
    }
}

impl Guest {
    /// A guest named `name` that does what `setup` says; code emitted next runs after that.
    #[must_use]
    pub fn boot(name: &'static str, setup: Setup) -> Guest {
        let mut asm = Asm::new(layout::TEXT as usize);
        let labels = report::Routines::new(&mut asm);
        let mut guest = Guest {
            name,
            asm,
            data: Vec::new(),
            gates: Vec::new(),
            problem: None,
            disk_sectors: 0,
            labels,
        };
        guest.emit_start(setup);
        guest
    }

    /// A new label, to be placed with `x86!(g ; =>label)`.
    pub fn label(&mut self) -> DynamicLabel {
        self.asm.new_dynamic_label()
    }

    /// The address of the next instruction emitted.
    #[must_use]
    pub fn here(&self) -> u32 {
        layout::TEXT + self.asm.offset().0 as u32
    }

    /// Puts initialised data, aligned to 16 bytes, into the image and gives its address. It may be
    /// written, and shares pages only with other data.
    pub fn data(&mut self, bytes: &[u8]) -> u32 {
        self.data.resize(self.data.len().next_multiple_of(16), 0);
        let address = layout::DATA + self.data.len() as u32;
        self.data.extend_from_slice(bytes);
        self.expect_that(
            self.data.len() as u32 <= layout::TEXT - layout::DATA,
            "too much initialised data",
        );
        address
    }

    /// Makes `handler` the handler of `vector`. The last call for a vector counts.
    pub fn gate(&mut self, vector: u8, gate: Gate, handler: DynamicLabel) {
        self.gates.push((vector, gate, handler));
    }

    /// Says that an attached disk must hold `sectors` sectors of [`crate::disk_image`].
    pub fn needs_disk(&mut self, sectors: u32) {
        self.disk_sectors = sectors;
    }

    /// Makes [`finish`](Self::finish) fail with `problem` unless `condition` holds.
    pub fn expect_that(&mut self, condition: bool, problem: &str) {
        if !condition {
            self.problem.get_or_insert_with(|| problem.to_owned());
        }
    }

    /// Loads a segment register with `selector`, by way of EAX.
    pub fn load_segment(&mut self, segment: Segment, selector: u16) {
        let modrm = 0xC0 | (segment as u8) << 3;
        x86!(self ; mov eax, i32::from(selector) ; .bytes [0x8E, modrm]);
    }

    /// The mark before the measured part (ring 0). Changes AL.
    pub fn begin(&mut self) {
        self.console_byte(protocol::BEGIN);
    }

    /// The mark after the measured part (ring 0). Changes AL.
    pub fn end(&mut self) {
        self.console_byte(protocol::END);
    }

    /// A loop that runs what `body` emits `count` times. It counts in EBP, which the body must
    /// preserve.
    pub fn repeat(&mut self, count: u32, body: impl FnOnce(&mut Guest)) {
        let again = self.label();
        x86!(self ; mov ebp, count as i32 ; =>again);
        body(self);
        x86!(self ; dec ebp ; jnz =>again);
    }

    /// Emits the report of EAX as the result and the exit, adds the runtime's handlers, and puts the
    /// image together. `checksum` is what EAX must be.
    ///
    /// # Errors
    /// When the code does not assemble or does not fit.
    pub fn finish(mut self, checksum: u32) -> Result<Image, Error> {
        self.emit_result_and_exit();
        self.emit_routines();
        let defaults = self.emit_default_handlers();
        let name = self.name;
        let error = |reason: String| Error { workload: name, reason };
        if let Some(problem) = self.problem.take() {
            return Err(error(problem));
        }
        let bytes = self.link(&defaults).map_err(|reason| error(reason.to_string()))?;
        if bytes.len() as u32 > layout::TEXT_END - layout::LOAD {
            return Err(error("too much code".to_owned()));
        }
        Ok(Image { bytes, checksum, disk_sectors: self.disk_sectors })
    }

    /// Lays the parts out as a file.
    fn link(&mut self, defaults: &[DynamicLabel]) -> Result<Vec<u8>, DynasmError> {
        self.asm.commit()?;
        let idt = self.idt(defaults)?;
        let text = self.asm.take()?;
        let file_bytes = layout::TEXT - layout::LOAD + text.len() as u32;
        let mut file = vec![0; file_bytes as usize];
        let mut put = |address: u32, bytes: &[u8]| {
            let start = (address - layout::LOAD) as usize;
            file[start..start + bytes.len()].copy_from_slice(bytes);
        };
        put(layout::LOAD, &multiboot_header(file_bytes));
        put(layout::GDT, &descriptors::gdt());
        put(layout::TSS, &descriptors::tss());
        put(layout::IDT, &idt);
        put(layout::DATA, &self.data);
        put(layout::TEXT, &text);
        Ok(file)
    }

    fn idt(&self, defaults: &[DynamicLabel]) -> Result<Vec<u8>, DynasmError> {
        let mut table = vec![0; 256 * 8];
        let default_gates =
            (0u8..=255).zip(defaults).map(|(v, &label)| (v, Gate::Interrupt, label));
        for (vector, gate, label) in default_gates.chain(self.gates.iter().copied()) {
            let offset = self.asm.labels().resolve_dynamic(label)?.0 as u32;
            let start = usize::from(vector) * 8;
            table[start..start + 8].copy_from_slice(&gate.bytes(layout::TEXT + offset));
        }
        Ok(table)
    }
}
