//! A server whose state is two hundred JSON files: accounts with money that moves between them.
//!
//! Twenty tasks move money all the time, and so does whoever asks the server to. Each transfer is one commit of
//! two files. A snapshot of all accounts is read from one view, so the money in it is always the same. A
//! request that takes too long is dropped, and then its transfer is not made later either.
//!
//! ```text
//! cargo run --features tokio --example async_state
//!     starts a server, and another one beside it on the same port; ends the first one, and kills the second
//! cargo run --features tokio --example async_state -- serve DIRECTORY 127.0.0.1:8080
//!     serves GET /snapshot, GET /accounts/7 and POST /transfers/7/8/1 until SIGTERM or Ctrl-C
//! ```
//!
//! Several servers may serve one directory on one address (`SO_REUSEPORT`), so a new version is started beside
//! the old one, and the old one ended then. The other half is in `async_state/server.rs`.

#![allow(clippy::print_stdout, reason = "a program's output")]
#![allow(clippy::disallowed_methods, reason = "only the library must go through its file-system trait")]

#[cfg(unix)]
#[path = "async_state/client.rs"]
mod client;
#[cfg(unix)]
#[path = "async_state/server.rs"]
mod server;

#[cfg(unix)]
fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => show(),
        ["serve", directory, address] => server::run(directory.as_ref(), address.parse()?),
        _ => Err("usage: async_state [serve DIRECTORY ADDRESS]".into()),
    }
}

#[cfg(not(unix))]
fn main() {
    println!("this server needs a unix, for its signals and for two servers on one port");
}

/// A hot restart and a kill, with a look at the state after each.
#[cfg(unix)]
fn show() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    use client::Server;

    let directory = std::env::temp_dir().join(format!("cosave-async-state-{}", std::process::id()));
    let start = |address: &str| {
        let mut command = std::process::Command::new(std::env::current_exe()?);
        command.arg("serve").arg(&directory).arg(address);
        Server::start(command)
    };
    let old = start("127.0.0.1:0")?;
    println!("one server: {}", old.snapshot()?);

    let new = start(&old.address)?;
    println!("two servers, one port: {}", new.snapshot()?);
    old.end()?;
    println!("the old one has ended: {}", new.snapshot()?);

    let last = new.transfer(7, 8, 1)?;
    new.kill()?;
    let next = start("127.0.0.1:0")?;
    let found = next.snapshot()?;
    println!("killed, and started again: {found}");
    next.end()?;
    std::fs::remove_dir_all(&directory)?;
    if found.generation < last {
        return Err(format!("generation {last} was acknowledged, and is lost").into());
    }
    Ok(())
}
