//! The program from outside: what it prints and writes, and how it fails.

use crate::images::{FUNCTION, bzimage, elf, gzip};
use ringside::audit::image::{CodeSize, Program};
use ringside::audit::{Audit, Kind, Method, Outcome, Patched, Site};
use ringside::plot::audit_scene;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

/// cli; pushf; sgdt [0]; far jmp 0x10:…; cpuid; ret
const TEXT: [u8; 19] =
    [0xfa, 0x9c, 0x0f, 0x01, 0x05, 0, 0, 0, 0, 0xea, 0, 0x10, 0, 0xc0, 0x10, 0, 0x0f, 0xa2, 0xc3];

fn kernel() -> Vec<u8> {
    bzimage(&gzip(&elf(&TEXT, &[], &[("start_kernel", 0, 19, FUNCTION)])))
}

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("vmlinuz"), kernel()).unwrap();
    folder
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringside"));
    command.arg("audit").args(arguments).current_dir(folder).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_table_counts_kinds_and_says_what_strategies_do() {
    let folder = folder();
    let output = run(folder.path(), &["vmlinuz"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.starts_with("vmlinuz: Linux bzImage, gzip payload, 1 symbol\nlinear sweep"));
    assert!(said.contains("19 executable bytes: 19 decoded (100.0 %) as 6 instructions"));
    let row = |kind: &str| said.lines().find(|line| line.starts_with(kind)).unwrap().to_owned();
    let words = |kind: &str| {
        row(kind)
            .split("  ")
            .map(str::trim)
            .filter(|w| !w.is_empty())
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        words("SGDT"),
        ["SGDT", "silent", "1", "executed", "wrong", "stub", "in cache", "runs"]
    );
    // Three bytes behind a jump, and then the section ends.
    assert_eq!(words("CPUID")[4..], ["wrong", "no room", "in cache", "exits: CPUID (10)"]);
    assert_eq!(words("far JMP")[4..6], ["emulated", "trap byte"]);
    assert!(said.contains("5 sites: 3 silent, 1 operands, 1 traps"));
    assert!(said.contains("trap-and-emulate: 2 emulated, 3 wrong, 0 open"));
    assert!(said.contains("SGDT              sees the host's GDT register"));
}

#[test]
fn the_list_and_the_csv_file_name_each_site() {
    let folder = folder();
    let output = run(folder.path(), &["vmlinuz", "--list", "--csv", "sites.csv"]);
    let said = text(&output.stdout);
    let listed = said.lines().find(|line| line.contains("start_kernel+0x2 ")).unwrap();
    for part in ["c0001002", "0f010500000000", "sgdt 0", "SGDT", "wrong, stub"] {
        assert!(listed.contains(part), "{part} is not in {listed}");
    }
    let csv = std::fs::read_to_string(folder.path().join("sites.csv")).unwrap();
    assert_eq!(csv.lines().count(), 6);
    assert!(csv.starts_with("address,symbol,offset,bytes,instruction,kind,class,"));
    assert!(csv.contains("c0001010,start_kernel,0x10,0fa2,cpuid,CPUID,silent,"));
    assert!(csv.contains("\"Intel SDM volume 2, CPUID\""));
}

#[test]
fn plots_are_svg_or_png_by_their_names() {
    let folder = folder();
    for (name, begin) in [("a.svg", &b"<svg "[..]), ("a.png", b"\x89PNG")] {
        let output = run(folder.path(), &["vmlinuz", "--plot", name]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(std::fs::read(folder.path().join(name)).unwrap().starts_with(begin));
    }
    let svg = std::fs::read_to_string(folder.path().join("a.svg")).unwrap();
    assert!(svg.contains("Privileged and sensitive instructions in vmlinuz"));
    assert!(svg.contains("exits: CPUID (10)"));
}

/// An audit that found all kinds, each with every outcome, and some of them thousands of times.
fn everything() -> Audit {
    let mut audit = crate::images::flat(&[0x90], Method::Sweep);
    for (index, &kind) in Kind::ALL.iter().enumerate() {
        for number in 0..index * index + 4 {
            let outcome = Outcome::ALL[number % Outcome::ALL.len()];
            let size = CodeSize::Bits32;
            let site = Site { piece: 0, offset: 0, length: 1, size, kind, outcome };
            audit.sites.push((site, Patched::ALL[number % 2]));
        }
    }
    audit
}

#[test]
fn no_two_labels_of_the_plot_overlap_with_all_kinds_in_it() {
    let audit = everything();
    assert_eq!(audit.kinds().len(), Kind::ALL.len());
    let scene = audit_scene(&audit, &"a-kernel-with-a-rather-long-name.".repeat(9));
    let boxes = scene.text_boxes();
    for (index, this) in boxes.iter().enumerate() {
        let other = boxes[..index].iter().find(|other| other.overlaps(this));
        assert_eq!(other, None, "{this:?}");
        assert!(this.right <= f64::from(scene.size().0), "{this:?}");
    }
}

#[test]
fn a_flat_binary_is_taken_where_it_is_said_to_be_one() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("boot.bin"), [0xfa, 0xeb, 0xfe]).unwrap();
    let output =
        run(folder.path(), &["boot.bin", "--kind", "flat16", "--address", "0x600", "--list"]);
    let said = text(&output.stdout);
    assert!(said.contains("flat 16-bit binary") && said.contains("recursive traversal"), "{said}");
    assert!(said.contains("00000600  image+0x0"), "{said}");
}

#[test]
fn more_entries_reach_more_code() {
    let folder = tempfile::tempdir().unwrap();
    // jmp $; cpuid; ret
    std::fs::write(folder.path().join("boot.bin"), [0xeb, 0xfe, 0x0f, 0xa2, 0xc3]).unwrap();
    let flat = ["boot.bin", "--kind", "flat32"];
    let said = |more: &[&str]| text(&run(folder.path(), &[&flat[..], more].concat()).stdout);
    assert!(said(&[]).contains("No privileged or sensitive instruction"));
    assert!(said(&["--entry", "0x100002"]).contains("CPUID"));
    refuses(&folder, &[&flat[..], &["--entry", "0x100005"]].concat(), &["--entry 0x100005"]);
}

/// It must fail as a bad set-up does, and say so in one line with all of `words`.
#[track_caller]
fn refuses(folder: &TempDir, arguments: &[&str], words: &[&str]) {
    let output = run(folder.path(), arguments);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    for word in words {
        assert!(message.contains(word), "{word:?} is not in {message}");
    }
}

#[test]
fn what_cannot_be_audited_is_refused() {
    let folder = folder();
    let put = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    put("text", b"not a kernel");
    put("empty", b"");
    put("bzip2", &bzimage(b"BZh91AY&SY"));
    put("cut", &kernel()[..0x460]);
    refuses(&folder, &["missing"], &["missing: No such file"]);
    refuses(&folder, &["text"], &["text: neither an ELF file", "bzImage", "--kind flat32"]);
    refuses(&folder, &["empty"], &["empty: the image is empty"]);
    refuses(&folder, &["bzip2"], &["0x440 is packed by bzip2", "extract-vmlinux"]);
    refuses(&folder, &["cut"], &["cut: truncated: the payload", "at offset 0x440"]);
    refuses(&folder, &["vmlinuz", "--address", "0x1000"], &["--address", "--kind flat32"]);
    refuses(&folder, &["vmlinuz", "--csv", "none/x.csv"], &["none/x.csv: cannot be written"]);
    refuses(&folder, &["vmlinuz", "--plot", "none/x.svg"], &["none/x.svg: cannot be written"]);
}

#[test]
fn a_plot_of_another_kind_is_refused() {
    let folder = folder();
    let output = run(folder.path(), &["vmlinuz", "--plot", "x.gif"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("ends in .svg or .png"));
}

/// Needs a kernel: with Debian, `dpkg --add-architecture i386`, `apt-get update`,
/// `apt-get download linux-image-6.1.0-50-686-unsigned:i386` (or what `apt-cache search` names),
/// `dpkg-deb -x` of it into a folder, and then
/// `RINGSIDE_KERNEL=folder/boot/vmlinuz-… cargo test -p ringside --test audit -- --ignored`.
#[test]
#[ignore = "needs a 32-bit Linux kernel, named by RINGSIDE_KERNEL"]
fn a_distributions_kernel_is_decoded_to_the_last_byte() {
    let path = std::env::var_os("RINGSIDE_KERNEL").expect("RINGSIDE_KERNEL names a bzImage");
    let program = Program::read(&std::fs::read(path).unwrap()).unwrap();
    let audit = Audit::of(program, Method::Sweep);
    let count = |kind| audit.sites.iter().filter(|(site, _)| site.kind == kind).count();
    assert!(audit.coverage.undecodable * 10_000 < audit.coverage.executable);
    for kind in [Kind::Pushf, Kind::Cli, Kind::Sti, Kind::Cpuid, Kind::Out, Kind::Wrmsr] {
        assert!(count(kind) > 100, "{} {}", count(kind), kind.name());
    }
    assert!(count(Kind::Lgdt) > 0 && count(Kind::Sgdt) > 0 && count(Kind::Iret) > 0);
}
