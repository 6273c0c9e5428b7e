//! What is known of each track, and since which place in the device's log.

use std::fmt;
use std::str::FromStr;

/// One thing that a process said while the device's log was so long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The step may be seen from here on: it is about to begin.
    Begun { track: usize, step: usize },
    /// The step was acknowledged: a recovery must find it, or a later one.
    Kept { track: usize, step: usize },
    /// The step was acknowledged, and is durably in place: also a program that knows nothing of
    /// cosave must find it, or a later one.
    Placed { track: usize, step: usize },
    /// The process was killed: the next one finds what is seen, but perhaps not on the disk.
    Killed,
    /// A recovery had work to do, and finished so many commits.
    Worked { finished: usize },
    /// Something is not as promised.
    Violation(String),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begun { track, step } => write!(f, "begun {track} {step}"),
            Self::Kept { track, step } => write!(f, "kept {track} {step}"),
            Self::Placed { track, step } => write!(f, "placed {track} {step}"),
            Self::Killed => f.write_str("killed"),
            Self::Worked { finished } => write!(f, "worked {finished}"),
            Self::Violation(text) => write!(f, "violation {}", text.replace('\n', "; ")),
        }
    }
}

impl FromStr for Event {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let wrong = |_| format!("`{line}` is no event");
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let numbers = || -> Result<(usize, usize), String> {
            let (track, step) = rest.split_once(' ').unwrap_or_default();
            Ok((track.parse().map_err(wrong)?, step.parse().map_err(wrong)?))
        };
        Ok(match verb {
            "begun" => numbers().map(|(track, step)| Self::Begun { track, step })?,
            "kept" => numbers().map(|(track, step)| Self::Kept { track, step })?,
            "placed" => numbers().map(|(track, step)| Self::Placed { track, step })?,
            "killed" => Self::Killed,
            "worked" => Self::Worked { finished: rest.parse().map_err(wrong)? },
            "violation" => Self::Violation(rest.to_owned()),
            _ => return Err(format!("`{line}` is no event")),
        })
    }
}

/// Between which steps a track must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// The last step that is in place for everybody.
    pub placed: usize,
    /// The last step that a recovery must find.
    pub kept: usize,
    /// The last step that was begun.
    pub begun: usize,
}

impl Bounds {
    /// The bounds of every track, after these events.
    pub fn after<'a>(tracks: usize, events: impl Iterator<Item = &'a Event>) -> Vec<Self> {
        let mut bounds = vec![Self::default(); tracks];
        for event in events {
            match *event {
                Event::Begun { track, step } => bounds[track].begun = bounds[track].begun.max(step),
                Event::Kept { track, step } => bounds[track].kept = bounds[track].kept.max(step),
                Event::Placed { track, step } => {
                    bounds[track].kept = bounds[track].kept.max(step);
                    bounds[track].placed = bounds[track].placed.max(step);
                }
                Event::Killed | Event::Worked { .. } | Event::Violation(_) => {}
            }
        }
        bounds
    }

    /// The events that lead to these bounds.
    pub fn events(bounds: &[Self]) -> Vec<Event> {
        let each = bounds.iter().enumerate();
        each.flat_map(|(track, bounds)| {
            let Self { placed, kept, begun } = *bounds;
            let placed = Event::Placed { track, step: placed };
            [Event::Begun { track, step: begun }, Event::Kept { track, step: kept }, placed]
        })
        .collect()
    }
}
