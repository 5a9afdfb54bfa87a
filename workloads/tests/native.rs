//! The inner functions of the compute workloads on the host's own CPU: each is put into a 32-bit ELF
//! program, which exits with 0 if the checksum is right.
//!
//! Where the kernel runs no 32-bit programs this says so and tests only the assembly.

use std::fs::{File, set_permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use workloads::compute::NativeKernel;
use workloads::{Group, Workload};

const BASE: u32 = 0x0804_8000;
/// The ELF header and one program header.
const HEADERS: u32 = 52 + 32;
const KERNEL: u32 = BASE + 0x1000;
const ITERATIONS: u32 = 7;

fn compute_workloads() -> impl Iterator<Item = Workload> {
    workloads::all().into_iter().filter(|workload| workload.group == Group::Compute)
}

/// Code that calls the functions and exits with 0 if EAX is the checksum, else with 1.
fn caller(kernel: &NativeKernel, data: u32) -> Vec<u8> {
    let mut code = Vec::new();
    let emit = |code: &mut Vec<u8>, opcode: &[u8], operand: u32| {
        code.extend_from_slice(opcode);
        code.extend_from_slice(&operand.to_le_bytes());
    };
    let call = |code: &mut Vec<u8>, target: u32| {
        let next = BASE + HEADERS + code.len() as u32 + 5;
        emit(code, &[0xE8], target.wrapping_sub(next));
    };
    emit(&mut code, &[0x68], data); // push data
    if let Some(prepare) = kernel.prepare {
        call(&mut code, prepare);
    }
    emit(&mut code, &[0x68], ITERATIONS); // push iterations
    call(&mut code, kernel.run);
    emit(&mut code, &[0x31, 0xDB, 0x3D], (kernel.checksum)(ITERATIONS)); // xor ebx, ebx; cmp eax
    code.extend_from_slice(&[0x0F, 0x95, 0xC3]); // setne bl
    emit(&mut code, &[0xB8], 1); // mov eax, exit
    code.extend_from_slice(&[0xCD, 0x80]);
    code
}

/// A static ELF program: headers, caller, functions, data, and zeros for the rest of the data area.
fn program(kernel: &NativeKernel) -> Vec<u8> {
    let data = (KERNEL + kernel.code.len() as u32).next_multiple_of(4096);
    let file_bytes = data - BASE + kernel.data.len() as u32;
    let memory_bytes = data - BASE + kernel.data_bytes.max(kernel.data.len() as u32);
    let mut file = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0".to_vec();
    for word in [1, BASE + HEADERS, 52, 0, 0, 52 | 32 << 16, 1, 0] {
        file.extend_from_slice(&u32::to_le_bytes(word));
    }
    for word in [1, 0, BASE, BASE, file_bytes, memory_bytes, 7, 0x1000] {
        file.extend_from_slice(&u32::to_le_bytes(word));
    }
    assert_eq!(file.len() as u32, HEADERS);
    file.extend(caller(kernel, data));
    file.resize((KERNEL - BASE) as usize, 0);
    file.extend_from_slice(&kernel.code);
    file.resize((data - BASE) as usize, 0);
    file.extend_from_slice(&kernel.data);
    file
}

#[test]
fn the_inner_functions_are_right_on_the_hosts_own_cpu() {
    let directory = tempfile::tempdir().unwrap();
    for workload in compute_workloads() {
        let kernel = workload.native(KERNEL).unwrap().unwrap();
        let path = directory.path().join(workload.name);
        let mut file = File::create(&path).unwrap();
        file.write_all(&program(&kernel)).unwrap();
        drop(file);
        set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        match Command::new(&path).status() {
            Ok(status) => assert!(status.success(), "{}: {status}", workload.name),
            Err(error) if error.kind() == ErrorKind::NotFound => panic!("{error}"),
            Err(error) => {
                eprintln!("this host runs no 32-bit programs ({error}): nothing was run");
                return;
            }
        }
    }
}

#[test]
fn the_inner_functions_can_be_anywhere() {
    for workload in compute_workloads() {
        let [low, high] =
            [0x1_0000, 0x6000_0000].map(|base| workload.native(base).unwrap().unwrap());
        assert_eq!(low.run - low.base, high.run - high.base, "{}", workload.name);
        assert_eq!(low.code.len(), high.code.len());
        assert!(low.data.len() as u32 <= low.data_bytes);
    }
}

#[test]
fn only_compute_workloads_have_an_inner_function() {
    let others = workloads::all().into_iter().filter(|w| w.group != Group::Compute);
    assert!(others.into_iter().all(|workload| workload.native(KERNEL).unwrap().is_none()));
}
