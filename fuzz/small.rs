//! The form of a small save's manifest (format 2), worked out without the library. The first line has the
//! checksum and the length of the text. The text follows, then the bytes of all written files in the order of
//! the entries.
//!
//! Makes such manifests, right and wrong, and says which are whole.

use serde_json::Value;

/// Puts the first line of a small save before `body`. The checksum is that of its first `length` bytes,
/// and `written` says how many these are.
pub(crate) fn sealed(body: &[u8], length: usize, written: &str) -> Vec<u8> {
    let text = &body[..length.min(body.len())];
    let mut bytes = format!("cosave-manifest 2 {} {written}\n", blake3::hash(text).to_hex()).into_bytes();
    bytes.extend(body);
    bytes
}

/// The body with a right checksum, and with right and wrong lengths of its text.
pub(crate) fn with_any_length(body: &[u8]) -> Vec<Vec<u8>> {
    let (right, all) = (text_end(body), body.len());
    let written = |length: usize| (length, length.to_string());
    let cases = [
        written(right),
        written(0),
        written(all),
        (all, (all + 1).to_string()),
        (all, u64::MAX.to_string()),
        (right, format!("0{right}")),
    ];
    cases.into_iter().map(|(length, number)| sealed(body, length, &number)).collect()
}

/// Where the JSON text at the beginning of `body` ends, with the line break after it.
fn text_end(body: &[u8]) -> usize {
    let mut values = serde_json::Deserializer::from_slice(body).into_iter::<Value>();
    if values.next().is_some_and(|value| value.is_ok()) {
        let end = values.byte_offset();
        end + usize::from(body.get(end) == Some(&b'\n'))
    } else {
        body.len()
    }
}

/// A manifest with the body's text, whose entries fit the bytes after the text. `None` if the text has
/// no entries.
pub(crate) fn fitted(body: &[u8]) -> Option<Vec<u8>> {
    let (text, mut contents) = body.split_at(text_end(body));
    let mut text: Value = serde_json::from_slice(text).ok()?;
    text.as_object_mut()?.entry("wave").or_insert_with(|| 1.into());
    let entries = text["entries"].as_array_mut()?;
    let mut left = entries.iter().filter(|entry| is_write(entry)).count();
    for entry in entries.iter_mut().filter(|entry| is_write(entry)) {
        let (own, rest) = contents.split_at(contents.len() / left);
        (contents, left) = (rest, left - 1);
        let entry = entry.as_object_mut()?;
        entry.insert("length".to_owned(), own.len().into());
        entry.insert("blake3".to_owned(), blake3::hash(own).to_hex().to_string().into());
    }
    let text = text.to_string();
    let contents = &body[text_end(body)..body.len() - contents.len()];
    let whole = [text.as_bytes(), contents].concat();
    Some(sealed(&whole, text.len(), &text.len().to_string()))
}

fn is_write(entry: &Value) -> bool {
    entry["operation"] == "write"
}

/// Splits a manifest of format 2 into its text, whose checksum is right, and what follows it.
pub(crate) fn text_and_contents(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let (line, body) = (std::str::from_utf8(&bytes[..end]).ok()?, &bytes[end + 1..]);
    let length: usize = line.rsplit(' ').next()?.parse().ok()?;
    let is_sealed = length <= body.len() && sealed(body, length, &length.to_string()) == bytes;
    is_sealed.then(|| body.split_at(length))
}

/// Whether the bytes after the text are exactly those that its entries name.
pub(crate) fn has_its_contents(text: &[u8], mut contents: &[u8]) -> bool {
    let Ok(text) = serde_json::from_slice::<Value>(text) else { return false };
    let entries = text["entries"].as_array();
    let is_there = entries.into_iter().flatten().filter(|entry| is_write(entry)).all(|entry| {
        let length = entry["length"].as_u64().and_then(|length| usize::try_from(length).ok());
        let Some((own, rest)) = length.and_then(|length| contents.split_at_checked(length)) else {
            return false;
        };
        contents = rest;
        let checksum = entry["blake3"].as_str().unwrap_or_default();
        checksum.eq_ignore_ascii_case(&blake3::hash(own).to_hex())
    });
    is_there && contents.is_empty()
}

/// Whether bytes are a manifest of format 2 with right checksums, as far as they tell.
pub(crate) fn is_whole(bytes: &[u8]) -> bool {
    text_and_contents(bytes).is_some_and(|(text, contents)| has_its_contents(text, contents))
}
