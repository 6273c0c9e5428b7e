//! What a device was asked while somebody saved files, and the disks that a power cut can leave of it.
//!
//! What was written before the last flush that the disk answered is on the medium. Of what was
//! written since, a disk may have kept anything: all, nothing, any of the writes, and of a write
//! any of its sectors. Two writes of one sector need no other order: losing the later of them is the
//! same. Which cut a number means is worked out from the recording alone, so a recording that was
//! stored is cut in the same way for ever.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use crate::device::Entry;
use crate::events::{Bounds, Event};
use crate::image::{Image, PAGE};
use crate::plan::Plan;
use crate::random::Random;

/// What a disk does when it is told to flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flushes {
    Kept,
    /// The control: it says that it has, and loses up to so many of its last writes.
    Lied,
}

/// What a recovery after a kill asks of the disk, about.
const RECOVERY: usize = 150;

/// The most writes that a lying disk loses.
const FORGOTTEN_MAX: usize = 400;

/// A log, and all that is needed to cut it.
pub struct Recording {
    /// The file system and its mount options.
    pub file_system: String,
    pub options: String,
    pub plan: Plan,
    /// Which cuts are made of it.
    pub seed: u64,
    pub flushes: Flushes,
    pub base: Image,
    pub log: Vec<Entry>,
    /// Each with the length of the log when it was said.
    pub events: Vec<(usize, Event)>,
}

/// A disk after the power failed.
pub struct Cut {
    pub image: Image,
    pub bounds: Vec<Bounds>,
    /// In a person's words.
    pub story: String,
}

impl Recording {
    /// How much of the log the disk was asked before cut `number`. The cut comes just when somebody
    /// was told that it is kept, while somebody recovers after a kill, just before a flush, or
    /// anywhere.
    pub fn position(&self, number: usize) -> usize {
        let mut random = self.random(number, 1);
        let anywhere = random.below(self.log.len() + 1);
        let mut one_of = |wanted: fn(&Event) -> bool| {
            let said: Vec<_> = self.events.iter().filter(|(_, event)| wanted(event)).collect();
            Some(said.get(random.below(said.len()))?.0)
        };
        let told = one_of(|event| matches!(event, Event::Kept { .. } | Event::Placed { .. }));
        let killed = one_of(|event| *event == Event::Killed);
        let recovers = killed.map(|killed| (killed + random.below(RECOVERY)).min(self.log.len()));
        let flush = self.log[anywhere..].iter().position(|entry| matches!(entry, Entry::Flush));
        let flush = flush.map(|ahead| anywhere + ahead);
        [told, recovers, flush, None][random.below(4)].unwrap_or(anywhere)
    }

    fn random(&self, number: usize, purpose: u64) -> Random {
        Random::of(&[self.seed, number as u64, purpose])
    }

    /// What must be found after a cut at `position`.
    fn bounds(&self, position: usize) -> Vec<Bounds> {
        let before = self.events.iter().filter(|(said, _)| *said <= position);
        Bounds::after(self.plan.tracks().len(), before.map(|(_, event)| event))
    }
}

/// Makes the disks of a recording; cheapest in the order of their positions.
pub struct Cutter<'a> {
    recording: &'a Recording,
    /// The medium after so much of the log.
    medium: Image,
    applied: usize,
}

impl<'a> Cutter<'a> {
    pub fn new(recording: &'a Recording) -> Self {
        Self { recording, medium: recording.base.clone(), applied: 0 }
    }

    pub fn cut(&mut self, number: usize) -> Cut {
        let recording = self.recording;
        let position = recording.position(number);
        let mut random = recording.random(number, 2);
        let flushed = match recording.flushes {
            Flushes::Kept => {
                let flush = recording.log[..position].iter().rposition(|entry| matches!(entry, Entry::Flush));
                flush.map_or(0, |flush| flush + 1)
            }
            Flushes::Lied => position.saturating_sub(random.below(FORGOTTEN_MAX)),
        };
        self.advance(flushed);
        let mut image = self.medium.clone();
        let told = match recording.flushes {
            Flushes::Kept => {
                let cached: Vec<_> = recording.log[flushed..position].iter().filter_map(as_write).collect();
                keep_some(&mut image, &cached, &mut random)
            }
            Flushes::Lied => "none, though it said that they were flushed".to_owned(),
        };
        let story = format!(
            "cut after {position} of {} requests, flushed up to {flushed}; kept of the rest: {told}",
            recording.log.len()
        );
        Cut { image, bounds: recording.bounds(position), story }
    }

    fn advance(&mut self, to: usize) {
        if to < self.applied {
            (self.medium, self.applied) = (self.recording.base.clone(), 0);
        }
        for (offset, bytes) in self.recording.log[self.applied..to].iter().filter_map(as_write) {
            self.medium.write(offset, bytes);
        }
        self.applied = to;
    }
}

fn as_write(entry: &Entry) -> Option<(u64, &[u8])> {
    match entry {
        Entry::Write { offset, bytes } => Some((*offset, bytes)),
        Entry::Flush => None,
    }
}

/// What a disk writes whole, in bytes. Where it is 512, a torn superblock or log keeps the kernel from
/// mounting ext4 and XFS now and then: nothing that is saved on them can help.
const SECTOR: usize = 4096;

/// Writes what the disk kept of its cache, and says what that was.
fn keep_some(image: &mut Image, cached: &[(u64, &[u8])], random: &mut Random) -> String {
    let count = cached.len();
    let chance = random.below(100);
    let (name, kept): (_, Vec<bool>) = match random.below(6) {
        0 => ("all", vec![true; count]),
        1 => ("none", vec![false; count]),
        2 => {
            let mut kept = vec![true; count];
            (0..3).for_each(|_| *kept.get_mut(random.below(count)).unwrap_or(&mut true) = false);
            ("nearly all", kept)
        }
        3 => {
            let mut kept = vec![false; count];
            (0..3).for_each(|_| *kept.get_mut(random.below(count)).unwrap_or(&mut true) = true);
            ("a few", kept)
        }
        4 => {
            let end = random.below(count + 1);
            ("the first", (0..count).map(|index| index < end).collect())
        }
        _ => ("some", (0..count).map(|_| random.below(100) < chance).collect()),
    };
    let torn = random.one_in(3).then(|| random.below(count));
    for (index, (offset, bytes)) in cached.iter().enumerate() {
        for (number, part) in bytes.chunks(SECTOR).enumerate() {
            let kept = if torn == Some(index) { random.one_in(2) } else { kept[index] };
            if kept {
                image.write(offset + (number * SECTOR) as u64, part);
            }
        }
    }
    let whole = kept.iter().filter(|kept| **kept).count();
    let torn = torn.filter(|torn| *torn < count).map_or(String::new(), |torn| format!(", the {torn}th torn"));
    format!("{name}, {whole} of {count} writes{torn}")
}

/// The first word of a stored recording.
const MAGIC: &str = "cosave-powercut-1";

impl Recording {
    /// Stores it, so that its cuts can be made again.
    pub fn store(&self, path: &Path) -> io::Result<()> {
        let mut out = BufWriter::new(File::create(path)?);
        let lied = self.flushes == Flushes::Lied;
        writeln!(
            out,
            "{MAGIC}\n{}\n{}\n{}\n{}\n{lied}",
            self.file_system, self.options, self.plan, self.seed
        )?;
        writeln!(out, "{}", self.events.len())?;
        for (position, event) in &self.events {
            writeln!(out, "{position} {event}")?;
        }
        writeln!(out, "{}\n{}\n{}", self.base.bytes(), self.base.pages().count(), self.log.len())?;
        for (offset, page) in self.base.pages() {
            out.write_all(&offset.to_le_bytes())?;
            out.write_all(page)?;
        }
        for entry in &self.log {
            let (offset, bytes) = as_write(entry).unwrap_or((u64::MAX, &[]));
            out.write_all(&offset.to_le_bytes())?;
            out.write_all(&(bytes.len() as u64).to_le_bytes())?;
            out.write_all(bytes)?;
        }
        out.flush()
    }

    /// Takes it up again.
    pub fn load(path: &Path) -> io::Result<Self> {
        let mut input = BufReader::new(File::open(path)?);
        if line(&mut input)? != MAGIC {
            return Err(io::Error::other(format!("{} is no recording", path.display())));
        }
        let (file_system, options) = (line(&mut input)?, line(&mut input)?);
        let (plan, seed) = (parsed(&mut input)?, parsed(&mut input)?);
        let flushes = if parsed(&mut input)? { Flushes::Lied } else { Flushes::Kept };
        let mut events = Vec::new();
        for _ in 0..parsed(&mut input)? {
            let line = line(&mut input)?;
            let (position, event) = line.split_once(' ').unwrap_or_default();
            let position = position.parse().map_err(io::Error::other)?;
            events.push((position, event.parse().map_err(io::Error::other)?));
        }
        let mut base = Image::new(parsed(&mut input)?);
        let (pages, entries): (usize, usize) = (parsed(&mut input)?, parsed(&mut input)?);
        for _ in 0..pages {
            let offset = number(&mut input)?;
            let mut page = [0; PAGE];
            input.read_exact(&mut page)?;
            base.write(offset, &page);
        }
        let mut log = Vec::new();
        for _ in 0..entries {
            let (offset, length) = (number(&mut input)?, number(&mut input)?);
            let mut bytes = vec![0; length as usize];
            input.read_exact(&mut bytes)?;
            log.push(match offset {
                u64::MAX => Entry::Flush,
                _ => Entry::Write { offset, bytes: Arc::from(bytes) },
            });
        }
        Ok(Self { file_system, options, plan, seed, flushes, base, log, events })
    }
}

fn line(input: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    input.read_line(&mut line)?;
    Ok(line.trim_end_matches('\n').to_owned())
}

fn parsed<T: FromStr<Err: ToString>>(input: &mut impl BufRead) -> io::Result<T> {
    line(input)?.parse().map_err(|error: T::Err| io::Error::other(error.to_string()))
}

fn number(input: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    input.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}
