//! The example of an async server is killed at random moments, restarted beside itself and ended in an orderly
//! way. Every snapshot must be of one state, every acknowledged transfer must last, and nothing may be left.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and print")]
#![allow(unreachable_pub, dead_code, reason = "the helpers are shared with other test binaries")]

#[path = "../examples/async_state/client.rs"]
mod client;
#[path = "it/common.rs"]
mod common;
#[path = "../examples/async_state/server.rs"]
mod server;

use std::path::Path;
use std::process::Stdio;

use client::Server;
use common::{assert_no_litter, child, child_root, random_seed};
use cosave::Store;

const KILLS: usize = 8;

fn start(root: &Path, address: &str) -> Server {
    let mut command = child("child_that_serves", root);
    command.env("ADDRESS", address).stdin(Stdio::null());
    Server::start(command).unwrap()
}

#[test]
#[ignore = "child of the other tests"]
fn child_that_serves() {
    let Some(root) = child_root() else { return };
    let address = std::env::var("ADDRESS").unwrap().parse().unwrap();
    server::run(&root, address).unwrap();
}

/// Opens what a server has left: the state of one commit, at least `acknowledged`. Returns its generation.
fn check(root: &Path, acknowledged: u64) -> u64 {
    let store = Store::open(root).unwrap();
    let report = store.last_recovery();
    assert!(report.differences.is_empty(), "{report}");
    let view = store.view().unwrap();
    let balance = |number: usize| {
        let text = view.read_to_string(format!("accounts/{number:03}.json")).unwrap();
        let account: serde_json::Value = serde_json::from_str(&text).unwrap();
        account["balance"].as_i64().unwrap()
    };
    let money: i64 = (0..server::ACCOUNTS).map(balance).sum();
    let generation = view.generation().get();
    assert_eq!(money, server::BALANCE * i64::try_from(server::ACCOUNTS).unwrap());
    assert!(generation >= acknowledged, "generation {acknowledged} is lost, this is {generation}");
    drop(view);
    store.close().unwrap();
    assert_no_litter(root);
    generation
}

#[test]
fn a_server_that_is_killed_loses_no_transfer_and_shows_no_half_of_one() {
    let seed = random_seed();
    println!("COSAVE_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let root = tempfile::tempdir().unwrap();
    let mut generation = 0;
    for _ in 0..KILLS {
        let server = start(root.path(), "127.0.0.1:0");
        for _ in 0..random.usize(1..8) {
            let (from, to) = (random.usize(..server::ACCOUNTS), random.usize(..server::ACCOUNTS - 1));
            let to = to + usize::from(to >= from);
            generation = server.transfer(from, to, 0).unwrap();
            let snapshot = server.snapshot().unwrap();
            assert!(snapshot.generation >= generation, "a snapshot is older than an acknowledged transfer");
        }
        server.kill().unwrap();
        generation = check(root.path(), generation);
    }
}

#[test]
fn a_server_is_replaced_by_one_beside_it_while_requests_go_on() {
    let root = tempfile::tempdir().unwrap();
    let mut server = start(root.path(), "127.0.0.1:0");
    let mut generation = 0;
    let mut processes = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let new = start(root.path(), &server.address);
        for number in 0..6 {
            generation = new.transfer(number, number + 1, 1).unwrap();
            processes.insert(new.snapshot().unwrap().process);
        }
        std::thread::scope(|scope| {
            let ending = scope.spawn(|| server.end().unwrap());
            while !ending.is_finished() {
                assert!(new.snapshot().unwrap().generation >= generation);
            }
            ending.join().unwrap();
        });
        generation = new.transfer(1, 0, 1).unwrap();
        server = new;
    }
    assert!(processes.len() > 1, "only one process has answered");
    server.end().unwrap();
    check(root.path(), generation);
}

#[test]
fn a_server_refuses_what_cannot_be_done_and_goes_on() {
    let root = tempfile::tempdir().unwrap();
    let server = start(root.path(), "127.0.0.1:0");
    let refused = |method, path, status: &str| {
        let error = server.ask(method, path).unwrap_err().to_string();
        assert!(error.contains(status), "{method} {path}: {error}");
    };
    refused("GET", "/accounts/200", "404");
    refused("GET", "/accounts/..%2F..%2Fetc%2Fpasswd", "400");
    refused("POST", "/transfers/1/1/1", "409");
    refused("POST", "/transfers/1/2/1000000", "409");
    refused("POST", "/transfers/1/2/-1", "409");
    refused("POST", "/transfers/1/999/1", "404");
    assert!(server.ask("GET", "/accounts/199").unwrap().contains("balance"));
    server.snapshot().unwrap();
    server.end().unwrap();
    check(root.path(), 1);
}
