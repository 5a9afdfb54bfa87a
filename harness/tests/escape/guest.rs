//! Images of hostile guests: a multiboot header, a few 32-bit instructions, and 64-bit code.

use dynasmrt::x64::{Rq, X64Relocation};
use dynasmrt::{DynasmApi, VecAssembler, dynasm};

/// Where images are loaded.
const LOAD: u32 = 0x10_0000;
/// Where the 64-bit code begins, with room for the header and the way there.
const CODE: u32 = LOAD + 0x1000;
/// Where the texts are that an attempt hands to the host.
const TEXTS: u32 = LOAD + 0x4000;
/// The room for each.
const TEXT_ROOM: u32 = 0x800;
/// Where the leaked addresses are.
pub(crate) const LEAK: u32 = 0x18_0000;
/// Where the guest's stack begins.
const STACK: u32 = 0x19_0000;
/// Zeroed memory for whatever an attempt needs.
pub(crate) const SCRATCH: u32 = 0x20_0000;

/// The host's 64-bit code segment.
const HOST_CODE: u16 = 0x33;

/// Assembles 64-bit code.
pub(crate) type Asm = VecAssembler<X64Relocation>;

/// The texts of an image, by number; each ends with a zero byte.
pub(crate) type Texts<'a> = [&'a [u8]; 3];

/// The address of a text.
pub(crate) fn text(number: u32) -> Argument {
    Argument::Value((TEXTS + TEXT_ROOM * number).into())
}

/// An image whose 32-bit code does nothing but jump into 64-bit code.
pub(crate) fn image(write: impl FnOnce(&mut Asm), texts: &Texts<'_>) -> Vec<u8> {
    let mut asm = Asm::new(CODE as usize);
    write(&mut asm);
    let mut code = asm.finalize().expect("all labels are there");
    for (number, text) in (0..).zip(texts) {
        assert!(text.len() < TEXT_ROOM as usize, "a text is too long");
        code.resize((TEXTS - CODE + TEXT_ROOM * number) as usize, 0);
        code.extend(*text);
        code.push(0);
    }
    let mut entry = vec![0xbc];
    entry.extend(STACK.to_le_bytes()); // mov esp, STACK
    entry.push(0x50); // push eax: the stack's page is there, and writable
    entry.push(0xa1);
    entry.extend(LEAK.to_le_bytes()); // mov eax, [LEAK]
    entry.push(0xa3);
    entry.extend(SCRATCH.to_le_bytes()); // mov [SCRATCH], eax
    entry.push(0xea);
    entry.extend(CODE.to_le_bytes()); // ljmp HOST_CODE:CODE
    entry.extend(HOST_CODE.to_le_bytes());
    multiboot(&entry, &code)
}

/// A guest that tries `code` in compatibility mode, with the number of `fork` in EAX and a stack.
pub(crate) fn image_of_32_bits(code: &[u8]) -> Vec<u8> {
    let mut entry = vec![0xbc];
    entry.extend(STACK.to_le_bytes()); // mov esp, STACK
    entry.extend([0xb8, 2, 0, 0, 0]); // mov eax, 2
    entry.extend([0x50, 0x50, 0x89, 0xe5]); // push eax; push eax; mov ebp, esp
    entry.extend(code);
    multiboot(&entry, &[])
}

/// A guest that reports `checksum` and ends.
pub(crate) fn well_behaved(checksum: u32) -> Vec<u8> {
    let mut code = Vec::new();
    for byte in format!("\x02\x03result {checksum:08x}\n").bytes() {
        code.extend([0xb0, byte, 0xe6, 0xe9]); // mov al, byte; out 0xe9, al
    }
    code.extend([0xb0, 0, 0xe6, 0xf4]); // mov al, 0; out 0xf4, al
    multiboot(&code, &[])
}

/// Multiboot 1 with addresses in the header (Multiboot Specification 0.6.96, 3.1.3).
fn multiboot(entry: &[u8], code: &[u8]) -> Vec<u8> {
    const MAGIC: u32 = 0x1bad_b002;
    const HAS_ADDRESSES: u32 = 1 << 16;
    const HEADER: u32 = 32;
    let mut image = Vec::new();
    let length = CODE - LOAD + code.len() as u32;
    let sum = MAGIC.wrapping_add(HAS_ADDRESSES).wrapping_neg();
    for word in [MAGIC, HAS_ADDRESSES, sum, LOAD, LOAD, LOAD + length, LOAD + length, LOAD + HEADER]
    {
        image.extend(word.to_le_bytes());
    }
    image.extend(entry);
    assert!(image.len() <= (CODE - LOAD) as usize, "the entry is too long");
    image.resize((CODE - LOAD) as usize, 0);
    image.extend(code);
    image
}

/// The leaked addresses, in the order in which the guest finds them at [`LEAK`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Leaked {
    /// The C library's `syscall`.
    Syscall,
    /// Its `exit`.
    Exit,
    /// Its `abort`.
    Abort,
    /// The base of thread-local storage.
    ThreadStorage,
    /// A place on the monitor's stack, older than its frames to come.
    Stack,
    /// The parent's process number.
    Parent,
}

/// An argument of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Argument {
    /// A number, or an address in the guest.
    Value(i64),
    /// What the guest was told.
    Leaked(Leaked),
}

impl From<i32> for Argument {
    fn from(value: i32) -> Argument {
        Argument::Value(value.into())
    }
}

/// Takes thread-local storage back, so that the C library's functions work.
pub(crate) fn enter_monitor(asm: &mut Asm) {
    load(asm, Leaked::ThreadStorage);
    dynasm!(asm ; .arch x64 ; wrfsbase rax);
}

/// Loads a leaked address to RAX.
pub(crate) fn load(asm: &mut Asm, what: Leaked) {
    let place = (LEAK + 8 * what as u32) as i32;
    dynasm!(asm ; .arch x64 ; mov eax, place ; mov rax, [rax]);
}

/// A system call by the monitor's own `syscall`, with up to five arguments. The result is in RAX.
pub(crate) fn call(asm: &mut Asm, number: libc::c_long, arguments: &[Argument]) {
    /// Where the C calling convention has the number and the arguments.
    const PLACES: [Rq; 6] = [Rq::RDI, Rq::RSI, Rq::RDX, Rq::RCX, Rq::R8, Rq::R9];
    let number = Argument::Value(number);
    for (argument, place) in [number].iter().chain(arguments).zip(PLACES) {
        match *argument {
            Argument::Value(value) => dynasm!(asm ; .arch x64 ; mov Rq(place), QWORD value),
            Argument::Leaked(what) => {
                load(asm, what);
                dynasm!(asm ; .arch x64 ; mov Rq(place), rax);
            }
        }
    }
    load(asm, Leaked::Syscall);
    // The sixth argument: an offset of zero, where there is one.
    dynasm!(asm ; .arch x64 ; push 0 ; call rax ; pop rcx);
}

/// Ends the guest with an undefined instruction: all that was attempted has been let through.
pub(crate) fn give_up(asm: &mut Asm) {
    dynasm!(asm ; .arch x64 ; ud2);
}
