//! Configurations that nobody would write: whatever the text is, the answer is a configuration or
//! one line that says what is wrong with it.

use proptest::prelude::*;
use ringside::config::{BUILTIN, ConfigError, Experiment, Overrides, Target, Vm, VmOptions};
use std::path::Path;

const VM: &str = "kernel = \"vm.toml\"\nkind = \"flat32\"\naddress = 1048576\nmemory = \"64M\"\n\
                  cpu = \"pentium3\"\nstrategy = \"interpretation\"\ntimeout = \"5s\"\n\
                  modules = [\n  \"a b\",\n]\ndisk-read-only = true\n\
                  [options.code-patching]\nmode = \"on-trap\"\nthreshold = 9\n";

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
        "code-patching(on-trap)",
        "binary-translation",
        "binary-translation(direct)",
        "hardware-assist",
    ];
    assert_eq!(changed(peers), [&built_in[..], &["qemu-tcg"]].concat());
}

/// What the targets of an experiment are called, with what their names do not say.
fn targets(text: &str, overrides: &Overrides) -> Result<Vec<String>, String> {
    let experiment = Experiment::parse(Path::new("x.toml"), text, overrides);
    let experiment = experiment.map_err(|error| error.to_string())?;
    let saved = experiment.to_toml();
    let again = Experiment::parse(Path::new("x.toml"), &saved, &Overrides::default()).unwrap();
    assert_eq!(again.targets, experiment.targets, "{saved}");
    let words = |target: &Target| match target.remark() {
        Some(remark) => format!("{} {remark}", target.name()),
        None => target.name().to_owned(),
    };
    Ok(experiment.targets.iter().map(words).collect())
}

const PATCHING: &str = "workloads = [\"in\"]\nstrategies = ";

#[test]
fn options_of_a_strategy_are_part_of_what_is_measured() {
    let plain = Overrides::default();
    let measured = |rest: &str| targets(&format!("{PATCHING}{rest}"), &plain).unwrap();
    let both = "[\"code-patching\", \"code-patching(on-trap)\"]\n";
    assert_eq!(measured(both), ["code-patching", "code-patching(on-trap)"]);
    assert_eq!(
        measured(&format!("{both}[options.code-patching]\nthreshold = 7")),
        ["code-patching", "code-patching(on-trap) threshold 7"]
    );
    let one = "[\"code-patching\"]\n[options.code-patching]\nmode = \"on-trap\"\nthreshold = 7";
    assert_eq!(measured(one), ["code-patching(on-trap) threshold 7"]);
    let other = Overrides {
        strategies: Some(vec!["trap-and-emulate".to_owned(), "code-patching(on-trap)".to_owned()]),
        ..plain
    };
    assert_eq!(
        targets(&format!("{PATCHING}{one}"), &other).unwrap(),
        ["trap-and-emulate", "code-patching(on-trap) threshold 7"]
    );
}

#[test]
fn options_that_make_no_sense_are_named() {
    let table = "[\"code-patching\"]\n[options.code-patching]\n";
    let other = "[\"code-patching(on-trap)\"]\n[options.code-patching]\n";
    let mode = "key \"options.code-patching.mode\": ";
    let threshold = "key \"options.code-patching.threshold\": ";
    for (text, line, expected) in [
        (format!("{table}mode = \"ontrap\""), 4, format!("{mode}unknown mode \"ontrap\"; did you mean \"on-trap\"?")),
        (format!("{table}mode = \"on-trap\"\nthreshold = 0"), 5, format!("{threshold}0 traps make no sense: at least 1")),
        (format!("{table}threshold = 5"), 4, format!("{threshold}it is for on-trap mode; say mode = \"on-trap\" as well")),
        (format!("{table}mode = \"prescan\"\nthreshold = 5"), 5, format!("{threshold}it is for on-trap mode; say mode = \"on-trap\" as well")),
        (format!("{other}mode = \"prescan\""), 4, format!("{mode}\"prescan\" contradicts the strategy \"code-patching(on-trap)\"")),
        (format!("{table}threshold = -1"), 4, "key \"threshold\": invalid value: integer `-1`, expected a whole number".to_owned()),
        (format!("{table}treshold = 1"), 4, "unknown key \"treshold\"; did you mean \"threshold\"?".to_owned()),
        ("[\"code-patching(ontrap)\"]".to_owned(), 2, "key \"strategies\": unknown strategy \"code-patching(ontrap)\"; did you mean \"code-patching(on-trap)\"?".to_owned()),
        ("[\"code-patching\"]\n[options.interpretation]\nmode = 1".to_owned(), 3, "unknown key \"interpretation\"; known are code-patching, binary-translation".to_owned()),
    ] {
        let message = targets(&format!("{PATCHING}{text}"), &Overrides::default()).unwrap_err();
        assert_eq!(message, format!("x.toml:{line}: {expected}"));
    }
}

#[test]
fn a_machine_has_options_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vm.toml");
    let vm = |text: &str, strategy: Option<&str>| {
        let options = VmOptions { strategy: strategy.map(str::to_owned), ..VmOptions::default() };
        let vm = Vm::parse(&path, &format!("kernel = \"vm.toml\"\n{text}"), &options);
        vm.map(|vm| (vm.strategy.name(), vm.strategy.remark())).map_err(|error| error.to_string())
    };
    std::fs::write(&path, "").unwrap();
    let on_trap = "code-patching(on-trap)";
    let remark = Some("threshold 9".to_owned());
    let table = "[options.code-patching]\nmode = \"on-trap\"\nthreshold = 9";
    let text = format!("strategy = \"code-patching\"\n{table}");
    assert_eq!(vm(&text, None), Ok((on_trap, remark.clone())));
    assert_eq!(vm(table, None), Ok(("interpretation", None)));
    assert_eq!(vm(table, Some("code-patching")), Ok((on_trap, remark)));
    assert_eq!(vm("", Some(on_trap)), Ok((on_trap, None)));
    let error = vm("strategy = \"code-patching\"\n[options.code-patching]\nthreshold = 9", None);
    assert!(error.unwrap_err().contains("vm.toml:4: key \"options.code-patching.threshold\": "));
}
