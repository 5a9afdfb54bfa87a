//! Which bytes are taken for code, and what is found in each format.

use crate::images::{self, FUNCTION, OBJECT, TEXT, elf, flat, found, gzip, without_sections};
use ringside::audit::image::{CodeSize, Flat, Program};
use ringside::audit::{Audit, Kind, Method, rows};

fn kinds(audit: &Audit) -> Vec<Kind> {
    found(audit).into_iter().map(|(_, kind, _)| kind).collect()
}

/// jmp over; 0xfa, 0xf4 (data that looks like cli; hlt), 0x0f (that hides what follows);
/// over: pushf; ret
const DATA_AMID: [u8; 7] = [0xeb, 0x03, 0xfa, 0xf4, 0x0f, 0x9c, 0xc3];

#[test]
fn control_flow_passes_by_data() {
    let audit = flat(&DATA_AMID, Method::Follow);
    assert_eq!(kinds(&audit), [Kind::Pushf]);
    assert_eq!((audit.coverage.decoded, audit.coverage.skipped()), (4, 3));
    assert_eq!(audit.coverage.undecodable, 0);
}

#[test]
fn a_sweep_takes_data_for_code_and_falls_out_of_step() {
    let audit = flat(&DATA_AMID, Method::Sweep);
    // 0f 9c c3 is setl bl.
    assert_eq!(kinds(&audit), [Kind::Cli, Kind::Hlt]);
    assert_eq!(audit.coverage.skipped(), 0);
}

#[test]
fn symbols_of_functions_and_data_keep_a_sweep_in_step() {
    let symbols = [("start", 0, 2, FUNCTION), ("bytes", 2, 3, OBJECT), ("over", 5, 2, FUNCTION)];
    let audit = Audit::of(Program::read(&elf(&DATA_AMID, &[], &symbols)).unwrap(), Method::Sweep);
    assert_eq!(kinds(&audit), [Kind::Pushf]);
    assert_eq!(audit.coverage.skipped(), 3);
    // Without the data's size, the function behind it still begins where it begins.
    let symbols = [("start", 0, 2, FUNCTION), ("over", 5, 2, FUNCTION)];
    let audit = Audit::of(Program::read(&elf(&DATA_AMID, &[], &symbols)).unwrap(), Method::Sweep);
    assert_eq!(kinds(&audit), [Kind::Cli, Kind::Hlt, Kind::Pushf]);
    assert_eq!(audit.coverage.undecodable, 1);
}

#[test]
fn undecodable_bytes_are_counted_and_passed() {
    // lock nop, which is none; cli
    let audit = flat(&[0xf0, 0x90, 0xfa], Method::Sweep);
    assert_eq!((audit.coverage.undecodable, audit.coverage.decoded), (1, 2));
    assert_eq!(kinds(&audit), [Kind::Cli]);
}

#[test]
fn calls_and_both_sides_of_branches_are_followed_and_ends_are_not_passed() {
    // jz L; call f; ud2; cli | L: hlt; jmp $ | f: sti; ret
    let code =
        [0x74, 0x08, 0xe8, 0x06, 0x00, 0x00, 0x00, 0x0f, 0x0b, 0xfa, 0xf4, 0xeb, 0xfe, 0xfb, 0xc3];
    assert_eq!(kinds(&flat(&code, Method::Follow)), [Kind::Hlt, Kind::Sti]);
}

#[test]
fn handlers_in_a_constant_interrupt_table_are_found() {
    // lidt [TEXT + 16]; jmp $ | at 16: limit 15, base TEXT + 24 | gates 0 and 1 | at 40: cli; iret
    let mut code = vec![0x0f, 0x01, 0x1d];
    code.extend((TEXT + 16).to_le_bytes());
    code.extend([0xeb, 0xfe]);
    code.resize(16, 0x0e);
    code.extend(15u16.to_le_bytes());
    code.extend((TEXT + 24).to_le_bytes());
    code.resize(24, 0);
    let gate = |address: u32, kind: u32| {
        (u64::from(address & 0xffff_0000 | kind) << 32) | u64::from(address & 0xffff | 8 << 16)
    };
    code.extend(gate(TEXT + 40, 0x8e00).to_le_bytes());
    // Not present: whatever is there is not followed.
    code.extend(gate(TEXT + 9, 0x0e00).to_le_bytes());
    code.extend([0xfa, 0xcf]);
    let audit = flat(&code, Method::Follow);
    assert_eq!(kinds(&audit), [Kind::Lidt, Kind::Cli, Kind::Iret]);
}

#[test]
fn real_mode_code_is_decoded_as_such_up_to_the_jump_out_of_it() {
    // cli; mov eax, cr0; mov cr0, eax; jmp far 8:0x7c10 (32-bit offset) | 0x7c10: mov eax, 0x9090; hlt
    let mut code =
        vec![0xfa, 0x0f, 0x20, 0xc0, 0x0f, 0x22, 0xc0, 0x66, 0xea, 0x10, 0x7c, 0, 0, 8, 0];
    code.resize(16, 0xff);
    code.extend([0xb8, 0x90, 0x90, 0, 0, 0xf4, 0xeb, 0xfe]);
    let program = Program::flat(&code, Flat { address: 0x7c00, size: CodeSize::Bits16 }).unwrap();
    let audit = Audit::of(program, Method::Follow);
    let expected = [Kind::Cli, Kind::ReadCr0, Kind::WriteCr0, Kind::FarJump, Kind::Hlt];
    assert_eq!(kinds(&audit), expected);
}

#[test]
fn sites_are_named_by_symbol_and_offset() {
    let symbols = [("start", 0, 2, FUNCTION), ("bytes", 2, 3, OBJECT), ("over", 5, 2, FUNCTION)];
    let text = [&DATA_AMID[..], &[0x9d, 0xc3]].concat();
    let audit = Audit::of(Program::read(&elf(&text, &[], &symbols)).unwrap(), Method::Sweep);
    let row = rows(&audit).last().unwrap();
    assert_eq!((row.symbol.as_str(), row.offset.as_str()), ("over", "0x2"));
    assert_eq!((row.address.as_str(), row.bytes.as_str()), ("c0001007", "9d"));
    assert_eq!((row.instruction.as_str(), row.kind), ("popf", "POPF"));
    assert_eq!(row.trap_and_emulate, "wrong");
}

#[test]
fn an_elf_file_without_sections_is_followed_from_its_entry() {
    let program = Program::read(&without_sections(elf(&DATA_AMID, &[], &[]))).unwrap();
    assert!(!program.is_told_apart);
    assert_eq!(kinds(&Audit::of(program, Method::Follow)), [Kind::Pushf]);
}

#[test]
fn the_kernel_in_a_bzimage_is_found() {
    let image = images::bzimage(&gzip(&elf(&[0x0f, 0xa2, 0xc3], &[], &[])));
    let program = Program::read(&image).unwrap();
    assert_eq!(program.format, "Linux bzImage, gzip payload");
    assert_eq!(kinds(&Audit::of(program, Method::Sweep)), [Kind::Cpuid]);
}

#[test]
fn workloads_are_decoded_without_a_gap_in_what_is_reached() {
    for workload in workloads::all() {
        let image = workload.assemble(10).unwrap();
        let audit = Audit::of(Program::read(&image.bytes).unwrap(), Method::Follow);
        let found = kinds(&audit);
        assert_eq!(audit.coverage.undecodable, 0, "{}", workload.name);
        for kind in [Kind::Lgdt, Kind::Lidt, Kind::Ltr, Kind::FarJump, Kind::Out] {
            assert!(found.contains(&kind), "no {} in {}", kind.name(), workload.name);
        }
    }
}

#[test]
fn the_sgdt_workload_has_its_sgdt() {
    let all = workloads::all();
    let workload = all.iter().find(|workload| workload.name == "sgdt").unwrap();
    let program = Program::read(&workload.assemble(10).unwrap().bytes).unwrap();
    assert!(kinds(&Audit::of(program, Method::Follow)).contains(&Kind::Sgdt));
}
