//! The database SlateDB on a root as a store of objects. A child puts rows, and says of each one that it is durable.
//! It is killed at random moments, again and again. After each kill the database must open, and have every row
//! that was acknowledged.
//!
//! usage: `cargo run -- [KILLS]`
//!
//! A failure prints the seed; `COSAVE_TEST_SEED` repeats the choices.

use std::error::Error;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cosave::object_store::Objects;
use slatedb::config::Settings;
use slatedb::{Db, DbIterator};

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

const KILLS: u64 = 20;
/// How many rows a child may put before its kill.
const ROWS_MAX: u64 = 60;
const SPIN_MAX: Duration = Duration::from_millis(10);

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if let [word, root] = &arguments[..] {
        assert_eq!(word, "put", "usage: [KILLS]");
        return put_until_killed(Path::new(root)).await;
    }
    let kills = arguments.first().map_or(Ok(KILLS), |kills| kills.parse())?;
    let seed =
        std::env::var("COSAVE_TEST_SEED").map_or_else(|_| Ok(fastrand::u64(..)), |seed| seed.parse())?;
    let mut random = fastrand::Rng::with_seed(seed);
    let root = tempfile::tempdir()?;
    let mut rows = 0;
    for kill in 0..kills {
        let acknowledged = kill_one(root.path(), rows, &mut random)?;
        rows = check(root.path(), acknowledged)
            .await
            .map_err(|error| format!("COSAVE_TEST_SEED={seed}: after kill {kill}: {error}"))?;
    }
    println!(
        "COSAVE_TEST_SEED={seed}: {kills} kills, {rows} rows, and none that was acknowledged is missing"
    );
    Ok(())
}

/// Opens the database. Small tables, so that it writes them, compacts them and writes manifests all the time.
async fn open(root: &Path) -> Result<Db> {
    let objects = Arc::new(Objects::open(root).await?);
    let settings = Settings {
        flush_interval: Some(Duration::from_millis(2)),
        l0_sst_size_bytes: 16 * 1024,
        ..Settings::default()
    };
    Ok(Db::builder("db", objects).with_settings(settings).build().await?)
}

fn key(number: u64) -> String {
    format!("{number:08}")
}

fn value(number: u64) -> String {
    format!("row {number} ").repeat(100)
}

/// Puts rows, and says of each when it is durable.
async fn put_until_killed(root: &Path) -> Result<()> {
    let db = open(root).await?;
    let mut out = std::io::stdout();
    for number in count(db.scan(..).await?).await? + 1.. {
        db.put(key(number), value(number)).await?.await_durable().await?;
        writeln!(out, "{number}")?;
        out.flush()?;
    }
    Ok(())
}

/// Starts a child and kills it after some rows and a moment. Returns the last row that it acknowledged.
fn kill_one(root: &Path, before: u64, random: &mut fastrand::Rng) -> Result<u64> {
    let mut command = Command::new(std::env::current_exe()?);
    let mut child = command.arg("put").arg(root).stdout(Stdio::piped()).spawn()?;
    let said = BufReader::new(child.stdout.take().ok_or("the child is mute")?);
    let mut said = said.lines().map_while(Result::ok).filter_map(|line| line.parse().ok());
    let mut acknowledged = before;
    for _ in 0..random.u64(..ROWS_MAX) {
        acknowledged = said.next().unwrap_or(acknowledged);
    }
    let moment = Duration::from_micros(random.u64(..u64::try_from(SPIN_MAX.as_micros())?));
    let start = Instant::now();
    while start.elapsed() < moment {
        std::hint::spin_loop();
    }
    child.kill()?;
    child.wait()?;
    // What it said before it died counts, also where nobody had listened yet.
    Ok(said.last().unwrap_or(acknowledged))
}

/// Opens the database as a program would after a crash. Returns how many rows there are.
async fn check(root: &Path, acknowledged: u64) -> Result<u64> {
    let db = open(root).await?;
    let rows = count(db.scan(..).await?).await?;
    db.close().await?;
    if !(acknowledged..=acknowledged + 1).contains(&rows) {
        return Err(format!("{acknowledged} rows were acknowledged, and {rows} are there").into());
    }
    Ok(rows)
}

/// How many rows there are: from the first one on, each with its value.
async fn count(mut rows: DbIterator) -> Result<u64> {
    let mut count = 0;
    while let Some(row) = rows.next().await? {
        count += 1;
        if row.key != key(count) || row.value != value(count) {
            return Err(format!("row {count} is missing, or has another value").into());
        }
    }
    Ok(count)
}
