//! A program with three settings files that are saved together, and an undo that
//! survives the program.
//!
//! ```text
//! cargo run --example settings_with_undo [-- ROOT [list | undo | redo]]
//! ```
//!
//! Without arguments it shows all of it in a temporary directory, and ends with an
//! error if a file is not as it should be.

#![allow(clippy::print_stdout, reason = "a program's output")]
#![allow(clippy::disallowed_methods, reason = "only the library must go through its file-system trait")]

use std::error::Error;
use std::path::Path;

use cosave::Store;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// How many saves can be undone. Each undo and each redo counts as one.
const UNDO_STEPS: u32 = 50;

/// What the program remembers, each part in a file of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Settings {
    theme: String,
    shortcuts: String,
    window: String,
}

impl Settings {
    const THEME: &str = "theme.conf";
    const SHORTCUTS: &str = "shortcuts.conf";
    const WINDOW: &str = "window.conf";

    fn new(theme: &str, shortcuts: &str, window: &str) -> Self {
        Self { theme: theme.into(), shortcuts: shortcuts.into(), window: window.into() }
    }

    /// All three files, or none. A file that has not changed is left alone.
    fn save(&self, store: &Store) -> cosave::Result<()> {
        store.update(|tx| {
            tx.write_if_changed(Self::THEME, &self.theme)?;
            tx.write_if_changed(Self::SHORTCUTS, &self.shortcuts)?;
            tx.write_if_changed(Self::WINDOW, &self.window)?;
            Ok::<_, cosave::Error>(())
        })?;
        Ok(())
    }

    /// All three of one save, also while another process saves.
    fn load(store: &Store) -> cosave::Result<Self> {
        let view = store.view()?;
        Ok(Self {
            theme: view.read_to_string(Self::THEME)?,
            shortcuts: view.read_to_string(Self::SHORTCUTS)?,
            window: view.read_to_string(Self::WINDOW)?,
        })
    }
}

fn open(root: &Path) -> cosave::Result<Store> {
    Store::options().create(true).keep(UNDO_STEPS).open(root)
}

fn list(store: &Store) -> cosave::Result<()> {
    for commit in store.history()? {
        println!("{commit}");
    }
    Ok(())
}

fn demonstrate(root: &Path) -> Result<()> {
    let first = Settings::new("light", "save = ctrl+s", "800x600");
    let second = Settings::new("dark", "save = ctrl+s", "1024x768");
    let third = Settings::new("dark", "save = ctrl+w", "1024x768");
    let store = open(root)?;
    for settings in [&first, &second, &third] {
        settings.save(&store)?;
    }
    store.close()?;

    // The program was closed, and is opened again.
    let store = open(root)?;
    store.undo()?;
    assert_eq!(Settings::load(&store)?, second);
    store.undo()?;
    assert_eq!(Settings::load(&store)?, first);
    store.redo()?;
    assert_eq!(Settings::load(&store)?, second);
    store.redo()?;
    assert_eq!(Settings::load(&store)?, third);

    // What was saved first can be looked at, and brought back, without undoing the rest step by step.
    assert_eq!(store.view_at(1)?.read_to_string(Settings::THEME)?, "light");
    store.restore(1)?;
    assert_eq!(Settings::load(&store)?, first);

    // An edit by hand is not overwritten by an undo.
    std::fs::write(root.join(Settings::THEME), "by hand")?;
    let refused = store.undo();
    assert!(refused.is_err_and(|error| error.is_conflict()));
    assert_eq!(std::fs::read_to_string(root.join(Settings::THEME))?, "by hand");
    list(&store)?;
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let Some(root) = arguments.first() else {
        let temporary = tempfile::tempdir()?;
        return demonstrate(temporary.path());
    };
    let store = open(root.as_ref())?;
    match arguments.get(1).map(String::as_str) {
        None | Some("list") => list(&store)?,
        Some("undo") => println!("generation {}", store.undo()?.generation()),
        Some("redo") => println!("generation {}", store.redo()?.generation()),
        Some(other) => return Err(format!("unknown command: {other}").into()),
    }
    Ok(())
}
