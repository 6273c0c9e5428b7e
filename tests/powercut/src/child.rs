//! A process that works on the mounted disk, and what it says.
//!
//! It is this program again, in a process group of its own, so that Ctrl-C asks this process alone.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::device::Device;
use crate::events::Event;

/// Longer than anything takes that is not stuck.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Runs the program with `arguments` on the mounted disk until it ends, or until it has said so many
/// things and a moment has passed. Everything it says goes to `events`, with the length of the log.
pub fn run(
    device: &Device,
    mount: &Path,
    arguments: &[String],
    kill: Option<(usize, Duration)>,
    events: &mut Vec<(usize, Event)>,
) -> io::Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments).current_dir("/").process_group(0).env(MOUNT, mount);
    let mut child = Running(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?);
    let (mut input, output) = (child.0.stdin.take(), child.0.stdout.take());
    let lines = read_lines(output.ok_or_else(|| io::Error::other("no output"))?);
    let mut said = 0;
    loop {
        let line = match lines.recv_timeout(SILENCE_MAX) {
            Ok(line) => line,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                let text = format!("`{}` hangs", arguments.join(" "));
                events.push((device.position(), Event::Violation(text)));
                return Ok(());
            }
        };
        let event: Event = line.parse().map_err(io::Error::other)?;
        let answer = matches!(event, Event::Begun { .. });
        events.push((device.position(), event));
        if let (true, Some(input)) = (answer, &mut input) {
            // A child that died meanwhile is noticed at its next line.
            let _ = input.write_all(b"go\n");
        }
        said += 1;
        if let Some((_, moment)) = kill.filter(|(after, _)| *after == said) {
            thread::sleep(moment);
            drop(child);
            events.push((device.position(), Event::Killed));
            return Ok(());
        }
    }
    let status = child.0.wait()?;
    if !status.success() {
        events.push((device.position(), Event::Violation(format!("`{}`: {status}", arguments.join(" ")))));
    }
    Ok(())
}

/// The variable that tells a child where the disk is mounted.
pub const MOUNT: &str = "COSAVE_POWERCUT_MOUNT";

/// Killed and waited for when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail when it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn read_lines(output: impl io::Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}
