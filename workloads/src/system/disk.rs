//! Disk reads as a simple driver does them: READ SECTORS by LBA28 on the first ATA channel, an
//! interrupt for each sector, the data by REP INSW.

use crate::runtime::prelude::*;

const COMMAND_BLOCK: u16 = 0x1F0;
const DEVICE_CONTROL: u16 = 0x3F6;
const READ_SECTORS: i8 = 0x20;
const IRQ: u8 = 14;

const SECTORS: u32 = 256;
/// Sectors read by one command.
const RUN: u32 = 4;
const RUNS: u32 = SECTORS / RUN;

const BUFFER: i32 = layout::HEAP as i32;
/// Interrupts that were not waited for yet, and errors that the status register showed.
const PENDING: i32 = layout::SCRATCH as i32;
const ERRORS: i32 = layout::SCRATCH as i32 + 4;

pub(super) fn assemble(iterations: u32) -> Result<Image, Error> {
    let mut g = Guest::boot("disk", Setup::USUAL);
    g.needs_disk(SECTORS);
    let (over, wait) = (g.label(), g.label());
    x86!(g ; jmp =>over);
    emit_handler(&mut g);
    emit_wait(&mut g, wait);
    x86!(g ; =>over ; mov DWORD [PENDING], 0 ; mov DWORD [ERRORS], 0);
    g.set_up_pics(1 << IRQ);
    emit_enable_interrupts(&mut g);
    x86!(g ; xor ebx, ebx);
    g.begin();
    g.repeat(iterations, |g| {
        emit_command(g);
        x86!(g ; push RUN as i32 ; sector: ; call =>wait);
        emit_take_sector(g);
        x86!(g ; dec DWORD [esp] ; jnz <sector ; pop ecx);
    });
    g.end();
    x86!(g ; mov eax, ebx ; sub eax, [ERRORS]);
    g.finish(checksum(iterations))
}

/// Reads the status, which takes the request back, and counts.
fn emit_handler(g: &mut Guest) {
    let handler = g.label();
    g.irq(IRQ, handler);
    x86!(g
        ; =>handler
        ; push eax
        ; push edx
        ; mov edx, i32::from(COMMAND_BLOCK + 7)
        ; in al, dx
        ; and eax, 0x21 // device fault, error
        ; add [ERRORS], eax
        ; inc DWORD [PENDING]
    );
    g.end_of_interrupt(IRQ);
    x86!(g ; pop edx ; pop eax ; iretd);
}

/// Waits for an interrupt of the disk that was not waited for.
fn emit_wait(g: &mut Guest, wait: DynamicLabel) {
    x86!(g
        ; =>wait
        ; cmp DWORD [PENDING], 0
        ; jne >came
        ; sti
        ; hlt
        ; cli
        ; jmp =>wait
        ; came:
        ; dec DWORD [PENDING]
        ; ret
    );
}

/// Takes back what the firmware may have left, and clears nIEN.
fn emit_enable_interrupts(g: &mut Guest) {
    x86!(g
        ; mov edx, i32::from(COMMAND_BLOCK + 7)
        ; in al, dx
        ; mov edx, i32::from(DEVICE_CONTROL)
        ; xor eax, eax
        ; out dx, al
    );
}

/// Reads [`RUN`] sectors from EBP * [`RUN`], modulo the disk's size.
fn emit_command(g: &mut Guest) {
    x86!(g
        ; mov edx, i32::from(COMMAND_BLOCK + 7)
        ; busy:
        ; in al, dx
        ; test al, 0x80u8 as i8
        ; jnz <busy
        ; mov ecx, ebp
        ; and ecx, (RUNS - 1) as i32
        ; imul ecx, ecx, RUN as i32
        ; mov edx, i32::from(COMMAND_BLOCK + 2)
        ; mov al, RUN as i8
        ; out dx, al
        ; inc edx
        ; mov al, cl
        ; out dx, al
        ; inc edx
        ; mov al, ch
        ; out dx, al
        ; inc edx
        ; xor eax, eax
        ; out dx, al
        ; inc edx
        ; mov al, 0xE0u8 as i8 // LBA, the first drive
        ; out dx, al
        ; inc edx
        ; mov al, READ_SECTORS
        ; out dx, al
    );
}

/// Reads a sector into the buffer and adds its words to EBX, each times its number in the sector.
fn emit_take_sector(g: &mut Guest) {
    x86!(g
        ; mov edx, i32::from(COMMAND_BLOCK)
        ; mov edi, BUFFER
        ; mov ecx, 256
        ; rep insw
        ; mov ecx, 128
        ; word:
        ; mov eax, [BUFFER + ecx * 4 - 4]
        ; imul eax, ecx
        ; add ebx, eax
        ; dec ecx
        ; jnz <word
    );
}

/// What a run of sectors adds.
fn sum_of_run(run: &[u8]) -> u32 {
    let words =
        run.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    words
        .zip((1..=128).cycle())
        .fold(0, |sum, (word, number)| sum.wrapping_add(word.wrapping_mul(number)))
}

/// EBP runs from `iterations` down to 1: every run so many times, and some once more.
fn checksum(iterations: u32) -> u32 {
    let disk = crate::disk_image(SECTORS);
    let sums: Vec<u32> = disk.chunks_exact(RUN as usize * 512).map(sum_of_run).collect();
    let (cycles, rest) = (iterations / RUNS, (iterations % RUNS) as usize);
    let times = |run: usize| cycles + u32::from((1..=rest).contains(&run));
    let products = sums.iter().enumerate().map(|(run, sum)| sum.wrapping_mul(times(run)));
    products.fold(0, u32::wrapping_add)
}
