//! Starts servers, asks them, and ends or kills them. Refuses a snapshot that no commit has made.

use std::fmt;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use super::server::{ACCOUNTS, BALANCE, Snapshot};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// How often a connection is tried again that an ending server has closed.
const TRIES_MAX: u32 = 20;

/// A server in a process of its own. Killed when it is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
    /// What else it says. Nobody listens, but it could not go on if it could not say it.
    said: Option<BufReader<ChildStdout>>,
}

impl Server {
    /// Starts a server, and waits until it listens.
    pub(crate) fn start(mut command: Command) -> Result<Self> {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let out = child.stdout.take().ok_or("a server has no output")?;
        let mut server = Self { child, address: String::new(), said: None };
        let (mut said, mut line) = (BufReader::new(out), String::new());
        while said.read_line(&mut line)? > 0 {
            if let Some((_, address)) = line.split_once("listening on ") {
                address.trim().clone_into(&mut server.address);
                server.said = Some(said);
                return Ok(server);
            }
            line.clear();
        }
        Err("a server has ended before it listened".into())
    }

    /// All accounts at one moment. An error if the money in them is not what it was at first.
    pub(crate) fn snapshot(&self) -> Result<Snapshot> {
        let snapshot: Snapshot = serde_json::from_str(&self.ask("GET", "/snapshot")?)?;
        let money: i64 = snapshot.balances.iter().sum();
        if snapshot.balances.len() != ACCOUNTS || money != BALANCE * i64::try_from(ACCOUNTS)? {
            return Err(format!("this is no state of the accounts: {snapshot}").into());
        }
        Ok(snapshot)
    }

    /// Moves money. Returns the generation in which it was moved.
    pub(crate) fn transfer(&self, from: usize, to: usize, amount: i64) -> Result<u64> {
        Ok(self.ask("POST", &format!("/transfers/{from}/{to}/{amount}"))?.parse()?)
    }

    /// Asks, and returns what a good answer says.
    pub(crate) fn ask(&self, method: &str, path: &str) -> Result<String> {
        let mut tries = 0;
        let answer = loop {
            tries += 1;
            match self.ask_once(method, path) {
                // It was given to the server that ends, which had no time to take it.
                Err(error) if tries == TRIES_MAX => return Err(error.into()),
                Err(_) => {}
                Ok(answer) if answer.is_empty() && tries < TRIES_MAX => {}
                Ok(answer) => break answer,
            }
        };
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
        match head.split(' ').nth(1) {
            Some("200") => Ok(body.to_owned()),
            _ => Err(format!("{method} {path}: {head}: {body}").into()),
        }
    }

    fn ask_once(&self, method: &str, path: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        write!(stream, "{method} {path} HTTP/1.0\r\nContent-Length: 0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Tells it to end, and waits until it has answered what it was asked and closed its store.
    pub(crate) fn end(mut self) -> Result<()> {
        let id = self.child.id().to_string();
        let told = Command::new("sh").args(["-c", &format!("kill -TERM {id}")]).status()?;
        let ended = self.child.wait()?;
        if !told.success() || !ended.success() {
            return Err(format!("a server has ended with {ended}").into());
        }
        Ok(())
    }

    /// Kills it, in the midst of whatever it does.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already, most often.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { process, generation, balances } = self;
        let money: i64 = balances.iter().sum();
        let accounts = balances.len();
        write!(f, "generation {generation} of process {process}: {accounts} accounts with {money}")
    }
}
