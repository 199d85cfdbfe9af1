//! The root file system of a container, built by its own PID 1.
//!
//! ```text
//! /                tmpfs, small: new top-level folders may be made
//! ├── usr bin …    the host's, read-only all the way down
//! ├── etc          overlay: the host's below, the pod's hosts, hostname, resolv.conf above
//! ├── tmp run      tmpfs (also var/tmp)
//! ├── dev          tmpfs with the harmless devices, pts, shm
//! ├── proc sys     of the container's own namespaces
//! └── .portolan    the lab's program
//! ```

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Component, Path, PathBuf},
};

use nix::{
    mount::{MntFlags, MsFlags, umount2},
    unistd::{chdir, pivot_root},
};

use super::{
    PROGRAM,
    mounts::{MountError, about, bind, mount_fs, propagation, read_only, read_only_alone},
    spec::{Bind, ContainerSpec},
};

/// Top-level folders that a container has for itself.
const OWN: [&str; 6] = ["proc", "sys", "dev", "tmp", "run", "lost+found"];
/// Devices that do nothing to the machine.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Links that programs expect under `/dev`.
const DEVICE_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];
/// Where overlays keep their upper halves, relative to the root.
const LAYERS: &str = ".portolan/layers";
/// How many symbolic links one path may lead through, as in the kernel.
const MAX_LINKS: usize = 40;

/// Builds the tree over `spec.root` and makes it the process's root.
pub(super) fn enter(spec: &ContainerSpec) -> Result<(), MountError> {
    propagation(Path::new("/"), MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
    let root = &spec.root;
    mount_fs("tmpfs", root, MsFlags::MS_NOSUID, "mode=755,size=64m")?;
    // Recursive binds of the host's folders must not copy the tree that grows here.
    propagation(root, MsFlags::MS_UNBINDABLE)?;
    chdir(root).map_err(|e| about("enter", root)(e.into()))?;
    host_folders(root)?;
    // An overlay's upper half must not be unbindable.
    propagation(root, MsFlags::MS_PRIVATE)?;
    for (path, mode) in [("tmp", "1777"), ("run", "755"), ("var/tmp", "1777")] {
        let target = root.join(path);
        if target.is_dir() {
            mount_fs(
                "tmpfs",
                &target,
                MsFlags::MS_NOSUID,
                &format!("mode={mode}"),
            )?;
        }
    }
    etc(spec)?;
    devices(root)?;
    kernel_views(root)?;
    program(root)?;
    for hidden in &spec.hide {
        let target = within(root, hidden);
        if target.is_dir() {
            mount_fs("tmpfs", &target, MsFlags::MS_RDONLY, "mode=000,size=4k")?;
        }
    }
    let mut layers = Layers {
        root,
        next: 1,
        covered: Vec::new(),
    };
    for volume in &spec.binds {
        volume_at(&mut layers, volume)?;
    }
    for (path, text) in spec
        .files
        .iter()
        .filter(|(path, _)| !path.starts_with("/etc"))
    {
        let target = within(root, path);
        if let Some(parent) = target.parent() {
            layers.make_folder(parent)?;
        }
        fs::write(&target, text).map_err(about("write", &target))?;
    }
    if spec.read_only_root {
        only_volumes_written(spec, &layers)?;
    }
    become_root(root)
}

/// `readOnlyRootFilesystem`: what is the container's own becomes read-only,
/// volumes stay as they are.
fn only_volumes_written(spec: &ContainerSpec, layers: &Layers<'_>) -> Result<(), MountError> {
    let root = &spec.root;
    let volumes: Vec<PathBuf> = spec.binds.iter().map(|v| within(root, &v.target)).collect();
    let own = ["tmp", "run", "var/tmp", "etc"].map(|path| root.join(path));
    let all = own.into_iter().chain(layers.covered.iter().cloned());
    for target in all.chain([root.clone()]) {
        let mounted = target.is_dir() && !volumes.contains(&target);
        if mounted && read_only_alone(&target).is_err() {
            // Not a mount of its own: the root's flag holds for it.
            tracing::debug!(target = %target.display(), "no mount");
        }
    }
    Ok(())
}

/// Binds each top-level folder of the host read-only; links are copied.
fn host_folders(root: &Path) -> Result<(), MountError> {
    let host = Path::new("/");
    for entry in fs::read_dir(host).map_err(about("list", host))? {
        let entry = entry.map_err(about("list", host))?;
        let name = entry.file_name();
        let (source, target) = (entry.path(), root.join(&name));
        let kind = entry.file_type().map_err(about("look at", &source))?;
        if kind.is_symlink() {
            let leads_to = fs::read_link(&source).map_err(about("read the link", &source))?;
            symlink(&leads_to, &target).map_err(about("make the link", &target))?;
        } else if kind.is_dir() {
            fs::create_dir(&target).map_err(about("make the folder", &target))?;
            if OWN.iter().any(|own| *own == name) {
                continue;
            }
            // What the lab's user may not bind (a mount that went away) is an empty folder.
            if bind(&source, &target).is_ok() {
                read_only(&target)?;
            }
        }
    }
    for own in OWN {
        let target = root.join(own);
        if own != "lost+found" && !target.exists() {
            fs::create_dir(&target).map_err(about("make the folder", &target))?;
        }
    }
    Ok(())
}

/// The pod's own files over the host's `/etc`.
fn etc(spec: &ContainerSpec) -> Result<(), MountError> {
    let mut layers = Layers {
        root: &spec.root,
        next: 0,
        covered: Vec::new(),
    };
    let target = spec.root.join("etc");
    let upper = layers.new_layer()?;
    let own: Vec<(PathBuf, &String)> = spec
        .files
        .iter()
        .filter_map(|(path, text)| Some((path.strip_prefix("/etc").ok()?.to_owned(), text)))
        .collect();
    for (path, text) in &own {
        let path = upper.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(about("make the folder", parent))?;
        }
        fs::write(&path, text).map_err(about("write", &path))?;
    }
    if layers.overlay(&target, &upper).is_ok() {
        return Ok(());
    }
    // A kernel before 5.11 has no overlays in user namespaces: bind file by file
    // over what the host has, following its links.
    for (path, _) in &own {
        let shown = within(&spec.root, &Path::new("/etc").join(path));
        if !shown.exists() && shown.starts_with(spec.root.join("run")) {
            let parent = shown.parent().unwrap_or(&shown);
            fs::create_dir_all(parent).map_err(about("make the folder", parent))?;
            fs::write(&shown, "").map_err(about("write", &shown))?;
        }
        bind(&upper.join(path), &shown)?;
    }
    Ok(())
}

/// `/dev` with the devices that every program may use.
fn devices(root: &Path) -> Result<(), MountError> {
    let dev = root.join("dev");
    mount_fs("tmpfs", &dev, MsFlags::MS_NOSUID, "mode=755,size=64k")?;
    for name in DEVICES {
        let target = dev.join(name);
        fs::write(&target, "").map_err(about("write", &target))?;
        bind(&Path::new("/dev").join(name), &target)?;
    }
    for (name, leads_to) in DEVICE_LINKS {
        let target = dev.join(name);
        symlink(leads_to, &target).map_err(about("make the link", &target))?;
    }
    for name in ["pts", "shm"] {
        let target = dev.join(name);
        fs::create_dir(&target).map_err(about("make the folder", &target))?;
    }
    let no_programs = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount_fs(
        "devpts",
        &dev.join("pts"),
        no_programs,
        "newinstance,ptmxmode=0666,mode=0620",
    )?;
    mount_fs(
        "tmpfs",
        &dev.join("shm"),
        no_programs | MsFlags::MS_NODEV,
        "mode=1777,size=64m",
    )
}

/// `/proc` and `/sys` of the container's own namespaces. Where the kernel
/// refuses new ones (the lab itself runs in a container that masks parts of
/// them), the lab's are shown instead.
fn kernel_views(root: &Path) -> Result<(), MountError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let proc = root.join("proc");
    if mount_fs("proc", &proc, flags, "").is_err() {
        bind(Path::new("/proc"), &proc)?;
    }
    let sys = root.join("sys");
    if mount_fs("sysfs", &sys, flags | MsFlags::MS_RDONLY, "").is_err() {
        bind(Path::new("/sys"), &sys)?;
        read_only(&sys)?;
    }
    Ok(())
}

/// The lab's program at [`PROGRAM`].
fn program(root: &Path) -> Result<(), MountError> {
    let target = root.join(PROGRAM.trim_start_matches('/'));
    let running = Path::new("/proc/self/exe");
    let source = fs::read_link(running).map_err(about("read the link", running))?;
    fs::write(&target, "").map_err(about("write", &target))?;
    if source.exists() {
        bind(&source, &target)?;
        return read_only(&target);
    }
    // The file was replaced or removed while the lab runs: only the open one is left.
    fs::copy(running, &target)
        .map(drop)
        .map_err(about("copy the program to", &target))
}

/// Shows a volume at its place.
fn volume_at(layers: &mut Layers<'_>, volume: &Bind) -> Result<(), MountError> {
    let target = within(layers.root, &volume.target);
    if volume.source.is_dir() {
        layers.make_folder(&target)?;
    } else {
        if let Some(parent) = target.parent() {
            layers.make_folder(parent)?;
        }
        if !target.exists() {
            fs::write(&target, "").map_err(about("write", &target))?;
        }
    }
    bind(&volume.source, &target)?;
    if volume.read_only {
        read_only(&target)?;
    }
    Ok(())
}

/// Overlays that make read-only folders of the host accept new names.
struct Layers<'a> {
    root: &'a Path,
    next: usize,
    /// Where overlays are.
    covered: Vec<PathBuf>,
}

impl Layers<'_> {
    /// An empty upper half, relative to nothing: its absolute path.
    fn new_layer(&mut self) -> Result<PathBuf, MountError> {
        let layer = self.root.join(LAYERS).join(self.next.to_string());
        self.next += 1;
        for half in ["upper", "work"] {
            let path = layer.join(half);
            fs::create_dir_all(&path).map_err(about("make the folder", &path))?;
        }
        Ok(layer.join("upper"))
    }

    /// Lays `upper` over `folder`. Paths are given relative to the root, which
    /// is the working folder, so that no comma or colon of theirs can be
    /// taken for a separator.
    fn overlay(&self, folder: &Path, upper: &Path) -> Result<(), MountError> {
        let short = |path: &Path| {
            let path = path.strip_prefix(self.root).unwrap_or(path);
            path.display().to_string()
        };
        let work = upper.with_file_name("work");
        let (lower, upper, work) = (short(folder), short(upper), short(&work));
        let data = format!("lowerdir={lower},upperdir={upper},workdir={work}");
        mount_fs("overlay", folder, MsFlags::MS_NOSUID, &data)
    }

    /// Makes `folder`, covering its nearest read-only ancestor if need be.
    fn make_folder(&mut self, folder: &Path) -> Result<(), MountError> {
        match fs::create_dir_all(folder) {
            Ok(()) => return Ok(()),
            Err(cause) if read_only_or_denied(&cause) => {}
            Err(cause) => return Err(about("make the folder", folder)(cause)),
        }
        let there = folder.ancestors().find(|path| path.is_dir());
        let there = there.unwrap_or(self.root);
        let upper = self.new_layer()?;
        self.overlay(there, &upper)?;
        self.covered.push(there.to_owned());
        fs::create_dir_all(folder).map_err(about("make the folder", folder))
    }
}

fn read_only_or_denied(cause: &io::Error) -> bool {
    matches!(
        cause.raw_os_error(),
        Some(libc::EROFS | libc::EACCES | libc::EPERM)
    )
}

/// Where `path` leads inside `root`, links followed as if `root` were `/`.
/// Parts that do not exist are taken literally.
fn within(root: &Path, path: &Path) -> PathBuf {
    let mut left: Vec<PathBuf> = parts(path);
    left.reverse();
    let mut at = root.to_owned();
    let mut links = 0;
    while let Some(part) = left.pop() {
        if part == Path::new("..") {
            if at != root {
                at.pop();
            }
            continue;
        }
        let next = at.join(&part);
        match fs::read_link(&next) {
            Ok(leads_to) if links < MAX_LINKS => {
                links += 1;
                if leads_to.is_absolute() {
                    at = root.to_owned();
                }
                left.extend(parts(&leads_to).into_iter().rev());
            }
            Ok(_) | Err(_) => at = next,
        }
    }
    at
}

/// The names of a path, without root and dots.
fn parts(path: &Path) -> Vec<PathBuf> {
    path.components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| PathBuf::from(part.as_os_str()))
        .collect()
}

/// pivot_root(2) onto `root`, and the old root goes away.
fn become_root(root: &Path) -> Result<(), MountError> {
    chdir(root).map_err(|e| about("enter", root)(e.into()))?;
    pivot_root(".", ".").map_err(|e| about("make a root of", root)(e.into()))?;
    let old = Path::new(".");
    umount2(old, MntFlags::MNT_DETACH)
        .map_err(|e| about("leave the old root of", root)(e.into()))?;
    chdir("/").map_err(|e| about("enter", root)(e.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_inside_the_root() {
        let root = std::env::temp_dir().join(format!("portolan-within-{}", std::process::id()));
        fs::create_dir_all(root.join("run")).unwrap();
        fs::create_dir_all(root.join("var")).unwrap();
        symlink("/run", root.join("var/run")).unwrap();
        symlink("../run/deep", root.join("var/up")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        for (path, leads_to) in [
            ("/var/run/secrets", "run/secrets"),
            ("/var/up/x", "run/deep/x"),
            ("/../../x", "x"),
            ("/new/place", "new/place"),
            ("/./var/./x", "var/x"),
        ] {
            assert_eq!(
                within(&root, Path::new(path)),
                root.join(leads_to),
                "{path}"
            );
        }
        assert!(within(&root, Path::new("/loop")).starts_with(&root));
        fs::remove_dir_all(&root).unwrap();
    }
}
