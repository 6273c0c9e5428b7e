//! Flush: everything that was put off is waited for, when a caller asks for it or
//! closes the store. The wait itself is in `commit`.

use super::commit::finish_deferred;
use super::control::Control;
use super::root::Root;
use super::{lock, recover};
use crate::error::{Error, Result};
use crate::options::Durability;

/// Makes every commit durable and retires it, whoever committed it, with whatever durability.
pub(crate) fn flush(root: &Root) -> Result<()> {
    if root.is_poisoned() {
        return Err(Error::Poisoned { path: root.path().into() });
    }
    if root.deferred.generations().is_empty() && Control::look(root)?.open().is_empty() {
        return Ok(());
    }
    root.may_change()?;
    let mut locked = lock::exclusive(root)?;
    let _durable = finish_deferred(root, &mut locked)?;
    recover::finish_earlier(root, &mut locked, Durability::Full)
}

/// Barrier 3 of deferred commits when a store is closed.
pub(crate) fn close(root: &Root) -> Result<()> {
    if root.deferred.generations().is_empty() {
        return Ok(());
    }
    finish_deferred(root, &mut lock::exclusive(root)?).map(drop)
}
