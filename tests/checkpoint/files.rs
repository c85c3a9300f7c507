//! Files: what is replaced, what is left, and what errors say.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fused_dropout::Error;
use fused_dropout::nn::{Mlp, MlpSpec};

use crate::{with_moments, with_velocity};

/// An empty folder of this name, for one test.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("checkpoint").join(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_file_is_replaced_by_a_whole_one() {
    let folder = folder("replaced");
    let path = folder.join("net");
    for mlp in [with_velocity(), with_moments(), with_velocity()] {
        mlp.save(&path).unwrap();
        assert_eq!(names(&folder), ["net"]);
        assert_eq!(fs::read(&path).unwrap(), mlp.to_bytes().unwrap());
        assert_eq!(Mlp::load(&path).unwrap().to_bytes(), mlp.to_bytes());
    }
    // What a save that was stopped has left is in nobody's way.
    fs::write(folder.join(".checkpoint-0.tmp"), "a part").unwrap();
    with_moments().save(&path).unwrap();
    assert_eq!(names(&folder), [".checkpoint-0.tmp", "net"]);
    assert_eq!(fs::read(folder.join(".checkpoint-0.tmp")).unwrap(), b"a part");
    assert_eq!(Mlp::load(&path).unwrap().to_bytes(), with_moments().to_bytes());
}

/// Readers see an old file or a new one, whole, however many write.
#[test]
fn several_may_save_and_load_at_once() {
    let folder = folder("at-once");
    let path = folder.join("net");
    with_velocity().save(&path).unwrap();
    std::thread::scope(|scope| {
        for mlp in [with_velocity(), with_moments()] {
            let path = &path;
            scope.spawn(move || {
                for _ in 0..20 {
                    mlp.save(path).unwrap();
                    Mlp::load(path).unwrap();
                }
            });
        }
    });
    assert_eq!(names(&folder), ["net"]);
}

#[test]
fn errors_name_the_path_and_what_was_attempted() {
    let folder = folder("errors");
    let mlp = with_velocity();
    let missing = folder.join("no/such/net");
    let error = mlp.save(&missing).unwrap_err();
    let Error::File { action, path, reason } = &error else { panic!("{error:?}") };
    assert_eq!((*action, path.as_str()), ("save a checkpoint as", missing.to_str().unwrap()));
    let start = format!("cannot save a checkpoint as {path}: {reason}");
    assert_eq!(error.to_string(), start);
    let said = Mlp::load(&missing).unwrap_err().to_string();
    assert!(said.starts_with(&format!("cannot load the checkpoint {path}: ")), "{said}");

    // A folder is no file, and stays.
    for path in [folder.clone(), folder.join(".."), PathBuf::new(), PathBuf::from("/")] {
        let error = mlp.save(&path).unwrap_err();
        assert!(matches!(&error, Error::File { .. }), "{error:?}");
        assert!(Mlp::load(&path).is_err());
    }
    assert!(names(&folder).is_empty());
    fs::write(folder.join("text"), "no checkpoint, but text").unwrap();
    assert!(matches!(Mlp::load(folder.join("text")), Err(Error::Checkpoint { .. })));
    assert!(mlp.save(folder.join("text/net")).is_err());
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        let said = mlp.save("/dev/null").unwrap_err().to_string();
        assert!(said.ends_with("it exists and is no file"), "{said}");
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
        assert!(Mlp::load("/dev/zero").is_err());
    }
    assert_eq!(names(&folder), ["text"]);
}

/// In a folder that cannot be written, unless this user can write everywhere.
#[cfg(unix)]
#[test]
fn a_folder_that_cannot_be_written() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder("read-only");
    let path = folder.join("net");
    with_velocity().save(&path).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o555)).unwrap();
    let can_write = fs::write(folder.join("probe"), "").is_ok();
    let saved = with_moments().save(&path);
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    if can_write {
        println!("skipped: this user can write to a folder that is read-only");
        return;
    }
    assert!(matches!(saved, Err(Error::File { .. })));
    assert_eq!(names(&folder), ["net"]);
    assert_eq!(Mlp::load(&path).unwrap().to_bytes(), with_velocity().to_bytes());
}

/// A disk that is full after some of the bytes: here a limit of the size of files, in a process of its own.
#[cfg(target_os = "linux")]
#[test]
fn a_save_that_fails_midway_leaves_the_old_file() {
    const VARIABLE: &str = "FUSED_DROPOUT_CHECKPOINT_TEST";
    if let Ok(path) = std::env::var(VARIABLE) {
        let large = Mlp::new(&MlpSpec::new(&[100, 1000, 10])).unwrap();
        let error = large.save(&path).unwrap_err();
        assert!(matches!(&error, Error::File { path: named, .. } if *named == path), "{error:?}");
        return;
    }
    let folder = folder("midway");
    let path = folder.join("net");
    with_velocity().save(&path).unwrap();
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "files::a_save_that_fails_midway_leaves_the_old_file"])
        .env(VARIABLE, &path)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    assert_eq!(names(&folder), ["net"]);
    assert_eq!(Mlp::load(&path).unwrap().to_bytes(), with_velocity().to_bytes());
}
