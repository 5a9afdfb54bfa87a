//! Far transfers: direct, through call gates, and back outward.

use crate::guest::{
    CODE, CODE0, CODE3, DATA0, DATA3, FREE, Guest, INNER_STACK, PRESENT, STACK0, STACK3, TSS,
    descriptor, flat, gate,
};
use machine::cpu::{SegmentRegister, register::*};

const CALL_GATE_32: u8 = PRESENT | 0x0c;
const CALL_GATE_16: u8 = PRESENT | 0x04;
const DPL3: u8 = 0x60;
const TARGET: u32 = 0x1_2340;

fn far(opcode: u8, selector: u16, offset: u32) -> [u8; 7] {
    let [a, b, c, d] = offset.to_le_bytes();
    let [low, high] = selector.to_le_bytes();
    [opcode, a, b, c, d, low, high]
}

fn call(selector: u16) -> [u8; 7] {
    far(0x9a, selector, 0xdddd)
}

fn jump(selector: u16) -> [u8; 7] {
    far(0xea, selector, TARGET)
}

#[test]
fn a_call_gate_copies_parameters_inward_and_retf_drops_them_on_both_stacks() {
    let mut guest = Guest::in_ring3();
    guest.set_descriptor(FREE, gate(CODE0, TARGET, CALL_GATE_32 | DPL3, 2));
    guest.set(ESP, STACK3 - 8);
    guest.write_u32(STACK3 - 8, 0x1111_1111);
    guest.write_u32(STACK3 - 4, 0x2222_2222);
    guest.execute(&call(FREE | 3));
    assert_eq!((guest.cpu.cpl, guest.cpu.eip), (0, TARGET));
    assert_eq!(guest.selector(SegmentRegister::Cs), CODE0);
    assert_eq!(guest.get(ESP), INNER_STACK - 24);
    let frame = [CODE + 7, u32::from(CODE3), 0x1111_1111, 0x2222_2222, STACK3 - 8];
    assert_eq!([0, 1, 2, 3, 4].map(|i| guest.stack(i)), frame);
    assert_eq!(guest.stack(5), u32::from(DATA3));

    guest.load(SegmentRegister::Fs, DATA0);
    guest.execute(&[0xca, 8, 0]);
    assert_eq!((guest.cpu.cpl, guest.cpu.eip, guest.get(ESP)), (3, CODE + 7, STACK3));
    assert_eq!(guest.selector(SegmentRegister::Ss), DATA3);
    assert_eq!(guest.selector(SegmentRegister::Fs), 0, "ring 0's data is out of reach");
    assert_eq!(guest.selector(SegmentRegister::Ds), DATA3);
}

#[test]
fn a_16_bit_call_gate_copies_words() {
    let mut guest = Guest::in_ring3();
    guest.set_descriptor(FREE, gate(CODE0, 0xffff_0000 | TARGET, CALL_GATE_16 | DPL3, 3));
    guest.set(ESP, STACK3 - 6);
    guest.write(STACK3 - 6, &[1, 0, 2, 0, 3, 0]);
    guest.execute(&call(FREE));
    assert_eq!((guest.cpu.eip, guest.get(ESP)), (TARGET & 0xffff, INNER_STACK - 14));
    let frame = [(CODE + 7) as u16, CODE3, 1, 2, 3, (STACK3 - 6) as u16, DATA3];
    assert_eq!([0, 1, 2, 3, 4, 5, 6].map(|i| guest.stack16(i)), frame);
}

#[test]
fn a_call_gate_to_the_same_ring_switches_nothing() {
    let mut guest = Guest::new();
    guest.set_descriptor(FREE, gate(CODE0, TARGET, CALL_GATE_32, 4));
    guest.execute(&call(FREE));
    assert_eq!((guest.cpu.eip, guest.get(ESP)), (TARGET, STACK0 - 8));
    assert_eq!([guest.stack(0), guest.stack(1)], [CODE + 7, u32::from(CODE0)]);
}

#[test]
fn jmp_cannot_go_inward_through_a_gate() {
    let mut guest = Guest::in_ring3();
    guest.set_descriptor(FREE, gate(CODE0, TARGET, CALL_GATE_32 | DPL3, 0));
    guest.protects(&jump(FREE), CODE0);
    let mut guest = Guest::in_ring3();
    guest.set_descriptor(FREE, gate(FREE + 8, TARGET, CALL_GATE_32 | DPL3, 0));
    guest.set_descriptor(FREE + 8, flat(0x9f));
    guest.execute(&jump(FREE));
    assert_eq!((guest.cpu.cpl, guest.selector(SegmentRegister::Cs)), (3, (FREE + 8) | 3));
}

#[test]
fn gates_guard_themselves() {
    let invisible = gate(CODE0, TARGET, CALL_GATE_32, 0);
    let absent = gate(CODE0, TARGET, 0x0c | DPL3, 0);
    let outward = gate(CODE3, TARGET, CALL_GATE_32 | DPL3, 0);
    let data = gate(DATA0, TARGET, CALL_GATE_32 | DPL3, 0);
    let null = gate(0, TARGET, CALL_GATE_32 | DPL3, 0);
    for (value, vector, code) in
        [(invisible, 13, FREE), (absent, 11, FREE), (data, 13, DATA0), (null, 13, 0)]
    {
        let mut guest = Guest::in_ring3();
        guest.set_descriptor(FREE, value);
        guest.faults(&call(FREE), vector, Some(code));
        assert_eq!(guest.stack(4), STACK3);
    }
    let mut guest = Guest::new();
    guest.set_descriptor(FREE, outward);
    guest.protects(&call(FREE), CODE3 & !3);
    let mut guest = Guest::new();
    guest.set_descriptor(FREE, gate(CODE0, TARGET, CALL_GATE_32, 0));
    guest.protects(&call(FREE | 1), FREE);
}

#[test]
fn an_inner_stack_without_room_faults_with_its_selector() {
    let mut guest = Guest::in_ring3();
    guest.set_descriptor(FREE, gate(CODE0, TARGET, CALL_GATE_32 | DPL3, 0));
    guest.set_descriptor(FREE + 8, descriptor(0, 0xfff, 0x93, 4));
    guest.set_descriptor(FREE + 16, flat(0x9f));
    guest.set_gate(12, gate(FREE + 16, crate::guest::handler(12), PRESENT | 0x0e, 0));
    guest.write_u32(TSS + 8, u32::from(FREE + 8));
    guest.faults(&call(FREE), 12, Some(FREE + 8));
}

#[test]
fn direct_far_transfers_stay_in_their_ring() {
    for (selector, vector, code) in [
        (0u16, 13, 0),
        (0x100, 13, 0x100),
        (DATA0, 13, DATA0),
        (CODE3, 13, CODE3 & !3),
        (CODE0 | 1, 13, CODE0),
        (FREE, 11, FREE),
        (FREE + 8, 13, FREE + 8),
        (FREE + 16, 13, 0),
    ] {
        for opcode in [0x9a, 0xea] {
            let mut guest = Guest::new();
            guest.set_descriptor(FREE, flat(0x1b));
            guest.set_descriptor(FREE + 8, descriptor(0, 0, 0x82, 0));
            guest.set_descriptor(FREE + 16, descriptor(0, 0xfff, 0x9b, 4));
            guest.faults(&far(opcode, selector, TARGET), vector, Some(code));
            assert_eq!(guest.get(ESP), STACK0 - 16);
        }
    }
}

#[test]
fn a_far_call_through_memory_pushes_cs_and_eip() {
    let mut guest = Guest::new();
    guest.write_u32(0x1_8000, TARGET);
    guest.write_u16(0x1_8004, CODE0);
    guest.execute(&[0xff, 0x1d, 0x00, 0x80, 0x01, 0x00]);
    assert_eq!((guest.cpu.eip, guest.get(ESP)), (TARGET, STACK0 - 8));
    assert_eq!([guest.stack(0), guest.stack(1)], [CODE + 6, u32::from(CODE0)]);
    guest.execute(&[0xcb]);
    assert_eq!((guest.cpu.eip, guest.get(ESP)), (CODE + 6, STACK0));
}

#[test]
fn loading_code_sets_its_accessed_bit() {
    let mut guest = Guest::new();
    guest.set_descriptor(FREE, flat(0x9a));
    guest.execute(&jump(FREE));
    assert_eq!(guest.access_byte(FREE), 0x9b);
    assert_eq!(guest.cpu.eip, TARGET);
}

#[test]
fn real_mode_far_transfers_load_a_base_from_the_selector() {
    let mut guest = Guest::in_real_mode();
    guest.execute(&[0x9a, 0x34, 0x12, 0x00, 0x20]);
    assert_eq!(guest.cpu.instruction_address().0, 0x2_1234);
    assert_eq!([guest.stack16(0), guest.stack16(1)], [5, 0x1000]);
    guest.execute(&[0xca, 4, 0]);
    assert_eq!(guest.cpu.instruction_address().0, 0x1_0005);
    assert_eq!(guest.get(ESP), STACK0 + 4);
}

#[test]
fn a_real_mode_jump_beyond_64_kib_is_refused() {
    let mut guest = Guest::in_real_mode();
    guest.write_u32(13 * 4, 0x2000_0042);
    guest.execute(&[0x66, 0xea, 0, 0, 1, 0, 0, 0x20]);
    assert_eq!(guest.cpu.instruction_address().0, 0x2_0042);
    assert_eq!([guest.stack16(0), guest.stack16(1)], [0, 0x1000]);
}

#[test]
fn retf_checks_like_iret() {
    for (cs, ss, code) in [(CODE3, DATA0, DATA0), (0, DATA3, 0), (DATA0, DATA3, DATA0)] {
        let mut guest = Guest::new();
        guest.set(ESP, STACK0 - 16);
        for (index, value) in [CODE, u32::from(cs), STACK3, u32::from(ss)].into_iter().enumerate() {
            guest.write_u32(STACK0 - 16 + index as u32 * 4, value);
        }
        guest.protects(&[0xcb], code);
        assert_eq!(guest.get(ESP), STACK0 - 32);
    }
    let mut guest = Guest::in_ring3();
    guest.write_u32(STACK3, CODE);
    guest.write_u32(STACK3 + 4, u32::from(CODE0));
    guest.protects(&[0xcb], CODE0);
}
