//! Random sequences of user-level instructions: trap-and-emulate and interpretation agree on
//! registers, flags and memory, wherever they end.

use crate::guest::{CODE, DATA, Guest};
use interpretation::Interpretation;
use machine::PhysicalAddress;
use machine::cpu::register;
use std::time::{Duration, Instant};
use strategy::{Limit, Strategy};

const SEQUENCES: u32 = 300;
const LENGTH: u32 = 60;

/// Instructions by opcode, all with a ModRM byte that is drawn: arithmetic, shifts, bit tests,
/// moves, multiplication and division, exchanges, stack use through memory, 16-bit forms.
const WITH_MODRM: &[&[u8]] = &[
    &[0x01],
    &[0x03],
    &[0x09],
    &[0x11],
    &[0x13],
    &[0x19],
    &[0x21],
    &[0x29],
    &[0x2b],
    &[0x31],
    &[0x33],
    &[0x39],
    &[0x85],
    &[0x87],
    &[0x89],
    &[0x8b],
    &[0x8d],
    &[0x00],
    &[0x02],
    &[0x28],
    &[0x32],
    &[0x38],
    &[0x86],
    &[0x88],
    &[0x8a],
    &[0xd1],
    &[0xd3],
    &[0xd0],
    &[0xd2],
    &[0xf7],
    &[0xf6],
    &[0xff],
    &[0x0f, 0xaf],
    &[0x0f, 0xb6],
    &[0x0f, 0xbe],
    &[0x0f, 0xb7],
    &[0x0f, 0xa3],
    &[0x0f, 0xab],
    &[0x0f, 0xbc],
    &[0x0f, 0xbd],
    &[0x0f, 0xc1],
    &[0x0f, 0xb1],
    &[0x0f, 0x90],
    &[0x0f, 0x9f],
    &[0x66, 0x01],
    &[0x66, 0x8b],
    &[0x66, 0xd3],
    &[0x66, 0xf7],
    &[0x62],
];

/// Whole instructions.
const WHOLE: &[&[u8]] = &[
    &[0x40],
    &[0x4a],
    &[0x50],
    &[0x58],
    &[0x98],
    &[0x99],
    &[0x9e],
    &[0x9f],
    &[0xf5],
    &[0xf8],
    &[0xf9],
    &[0xfc],
    &[0xfd],
    &[0x27],
    &[0x37],
    &[0xd4, 10],
    &[0xce],
    &[0xcc],
    &[0xcd, 0x80],
    &[0xa4],
    &[0xab],
    &[0xa6],
    &[0xf3, 0xa4],
    &[0x60],
    &[0x0f, 0xc8],
    &[0xd9, 0xe8],
    &[0xd8, 0xc0],
    &[0xdd, 0xd8],
    &[0xeb, 0],
    &[0xc1, 0xc0, 7],
    &[0x74, 0],
    &[0xd6],
];

/// A generator of numbers that repeat from run to run (xorshift).
struct Numbers(u32);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        (self.0 >> 8) as usize % end
    }
}

fn sequence(numbers: &mut Numbers) -> Vec<u8> {
    let mut code = Vec::new();
    for _ in 0..LENGTH {
        if numbers.below(4) == 0 {
            code.extend(WHOLE[numbers.below(WHOLE.len())]);
            continue;
        }
        code.extend(WITH_MODRM[numbers.below(WITH_MODRM.len())]);
        let register = (numbers.below(8) as u8) << 3;
        match numbers.below(3) {
            0 => code.push(0xc0 | register | numbers.below(8) as u8),
            1 => code.extend([0x46 | register, numbers.below(256) as u8]), // [esi + disp8]
            _ => code.extend([0x47 | register, numbers.below(256) as u8]), // [edi + disp8]
        }
    }
    code.push(0xf4); // hlt: #GP in ring 3, whose handler halts
    code
}

#[test]
fn sequences_end_alike() {
    let mut numbers = Numbers(0x2545_f491);
    let mut guest = Guest::new();
    for number in 0..SEQUENCES {
        let code = sequence(&mut numbers);
        let registers: [u32; 8] =
            std::array::from_fn(|_| (numbers.below(1 << 24) as u32).wrapping_mul(0x101));
        let mut states = [0, 1].map(|which| {
            guest.replace(&code);
            guest.enter_ring3();
            guest.enable_paging();
            // The page behind the data is the kernel's, and the code is not to change under REP.
            guest.map(CODE, CODE | 5);
            guest.map(DATA + 0x1000, (DATA + 0x1000) | 3);
            for (at, value) in (DATA - 0x800..DATA + 0x1000).step_by(4).zip(0u32..) {
                guest.write_u32(at, value.wrapping_mul(0x9e37_79b9));
            }
            let stack = guest.get(register::ESP);
            guest.cpu.registers = registers;
            guest.cpu.registers[register::ESP] = stack;
            guest.cpu.registers[register::ESI] = DATA + 0x200;
            guest.cpu.registers[register::EDI] = DATA + 0xfc0;
            let (machine, native) = guest.machine_and_strategy();
            let limit = Limit::until(Instant::now() + Duration::from_secs(10));
            let stop = if which == 0 {
                native.run(machine, &limit)
            } else {
                Interpretation::new().run(machine, &limit)
            };
            let machine = std::mem::replace(machine, crate::guest::machine());
            (stop.unwrap(), machine)
        });
        let [(stop, native), (expected_stop, expected)] = &mut states;
        let text = || format!("sequence {number}: {code:02x?}");
        assert_eq!(stop, expected_stop, "{}", text());
        assert_eq!(native.cpu.eip, expected.cpu.eip, "{}", text());
        assert_eq!(native.cpu.registers, expected.cpu.registers, "{}", text());
        assert_eq!(native.cpu.flags, expected.cpu.flags, "{}", text());
        for at in (0x8000..0x4_0000u64).step_by(4).map(PhysicalAddress) {
            let (found, right) = (native.memory.read_u32(at), expected.memory.read_u32(at));
            assert_eq!(found, right, "{at} {}", text());
        }
        assert!(native.cpu.eip != CODE);
    }
}
