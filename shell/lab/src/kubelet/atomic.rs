//! Folders of files that change all at once, as kubelet writes them:
//!
//! ```text
//! conf.yaml   ─► ..data/conf.yaml
//! ..data      ─► ..1/            swapped by one rename
//! ..1/conf.yaml
//! ```
//! A reader that opens files through the names sees either all of the old
//! content or all of the new.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Component, Path},
};

/// Files by relative path.
pub(super) type Files = BTreeMap<String, File>;

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) bytes: Vec<u8>,
    /// Its permissions.
    pub(super) mode: u32,
}

impl File {
    /// What everybody may read, the default of volumes.
    pub(super) fn readable(bytes: impl Into<Vec<u8>>) -> Self {
        let (bytes, mode) = (bytes.into(), READABLE);
        Self { bytes, mode }
    }
}

/// `defaultMode` where nobody says anything.
pub(super) const READABLE: u32 = 0o644;

const DATA: &str = "..data";
const NEXT: &str = "..data_tmp";

/// Makes `dir` hold exactly these files. Nothing is touched if it does already.
pub(super) fn write(dir: &Path, files: &Files) -> io::Result<()> {
    for name in files.keys() {
        let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
        if name.is_empty() || !Path::new(name).components().all(plain) {
            return Err(io::Error::other(format!("bad path {name:?}")));
        }
    }
    fs::create_dir_all(dir)?;
    let old = fs::read_link(dir.join(DATA)).ok();
    if let Some(old) = &old
        && read(&dir.join(old))? == *files
    {
        return Ok(());
    }
    let number = old.as_deref().map_or(0, number_of);
    let new = format!("..{}", number + 1);
    for (name, file) in files {
        let path = dir.join(&new).join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, &file.bytes)?;
        fs::set_permissions(path, fs::Permissions::from_mode(file.mode & 0o777))?;
    }
    fs::create_dir_all(dir.join(&new))?;
    let next = dir.join(NEXT);
    // Left over from a crash.
    fs::remove_file(&next).or_else(missing_is_fine)?;
    symlink(&new, &next)?;
    fs::rename(&next, dir.join(DATA))?;
    let wanted: BTreeSet<&str> = files.keys().map(|name| top(name)).collect();
    for name in &wanted {
        let path = dir.join(name);
        if fs::symlink_metadata(&path).is_err() {
            symlink(Path::new(DATA).join(name), path)?;
        }
    }
    tidy(dir, &wanted, &new)
}

/// Takes away names that are no longer there, and old contents.
fn tidy(dir: &Path, wanted: &BTreeSet<&str>, new: &str) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name == DATA || name == new || wanted.contains(&*name) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn missing_is_fine(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound {
        return Ok(());
    }
    Err(error)
}

fn number_of(name: &Path) -> u64 {
    let name = name.to_string_lossy();
    name.trim_start_matches('.').parse().unwrap_or(0)
}

fn top(name: &str) -> &str {
    name.split('/').next().unwrap_or(name)
}

/// All files below a folder.
fn read(dir: &Path) -> io::Result<Files> {
    let mut files = Files::new();
    let mut left = vec![(dir.to_owned(), String::new())];
    while let Some((folder, prefix)) = left.pop() {
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.file_type()?.is_dir() {
                left.push((entry.path(), format!("{name}/")));
            } else {
                let mode = entry.metadata()?.permissions().mode() & 0o777;
                let bytes = fs::read(entry.path())?;
                files.insert(name, File { bytes, mode });
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(pairs: &[(&str, &str)]) -> Files {
        let owned = |(name, text): &(&str, &str)| ((*name).to_owned(), File::readable(*text));
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn contents_change_as_one() {
        let dir = std::env::temp_dir().join(format!("portolan-atomic-{}", std::process::id()));
        fs::remove_dir_all(&dir).or_else(missing_is_fine).unwrap();
        let text = |name: &str| fs::read_to_string(dir.join(name)).ok();
        write(&dir, &files(&[("a", "1"), ("sub/b", "2")])).unwrap();
        assert_eq!(
            (text("a"), text("sub/b")),
            (Some("1".into()), Some("2".into()))
        );
        let before = fs::read_link(dir.join(DATA)).unwrap();
        write(&dir, &files(&[("a", "1"), ("sub/b", "2")])).unwrap();
        assert_eq!(
            fs::read_link(dir.join(DATA)).unwrap(),
            before,
            "nothing changed"
        );
        write(&dir, &files(&[("a", "3"), ("c", "4")])).unwrap();
        assert_eq!(
            (text("a"), text("c"), text("sub/b")),
            (Some("3".into()), Some("4".into()), None)
        );
        let mut names: Vec<String> = fs::read_dir(&dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        assert_eq!(names, ["..2", "..data", "a", "c"]);
        assert!(write(&dir, &files(&[("../x", "1")])).is_err());
        fs::remove_dir_all(&dir).unwrap();
    }
}
