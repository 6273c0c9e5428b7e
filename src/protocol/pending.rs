//! What is published and not retired: the manifests of these generations, each
//! read once, and where they end.
//!
//! They end at a gap in the generations, or at a torn manifest. A power loss in
//! the wave of a commit point can keep any part of it. Nobody was told that these
//! are committed. Knows what lies in the control directory, and changes nothing.

use std::io;

use super::control::{self, Control};
use super::layout::{self, Fate};
use super::root::Root;
use crate::error::{Error, Operation, Result};
use crate::fs::LockKind;
use crate::generation::Generation;
use crate::manifest::{Manifest, ManifestError};
use crate::mutation::{Rule, keeps};

/// The generations after the retired one.
#[derive(Debug)]
pub(crate) struct Pending {
    /// Those that follow it without a gap, with their manifests.
    pub(crate) chain: Vec<(Generation, Result<Manifest>)>,
    /// Those beyond a gap or a tear: never acknowledged, or waived and lost.
    pub(crate) beyond: Vec<Generation>,
}

/// A manifest as it was found.
enum Found {
    Whole(Manifest),
    /// It may never have been durable.
    Torn(Error),
    /// It was durable once, or nobody can tell what it is.
    Damaged(Error),
}

/// The newest generation before a gap.
pub(crate) fn newest(control: &Control) -> Generation {
    split(control).0.last().copied().unwrap_or(control.retired())
}

/// Reads the manifests of all open generations.
pub(crate) fn read(root: &Root, control: &Control) -> Result<Pending> {
    let (numbers, mut beyond) = split(control);
    let mut chain = Vec::with_capacity(numbers.len());
    for generation in numbers {
        chain.push((generation, find(root, control, generation)?));
    }
    if let Some(end) = (0..chain.len()).find(|index| ends_at(control, &chain[*index..])) {
        let torn = chain.split_off(end).into_iter().map(|(generation, _)| generation);
        beyond = torn.chain(beyond).collect();
    }
    let known = |(generation, found)| match found {
        Found::Whole(manifest) => (generation, Ok(manifest)),
        Found::Torn(error) | Found::Damaged(error) => (generation, Err(error)),
    };
    Ok(Pending { chain: chain.into_iter().map(known).collect(), beyond })
}

/// Whether a published manifest needs recovery because its writer is dead. A living writer has passed
/// the commit point and moved its files before it released the lock.
pub(crate) fn is_orphaned(
    root: &Root,
    control: &Control,
    generation: Generation,
    manifest: &Manifest,
) -> bool {
    if control.has(Fate::SyncFailed.of(generation)) {
        return true;
    }
    let mark = layout::session(manifest.transaction.session);
    !matches!(root.fs.try_lock(&mark, LockKind::Shared), Ok(None))
}

/// Splits the generations into those that follow the applied one without a gap, and those beyond a gap.
/// A power loss can keep any part of a batch that was renamed but not synced.
fn split(control: &Control) -> (Vec<Generation>, Vec<Generation>) {
    let mut next = control.retired().next();
    let (mut chain, mut beyond) = (Vec::new(), Vec::new());
    for generation in control.open() {
        if generation == next || !keeps(Rule::StopAtGap) {
            chain.push(generation);
            next = generation.next();
        } else {
            beyond.push(generation);
        }
    }
    (chain, beyond)
}

fn find(root: &Root, control: &Control, generation: Generation) -> Result<Found> {
    let path = control.published(generation);
    let Some(bytes) = root.read(&path)? else {
        let missing = root.error(Operation::Read, &path)(io::ErrorKind::NotFound.into());
        return Ok(if control.is_waived(generation) {
            Found::Torn(missing)
        } else {
            Found::Damaged(missing)
        });
    };
    let damage = match control::decode(root, &path, &bytes) {
        Ok(manifest) => return Ok(Found::Whole(manifest)),
        Err(error) => error,
    };
    let can_be_torn = control.is_waived(generation) || path == Fate::PendingInline.of(generation).path();
    let is_torn = matches!(Manifest::decode(&bytes), Err(ManifestError::Header | ManifestError::Checksum));
    Ok(if is_torn && can_be_torn { Found::Torn(damage) } else { Found::Damaged(damage) })
}

/// Whether the first of these manifests was torn by a power loss, so that neither it nor a later one
/// counts. A waived one is torn without harm: later ones build on it, and go with it. Any other can
/// only be torn in its own wave, so all later ones must be of this wave. Otherwise it was acknowledged,
/// and is damaged.
fn ends_at(control: &Control, manifests: &[(Generation, Found)]) -> bool {
    let Some(((torn, Found::Torn(_)), later)) = manifests.split_first() else { return false };
    let is_of_its_wave = |(generation, found): &(Generation, Found)| match found {
        Found::Whole(manifest) => manifest.inline.as_ref().is_some_and(|inline| inline.wave <= *torn),
        Found::Torn(_) => !control.is_waived(*generation),
        Found::Damaged(_) => false,
    };
    control.is_waived(*torn) || later.iter().all(is_of_its_wave) && keeps(Rule::DiscardTorn)
}
