//! Files that recovery writes from the manifest of a small save.

use std::time::SystemTime;

use cosave::fs::sim::{Crash, SimDisk};
use cosave::{
    Action, Entry, Generation, Inline, Manifest, RelativePath, StagedContent, Stamp, Store, TransactionId,
};

use crate::rules::{content, sim, staged_names};

const SESSION: &str = "0123456789abcdef0123456789abcdef";

/// A disk on which a power loss has left nothing of a small save but its manifest. It makes one file.
fn with_a_manifest_alone(path: &str, bytes: &[u8], mode: u32) -> SimDisk {
    let disk = sim();
    let transaction: TransactionId = format!("{SESSION}-1").parse().unwrap();
    let content = StagedContent {
        name: format!(".{path}.{transaction}-1.cosave").into(),
        after: Stamp { length: bytes.len() as u64, modified: SystemTime::UNIX_EPOCH.into() },
        mode,
        owner: None,
        checksum: blake3::hash(bytes),
    };
    let path = RelativePath::new(path).unwrap();
    let entries = vec![Entry { path, before: None, action: Action::Write(content) }];
    let inline = Some(Inline { wave: Generation::from(1), bytes: bytes.to_vec() });
    let manifest = Manifest { transaction, time: SystemTime::UNIX_EPOCH.into(), entries, inline };
    disk.make_directory(".cosave/sessions", 0);
    disk.put(".cosave/1.pending-inline", &manifest.encode(), 0o600);
    disk.settle();
    disk
}

/// A new file that only its owner could read was restored with the rights of an ordinary new file, and got its
/// own mode afterwards. Meanwhile everybody could open it.
#[test]
fn a_restored_file_is_never_open_to_more_than_the_lost_one_was() {
    for mode in [0o600, 0o640, 0o644] {
        let disk = with_a_manifest_alone("secret", b"the secret", mode);
        for after in 0.. {
            let machine = disk.copy();
            machine.crash_at(Crash { after, reversed: false });
            let opened = Store::options().open_on(machine.process());
            for path in staged_names(&machine).into_iter().chain(["secret".to_owned()]) {
                let found = machine.mode(&path).unwrap_or_default();
                assert_eq!(found & !mode, 0, "after {after} steps {path} has mode {found:o}, not {mode:o}");
            }
            if opened.is_ok() {
                assert!(after > 4, "it was restored in {after} steps");
                assert_eq!(
                    (content(&machine, "secret"), machine.mode("secret")),
                    ("the secret".to_owned(), Some(mode))
                );
                break;
            }
        }
    }
}
