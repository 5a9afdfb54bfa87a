//! What a compute workload is made of: an inner function, its data, and the guest around them.

use crate::runtime::prelude::*;

/// The inner function of a compute workload and its data.
#[derive(Clone, Copy)]
pub(super) struct Kernel {
    pub name: &'static str,
    pub summary: &'static str,
    pub sse: bool,
    /// Bytes of the data area.
    pub data_bytes: u32,
    /// What the data area begins with; zeros follow.
    pub data: fn() -> Vec<u8>,
    /// Emits a function that prepares the data area before the measurement: see [`prepare`].
    pub prepare: Option<fn(&mut Asm, DynamicLabel)>,
    /// Emits the function that is measured: see [`function`].
    pub emit: fn(&mut Asm, DynamicLabel),
    /// What the function must return after so many iterations.
    pub checksum: fn(u32) -> u32,
}

/// The inner function of a workload as flat 32-bit code, to be run without a guest around it.
///
/// Functions follow cdecl: arguments on the stack, EAX returned, EBX, ESI, EDI and EBP preserved. They
/// need flat 32-bit segments, 4 KiB of stack, the FPU as FNINIT leaves it, and write nothing but
/// stack and data area. They have no system calls and no faults.
#[derive(Clone, Debug)]
pub struct NativeKernel {
    /// Where the code must be.
    pub base: u32,
    /// The code.
    pub code: Vec<u8>,
    /// `fn prepare(data)`, to be called once, where there is one.
    pub prepare: Option<u32>,
    /// `fn run(iterations, data) -> checksum`.
    pub run: u32,
    /// What the data area begins with; zeros follow. It must be aligned to 4096.
    pub data: Vec<u8>,
    /// Bytes of the data area.
    pub data_bytes: u32,
    /// What `run` returns for so many iterations, called once on a fresh data area.
    pub checksum: fn(u32) -> u32,
}

/// Where the guest has the data area.
const DATA: u32 = layout::HEAP;

/// The checksum of iterations is `checksum * FACTOR + value` for one after the other: odd, so that no
/// single wrong value is lost.
pub(super) const FACTOR: u32 = 0x0100_0193;

/// The checksum of `iterations` that all compute `value`.
pub(super) fn repeated(value: u32, iterations: u32) -> u32 {
    affine(FACTOR, value, u64::from(iterations))
}

/// Where 0 goes when the map x → x * `factor` + `step` is applied `times` times, by squaring the map.
pub(super) fn affine(mut factor: u32, mut step: u32, mut times: u64) -> u32 {
    let mut x = 0u32;
    while times > 0 {
        if times & 1 == 1 {
            x = x.wrapping_mul(factor).wrapping_add(step);
        }
        step = step.wrapping_mul(factor.wrapping_add(1));
        factor = factor.wrapping_mul(factor);
        times >>= 1;
    }
    x
}

/// Emits `run(iterations, data)`, which gives the checksum of the iterations. `iteration` emits one: it
/// finds the data area in ESI, leaves its value in EAX, and may change all general registers but ESP.
pub(super) fn function(asm: &mut Asm, run: DynamicLabel, iteration: impl FnOnce(&mut Asm)) {
    let again = asm.new_dynamic_label();
    x86!(asm
        ; =>run
        ; push ebp
        ; push ebx
        ; push esi
        ; push edi
        ; push 0 // the sum
        ; =>again
        ; mov esi, [esp + 28]
    );
    iteration(asm);
    x86!(asm
        ; imul edx, [esp], FACTOR as i32
        ; add edx, eax
        ; mov [esp], edx
        ; dec DWORD [esp + 24]
        ; jnz =>again
        ; pop eax
        ; pop edi
        ; pop esi
        ; pop ebx
        ; pop ebp
        ; ret
    );
}

/// Emits `prepare(data)` around `body`, which finds the data area in ESI and may change all general
/// registers but ESP.
pub(super) fn prepare(asm: &mut Asm, prepare: DynamicLabel, body: impl FnOnce(&mut Asm)) {
    x86!(asm
        ; =>prepare
        ; push ebp
        ; push ebx
        ; push esi
        ; push edi
        ; mov esi, [esp + 20]
    );
    body(asm);
    x86!(asm
        ; pop edi
        ; pop esi
        ; pop ebx
        ; pop ebp
        ; ret
    );
}

impl Kernel {
    /// Guest memory, in MiB.
    pub(super) fn memory_mib(&self) -> u32 {
        ((DATA + self.data_bytes).div_ceil(1 << 20)).next_multiple_of(16)
    }

    /// Emits the functions; gives the labels of `run` and `prepare`.
    fn emit(&self, asm: &mut Asm) -> (DynamicLabel, Option<DynamicLabel>) {
        let run = asm.new_dynamic_label();
        (self.emit)(asm, run);
        let prepare = self.prepare.map(|emit| {
            let label = asm.new_dynamic_label();
            emit(asm, label);
            label
        });
        (run, prepare)
    }

    /// The guest that calls the function for `iterations`.
    pub(super) fn assemble(&self, iterations: u32) -> Result<Image, Error> {
        let paging = Paging::Small { mib: self.memory_mib(), user: true };
        let mut g = Guest::boot(self.name, Setup { paging, sse: self.sse });
        let over = g.label();
        x86!(g ; jmp =>over);
        let (run, prepare) = self.emit(&mut g);
        x86!(g ; =>over);
        self.copy_data(&mut g);
        if let Some(prepare) = prepare {
            g.ring3(|g| x86!(g ; push DWORD DATA as i32 ; call =>prepare ; pop ecx));
        }
        g.begin();
        g.ring3(|g| {
            x86!(g
                ; push DWORD DATA as i32
                ; push DWORD iterations as i32
                ; call =>run
                ; add esp, 8
            );
        });
        x86!(g ; mov ebx, eax);
        g.end();
        x86!(g ; mov eax, ebx);
        g.finish((self.checksum)(iterations))
    }

    /// Brings the data from the image to the data area.
    fn copy_data(&self, g: &mut Guest) {
        let mut data = (self.data)();
        data.resize(data.len().next_multiple_of(4), 0);
        let words = data.len() as i32 / 4;
        let source = g.data(&data) as i32;
        x86!(g
            ; mov esi, source
            ; mov edi, DATA as i32
            ; mov ecx, words
            ; rep movsd
        );
    }

    /// The functions alone.
    pub(super) fn native(&self, base: u32) -> Result<NativeKernel, Error> {
        let error = |e: dynasmrt::DynasmError| Error { workload: self.name, reason: e.to_string() };
        let mut asm = Asm::new(base as usize);
        let (run, prepare) = self.emit(&mut asm);
        asm.commit().map_err(error)?;
        let address = |label| {
            let offset = asm.labels().resolve_dynamic(label).map_err(error)?;
            Ok(base + offset.0 as u32)
        };
        let run = address(run)?;
        let prepare = prepare.map(address).transpose()?;
        Ok(NativeKernel {
            base,
            code: asm.take().map_err(error)?,
            prepare,
            run,
            data: (self.data)(),
            data_bytes: self.data_bytes,
            checksum: self.checksum,
        })
    }
}

/// A list of words as bytes of the data area.
pub(super) fn bytes(words: impl IntoIterator<Item = u32>) -> Vec<u8> {
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// Words that look random (xorshift32), the same each time.
pub(super) fn noise(seed: u32) -> impl Iterator<Item = u32> {
    std::iter::successors(Some(seed), |&state| {
        let state = state ^ state << 13;
        let state = state ^ state >> 17;
        Some(state ^ state << 5)
    })
    .skip(1)
}
