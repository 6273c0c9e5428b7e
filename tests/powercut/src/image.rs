//! The bytes of a disk: pages that are shared until somebody writes to them.
//!
//! A copy costs a pointer a page, so every cut gets a disk of its own.

use std::sync::Arc;

pub const PAGE: usize = 4096;

/// A page that was never written is zeros.
#[derive(Clone)]
pub struct Image {
    pages: Vec<Option<Arc<[u8; PAGE]>>>,
}

impl Image {
    /// A disk of zeros; `bytes` is a multiple of the page.
    pub fn new(bytes: u64) -> Self {
        Self { pages: vec![None; (bytes / PAGE as u64) as usize] }
    }

    pub fn bytes(&self) -> u64 {
        (self.pages.len() * PAGE) as u64
    }

    pub fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut found = vec![0; length.min(self.bytes().saturating_sub(offset) as usize)];
        for (page, within, part) in spans(offset, found.len()) {
            if let Some(bytes) = &self.pages[page] {
                let length = part.len();
                found[part].copy_from_slice(&bytes[within..within + length]);
            }
        }
        found
    }

    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (page, within, part) in spans(offset, bytes.len()) {
            let Some(page) = self.pages.get_mut(page) else { return };
            let page = page.get_or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[within..within + part.len()].copy_from_slice(&bytes[part]);
        }
    }

    /// The pages that are not zeros, with their offsets.
    pub fn pages(&self) -> impl Iterator<Item = (u64, &[u8; PAGE])> {
        let written =
            self.pages.iter().enumerate().filter_map(|(index, page)| Some((index, page.as_deref()?)));
        written
            .filter(|(_, page)| page.iter().any(|byte| *byte != 0))
            .map(|(index, page)| ((index * PAGE) as u64, page))
    }
}

/// Cuts `length` bytes from `offset` on at the pages' edges: page, place in it, part of the bytes.
fn spans(offset: u64, length: usize) -> impl Iterator<Item = (usize, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset as usize + done;
        let part = done..length.min(done + PAGE - at % PAGE);
        done = part.end;
        (!part.is_empty()).then_some((at / PAGE, at % PAGE, part))
    })
}
