//! Runs the example as a user does: what it prints, writes and refuses.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use fused_dropout::nn::Mlp;

const FILES: [&str; 4] = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
];

/// An empty folder of this name, for one test.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("train_digits").join(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_train-digits"))
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("the example runs")
}

/// Standard output of a run that succeeds.
fn succeed(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// A run that must fail with exit code 2 and one line that contains all of `words`.
#[track_caller]
fn refuse(folder: &Path, arguments: &[&str], words: &[&str]) {
    let output = run(folder, arguments);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
    assert!(output.stdout.is_empty(), "{arguments:?} printed to standard output");
    assert!(stderr.starts_with("error: ") && stderr.ends_with('\n'), "{stderr:?}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "{stderr:?} does not say {word:?}");
    }
}

fn idx(dimensions: &[u32], values: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, dimensions.len() as u8];
    bytes.extend(dimensions.iter().flat_map(|d| d.to_be_bytes()));
    bytes.extend(values);
    bytes
}

/// `count` images of 4 x 4 pixels, each class a pattern with some noise, and their labels.
fn digits(count: u32) -> [Vec<u8>; 2] {
    let labels: Vec<u8> = (0..count).map(|i| (i % 10) as u8).collect();
    let pixel = |i: u32, p: u32| ((i % 10 + 1) * (p + 1) * 37 % 200 + i * 13 * (p + 5) % 50) as u8;
    let images: Vec<u8> = (0..count).flat_map(|i| (0..16).map(move |p| pixel(i, p))).collect();
    [idx(&[count, 4, 4], &images), idx(&[count], &labels)]
}

/// A folder with a small data set: 60 training and 30 test images.
fn data(name: &str) -> PathBuf {
    let folder = folder(name);
    for (file, bytes) in FILES.iter().zip(digits(60).into_iter().chain(digits(30))) {
        fs::write(folder.join(file), bytes).unwrap();
    }
    folder
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Walks the tags of an SVG file: every element that opens must close, in order.
fn assert_well_formed(svg: &str) {
    let mut open = Vec::new();
    for tag in svg.split('<').skip(1) {
        let (tag, text) = tag.split_once('>').expect("every tag ends");
        assert!(!text.contains('>'), "stray > in {text:?}");
        assert_eq!(tag.matches('"').count() % 2, 0, "unbalanced quotes in {tag:?}");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "wrong closing tag");
        } else if !tag.ends_with('/') && !tag.starts_with(['?', '!']) {
            open.push(tag.split_whitespace().next().unwrap());
        }
    }
    assert!(open.is_empty(), "not closed: {open:?}");
}

#[test]
fn quick_run_prints_a_table_and_writes_a_picture() {
    let folder = folder("quick");
    let text = succeed(&folder, &["--seeds", "1", "--epochs", "2"]);
    for words in [
        "300 training and 1497 test images",
        "64-256-256-10",
        "without dropout",
        "with dropout",
        "paired difference",
        "same 13 writers",
        "Learning curves: target/train_digits.svg\n",
    ] {
        assert!(text.contains(words), "no {words:?} in:\n{text}");
    }
    let svg = fs::read_to_string(folder.join("target/train_digits.svg")).unwrap();
    assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"));
    for words in ["test, without dropout", "train, with dropout", "epoch", "error, percent"] {
        assert!(svg.contains(words), "no {words:?} in the picture");
    }
    assert_well_formed(&svg);
}

#[test]
fn more_passes_have_fewer_errors() {
    let folder = folder("monte-carlo");
    let text = succeed(&folder, &["--seeds", "2", "--epochs", "40", "--mc", "30"]);
    let errors = |k: &str| -> [f64; 2] {
        let row = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let row = row.into_iter().find(|row| row.len() == 3 && row[0] == k);
        let row = row.unwrap_or_else(|| panic!("no row {k} in:\n{text}"));
        [1, 2].map(|i| row[i].parse().unwrap())
    };
    let [one, two, ten, all] = ["1", "2", "10", "30"].map(errors);
    assert_eq!(one[0], one[1], "the vote of one pass is its class");
    assert!(two[0] < one[0] - 1.0 && ten[0] < two[0] - 0.5 && all[0] < two[0] - 0.5, "{text}");
    assert!(ten[1] < one[1] - 1.0, "{text}");
    let scaled = text.lines().find_map(|line| line.strip_prefix("weight scaling"));
    let scaled: f64 = scaled.unwrap().trim().parse().unwrap();
    assert!((all[0] - scaled).abs() < 1.0, "{text}");
    assert!(text.ends_with("Test errors: target/train_digits.svg\n"), "{text}");
    let svg = fs::read_to_string(folder.join("target/train_digits.svg")).unwrap();
    for words in ["passes with dropout", "majority vote", "weight scaling"] {
        assert!(svg.contains(words), "no {words:?} in the picture");
    }
    assert_well_formed(&svg);
    let table = |threads| {
        let quick = ["--seeds", "2", "--epochs", "2", "--layers", "9", "--mc", "1"];
        succeed(&folder, &[&quick[..], &["--threads", threads]].concat())
    };
    assert_eq!(table("1"), table("3"));
}

#[test]
fn whole_units_can_be_dropped() {
    let folder = folder("granularity");
    let arguments = ["--seeds", "1", "--epochs", "2", "--layers", "40", "--granularity"];
    let table = |name| succeed(&folder, &[&arguments[..], &[name]].concat());
    let [element, unit, exact, block] = ["element", "unit", "unit-exact", "block"].map(table);
    assert_eq!(element, succeed(&folder, &arguments[..6]));
    assert!(unit.contains("inverted scaling, whole hidden units for a mini-batch\n"), "{unit}");
    assert!(
        exact.contains("inverted scaling, a fixed number of hidden units for a mini-batch\n"),
        "{exact}"
    );
    let heading = "inverted scaling, blocks of hidden units for groups of examples\n";
    assert!(block.contains(heading), "{block}");
}

#[test]
fn no_terminal_means_plain_progress_lines() {
    let output = run(&folder("progress"), &["--seeds", "1", "--epochs", "5", "--layers", "4"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("training: 100 % after "), "{stderr}");
    assert!(!stderr.contains('\x1b') && !stderr.contains('\r'), "{stderr:?}");
    assert_eq!(stderr.lines().count(), 11, "a line for every 10 % and one at the end:\n{stderr}");
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let folder = folder("threads");
    let table = |threads| {
        succeed(&folder, &["--seeds", "2", "--epochs", "4", "--layers", "40", "--threads", threads])
    };
    let one = table("1");
    assert_eq!(one, table("2"));
    assert_eq!(one, table("7"));
}

/// The steps of a checkpoint, if it is there.
fn saved_steps(path: &Path) -> Option<u32> {
    Mlp::load(path).ok().map(|mlp| mlp.steps())
}

/// Wherever a run is stopped, it goes on to the same bits and the same table, order of examples included.
#[test]
fn a_run_that_was_stopped_goes_on_to_the_same_bits() {
    const STEPS: u32 = 60 * 6;
    for (name, more) in [
        ("elements", &[][..]),
        ("units", &["--granularity", "unit-exact", "--activation", "gelu", "--classical"]),
    ] {
        let common = ["--seeds", "1", "--epochs", "60", "--layers", "150,150", "--save", "net"];
        let whole_folder = folder(&format!("whole-{name}"));
        let arguments = [&common[..], more].concat();
        let whole = succeed(&whole_folder, &arguments);
        assert!(whole.ends_with("Checkpoint: net\n"), "{whole}");
        assert!(!whole.contains("without dropout"), "{whole}");
        assert_eq!(saved_steps(&whole_folder.join("net")), Some(STEPS));

        let stopped = folder(&format!("stopped-{name}"));
        let path = stopped.join("net");
        let resume = [&arguments[..], &["--resume", "net", "--threads", "1"]].concat();
        let mut from = 0;
        for arguments in [&arguments, &resume] {
            let mut child = Command::new(env!("CARGO_BIN_EXE_train-digits"))
                .args(arguments)
                .current_dir(&stopped)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            while saved_steps(&path).is_none_or(|steps| steps <= from) {
                assert!(child.try_wait().unwrap().is_none(), "it ended before it was stopped");
                std::thread::sleep(Duration::from_millis(1));
            }
            child.kill().unwrap();
            child.wait().unwrap();
            from = saved_steps(&path).expect("a checkpoint is whole at any time");
            assert!(from > 0 && from < STEPS && from % 6 == 0, "stopped at step {from}");
        }
        let output = run(&stopped, &resume);
        let (stdout, stderr) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(output.status.success(), "{stderr}");
        let epochs = from / 6;
        assert!(stderr.starts_with(&format!("net: going on after {epochs} epoch")), "{stderr}");
        let tenths = stderr.lines().filter(|line| line.starts_with("training: ")).count();
        assert_eq!(tenths as u32, 10 - epochs / 6, "a line for every 10 % that is left:\n{stderr}");
        assert_eq!(stdout, whole);
        assert!(fs::read(&path).unwrap() == fs::read(whole_folder.join("net")).unwrap(), "bits");

        // A run that is at its end has its table once more.
        assert_eq!(succeed(&stopped, &resume), whole);
    }
}

#[test]
fn a_checkpoint_of_another_run_is_refused() {
    let folder = folder("other-run");
    let small = ["--seeds", "1", "--epochs", "2", "--layers", "8"];
    succeed(&folder, &[&small[..], &["--save", "net"]].concat());
    fs::remove_dir_all(folder.join("target")).unwrap();
    for (more, words) in [
        (
            &["--layers", "9"][..],
            "net has layers of [64, 8, 10], but the options ask for [64, 9, 10]",
        ),
        (
            &["--layers", "8", "--hidden-rate", "0.25"],
            "net has the hidden rate 0.5, but the options ask for 0.25",
        ),
        (
            &["--layers", "8", "--activation", "selu"],
            "the activation Relu, but the options ask for Selu",
        ),
        (
            &["--layers", "8", "--classical"],
            "the scaling Inverted, but the options ask for Classical",
        ),
        (&["--layers", "8", "--granularity", "unit"], "the granularities [Element, Element], but"),
        (&["--layers", "8", "--batch", "30"], "net has taken 12 steps, but an epoch has 10"),
        (&["--layers", "8", "--epochs", "1"], "net has trained for 2 epochs, but --epochs is 1"),
    ] {
        let resume = ["--seeds", "1", "--resume", "net"];
        refuse(&folder, &[&resume[..], more].concat(), &[words]);
    }
    fs::write(folder.join("text"), "hello, world").unwrap();
    let text = ["--seeds", "1", "--resume", "text"];
    refuse(&folder, &text, &["text: the checkpoint's header length is "]);
    assert!(!folder.join("target").exists(), "a refused run leaves nothing behind");
}

#[test]
fn gzipped_files_and_other_names_are_the_same_data() {
    let folder = data("gz");
    let arguments = ["--data", ".", "--seeds", "2", "--epochs", "3", "--layers", "8,8"];
    let plain = succeed(&folder, &arguments);
    assert!(plain.contains("60 training and 30 test images of 4 x 4"), "{plain}");
    assert!(!plain.contains("writers"), "{plain}");
    for file in FILES {
        let path = folder.join(file);
        fs::write(folder.join(format!("{file}.gz")), gzip(&fs::read(&path).unwrap())).unwrap();
        fs::remove_file(path).unwrap();
    }
    assert_eq!(plain, succeed(&folder, &arguments));
    for file in FILES {
        let dotted = file.replace("-idx", ".idx");
        fs::rename(folder.join(format!("{file}.gz")), folder.join(format!("{dotted}.gz"))).unwrap();
    }
    assert_eq!(plain, succeed(&folder, &arguments));
}

#[test]
fn bad_options_are_refused_in_one_line() {
    let folder = folder("options");
    for (arguments, words) in [
        (&["--nonsense"][..], &["--nonsense"][..]),
        (&["--epoch", "3"], &["--epoch", "--epochs"]),
        (&["nonsense"], &["nonsense"]),
        (&["--seeds"], &["--seeds"]),
        (&["--hidden-rate", "1.5"], &["--hidden-rate", "1.5", "from 0 to 1"]),
        (&["--hidden-rate", "-0.1"], &["--hidden-rate", "-0.1", "from 0 to 1"]),
        (&["--input-rate", "nan"], &["--input-rate", "nan", "from 0 to 1"]),
        (&["--epochs", "0"], &["--epochs", "at least 1"]),
        (&["--epochs", "4294967295"], &["--epochs", "steps"]),
        (&["--seeds", "0"], &["--seeds", "at least 1"]),
        (&["--batch", "0"], &["--batch", "at least 1"]),
        (&["--batch", "301"], &["--batch is 301", "300 training examples"]),
        (&["--train", "1797"], &["--train is 1797", "1797"]),
        (&["--mc", "0"], &["--mc", "passes"]),
        (&["--learning-rate", "inf"], &["--learning-rate", "inf"]),
        (&["--learning-rate", "0"], &["--learning-rate", "above 0"]),
        (&["--threads", "0"], &["--threads", "from 1 to 1024"]),
        (&["--layers", "16,0"], &["--layers", "at least 1"]),
        (&["--layers", "16,,16"], &["--layers", "at least 1"]),
        (&["--layers", "999999999,999999999"], &["64-999999999-999999999-10", "weights"]),
        (&["--activation", "nonsense"], &["--activation", "nonsense"]),
        (&["--granularity", "units"], &["--granularity", "units", "unit-exact"]),
        (&["--output", "."], &[".: cannot be written"]),
        (&["--compare", "--granularity", "unit"], &["--compare", "--granularity"]),
        (&["--compare", "--mc", "5"], &["--compare", "--mc"]),
        (&["--save", "net"], &["--save is for one network", "--seeds is 10", "add --seeds 1"]),
        (&["--resume", "net", "--seeds", "2"], &["--resume is for one", "--seeds is 2"]),
        (&["--save", "net", "--mc", "5"], &["--save", "--mc"]),
        (&["--resume", "net", "--compare"], &["--resume", "--compare"]),
        (&["--save", "no/net", "--seeds", "1"], &["--save no/net: there is no folder no"]),
        (&["--resume", "net", "--seeds", "1"], &["cannot load the checkpoint net: "]),
        (&["--compare", "--train", "2", "--batch", "1"], &["--compare", "a third", "are 2"]),
        (&["--data", "missing"], &["missing: there is no such folder"]),
        (&["--data", "."], &["has neither train-images-idx3-ubyte nor"]),
        (&["--data", "two\nlines"], &["two\\nlines"]),
    ] {
        refuse(&folder, arguments, words);
    }
    fs::write(folder.join("file"), "").unwrap();
    refuse(&folder, &["--output", "file/picture.svg"], &["file/picture.svg: cannot be written"]);
    let missing = ["--output", "no/such/picture.svg"];
    refuse(&folder, &missing, &["--output no/such/picture.svg: there is no folder no/such"]);
    refuse(&folder, &["--data", "file"], &["file: is not a folder"]);
    assert!(!folder.join("target").exists(), "a refused run leaves nothing behind");
}

#[test]
fn broken_files_are_refused_in_one_line() {
    let folder = data("broken");
    let [images, labels] = digits(60);
    let mut bad_label = labels.clone();
    bad_label[8 + 5] = 10;
    let mut truncated = gzip(&images);
    truncated.truncate(truncated.len() / 2);
    let mut corrupt = gzip(&images);
    let crc = corrupt.len() - 8;
    corrupt[crc] ^= 1;
    let longer = [&images[..], &[0]].concat();
    let [image_file, label_file, ..] = FILES;

    for (file, bytes, words) in [
        (image_file, labels.clone(), &["0x00000801", "expected 0x00000803"][..]),
        (label_file, images.clone(), &["0x00000803", "expected 0x00000801"]),
        (image_file, b"hello, world".to_vec(), &["magic", "0x68656c6c"]),
        (image_file, vec![], &["ends after 0 bytes", "header of 16"]),
        (image_file, images[..10].to_vec(), &["ends after 10 bytes", "header of 16"]),
        (image_file, images[..500].to_vec(), &["60 x 4 x 4 = 960", "has 484"]),
        (image_file, longer.clone(), &["60 x 4 x 4 = 960", "has more"]),
        (image_file, gzip(&images[..500]), &["60 x 4 x 4 = 960", "has 484"]),
        (image_file, gzip(&longer), &["60 x 4 x 4 = 960", "has more"]),
        (image_file, truncated, &["cannot be read"]),
        (image_file, corrupt, &["cannot be read"]),
        (image_file, idx(&[u32::MAX; 3], &[1, 2, 3]), &["4294967295 x 4294967295 x 4294967295"]),
        (image_file, idx(&[u32::MAX, 4, 4], &[1, 2, 3]), &["= 68719476720 values", "has 3"]),
        (image_file, idx(&[0, 4, 4], &[]), &["has 0 images of 4 x 4"]),
        (image_file, idx(&[60, 0, 4], &[]), &["60 images of 0 x 4"]),
        (image_file, idx(&[60, 2, 8], &images[16..]), &["images of 2 x 8", "of 4 x 4"]),
        (image_file, digits(50)[0].clone(), &["has 50 images", "has 60 labels"]),
        (label_file, bad_label, &["label 5", "is 10", "expected 0 to 9"]),
    ] {
        let path = folder.join(file);
        let good = fs::read(&path).unwrap();
        fs::write(&path, bytes).unwrap();
        refuse(&folder, &["--data", "."], &[&[file], words].concat());
        fs::write(&path, good).unwrap();
    }
    refuse(&folder, &["--data", ".", "--train", "61"], &["--train is 61", "has 60 images"]);
    fs::remove_file(folder.join(FILES[3])).unwrap();
    refuse(&folder, &["--data", "."], &["has neither t10k-labels-idx1-ubyte nor"]);
}

#[test]
fn regularisers_are_compared() {
    let folder = folder("compare");
    let arguments =
        ["--compare", "--seeds", "2", "--epochs", "2", "--layers", "8", "--train", "90"];
    let text = succeed(&folder, &[&arguments[..], &["--threads", "1"]].concat());
    assert_eq!(text, succeed(&folder, &[&arguments[..], &["--threads", "3"]].concat()));
    assert!(!folder.join("target").exists(), "there is no picture");
    // Of each search the values in its line, the best of which stands in the table.
    let (searches, table) = text.split_once("Errors in percent").expect("a table");
    for name in ["L2", "L1", "max-norm", "dropout + max-norm"] {
        let is_row =
            |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' '));
        let search = searches.lines().find(is_row).unwrap_or_else(|| panic!("{name}:\n{text}"));
        let tried: Vec<(&str, f64)> = search[name.len()..]
            .split_whitespace()
            .collect::<Vec<_>>()
            .chunks(2)
            .map(|pair| (pair[0].trim_end_matches(':'), pair[1].parse().unwrap()))
            .collect();
        assert_eq!(tried.len(), 4, "{search}");
        let least = tried.iter().map(|(_, error)| *error).fold(f64::INFINITY, f64::min);
        let row = table.lines().find(is_row).unwrap_or_else(|| panic!("{name}:\n{text}"));
        let value = row[name.len()..].split_whitespace().next().unwrap();
        assert!(tried.contains(&(value, least)), "{row}\n{search}");
    }
    for name in ["none  ", "dropout  ", "Gaussian dropout  ", "unit dropout  ", "block dropout  "] {
        let rows = table.lines().filter(|line| line.starts_with(name)).count();
        assert_eq!(rows, 1, "{name}:\n{text}");
    }
    assert!(table.contains("The lowest test error is"), "{text}");
    // Two sets of files work as well.
    let text = succeed(&data("compare-data"), &[&arguments[..7], &["--data", "."]].concat());
    assert!(text.contains("60 training and 30 test images of 4 x 4"), "{text}");
}

#[test]
fn divergence_is_said_plainly() {
    let folder = folder("diverged");
    let quick = ["--seeds", "2", "--epochs", "2", "--layers", "8", "--learning-rate", "1e30"];
    let text = succeed(&folder, &quick);
    let stderr = String::from_utf8(run(&folder, &quick).stderr).unwrap();
    for network in ["seed 0, without", "seed 0, with", "seed 1, without", "seed 1, with"] {
        let start = format!("{network} dropout: the loss is ");
        let line = stderr.lines().find(|line| line.starts_with(&start));
        let line = line.unwrap_or_else(|| panic!("no {start:?} in:\n{stderr}"));
        let end = line.strip_prefix(&start).unwrap().split_once(" at step ").unwrap();
        assert!(["NaN", "inf"].contains(&end.0), "{line}");
        let step = end.1.strip_suffix(": lower --learning-rate").unwrap();
        assert!((1..12).contains(&step.parse::<u32>().unwrap()), "{line}");
    }
    assert!(text.contains("Training diverged: 4 of 4 networks"), "{text}");
    assert!(text.contains("Try a smaller --learning-rate."), "{text}");
    assert_eq!(text.matches("2 of 2 runs diverged").count(), 2, "{text}");
    assert!(!text.contains("Test error with dropout"), "{text}");
    let svg = fs::read_to_string(folder.join("target/train_digits.svg")).unwrap();
    assert!(svg.contains("4 networks diverged"), "no word of it in the picture");
    let text = succeed(&folder, &[&quick[..], &["--mc", "2"]].concat());
    assert!(text.contains("Training diverged: 2 of 2 networks"), "{text}");
    // With a limit of the norm or without, at this rate no setting is sound for all seeds.
    let text = succeed(&folder, &[&quick[..], &["--compare"]].concat());
    assert!(text.contains("Training diverged: ") && text.contains(" of 18 networks"), "{text}");
    assert!(text.contains("2 of 2 runs diverged"), "{text}");
}

/// The margins are about half of what comes out, which is the same bits on every machine with FMA.
#[test]
fn dropout_lowers_the_test_error() {
    let text = succeed(&folder("full"), &["--seeds", "5", "--epochs", "100"]);
    let number = |before: &str| -> f64 {
        let rest = text.split(before).nth(1).unwrap_or_else(|| panic!("no {before:?}:\n{text}"));
        rest.split_whitespace().next().unwrap().parse().unwrap()
    };
    assert!(number("paired difference") <= -0.7, "{text}");
    assert!(number("better in") >= 4.0, "{text}");
}
