//! The server of `async_state`.

use std::error::Error as StdError;
use std::net::SocketAddr;
use std::path::Path as FilePath;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use cosave::tokio::Store;
use cosave::{Error, Transaction};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

type Result<T, E = Box<dyn StdError + Send + Sync>> = std::result::Result<T, E>;

pub(crate) const ACCOUNTS: usize = 200;
pub(crate) const BALANCE: i64 = 100;
const TASKS: usize = 20;
/// How long a task rests after each transfer.
const REST: Duration = Duration::from_millis(20);
/// How long a request may take. A transfer that takes longer is given up.
const REQUEST_MAX: Duration = Duration::from_secs(10);
const WAITING_CONNECTIONS_MAX: u32 = 1024;

/// What a file has.
#[derive(Deserialize, Serialize)]
struct Account {
    balance: i64,
}

/// What is answered.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Snapshot {
    pub(crate) process: u32,
    pub(crate) generation: u64,
    pub(crate) balances: Vec<i64>,
}

/// Serves a directory until the process is told to end.
pub(crate) fn run(directory: &FilePath, address: SocketAddr) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(serve(directory, address))
}

async fn serve(directory: &FilePath, address: SocketAddr) -> Result<()> {
    // Finishes what a killed server had committed, and removes what it had only begun.
    let store = Store::open_with(cosave::Store::options().create(true), directory).await?;
    store.update(open_accounts).await?;

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listener = listen(address)?;
    println!("listening on {}", listener.local_addr()?);

    let (stop, stopped) = watch::channel(false);
    let mut tasks: JoinSet<_> = (0..TASKS).map(|_| move_money(store.clone(), stopped.clone())).collect();
    let told = async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        stop.send_replace(true);
    };
    // Requests that are under way are answered, and no others taken.
    axum::serve(listener, router(store.clone())).with_graceful_shutdown(told).await?;
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    // What a drop could not tell.
    Ok(store.close().await?)
}

/// Listens beside other servers on the same address.
fn listen(address: SocketAddr) -> Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket.listen(WAITING_CONNECTIONS_MAX)?)
}

/// Opens all accounts at once, unless another server has done so.
fn open_accounts(tx: &mut Transaction) -> Result<(), Error> {
    if tx.exists(path(0))? {
        return Ok(());
    }
    (0..ACCOUNTS).try_for_each(|number| put(tx, number, &Account { balance: BALANCE }))
}

async fn move_money(store: Store, stopped: watch::Receiver<bool>) -> Result<()> {
    while !*stopped.borrow() {
        let (from, to) = (fastrand::usize(..ACCOUNTS), fastrand::usize(..ACCOUNTS));
        match store.update(move |tx| transfer(tx, from, to, 1)).await {
            Ok(_) | Err(Failure::Refused(_)) => {}
            Err(Failure::Store(error)) if error.is_retryable() => {}
            Err(Failure::Store(error)) => return Err(error.into()),
        }
        sleep(REST).await;
    }
    Ok(())
}

/// Both accounts change, or none. It is run again if another transfer has changed one of them meanwhile.
fn transfer(tx: &mut Transaction, from: usize, to: usize, amount: i64) -> Result<(), Failure> {
    let (mut giver, mut taker) = (account(tx, from)?, account(tx, to)?);
    if from == to || amount < 0 || giver.balance < amount {
        return Err(Failure::Refused("this cannot be transferred"));
    }
    giver.balance -= amount;
    taker.balance += amount;
    put(tx, from, &giver)?;
    Ok(put(tx, to, &taker)?)
}

fn account(tx: &Transaction, number: usize) -> Result<Account, Failure> {
    serde_json::from_slice(&tx.read(path(number))?).map_err(|_| Failure::Refused("this account is damaged"))
}

fn put(tx: &mut Transaction, number: usize, account: &Account) -> Result<(), Error> {
    tx.write(path(number), format!("{{\n  \"balance\": {}\n}}\n", account.balance))
}

fn path(number: usize) -> String {
    format!("accounts/{number:03}.json")
}

fn router(store: Store) -> Router {
    Router::new()
        .route("/snapshot", get(snapshot))
        .route("/accounts/{number}", get(one_account))
        .route("/transfers/{from}/{to}/{amount}", post(ask_transfer))
        .with_state(store)
}

/// All accounts, as they were at one moment.
async fn snapshot(State(store): State<Store>) -> Result<String, Failure> {
    let view = store.view().await?;
    let generation = view.generation().get();
    let read = |view: &cosave::View| (0..ACCOUNTS).map(|number| view.read(path(number))).collect();
    let files: Vec<Vec<u8>> = view.with(read).await?;
    // Writers wait while a view is open.
    drop(view);
    let balance = |file: &Vec<u8>| serde_json::from_slice(file).map(|account: Account| account.balance);
    let balances = files.iter().map(balance).collect::<Result<_, _>>();
    let balances = balances.map_err(|_| Failure::Refused("an account is damaged"))?;
    Ok(json(&Snapshot { process: std::process::id(), generation, balances }))
}

async fn one_account(State(store): State<Store>, Path(number): Path<usize>) -> Result<String, Failure> {
    Ok(store.view().await?.read_to_string(path(number)).await?)
}

/// Answers with the generation that has the transfer.
async fn ask_transfer(
    State(store): State<Store>,
    Path((from, to, amount)): Path<(usize, usize, i64)>,
) -> Result<String, Failure> {
    let transfer = store.update(move |tx| transfer(tx, from, to, amount));
    match timeout(REQUEST_MAX, transfer).await {
        Ok(commit) => Ok(commit?.generation().to_string()),
        Err(_) => Err(Failure::Refused("given up")),
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Why there is no answer.
enum Failure {
    Store(Error),
    Refused(&'static str),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match self {
            Self::Refused(reason) => (StatusCode::CONFLICT, reason.to_owned()),
            Self::Store(error) if error.is_not_found() => (StatusCode::NOT_FOUND, error.to_string()),
            Self::Store(error) if error.is_retryable() => {
                (StatusCode::SERVICE_UNAVAILABLE, error.to_string())
            }
            Self::Store(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
        .into_response()
    }
}
