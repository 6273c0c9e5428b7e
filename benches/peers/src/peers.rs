//! All libraries that are measured, behind one trait: save these files,
//! durably.

use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use cosave::{Durability, Store, SyncStrategy};

/// The result of a function here, with any error.
pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// The files to save, with paths relative to the root.
pub type Files = [(PathBuf, Vec<u8>)];

/// One open session of a peer.
pub trait Saver: Send {
    /// Saves all files. They are durable when it returns, as far as the peer promises that.
    fn save(&mut self, files: &Files) -> Result<()>;

    /// Another saver of the same session, for another thread.
    fn another(&self) -> Result<Box<dyn Saver>>;
}

/// A library or database that can save files.
pub struct Peer {
    pub name: &'static str,
    /// Whether a crash leaves all of the files or none.
    pub all_or_nothing: bool,
    /// Whether an acknowledged commit survives a power loss.
    pub durable: bool,
    pub open: fn(&Path) -> Result<Box<dyn Saver>>,
}

pub const PLAIN: &str = "plain loop";
pub const COSAVE: &str = "cosave full";
pub const COSAVE_COMMITTED: &str = "cosave committed";
pub const FS_TRANSACTION: &str = "fs-transaction";
pub const FSTX: &str = "fstx";
pub const SQLITE: &str = "sqlite wal";

#[rustfmt::skip]
pub const PEERS: &[Peer] = &[
    Peer { name: COSAVE, all_or_nothing: true, durable: true, open: |root| cosave(root, Durability::Full, SyncStrategy::Auto) },
    Peer { name: "cosave full, syncfs", all_or_nothing: true, durable: true, open: |root| cosave(root, Durability::Full, SyncStrategy::FileSystem) },
    Peer { name: COSAVE_COMMITTED, all_or_nothing: true, durable: true, open: |root| cosave(root, Durability::Committed, SyncStrategy::Auto) },
    Peer { name: "cosave process", all_or_nothing: true, durable: false, open: |root| cosave(root, Durability::Process, SyncStrategy::Auto) },
    Peer { name: PLAIN, all_or_nothing: false, durable: true, open: |root| one_by_one(root, plain) },
    Peer { name: "atomic-write-file", all_or_nothing: false, durable: true, open: |root| one_by_one(root, atomic_write_file) },
    Peer { name: "tempfile", all_or_nothing: false, durable: true, open: |root| one_by_one(root, tempfile) },
    Peer { name: FSTX, all_or_nothing: true, durable: true, open: fstx },
    Peer { name: FS_TRANSACTION, all_or_nothing: true, durable: true, open: fs_transaction },
    Peer { name: SQLITE, all_or_nothing: true, durable: true, open: sqlite },
    Peer { name: "redb", all_or_nothing: true, durable: true, open: redb },
];

// cosave

struct Cosave(Store);

fn cosave(root: &Path, durability: Durability, strategy: SyncStrategy) -> Result<Box<dyn Saver>> {
    let store = Store::options().durability(durability).sync_strategy(strategy).open(root)?;
    Ok(Box::new(Cosave(store)))
}

impl Saver for Cosave {
    fn save(&mut self, files: &Files) -> Result<()> {
        let mut transaction = self.0.begin()?;
        for (path, bytes) in files {
            transaction.write(path, bytes)?;
        }
        transaction.commit()?;
        Ok(())
    }

    fn another(&self) -> Result<Box<dyn Saver>> {
        Ok(Box::new(Cosave(self.0.clone())))
    }
}

// One durable atomic write after another, without a session, and not atomic together.

type WriteOne = fn(&Path, &[u8]) -> Result<()>;

struct OneByOne {
    root: PathBuf,
    write: WriteOne,
}

fn one_by_one(root: &Path, write: WriteOne) -> Result<Box<dyn Saver>> {
    Ok(Box::new(OneByOne { root: root.to_path_buf(), write }))
}

impl Saver for OneByOne {
    fn save(&mut self, files: &Files) -> Result<()> {
        files.iter().try_for_each(|(path, bytes)| (self.write)(&self.root.join(path), bytes))
    }

    fn another(&self) -> Result<Box<dyn Saver>> {
        one_by_one(&self.root, self.write)
    }
}

fn directory(path: &Path) -> Result<&Path> {
    Ok(path.parent().ok_or("a file without a directory")?)
}

/// A temporary file, its sync, the rename, and the directory's sync.
pub fn plain(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = path.with_extension("new");
    let mut file = File::create_new(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(directory(path)?)?.sync_all()?;
    Ok(())
}

fn atomic_write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = ::atomic_write_file::AtomicWriteFile::open(path)?;
    file.write_all(bytes)?;
    file.commit()?;
    Ok(())
}

fn tempfile(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = ::tempfile::NamedTempFile::new_in(directory(path)?)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(directory(path)?)?.sync_all()?;
    Ok(())
}

// fstx and fs-transaction: one writer at a time, so threads take turns.

type SaveAll = fn(&Path, &Files) -> Result<()>;

struct OneWriter {
    root: PathBuf,
    turn: Arc<Mutex<()>>,
    save: SaveAll,
}

fn fstx(root: &Path) -> Result<Box<dyn Saver>> {
    ::fstx::recover(root)?;
    let save: SaveAll = |root, files| {
        let mut transaction = ::fstx::Transaction::begin(root)?;
        for (path, bytes) in files {
            transaction.write(path, bytes)?;
        }
        Ok(transaction.commit()?)
    };
    Ok(Box::new(OneWriter { root: root.to_path_buf(), turn: Arc::default(), save }))
}

fn fs_transaction(root: &Path) -> Result<Box<dyn Saver>> {
    use ::fs_transaction::{ChangeSet, StdFs, exec::block_on, recover};
    block_on(recover(&StdFs, root))?;
    let save: SaveAll = |root, files| {
        let mut changes = ChangeSet::new();
        for (path, bytes) in files {
            changes.write(path, bytes.as_slice());
        }
        Ok(block_on(changes.apply(&StdFs, root))?)
    };
    Ok(Box::new(OneWriter { root: root.to_path_buf(), turn: Arc::default(), save }))
}

impl Saver for OneWriter {
    fn save(&mut self, files: &Files) -> Result<()> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        (self.save)(&self.root, files)
    }

    fn another(&self) -> Result<Box<dyn Saver>> {
        Ok(Box::new(Self { root: self.root.clone(), turn: Arc::clone(&self.turn), save: self.save }))
    }
}

// Databases: the files become rows, and are files no longer.

struct Sqlite {
    path: PathBuf,
    connection: rusqlite::Connection,
}

fn sqlite(root: &Path) -> Result<Box<dyn Saver>> {
    sqlite_at(root.join("files.sqlite"))
}

fn sqlite_at(path: PathBuf) -> Result<Box<dyn Saver>> {
    let connection = rusqlite::Connection::open(&path)?;
    connection.busy_timeout(std::time::Duration::from_secs(60))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute(
        "CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, content BLOB NOT NULL) WITHOUT ROWID",
        (),
    )?;
    Ok(Box::new(Sqlite { path, connection }))
}

impl Saver for Sqlite {
    fn save(&mut self, files: &Files) -> Result<()> {
        let begin = rusqlite::TransactionBehavior::Immediate;
        let transaction = self.connection.transaction_with_behavior(begin)?;
        {
            let mut put = transaction.prepare_cached("INSERT OR REPLACE INTO files VALUES (?1, ?2)")?;
            for (path, bytes) in files {
                put.execute((path.to_string_lossy(), bytes.as_slice()))?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn another(&self) -> Result<Box<dyn Saver>> {
        sqlite_at(self.path.clone())
    }
}

struct Redb(Arc<::redb::Database>);

const TABLE: ::redb::TableDefinition<&str, &[u8]> = ::redb::TableDefinition::new("files");

fn redb(root: &Path) -> Result<Box<dyn Saver>> {
    Ok(Box::new(Redb(Arc::new(::redb::Database::create(root.join("files.redb"))?))))
}

impl Saver for Redb {
    fn save(&mut self, files: &Files) -> Result<()> {
        let transaction = self.0.begin_write()?;
        {
            let mut table = transaction.open_table(TABLE)?;
            for (path, bytes) in files {
                table.insert(&*path.to_string_lossy(), bytes.as_slice())?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn another(&self) -> Result<Box<dyn Saver>> {
        Ok(Box::new(Self(Arc::clone(&self.0))))
    }
}
