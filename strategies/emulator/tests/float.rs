//! x87, MMX and SSE through the host's unit: state in and out, exceptions, alignment.

use emulator::{Outcome, step};
use machine::cpu::{Cr0, Cr4, Segment, SegmentRegister, TableRegister, XMM0, register};
use machine::{Machine, MachineConfig, PhysicalAddress};

const CODE: u32 = 0x10_0000;
const DATA: u32 = 0x18_0000;
const IDT: u32 = 0x1000;
const HANDLERS: u32 = 0x2000;

/// A machine in flat protected mode; vector v's handler is at `HANDLERS + v`.
fn machine(code: &[u8]) -> Machine {
    let config = MachineConfig { memory_bytes: 4 << 20, ..MachineConfig::default() };
    let mut machine = Machine::new(&config).unwrap();
    machine.cpu.cr0 = Cr0::PE | Cr0::ET | Cr0::NE;
    machine.cpu.cr4 = Cr4::OSFXSR | Cr4::OSXMMEXCPT;
    for register in SegmentRegister::ALL {
        let code = register == SegmentRegister::Cs;
        *machine.cpu.segment_mut(register) = Segment::flat(if code { 8 } else { 16 }, code, 0);
    }
    let gdt: [u64; 3] = [0, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
    let gdt: Vec<u8> = gdt.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    assert!(machine.memory.write(PhysicalAddress(0x800), &gdt));
    machine.cpu.gdtr = TableRegister { base: 0x800, limit: 23 };
    for vector in 0..32u64 {
        let gate = 0x0000_8e00_0008_0000 | (u64::from(HANDLERS) + vector);
        let at = PhysicalAddress(u64::from(IDT) + vector * 8);
        assert!(machine.memory.write(at, &gate.to_le_bytes()));
    }
    machine.cpu.idtr = TableRegister { base: IDT, limit: 0xff };
    machine.cpu.eip = CODE;
    machine.cpu.registers[register::ESP] = 0x20_0000;
    machine.cpu.registers[register::EBX] = DATA;
    assert!(machine.memory.write(PhysicalAddress(u64::from(CODE)), code));
    machine
}

fn steps(machine: &mut Machine, count: usize) {
    for _ in 0..count {
        assert_eq!(step(machine), Outcome::Continue);
    }
}

fn read<const N: usize>(machine: &Machine, address: u32) -> [u8; N] {
    let mut bytes = [0; N];
    assert!(machine.memory.read(PhysicalAddress(u64::from(address)), &mut bytes));
    bytes
}

fn write(machine: &mut Machine, address: u32, bytes: &[u8]) {
    assert!(machine.memory.write(PhysicalAddress(u64::from(address)), bytes));
}

#[test]
fn x87_arithmetic_goes_through_memory() {
    // fld qword [ebx]; fmul qword [ebx+8]; fstp qword [ebx+16]
    let mut machine = machine(&[0xdd, 0x03, 0xdc, 0x4b, 8, 0xdd, 0x5b, 16]);
    write(&mut machine, DATA, &1.5f64.to_le_bytes());
    write(&mut machine, DATA + 8, &(-4.0f64).to_le_bytes());
    steps(&mut machine, 3);
    assert_eq!(f64::from_le_bytes(read(&machine, DATA + 16)), -6.0);
    assert!(!machine.cpu.fpu.resident);
}

#[test]
fn the_last_instruction_and_operand_are_remembered() {
    let mut machine = machine(&[0xdd, 0x43, 8]); // fld qword [ebx+8]
    steps(&mut machine, 1);
    let area = &machine.cpu.fpu.area.0;
    assert_eq!(area[8..12], CODE.to_le_bytes());
    assert_eq!(area[16..20], (DATA + 8).to_le_bytes());
    assert_eq!(area[20..22], 16u16.to_le_bytes());
}

#[test]
fn an_unmasked_division_by_zero_is_raised_by_the_next_waiting_instruction() {
    // fldcw [ebx]; fldz; fld1; fdiv st, st(1); fnstsw ax; fwait
    let code = [0xd9, 0x2b, 0xd9, 0xee, 0xd9, 0xe8, 0xd8, 0xf1, 0xdf, 0xe0, 0x9b];
    let mut machine = machine(&code);
    write(&mut machine, DATA, &0x37bu16.to_le_bytes());
    steps(&mut machine, 5);
    assert_eq!(machine.cpu.registers[register::EAX] & 0x84, 0x84, "ZE and ES");
    assert_eq!(machine.cpu.eip, CODE + 10);
    steps(&mut machine, 1);
    assert_eq!(machine.cpu.eip, HANDLERS + 16, "#MF");
}

#[test]
fn with_numeric_errors_off_the_error_goes_out_as_irq_13() {
    let code = [0xd9, 0x2b, 0xd9, 0xee, 0xd9, 0xe8, 0xd8, 0xf1, 0xd9, 0xe8];
    let mut machine = machine(&code);
    machine.cpu.cr0 -= Cr0::NE;
    write(&mut machine, DATA, &0x37bu16.to_le_bytes());
    steps(&mut machine, 4);
    assert_eq!(machine.signals().take_edges() & 1 << 13, 0);
    steps(&mut machine, 1);
    assert_eq!(machine.signals().take_edges() & 1 << 13, 1 << 13);
    assert_eq!(machine.cpu.eip, CODE + 10, "fld1 was executed");
}

#[test]
fn with_numeric_errors_off_a_pending_error_does_not_reach_the_host_through_sse() {
    // fldcw [ebx]; fldz; fld1; fdiv st, st(1); cvtpi2ps xmm0, mm1; fnstsw ax
    let code = [0xd9, 0x2b, 0xd9, 0xee, 0xd9, 0xe8, 0xd8, 0xf1, 0x0f, 0x2a, 0xc1, 0xdf, 0xe0];
    for mxcsr in [0x1f80, 0] {
        let mut machine = machine(&code);
        machine.cpu.cr0 -= Cr0::NE;
        machine.cpu.fpu.set_mxcsr(mxcsr);
        write(&mut machine, DATA, &0x37bu16.to_le_bytes());
        steps(&mut machine, 6);
        assert_eq!(machine.cpu.eip, CODE + code.len() as u32);
        assert_eq!(machine.cpu.registers[register::EAX] & 0x3884, 0x84, "still pending, TOP 0");
        assert_eq!(machine.cpu.fpu.area.0[0] & 0x3f, 0x3b, "the guest's masks");
    }
}

#[test]
fn packed_addition_keeps_the_other_registers() {
    // movups xmm1, [ebx]; addps xmm1, [ebx]; movups [ebx+16], xmm1
    let code = [0x0f, 0x10, 0x0b, 0x0f, 0x58, 0x0b, 0x0f, 0x11, 0x4b, 16];
    let mut machine = machine(&code);
    machine.cpu.fpu.area.0[XMM0..XMM0 + 16].fill(0xaa);
    let values: Vec<u8> = [1f32, 2.0, 3.0, 4.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    write(&mut machine, DATA, &values);
    steps(&mut machine, 3);
    let doubled: Vec<u8> = [2f32, 4.0, 6.0, 8.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(read::<16>(&machine, DATA + 16), doubled[..]);
    assert_eq!(machine.cpu.fpu.area.0[XMM0..XMM0 + 16], [0xaa; 16]);
}

#[test]
fn an_unaligned_packed_operand_is_a_protection_fault() {
    let mut machine = machine(&[0x0f, 0x58, 0x4b, 4]); // addps xmm1, [ebx+4]
    steps(&mut machine, 1);
    assert_eq!(machine.cpu.eip, HANDLERS + 13);
}

#[test]
fn an_unmasked_simd_exception_leaves_the_destination_alone() {
    // ldmxcsr [ebx]; divss xmm0, xmm1 (1 / 0)
    let mut machine = machine(&[0x0f, 0xae, 0x13, 0xf3, 0x0f, 0x5e, 0xc1]);
    write(&mut machine, DATA, &0x1d80u32.to_le_bytes());
    machine.cpu.fpu.area.0[XMM0..XMM0 + 4].copy_from_slice(&1f32.to_le_bytes());
    steps(&mut machine, 2);
    assert_eq!(machine.cpu.eip, HANDLERS + 19, "#XM");
    assert_eq!(machine.cpu.fpu.area.0[XMM0..XMM0 + 4], 1f32.to_le_bytes());
    assert_eq!(machine.cpu.fpu.mxcsr(), 0x1d84, "ZE");
}

#[test]
fn general_registers_are_operands_too() {
    // cvtsi2sd xmm2, edx; cvttsd2si esi, xmm2; movmskpd edi, xmm2
    let code = [0xf2, 0x0f, 0x2a, 0xd2, 0xf2, 0x0f, 0x2c, 0xf2, 0x66, 0x0f, 0x50, 0xfa];
    let mut machine = machine(&code);
    machine.cpu.registers[register::EDX] = -77i32 as u32;
    steps(&mut machine, 3);
    assert_eq!(machine.cpu.registers[register::ESI], -77i32 as u32);
    assert_eq!(machine.cpu.registers[register::EDI], 1);
}

#[test]
fn mmx_and_x87_share_their_registers() {
    // movd mm0, edx; paddb mm0, mm0; movd eax, mm0; emms
    let code = [0x0f, 0x6e, 0xc2, 0x0f, 0xfc, 0xc0, 0x0f, 0x7e, 0xc0, 0x0f, 0x77];
    let mut machine = machine(&code);
    machine.cpu.registers[register::EDX] = 0x0102_8004;
    steps(&mut machine, 3);
    assert_eq!(machine.cpu.registers[register::EAX], 0x0204_0008);
    assert_eq!(machine.cpu.fpu.area.0[4], 0xff, "MMX marks all registers as used");
    steps(&mut machine, 1);
    assert_eq!(machine.cpu.fpu.area.0[4], 0);
}

#[test]
fn switched_off_units_raise_their_exceptions() {
    for (cr0, cr4, code, vector) in [
        (Cr0::TS, Cr4::OSFXSR, &[0xd9, 0xe8][..], 7),
        (Cr0::EM, Cr4::OSFXSR, &[0xd9, 0xe8], 7),
        (Cr0::EM, Cr4::OSFXSR, &[0x0f, 0x6e, 0xc2], 6),
        (Cr0::TS, Cr4::OSFXSR, &[0x0f, 0x58, 0xc1], 7),
        (Cr0::NE, Cr4::empty(), &[0x0f, 0x58, 0xc1], 6),
        (Cr0::TS | Cr0::MP, Cr4::OSFXSR, &[0x9b], 7),
    ] {
        let mut machine = machine(code);
        machine.cpu.cr0 |= cr0;
        machine.cpu.cr4 = cr4;
        steps(&mut machine, 1);
        assert_eq!(machine.cpu.eip, HANDLERS + vector, "{code:02x?}");
    }
}

#[test]
fn fnsave_and_frstor_carry_the_whole_state() {
    // fldpi; fld1; fnsave [ebx]; frstor [ebx]; fxsave [ebx+0x100]
    let code = [0xd9, 0xeb, 0xd9, 0xe8, 0xdd, 0x33, 0xdd, 0x23, 0x0f, 0xae, 0x83, 0, 1, 0, 0];
    let mut machine = machine(&code);
    steps(&mut machine, 2);
    let before = machine.cpu.fpu.area.0[..160].to_vec();
    steps(&mut machine, 1);
    assert_eq!(machine.cpu.fpu.area.0[4], 0, "FNSAVE initializes");
    steps(&mut machine, 1);
    assert_eq!(machine.cpu.fpu.area.0[..160], before);
    steps(&mut machine, 1);
    assert_eq!(read::<24>(&machine, DATA + 0x100), before[..24]);
}
