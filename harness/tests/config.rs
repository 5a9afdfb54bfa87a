//! Configurations that nobody would write: whatever the text is, the answer is a configuration or
//! one line that says what is wrong with it.

use proptest::prelude::*;
use ringside::config::{BUILTIN, ConfigError, Experiment, Overrides, Vm, VmOptions};
use std::path::Path;

const VM: &str = "kernel = \"vm.toml\"\nkind = \"flat32\"\naddress = 1048576\nmemory = \"64M\"\n\
                  cpu = \"pentium3\"\nstrategy = \"interpretation\"\ntimeout = \"5s\"\n\
                  modules = [\n  \"a b\",\n]\ndisk-read-only = true\n";

fn experiment(text: &str) -> Result<Experiment, ConfigError> {
    Experiment::parse(Path::new("x.toml"), text, &Overrides::default())
}

fn check(text: &str) -> Result<(), TestCaseError> {
    let errors =
        [experiment(text).err(), Vm::parse(Path::new("x.toml"), text, &VmOptions::default()).err()];
    for error in errors.into_iter().flatten() {
        let message = error.to_string();
        prop_assert_eq!(message.lines().count(), 1, "{}", message);
        prop_assert!(message.starts_with("x.toml:"), "{}", message);
        prop_assert!(error.line.is_none_or(|line| line <= text.split('\n').count()));
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_text_gets_an_answer(text in "(?s).{0,200}") {
        check(&text)?;
    }

    #[test]
    fn any_change_of_a_good_text_gets_an_answer(
        text in prop::sample::select(vec![BUILTIN, VM]),
        at in any::<prop::sample::Index>(),
        length in 0..20_usize,
        put in "[\\[\\]\"={}.,a-z0-9\n\\\\-]{0,6}",
    ) {
        let bytes = text.as_bytes();
        let from = at.index(bytes.len());
        let to = (from + length).min(bytes.len());
        let changed = [&bytes[..from], put.as_bytes(), &bytes[to..]].concat();
        check(&String::from_utf8_lossy(&changed))?;
    }
}

#[test]
fn the_built_in_experiment_is_good_and_says_everything_when_saved() {
    let experiment = experiment(BUILTIN).unwrap();
    assert_eq!(experiment.workloads.len(), workloads::all().len());
    let saved = experiment.to_toml();
    let again = Experiment::parse(Path::new("saved.toml"), &saved, &Overrides::default()).unwrap();
    assert_eq!(again.to_toml(), saved);
}

#[test]
fn messages_name_line_key_and_what_was_meant() {
    let good = "strategies = [\"interpretation\"]\nworkloads = [\"in\"]\n";
    for (line, expected) in [
        ("sampels = 3", "x.toml:3: unknown key \"sampels\"; did you mean \"samples\"?"),
        ("samples = 0", "x.toml:3: key \"samples\": 0 samples make no sense: from 1 to 10000"),
        (
            "timeout = \"1ms\"",
            "x.toml:3: key \"timeout\": 1ms makes no sense: from 100ms to 86400s",
        ),
        (
            "timeout = 3",
            "x.toml:3: key \"timeout\": invalid type: integer `3`, expected a time such as \"20ms\", \
             \"1.5s\" or \"3min\"",
        ),
        (
            "baseline = \"interpretaton\"",
            "x.toml:3: key \"baseline\": unknown target \"interpretaton\"; did you mean \
             \"interpretation\"?",
        ),
        (
            "peers = [\"trap-and-emulate\"]",
            "x.toml:3: key \"peers\": unknown peer \"trap-and-emulate\"; known are qemu-tcg, \
             qemu-kvm, native",
        ),
        ("samples = 3\nsamples = 4", "x.toml:4: duplicate key"),
    ] {
        let message = experiment(&format!("{good}{line}\n")).unwrap_err().to_string();
        assert_eq!(message, expected);
    }
}

#[test]
fn what_the_command_line_says_replaces_what_the_file_says() {
    let names = |names: &[&str]| Some(names.iter().map(|&name| name.to_owned()).collect());
    let changed = |overrides| {
        let experiment = Experiment::parse(Path::new("x.toml"), BUILTIN, &overrides).unwrap();
        experiment.targets.iter().map(|target| target.name()).collect::<Vec<_>>()
    };
    let strategies = Overrides { strategies: names(&["hardware-assist"]), ..Overrides::default() };
    assert_eq!(changed(strategies.clone()), ["hardware-assist"]);
    let both = Overrides { peers: names(&["qemu-kvm"]), ..strategies };
    assert_eq!(changed(both), ["hardware-assist", "qemu-kvm"]);
    let peers = Overrides { peers: names(&["qemu-tcg"]), ..Overrides::default() };
    let built_in = [
        "interpretation",
        "trap-and-emulate",
        "code-patching",
        "binary-translation",
        "hardware-assist",
    ];
    assert_eq!(changed(peers), [&built_in[..], &["qemu-tcg"]].concat());
}
