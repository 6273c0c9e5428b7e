//! A single file saved without a store: old or new after a crash, and new once
//! it is acknowledged.

use std::io::Write as _;
use std::sync::Arc;

use cosave::fs::FileSystem;
use cosave::fs::sim::explore::{Bounds, Progress, Workload};
use cosave::fs::sim::{Aftermath, Fault, Model, SimDisk};
use cosave::{AtomicFile, RelativePath};

/// Saves one file three times, in directories that are made for it.
pub struct SingleFile;

const PATH: &str = "new/dir/file";
const FOREIGN: &str = "foreign";

impl Workload for SingleFile {
    fn name(&self) -> String {
        "a single file, without a store".to_owned()
    }

    fn prepare(&self, disk: &SimDisk) {
        disk.put(FOREIGN, b"f", 0o600);
    }

    fn run(&self, _: &SimDisk, fs: Arc<dyn FileSystem>, progress: &Progress) {
        let path = RelativePath::new(PATH).unwrap();
        for generation in 1..=3_u64 {
            progress.request(generation);
            if cosave::write_on(Arc::clone(&fs), &path, generation.to_string()).is_ok() {
                progress.acknowledge(generation);
            }
        }
    }

    // There is nothing to recover, and no promise that what is visible stays. What a killed writer has left is
    // swept.
    fn recover(&self, fs: Arc<dyn FileSystem>) -> Result<u64, String> {
        let directory = RelativePath::new(PATH).unwrap().parent();
        match cosave::sweep_temporary_files_on(&fs, &directory) {
            Err(error) if !error.is_not_found() => Err(error.to_string()),
            _ => Ok(0),
        }
    }

    fn check(&self, disk: &SimDisk, bounds: Bounds, _: u64) -> Result<(), String> {
        let files = disk.files();
        let found = match files.get(PATH) {
            None => 0,
            Some(bytes) => {
                let text = String::from_utf8_lossy(bytes);
                text.parse().map_err(|_| format!("the file is torn: {text:?}"))?
            }
        };
        if found < bounds.floor || found > bounds.ceiling {
            return Err(format!("found {found}, outside {bounds:?}"));
        }
        if let Some(left) = files.keys().find(|path| path.ends_with(".cosave")) {
            return Err(format!("{left} is left"));
        }
        match files.get(FOREIGN) {
            Some(bytes) if bytes == b"f" => Ok(()),
            found => Err(format!("somebody else's file is {found:?}")),
        }
    }
}

/// Too many files were open, and the lock of a writer failed. It went on without it, and was swept alive.
#[test]
fn a_writer_that_begins_in_spite_of_an_error_is_never_swept() {
    const EMFILE: i32 = 24;
    for after in 0.. {
        let disk = SimDisk::new(Model::WeakPosix);
        let (persistent, aftermath) = (false, Aftermath::CacheShowsNew);
        disk.fail_at(&[Fault { after, error: EMFILE, persistent, aftermath }]);
        let begun = AtomicFile::create_on(disk.process(), &RelativePath::new("file").unwrap());
        let is_over = disk.calls() <= after;
        disk.fail_at(&[]);
        if let Ok(mut file) = begun {
            let swept = cosave::sweep_temporary_files_on(&disk.process(), &RelativePath::root());
            assert!(swept.unwrap().is_empty(), "an error at call {after}");
            file.write_all(b"1").unwrap();
            file.commit().unwrap();
            assert_eq!(disk.files()["file"], b"1");
        } else {
            assert!(disk.files().is_empty() && !is_over, "an error at call {after}: {:?}", disk.files());
        }
        if is_over {
            assert!(after > 2, "a beginning of {after} calls");
            break;
        }
    }
}
