//! Every workload assembles, at any number of iterations, to an image that a multiboot loader takes.

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

#[test]
fn every_workload_assembles_for_any_number_of_iterations() {
    for workload in workloads::all() {
        for iterations in [0, 1, 2, 1000, u32::MAX] {
            let image = workload.assemble(iterations).unwrap();
            assert!(!image.bytes.is_empty(), "{}", workload.name);
        }
    }
}

#[test]
fn the_multiboot_header_describes_the_file() {
    for workload in workloads::all() {
        let bytes = workload.assemble(1).unwrap().bytes;
        let field = |number: usize| word(&bytes, number * 4);
        assert_eq!(field(0), 0x1BAD_B002, "magic of {}", workload.name);
        assert_eq!(field(0).wrapping_add(field(1)).wrapping_add(field(2)), 0);
        let [header, load, load_end, bss_end, entry] = [3, 4, 5, 6, 7].map(field);
        assert_eq!(header, load, "the header is at the file's start");
        assert_eq!((load_end - load) as usize, bytes.len());
        assert!(load_end <= bss_end);
        assert!((load..load_end).contains(&entry));
    }
}

#[test]
fn names_are_unique_and_iterations_begin_at_one() {
    let mut names: Vec<&str> = workloads::all().iter().map(|workload| workload.name).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
    assert!(workloads::all().iter().all(|workload| workload.first_iterations > 0));
}
