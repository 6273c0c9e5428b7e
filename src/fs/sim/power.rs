//! What a power loss may leave: every outcome that a model allows. If these are
//! too many, the most revealing ones and a seeded sample of the rest.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::disk::{Body, Data, Number, State};
use super::plan::Model;

/// Up to this many operations on names, all outcomes are listed.
const SUBSETS_FULL_MAX: usize = 9;

/// A small random generator (SplitMix64), so that a seed means the same on every system and version.
#[derive(Clone, Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        // The bound is small, so the bias of the remainder is small too.
        usize::try_from(self.next() % (bound.max(1) as u64)).unwrap_or(0)
    }
}

/// What happens to a file's unsynced content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    New,
    Old,
    Empty,
    Zeros,
    /// The new length, but only the first half of the bytes.
    Torn,
    /// Only the first half.
    Short,
    Garbage,
}

/// All disks that may be found after a power loss, without duplicates.
pub(super) fn outcomes(state: &State, model: Model, outcomes_max: usize, seed: u64) -> Vec<State> {
    let mut random = Random(seed);
    let names = name_choices(state, model, outcomes_max, &mut random);
    let contents = content_choices(state, outcomes_max, &mut random);
    let mut pairs: Vec<(usize, usize)> = Vec::new();
    if names.len() * contents.len() <= outcomes_max {
        pairs.extend(
            (0..names.len()).flat_map(|name| (0..contents.len()).map(move |content| (name, content))),
        );
    } else {
        // Every choice of either kind at least once, then a sample of the pairs.
        pairs.extend((0..names.len()).map(|name| (name, name % contents.len())));
        pairs.extend((0..contents.len()).map(|content| (names.len() - 1, content)));
        while pairs.len() < outcomes_max {
            pairs.push((random.below(names.len()), random.below(contents.len())));
        }
    }
    let mut seen = HashSet::new();
    let made = pairs.into_iter().flat_map(|(name, content)| {
        let found = after(state, &names[name], &contents[content]);
        let reused = (model == Model::ReusedBlocks).then(|| with_blocks_reused(state, &found));
        std::iter::once(found).chain(reused)
    });
    made.filter(|state| seen.insert(state.fingerprint())).collect()
}

/// Which logged operations survive, as indices into the log.
fn name_choices(state: &State, model: Model, choices_max: usize, random: &mut Random) -> Vec<Vec<usize>> {
    let count = state.log.len();
    let choices = match model {
        Model::OrderedPrefix | Model::JumpingPrefix | Model::NoDirectorySync | Model::ReusedBlocks => {
            return prefixes(state);
        }
        _ if count <= SUBSETS_FULL_MAX && 1 << count <= choices_max => (0..1_usize << count)
            .map(|bits| (0..count).filter(|bit| bits >> bit & 1 == 1).collect())
            .collect(),
        _ => subsets(count, choices_max, random),
    };
    choices.into_iter().map(|choice| with_one_name_each(state, choice)).collect()
}

/// Leaves out what would give a directory two names, or none. It has one entry `..`, so every file system
/// makes its moves durable in their order. And nothing else has its old name before it has left.
fn with_one_name_each(state: &State, choice: Vec<usize>) -> Vec<usize> {
    let directories = |index: usize| {
        let named = state.log[index].settings.iter().filter_map(|(_, _, to)| *to);
        named.filter(|inode| matches!(state.body(*inode), Ok(Body::Directory { .. })))
    };
    let follows = |index: usize, earlier: usize| {
        directories(index).any(|inode| state.log[earlier].names_inode(inode))
            || directories(earlier).next().is_some() && state.log[index].shares_a_name(&state.log[earlier])
    };
    let mut kept: Vec<usize> = Vec::with_capacity(choice.len());
    for index in choice {
        if (0..index).all(|earlier| kept.contains(&earlier) || !follows(index, earlier)) {
            kept.push(index);
        }
    }
    kept
}

/// Every file system keeps a prefix of its own operations.
fn prefixes(state: &State) -> Vec<Vec<usize>> {
    let mut devices: Vec<u32> = state.log.iter().map(|operation| operation.device).collect();
    devices.sort_unstable();
    devices.dedup();
    let mut choices = vec![Vec::new()];
    for device in devices {
        let own: Vec<_> = (0..state.log.len()).filter(|index| state.log[*index].device == device).collect();
        choices = choices
            .into_iter()
            .flat_map(|choice| (0..=own.len()).map(move |length| (choice.clone(), length)))
            .map(|(mut choice, length)| {
                choice.extend(&own[..length]);
                choice
            })
            .collect();
    }
    for choice in &mut choices {
        choice.sort_unstable();
    }
    choices
}

/// All prefixes, all subsets with at most two members or at most two missing, and a sample of the rest.
fn subsets(count: usize, choices_max: usize, random: &mut Random) -> Vec<Vec<usize>> {
    let mut choices: Vec<Vec<usize>> = (0..=count).map(|length| (0..length).collect()).collect();
    for first in 0..count {
        choices.push(vec![first]);
        choices.push((0..count).filter(|index| *index != first).collect());
        for second in first + 1..count {
            choices.push(vec![first, second]);
            choices.push((0..count).filter(|index| *index != first && *index != second).collect());
        }
    }
    while choices.len() < choices_max {
        choices.push((0..count).filter(|_| random.next() & 1 == 1).collect());
    }
    choices
}

/// What happens to each unsynced file.
fn content_choices(state: &State, choices_max: usize, random: &mut Random) -> Vec<Vec<(Number, Content)>> {
    let dirty: Vec<(Number, Vec<Content>)> = (0..)
        .zip(&state.inodes)
        .filter_map(|(inode, slot)| match slot.as_deref() {
            Some(Body::File { visible, durable, lost, .. }) if durable.as_ref() != Some(visible) => {
                Some((inode, possible(durable.is_some(), *lost)))
            }
            _ => None,
        })
        .collect();
    let total = dirty.iter().try_fold(1_usize, |total, (_, options)| total.checked_mul(options.len()));
    if let Some(total) = total.filter(|total| *total <= choices_max.min(256)) {
        return (0..total)
            .map(|mut code| {
                let choose = |(inode, options): &(Number, Vec<Content>)| {
                    let option = options[code % options.len()];
                    code /= options.len();
                    (*inode, option)
                };
                dirty.iter().map(choose).collect()
            })
            .collect();
    }
    let all = |choose: &mut dyn FnMut(&[Content]) -> Content| -> Vec<(Number, Content)> {
        dirty.iter().map(|(inode, options)| (*inode, choose(options))).collect()
    };
    let mut choices = vec![all(&mut |options| options[0])];
    for bad in 1..7 {
        choices.push(all(&mut |options| options[bad.min(options.len() - 1)]));
    }
    for (inode, options) in &dirty {
        let mut one = all(&mut |options| options[0]);
        for choice in one.iter_mut().filter(|(other, _)| other == inode) {
            choice.1 = options[options.len() - 1];
        }
        choices.push(one);
    }
    for _ in 0..choices_max.min(16) {
        choices.push(all(&mut |options| options[random.below(options.len())]));
    }
    choices
}

fn possible(has_old: bool, lost: bool) -> Vec<Content> {
    match (has_old, lost) {
        (true, true) => vec![Content::Old],
        (false, true) => vec![Content::Empty, Content::Zeros],
        (true, false) => vec![Content::New, Content::Old, Content::Torn, Content::Short, Content::Garbage],
        (false, false) => vec![
            Content::New,
            Content::Empty,
            Content::Zeros,
            Content::Torn,
            Content::Short,
            Content::Garbage,
        ],
    }
}

/// The disk as the next boot finds it.
fn after(state: &State, names: &[usize], contents: &[(Number, Content)]) -> State {
    let mut next = state.clone();
    let log = std::mem::take(&mut next.log);
    for index in names {
        next.persist(&log[*index]);
    }
    for (inode, content) in contents {
        if let Ok(Body::File { visible, durable, grows, .. }) = next.body_mut(*inode) {
            let kept = if *grows { shared_beginning(visible, durable.as_ref()) } else { 0 };
            *durable = Some(remains(visible, durable.as_ref(), kept, *content));
        }
    }
    let mut reverted = Vec::new();
    for (inode, slot) in next.inodes.iter_mut().enumerate() {
        let Some(slot) = slot else { continue };
        let stale = match slot.as_ref() {
            Body::File { visible, durable, lost, owes_error, .. } => {
                durable.as_ref() != Some(visible) || *lost || *owes_error
            }
            Body::Directory { visible, durable, visible_mode, durable_mode, .. } => {
                visible != durable || visible_mode != durable_mode
            }
            Body::Symlink(_) => false,
        };
        if !stale {
            continue;
        }
        match Arc::make_mut(slot) {
            Body::File { visible, durable, lost, owes_error, .. } => {
                if let Some(durable) = durable.as_ref().filter(|durable| *durable != visible) {
                    visible.clone_from(durable);
                    reverted.push(inode as Number);
                }
                (*lost, *owes_error) = (false, false);
            }
            Body::Directory { visible, durable, visible_mode, durable_mode, .. } => {
                visible.clone_from(durable);
                *visible_mode = *durable_mode;
            }
            Body::Symlink(_) => {}
        }
    }
    next.boots += 1;
    next.power_losses += 1;
    next.collect();
    revert_changes(&mut next, &reverted);
    next
}

/// The same disk, if the blocks of all files that had lost their names were somebody else's by then.
fn with_blocks_reused(before: &State, found: &State) -> State {
    let (named, mut next) = (before.named(), found.clone());
    for inode in found.named().difference(&named) {
        if let Ok(Body::File { visible, durable, .. }) = next.body_mut(*inode) {
            visible.bytes = Arc::new(visible.bytes.iter().map(|byte| byte ^ 0xa5).collect());
            *durable = Some(visible.clone());
        }
    }
    next
}

/// Takes back when these files were last changed. That is in the inode, beside the time of the bytes. But a second
/// name that stays was written with the inode.
fn revert_changes(next: &mut State, reverted: &[Number]) {
    let mut names = BTreeMap::new();
    for body in next.inodes.iter().flatten() {
        if let Body::Directory { visible, .. } = &**body {
            visible.values().for_each(|inode| *names.entry(*inode).or_insert(0) += 1);
        }
    }
    for inode in reverted.iter().filter(|inode| names.get(inode) == Some(&1)) {
        if let Ok(Body::File { visible, changed, .. }) = next.body_mut(*inode) {
            *changed = visible.modified;
        }
    }
}

/// How many bytes at the beginning are the same.
fn shared_beginning(new: &Data, old: Option<&Data>) -> usize {
    let old = old.map_or(&[][..], |old| &old.bytes);
    new.bytes.iter().zip(old).take_while(|(new, old)| new == old).count()
}

/// What is left of a file whose first bytes are `kept`.
fn remains(new: &Data, old: Option<&Data>, kept: usize, content: Content) -> Data {
    let (kept, tail) = new.bytes.split_at(kept);
    let with = |tail: Vec<u8>| Data { bytes: Arc::new([kept, &tail].concat()), ..new.clone() };
    let half = tail.len() / 2;
    match content {
        Content::New => new.clone(),
        Content::Old => old.unwrap_or(new).clone(),
        Content::Empty => with(Vec::new()),
        Content::Zeros => with(vec![0; tail.len()]),
        Content::Torn => {
            let mut bytes = tail[..half].to_vec();
            bytes.resize(tail.len(), 0);
            with(bytes)
        }
        Content::Short => with(tail[..half].to_vec()),
        Content::Garbage => with(tail.iter().map(|byte| byte ^ 0xa5).chain(*b"garbage").collect()),
    }
}
