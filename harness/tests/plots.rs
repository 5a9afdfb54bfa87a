//! Plots and report from recorded samples, without a guest.

mod recorded;

use code_patching::{Became, Jump, Mode, Moment, Need, Obstacle, Options, Runs, Site, Way};
use image::GenericImageView;
use ringside::patches::{Course, Found};
use ringside::plot::{self, TextBox};
use ringside::records::{
    self, DETAILS, DetailRow, Host, Outcome, ProbeOutcome, Run, SAMPLES, SUMMARY, SampleRow,
};
use ringside::stats::Comparison;
use ringside::{report, stats};
use std::path::Path;
use std::time::Duration;

fn plots(dir: &Path) -> Vec<plot::Plot> {
    let run = Run::load(dir).unwrap();
    plot::plots(&run, Comparison::new(&run).as_ref())
}

fn report(dir: &Path) -> String {
    std::fs::read_to_string(report::write(dir).unwrap()).unwrap()
}

/// Lets a test change `host.toml`.
fn edit_host(dir: &Path, edit: impl FnOnce(&mut Host)) {
    let mut host = Host::load(dir).unwrap();
    edit(&mut host);
    host.save(dir).unwrap();
}

#[test]
fn every_plot_is_written_as_svg_and_as_png_of_twice_the_size() {
    let dir = recorded::synthetic();
    let files = plot::draw(dir.path()).unwrap();
    let names = ["slowdown", "sensitive", "exits", "exit-time", "times"];
    assert_eq!(files.len(), 2 * names.len());
    for (name, plot) in names.into_iter().zip(plots(dir.path())) {
        assert_eq!(plot.name, name);
        let file = dir.path().join(plot::FOLDER).join(name);
        let (width, height) = plot.scene.size();
        let svg = std::fs::read_to_string(file.with_extension("svg")).unwrap();
        assert!(svg.starts_with(&format!("<svg width=\"{width}\" height=\"{height}\" ")));
        assert!(svg.trim_end().ends_with("</svg>"));
        let png = image::open(file.with_extension("png")).unwrap();
        assert_eq!(png.dimensions(), (2 * width, 2 * height));
    }
}

#[test]
fn pngs_show_text_and_colour_on_white() {
    let dir = recorded::synthetic();
    plot::draw(dir.path()).unwrap();
    let file = dir.path().join(plot::FOLDER).join("slowdown.png");
    let png = image::open(file).unwrap().to_rgb8();
    let share = |is: fn(&image::Rgb<u8>) -> bool, rows: std::ops::Range<u32>| {
        let all = (png.width() * rows.len() as u32) as f64;
        let hits = rows.flat_map(|y| (0..png.width()).map(move |x| (x, y)));
        hits.filter(|&(x, y)| is(png.get_pixel(x, y))).count() as f64 / all
    };
    assert!(share(|pixel| pixel.0 == [255; 3], 0..png.height()) > 0.7);
    // The title stands in the first 60 rows, in nearly black.
    assert!(share(|pixel| pixel.0[0] < 60, 20..60) > 0.01);
    let vermilion = |pixel: &image::Rgb<u8>| pixel.0 == [213, 94, 0];
    assert!(share(vermilion, 0..png.height()) > 1e-5);
}

#[test]
fn every_plot_names_its_strategies_and_the_host() {
    let dir = recorded::synthetic();
    for plot in plots(dir.path()) {
        let texts: Vec<String> = plot.scene.text_boxes().into_iter().map(|b| b.text).collect();
        let text = texts.join(" ");
        for part in ["Synthetic CPU 9000", "KVM in software: kvm_pvm", "hardware-assist"] {
            assert!(text.contains(part), "{part} in {}", plot.name);
        }
        assert!(text.contains("interpretation") && text.contains("trap-and-emulate"));
        // QEMU reports no exits.
        assert_eq!(text.contains("qemu-tcg"), !plot.name.starts_with("exit"), "{}", plot.name);
        let svg = plot.svg().replace("&apos;", "'");
        assert!(texts.iter().all(|text| svg.contains(text.as_str())));
    }
}

#[test]
fn plots_show_groups_workloads_kinds_and_outcomes() {
    let dir = recorded::synthetic();
    let run = Run::load(dir.path()).unwrap();
    let svg = |name: &str| plots(dir.path()).iter().find(|p| p.name == name).unwrap().svg();
    let (slowdown, sensitive, exits, times) =
        (svg("slowdown"), svg("sensitive"), svg("exits"), svg("times"));
    for (group, workloads) in run.groups() {
        assert!(slowdown.contains(&format!("{group} ({} workloads)", workloads.len())));
        assert!(workloads.iter().all(|workload| times.contains(workload)));
    }
    assert!(ProbeOutcome::ALL.iter().all(|outcome| sensitive.contains(outcome.name())));
    assert!(run.exits.iter().all(|row| exits.contains(&row.kind)));
    assert!(run.probes.iter().all(|row| sensitive.contains(&row.workload)));
    let right = |strategy: &str| {
        let of = run.probes.iter().filter(|row| row.strategy == strategy);
        of.filter(|row| row.outcome == ProbeOutcome::Right).count()
    };
    let count = format!("{} of ", right("interpretation"));
    assert!(sensitive.contains(&count), "probes are counted");
}

#[test]
fn no_two_labels_overlap_however_large_the_run() {
    for dir in [recorded::large(), recorded::synthetic()] {
        for plot in plots(dir.path()) {
            let boxes = plot.scene.text_boxes();
            let (width, height) = plot.scene.size();
            let page = (f64::from(width), f64::from(height));
            for (index, this) in boxes.iter().enumerate() {
                assert!(is_within(this, page), "{this:?} leaves {}", plot.name);
                let other = boxes[..index].iter().find(|other| other.overlaps(this));
                assert_eq!(other, None, "{this:?} in {}", plot.name);
            }
            assert!(height < 4000, "{} is {height} high", plot.name);
        }
    }
}

fn is_within(text: &TextBox, (width, height): (f64, f64)) -> bool {
    text.left >= 0.0 && text.top >= 0.0 && text.right <= width && text.bottom <= height
}

#[test]
fn the_same_files_give_the_same_pictures() {
    let dir = recorded::synthetic();
    for (a, b) in plots(dir.path()).iter().zip(plots(dir.path())) {
        assert_eq!(a.svg(), b.svg());
    }
}

#[test]
fn the_baseline_can_be_chosen() {
    let dir = recorded::synthetic();
    assert_eq!(Run::load(dir.path()).unwrap().baseline(), Some("qemu-tcg"));
    edit_host(dir.path(), |host| host.baseline = Some("interpretation".into()));
    assert_eq!(plots(dir.path())[0].title, "Slowdown against interpretation");
    edit_host(dir.path(), |host| host.baseline = Some("never-measured".into()));
    assert_eq!(plots(dir.path())[0].title, "Slowdown against qemu-tcg");
}

#[test]
fn the_report_tells_every_outcome_with_its_reason() {
    let html = report(recorded::large().path());
    for outcome in Outcome::ALL {
        assert!(html.contains(&format!("badge {0}\"", outcome.name())) || outcome == Outcome::Ok);
        assert!(html.contains(&format!(">{}</th>", outcome.name())));
    }
    let html = report(recorded::synthetic().path());
    for part in [
        "the architecture says 00000002",
        "no end mark after 10 s",
        "emulation failure",
        "0x00000202",
        "hardware-assist (KVM in software: kvm_pvm)",
        "ringside bench --samples 7",
        "QEMU 7.2.22",
        "id=\"noise\"",
        "id=\"figure-exit-time\"",
    ] {
        assert!(html.contains(part), "{part}");
    }
}

#[test]
fn the_report_shows_the_numbers_of_the_summary() {
    let dir = recorded::synthetic();
    let html = report(dir.path());
    let run = Run::load(dir.path()).unwrap();
    let timed: Vec<f64> = run.summary.iter().filter_map(|row| row.ns_per_iteration).collect();
    assert!(timed.len() > 30);
    assert!(timed.iter().all(|ns| html.contains(&format!(">{}<", plot::format::time(*ns)))));
}

#[test]
fn the_report_refers_to_nothing_outside_itself() {
    let dir = recorded::synthetic();
    std::fs::write(dir.path().join("experiment.toml"), "samples = 7 # <script>\n").unwrap();
    let html = report(dir.path());
    assert!(html.contains("samples = 7 # &lt;script&gt;"));
    for outside in ["http:", "https:", "//", "src=", "url(", "@import", "<script", "<link"] {
        assert!(!html.contains(outside), "{outside}");
    }
    let links = html.split("href=\"").skip(1);
    assert!(links.map(|rest| rest.chars().next()).all(|first| first == Some('#')));
}

#[test]
fn hostile_text_stays_text() {
    let dir = recorded::synthetic();
    let hostile = "</text><script>alert(1)</script>\"'&\u{0}\u{1b}[2J".to_owned();
    edit_host(dir.path(), |host| {
        host.cpu = hostile.clone();
        host.command = Some(hostile.clone());
        host.labels.insert("qemu-tcg".into(), hostile.repeat(9));
        host.groups[0].name = hostile.clone();
    });
    let row = SampleRow {
        strategy: hostile.clone(),
        workload: hostile.clone(),
        sample: 0,
        iterations: 1,
        seconds: None,
        outcome: Outcome::Crashed,
    };
    let mut appender = records::Appender::open(&dir.path().join(SAMPLES)).unwrap();
    appender.append(&row).unwrap();
    let detail = DetailRow {
        strategy: hostile.clone(),
        workload: hostile.clone(),
        sample: 0,
        detail: hostile.clone(),
    };
    records::Appender::open(&dir.path().join(DETAILS)).unwrap().append(&detail).unwrap();
    let mut documents: Vec<String> = plots(dir.path()).iter().map(plot::Plot::svg).collect();
    documents.push(report(dir.path()));
    for text in documents {
        assert!(!text.contains("<script") && !text.contains("</text><"));
        assert!(text.contains("&lt;script&gt;"));
        assert!(!text.contains(['\u{0}', '\u{1b}']));
    }
}

#[test]
fn a_run_that_was_cut_short_is_drawn_from_what_it_has() {
    let dir = recorded::synthetic();
    let path = dir.path().join(SAMPLES);
    let mut text = std::fs::read_to_string(&path).unwrap();
    text.truncate(text.len() - 9);
    std::fs::write(&path, &text).unwrap();
    for missing in ["details.csv", "exits.csv", "probes.csv"] {
        std::fs::remove_file(dir.path().join(missing)).unwrap();
    }
    assert_eq!(Run::load(dir.path()).unwrap().samples.len(), text.lines().count() - 2);
    assert_eq!(plot::draw(dir.path()).unwrap().len(), 4);
    assert!(report(dir.path()).contains("id=\"times\""));
}

#[test]
fn a_summary_that_is_there_gives_what_the_samples_give() {
    let dir = recorded::synthetic();
    let without = report(dir.path());
    let run = Run::load(dir.path()).unwrap();
    let summary = stats::summarise(&run.samples, &run.details);
    records::write(&dir.path().join(SUMMARY), &summary).unwrap();
    assert_eq!(report(dir.path()), without);
}

#[test]
fn a_run_without_samples_says_so_and_writes_nothing() {
    let dir = recorded::synthetic();
    records::write::<SampleRow>(&dir.path().join(SAMPLES), &[]).unwrap();
    let errors = [
        plot::draw(dir.path()).unwrap_err().to_string(),
        report::write(dir.path()).unwrap_err().to_string(),
    ];
    assert!(errors.iter().all(|error| error.contains("samples.csv: no samples in it")));
    assert!(!dir.path().join(plot::FOLDER).exists() && !dir.path().join("report.html").exists());
}

#[test]
fn a_run_in_which_nothing_worked_still_gets_a_report() {
    let dir = recorded::synthetic();
    let path = dir.path().join(SAMPLES);
    let mut samples: Vec<SampleRow> = records::read(&path).unwrap();
    for row in &mut samples {
        (row.seconds, row.outcome) = (None, Outcome::Timeout);
    }
    records::write(&path, &samples).unwrap();
    assert!(plots(dir.path()).iter().all(|plot| plot.name != "slowdown"));
    assert!(report(dir.path()).contains("nothing can be compared"));
}

#[test]
fn a_folder_that_is_no_run_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = plot::draw(dir.path()).unwrap_err().to_string();
    assert!(error.contains("samples.csv") && error.contains("No such file"), "{error}");
}

/// A guest's course in a mode, with many kinds of sites and counts of every size.
fn course(mode: Mode, scale: u64) -> Course {
    let site = |number: u32| {
        // MOV from CR0 to CR4, IN, OUT, CLI, STI, UD2 and so on.
        const CODE: [&[u8]; 9] = [
            &[0x0f, 0x20, 0xc0],
            &[0x0f, 0x20, 0xd8],
            &[0xec],
            &[0xee],
            &[0xfa],
            &[0xfb],
            &[0x0f, 0x0b],
            &[0x9c],
            &[0x0f, 0xa2],
        ];
        let jump = Jump {
            address: number,
            covers: 5,
            moved: 2,
            padding: 0,
            stub_bytes: 30,
            way: Way::Crossing,
        };
        Site {
            address: number,
            bytes: CODE[number as usize * number as usize % CODE.len()].to_vec(),
            is_32bit: true,
            need: Need::Monitor,
            became: [Became::Stub(jump), Became::TrapByte(Obstacle::Target), Became::Left]
                [number as usize % 3],
            runs: Runs { traps: u64::from(number) * scale, ..Runs::default() },
        }
    };
    let moment = |number: u64| Moment {
        at: Duration::from_micros(200 * number * number),
        traps: number * scale,
        crossings: number * number * scale,
        patches: number / 2,
        sites: number,
    };
    Course {
        options: Options { mode, ..Options::default() },
        end: Some("guest exit with value 0x0 at EIP 0x00100000".to_owned()),
        moments: (0..200).map(moment).collect(),
        sites: (0..500).map(site).collect(),
    }
}

#[test]
fn what_is_found_in_a_guests_code_is_drawn_without_overlaps() {
    let both = |scale| Found::Courses(Mode::ALL.map(|mode| course(mode, scale)).into());
    let empty = Course { moments: Vec::new(), sites: Vec::new(), ..course(Mode::Prescan, 0) };
    let image = Found::Image { sites: course(Mode::Prescan, 0).sites, is_swept: true };
    let nothing = Found::Image { sites: Vec::new(), is_swept: false };
    for found in
        [both(0), both(7), both(u64::from(u32::MAX)), Found::Courses(vec![empty]), image, nothing]
    {
        let scene = plot::patches_scene(&found, &"a-long-name-of-a-kernel-".repeat(9));
        let (width, height) = scene.size();
        let boxes = scene.text_boxes();
        for (index, this) in boxes.iter().enumerate() {
            let other = boxes[..index].iter().find(|other| other.overlaps(this));
            assert!(other.is_none(), "{this:?} over {other:?}");
            assert!(this.left >= 0.0 && this.right <= f64::from(width), "{this:?}");
            assert!(this.top >= 0.0 && this.bottom <= f64::from(height), "{this:?}");
        }
    }
}
