//! Decoded blocks: modes, limits, pages, budgets.

use crate::guest::{CODE, DATA, FRAME, Guest, PAGE, TABLE0, both_ways};
use emulator::{Outcome, Stepper};
use machine::MachineConfig;
use machine::cpu::{Eflags, Segment, SegmentRegister, TableRegister, register::*};

#[test]
fn the_same_bytes_mean_other_things_in_16_and_32_bits() {
    // 32 bits: mov eax, 0x40401234. 16 bits: mov ax, 0x1234; inc ax; inc ax.
    let mut guest = Guest::new();
    guest.write(CODE, &[0xb8, 0x34, 0x12, 0x40, 0x40]);
    for _ in 0..2 {
        guest.cpu.eip = CODE;
        guest.run(1);
        assert_eq!(guest.get(EAX), 0x4040_1234);
        let wide = *guest.cpu.segment(SegmentRegister::Cs);
        let code = guest.cpu.segment_mut(SegmentRegister::Cs);
        code.set_attributes(code.attributes() & !machine::cpu::access::DEFAULT_BIG);
        guest.cpu.eip = CODE;
        guest.run(3);
        assert_eq!(guest.get(EAX), 0x4040_1236);
        *guest.cpu.segment_mut(SegmentRegister::Cs) = wide;
    }
}

#[test]
fn a_budget_is_kept_exactly() {
    let mut guest = Guest::new();
    let mut code = vec![0x40; 20]; // inc eax
    code.extend([0xeb, 0xea]); // jmp to the start
    guest.write(CODE, &code);
    let mut expected = 0u64;
    for budget in (1..30).chain([100, 1000]) {
        expected += budget;
        assert_eq!(guest.run(budget), Outcome::Continue);
        assert_eq!(guest.counters.instructions, expected);
        let (rounds, rest) = (expected / 21, expected % 21);
        assert_eq!(u64::from(guest.get(EAX)), rounds * 20 + rest, "after {expected}");
    }
}

#[test]
fn a_block_ends_where_the_code_segment_does() {
    let mut guest = Guest::new();
    guest.write(CODE, &[0x40; 16]);
    guest.run(16);
    for left in (1..8).rev() {
        guest.cpu.eip = CODE;
        guest.set(EAX, 0);
        guest.cpu.segment_mut(SegmentRegister::Cs).set_limit(CODE + left - 1);
        guest.run(u64::from(left) + 1);
        assert_eq!((guest.raised(), guest.get(EAX)), (Some(13), left));
        let esp = guest.get(ESP);
        assert_eq!(guest.read_u32(esp + 4), CODE + left);
        *guest.cpu.segment_mut(SegmentRegister::Cs) = Segment::flat(8, true, 0);
    }
}

#[test]
fn beyond_the_limit_paging_is_not_asked() {
    let mut guest = Guest::paged();
    guest.write(FRAME + 0xfff, &[0x90]);
    guest.cpu.segment_mut(SegmentRegister::Cs).set_limit(PAGE + 0xfff);
    guest.cpu.eip = PAGE + 0xfff;
    guest.run(2);
    assert_eq!((guest.raised(), guest.cpu.cr2), (Some(13), 0), "#GP, though the page is missing");
}

#[test]
fn an_instruction_across_two_pages_sees_changes_of_both() {
    let mut guest = Guest::paged();
    guest.map(1, DATA | 7);
    guest.write(FRAME + 0xffd, &[0x90, 0xb8, 1]); // nop; mov eax, imm32
    guest.write(DATA, &[0, 0, 0, 0xf4]);
    let go = |guest: &mut Guest| {
        guest.cpu.eip = PAGE + 0xffd;
        guest.run(2);
        guest.get(EAX)
    };
    assert_eq!(go(&mut guest), 1);
    guest.write(DATA, &[5]);
    assert_eq!(go(&mut guest), 0x501);
    guest.write(FRAME + 0xfff, &[2]);
    assert_eq!(go(&mut guest), 0x502);
    guest.map(1, (DATA + 0x1000) | 7);
    guest.tlb.flush();
    assert_eq!(go(&mut guest), 2, "another page behind");
}

#[test]
fn a_page_mapped_elsewhere_is_other_code_after_invlpg() {
    let mut guest = Guest::paged();
    guest.write(FRAME, &[0xb0, 1, 0xc3]); // mov al, 1; ret
    guest.write(DATA, &[0xb0, 2, 0xc3]);
    // call [ebp]; mov [esi], edi; invlpg [ebp]; call [ebp]
    let code = [0xff, 0xd5, 0x88, 0xc4, 0x89, 0x3e, 0x0f, 0x01, 0x7d, 0, 0xff, 0xd5];
    guest.write(CODE, &code);
    guest.set(EBP, PAGE);
    guest.set(ESI, 0x2_2000);
    guest.set(EDI, DATA | 7);
    guest.run(9);
    assert_eq!(guest.get(EAX), 0x0102);
}

#[test]
fn what_is_kept_of_a_page_that_was_not_flushed_is_of_the_bytes_that_were_read() {
    let (first, second) = ([0xb0, 1, 0xb4, 3], [0xb0, 1, 0xb4, 4]); // mov al, 1; mov ah, 3 or 4
    let mut guest = Guest::paged();
    guest.write(FRAME, &first);
    guest.write(DATA, &second);
    let mut stepper = Stepper::new();
    let mut step = |guest: &mut Guest, at: u32| {
        guest.cpu.eip = PAGE + at;
        assert_eq!(stepper.step(guest), Outcome::Continue);
        guest.get(EAX)
    };
    step(&mut guest, 0);
    guest.map(0, DATA | 7);
    assert!(matches!(step(&mut guest, 2), 0x301 | 0x401), "either page may be meant");
    for (frame, wanted) in [(FRAME, 0x301), (DATA, 0x401), (FRAME, 0x301)] {
        guest.map(0, frame | 7);
        guest.tlb.flush();
        assert_eq!(step(&mut guest, 2), wanted);
    }
}

#[test]
fn user_code_on_a_page_that_becomes_the_supervisors_faults() {
    let mut guest = Guest::paged();
    guest.set_ring(3);
    guest.write(FRAME, &[0xeb, 0xfe]);
    guest.cpu.eip = PAGE;
    guest.run(5);
    guest.map(0, FRAME | 3);
    guest.tlb.flush();
    guest.set_ring(0);
    guest.run(2);
    assert_eq!(guest.cpu.eip, PAGE, "the supervisor may");
    guest.set_ring(3);
    guest.run(1);
    assert_eq!((guest.raised(), guest.cpu.cr2), (Some(14), PAGE));
}

#[test]
fn code_in_rom_runs_and_stays() {
    let mut rom = vec![0x90; 0x1_0000];
    // mov byte [cs:0xfff4], 0xf4 over the first of four NOPs; inc ax
    rom[0xfff0 - 0x10..][..10]
        .copy_from_slice(&[0x2e, 0xc6, 0x06, 0xe6, 0xff, 0xf4, 0x90, 0x90, 0x40, 0x40]);
    rom[0xfff0..0xfff2].copy_from_slice(&[0xeb, 0xee]);
    let config = MachineConfig { memory_bytes: 2 << 20, rom, ..MachineConfig::default() };
    let mut machine = machine::Machine::new(&config).unwrap();
    let mut emulator = emulator::Emulator::new();
    for _ in 0..2 {
        machine.cpu = machine::Cpu::new(machine.cpu.model);
        assert_eq!(emulator.run(&mut machine, 6), Outcome::Continue);
        assert_eq!((machine.cpu.registers[EAX], machine.cpu.eip), (2, 0xffea));
    }
}

#[test]
fn code_in_device_memory_runs() {
    let mut guest = Guest::new();
    let video = machine::PhysicalAddress(0xb_8000);
    guest.bus.mmio_write(video, &[0x40, 0x40, 0xeb, 0xfc]);
    guest.cpu.eip = 0xb_8000;
    guest.run(6);
    assert_eq!((guest.get(EAX), guest.cpu.eip), (4, 0xb_8000));
}

#[test]
fn more_blocks_than_the_cache_holds_are_still_the_guests() {
    const BLOCKS: u32 = 0x1_2000;
    let config = MachineConfig { memory_bytes: 4 << 20, ..MachineConfig::default() };
    let mut guest = Guest::with(&config);
    let start = 0x10_0000;
    let jumps = [0xeb, 0x00].repeat(BLOCKS as usize);
    guest.write(start, &jumps);
    guest.write(start + 2 * BLOCKS, &[0xf4]);
    guest.cpu.eip = start;
    assert_eq!(guest.run(u64::from(BLOCKS) + 1), Outcome::Halted);
    // Whatever was dropped on the way: each of them is still watched, or decoded anew.
    for block in (0..BLOCKS).step_by(997).chain([BLOCKS - 1, 0xffff, 0x1_0000]) {
        guest.cpu.halted = false;
        guest.cpu.eip = start + 2 * block;
        guest.run(1);
        guest.write(start + 2 * block, &[0xb0, block as u8]); // mov al, imm8
        guest.cpu.eip = start + 2 * block;
        guest.run(1);
        assert_eq!(guest.get(EAX) as u8, block as u8, "block {block}");
    }
}

#[test]
fn handlers_that_cannot_be_fetched_come_to_the_limit() {
    let mut guest = Guest::paged();
    guest.write_u32(TABLE0 + 4 * 4, 0x4006); // the handlers' page
    guest.set(ESP, 0x9_0000);
    guest.cpu.eip = 0x4000;
    assert_eq!(guest.run(1000), Outcome::Continue);
    assert_eq!(guest.counters.instructions, 1000);
    assert_eq!(guest.counters.guest_page_faults, 1000);
}

#[test]
fn an_instruction_breakpoint_counts_and_stops_before() {
    let mut guest = Guest::new();
    guest.write(CODE, &[0x40, 0x40, 0x40]);
    guest.run(3);
    guest.cpu.eip = CODE;
    guest.cpu.debug[0] = CODE + 1;
    guest.cpu.debug[7] = 0x402;
    guest.run(2);
    assert_eq!((guest.raised(), guest.get(EAX)), (Some(1), 4));
    assert_eq!(guest.counters.instructions, 5);
}

#[test]
fn single_steps_and_blocks_mix() {
    let mut guest = Guest::new();
    guest.write(CODE, &[0x40; 8]);
    guest.run(8);
    guest.cpu.eip = CODE;
    guest.cpu.flags.set(Eflags::TF, true);
    guest.run(1);
    assert_eq!((guest.raised(), guest.get(EAX)), (Some(1), 9));
    let esp = guest.get(ESP);
    assert_eq!(guest.read_u32(esp), CODE + 1);
}

#[test]
fn falling_off_64_kib_of_16_bit_code_is_a_protection_fault() {
    for by_blocks in [false, true] {
        let mut guest = Guest::new();
        guest.cpu.cr0 = machine::cpu::Cr0::ET;
        guest.cpu.segments = [Segment::real_mode(0); 6];
        guest.cpu.idtr = TableRegister { base: 0, limit: 0x3ff };
        guest.write_u32(13 * 4, 0x0500_0123);
        guest.write(0xfffe, &[0x40, 0x40]);
        guest.cpu.eip = 0xfffe;
        for _ in 0..3 {
            if by_blocks {
                guest.run(1)
            } else {
                guest.step()
            };
        }
        assert_eq!((guest.cpu.eip, guest.get(EAX)), (0x123, 2));
        assert_eq!(guest.cpu.segment(SegmentRegister::Cs).selector, 0x500);
    }
}

#[test]
fn encodings_of_later_cpus_mean_what_they_meant_before() {
    let prepare = |guest: &mut Guest| guest.set(ECX, 0x50);
    // endbr32; tzcnt eax, ecx (bsf); lzcnt edx, ecx (bsr); bndmk-like hint; nop
    let code = [
        0xf3, 0x0f, 0x1e, 0xfb, 0xf3, 0x0f, 0xbc, 0xc1, 0xf3, 0x0f, 0xbd, 0xd1, 0xf3, 0x0f, 0x1b,
        0x00, 0x90,
    ];
    let [guest, _] = both_ways(&code, 5, prepare);
    assert_eq!((guest.get(EAX), guest.get(EDX)), (4, 6));
    assert_eq!(guest.cpu.eip, CODE + code.len() as u32);
}
