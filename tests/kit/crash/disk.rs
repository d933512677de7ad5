//! What a directory may hold after a crash in the midst of recorded calls.
//!
//! A kill keeps what the kernel was given: every call that has returned, and of one that has not, anything from nothing
//! to all. A power cut keeps what was synced. Of the rest it keeps, of the names in each directory, the changes up to
//! some moment, as journals do; of a file's length, any that it had since; of its content, for each sector of 512 bytes
//! on its own, what any of the writes since had made of it. A sync covers what had returned before it began. A name is
//! durable by the sync of its directory alone, although many file systems give more.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, RngExt};

use super::trace::{Change, Recording, Step};

const SECTOR_BYTES: u64 = 512;
const PAGE_BYTES: usize = 4096;

/// What stands under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    Dir,
    Link(PathBuf),
    File(Arc<Vec<u8>>),
}

/// A directory and all below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image(pub BTreeMap<PathBuf, Node>);

impl Image {
    pub fn of(root: &Path) -> io::Result<Image> {
        let mut image = Image::default();
        image.add(root, Path::new(""))?;
        Ok(image)
    }

    fn add(&mut self, root: &Path, dir: &Path) -> io::Result<()> {
        for entry in fs::read_dir(root.join(dir))? {
            let entry = entry?;
            let (path, kind) = (dir.join(entry.file_name()), entry.file_type()?);
            let node = if kind.is_dir() {
                self.add(root, &path)?;
                Node::Dir
            } else if kind.is_symlink() {
                Node::Link(fs::read_link(entry.path())?)
            } else {
                Node::File(Arc::new(fs::read(entry.path())?))
            };
            self.0.insert(path, node);
        }
        Ok(())
    }

    /// Makes `root`, which must not be there, with this in it. Zeros at the end of a file take no room.
    pub fn put(&self, root: &Path) -> io::Result<()> {
        fs::create_dir(root)?;
        for (path, node) in &self.0 {
            let path = root.join(path);
            match node {
                Node::Dir => fs::create_dir(path)?,
                Node::Link(target) => std::os::unix::fs::symlink(target, path)?,
                Node::File(bytes) => {
                    let used = used(bytes);
                    let mut file = fs::File::create(path)?;
                    file.write_all(&bytes[..used])?;
                    file.set_len(bytes.len() as u64)?;
                }
            }
        }
        Ok(())
    }

    /// In what this differs from `other`, in a line.
    pub fn difference(&self, other: &Image) -> Option<String> {
        let names = self.0.keys().chain(other.0.keys());
        names.into_iter().find_map(|path| match (self.0.get(path), other.0.get(path)) {
            (left, right) if left == right => None,
            (Some(Node::File(left)), Some(Node::File(right))) => {
                let at = left.iter().zip(right.iter()).position(|(a, b)| a != b);
                Some(format!("{}: {} and {} bytes, first different at {at:?}", path.display(), left.len(), right.len()))
            }
            (left, right) => Some(format!("{}: {} and {}", path.display(), kind(left), kind(right))),
        })
    }
}

fn used(bytes: &[u8]) -> usize {
    let zero = [0; PAGE_BYTES];
    let mut end = bytes.len();
    while end > 0 {
        let start = (end - 1) / PAGE_BYTES * PAGE_BYTES;
        if bytes[start..end] != zero[..end - start] {
            break;
        }
        end = start;
    }
    end
}

fn kind(node: Option<&Node>) -> String {
    match node {
        None => "nothing".to_owned(),
        Some(Node::Dir) => "a directory".to_owned(),
        Some(Node::Link(target)) => format!("a link to {}", target.display()),
        Some(Node::File(bytes)) => format!("a file of {} bytes", bytes.len()),
    }
}

type Id = usize;

#[derive(Clone, Debug)]
enum DataChange {
    Write { offset: u64, bytes: Arc<Vec<u8>> },
    SetLength(u64),
}

impl DataChange {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            DataChange::Write { offset, bytes } => {
                let (from, to) = (*offset as usize, *offset as usize + bytes.len());
                if content.len() < to {
                    content.resize(to, 0);
                }
                content[from..to].copy_from_slice(bytes);
            }
            DataChange::SetLength(length) => content.resize(*length as usize, 0),
        }
    }
}

/// Names that change in one step, and what they name then.
type NameChange = Vec<(PathBuf, Option<Id>)>;

/// Something with a state that is durable and changes that are not yet.
#[derive(Clone, Debug)]
struct Kept<State, Change> {
    durable: State,
    since: Vec<Change>,
    /// How many changes were durable ever.
    synced: usize,
}

impl<State, Change> Kept<State, Change> {
    fn new(durable: State) -> Self {
        Kept { durable, since: Vec::new(), synced: 0 }
    }

    fn changes(&self) -> usize {
        self.synced + self.since.len()
    }

    /// The first `upto` changes of all are durable.
    fn sync(&mut self, upto: usize, apply: impl Fn(&mut State, &Change)) {
        let new = upto.saturating_sub(self.synced);
        for change in self.since.drain(..new) {
            apply(&mut self.durable, &change);
        }
        self.synced += new;
    }
}

#[derive(Clone, Debug)]
enum Inode {
    Dir(Kept<BTreeMap<PathBuf, Id>, NameChange>),
    File(Kept<Vec<u8>, DataChange>),
    Link(PathBuf),
}

/// What a cut does with what was not synced.
pub enum Cut<'a> {
    /// Everything is kept: the process alone was killed.
    Kill,
    /// Nothing is kept.
    Power,
    /// Each change to a file is kept or lost as a whole.
    PowerSome(&'a mut StdRng),
    /// Each sector is on its own.
    PowerTorn(&'a mut StdRng),
}

/// Which syncs the disk obeys, to see that a test misses the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syncs {
    All,
    /// fdatasync does nothing.
    NotOfData,
    /// The sync of a directory does nothing.
    NotOfDirs,
}

/// A disk as recorded calls leave it, one step after the other.
#[derive(Clone, Debug)]
pub struct Disk {
    syncs: Syncs,
    inodes: Vec<Inode>,
    open: BTreeMap<usize, UnderWay>,
}

/// A call that has begun and not ended.
#[derive(Clone, Debug)]
struct UnderWay {
    change: Change,
    /// Of a sync: an inode, and how many of its changes are durable once the call has returned.
    covers: Option<(Id, usize)>,
}

const ROOT: Id = 0;

impl Disk {
    /// Everything in `start` is durable.
    pub fn new(start: &Image, syncs: Syncs) -> Disk {
        let root = Inode::Dir(Kept::new(BTreeMap::new()));
        let mut disk = Disk { syncs, inodes: vec![root], open: BTreeMap::new() };
        for (path, node) in &start.0 {
            let inode = match node {
                Node::Dir => Inode::Dir(Kept::new(BTreeMap::new())),
                Node::Link(target) => Inode::Link(target.clone()),
                Node::File(bytes) => Inode::File(Kept::new(bytes.to_vec())),
            };
            let (dir, name) = disk.place(path);
            let id = disk.add(inode);
            disk.names(dir).durable.insert(name, id);
        }
        disk
    }

    pub fn take(&mut self, recording: &Recording, step: &Step) {
        match step {
            Step::Said(_) => {}
            Step::Begins(call) => {
                let change = recording.calls[*call].clone();
                let covers = match &change {
                    Change::Sync { path, data_only } => self.covered(path, *data_only),
                    _ => None,
                };
                self.open.insert(*call, UnderWay { change, covers });
            }
            Step::Ends(call) => {
                let UnderWay { change, covers } = self.open.remove(call).expect("what ends has begun");
                match covers.map(|(id, upto)| (&mut self.inodes[id], upto)) {
                    Some((Inode::Dir(dir), upto)) => dir.sync(upto, rename_all),
                    Some((Inode::File(file), upto)) => file.sync(upto, |content, change| change.apply(content)),
                    Some((Inode::Link(_), _)) | None => self.change(change),
                }
            }
        }
    }

    /// The process is killed; what it had written and not synced still waits for another process to do it.
    pub fn killed(&self) -> Disk {
        Disk { open: BTreeMap::new(), ..self.clone() }
    }

    fn covered(&self, path: &Path, data_only: bool) -> Option<(Id, usize)> {
        let id = self.find(path)?;
        match &self.inodes[id] {
            Inode::Dir(dir) => (self.syncs != Syncs::NotOfDirs).then_some((id, dir.changes())),
            Inode::File(file) => (!data_only || self.syncs != Syncs::NotOfData).then_some((id, file.changes())),
            Inode::Link(_) => None,
        }
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::MakeFile { path } => self.make(&path, Inode::File(Kept::new(Vec::new()))),
            Change::MakeDir { path } => self.make(&path, Inode::Dir(Kept::new(BTreeMap::new()))),
            Change::MakeLink { path, target } => self.make(&path, Inode::Link(target)),
            Change::Rename { from, to } => {
                let id = self.find(&from);
                let ((dir, old), (other, new)) = (self.place(&from), self.place(&to));
                assert_eq!(dir, other, "{from:?} to {to:?}: a rename from one directory to another is not modelled");
                self.names(dir).since.push(vec![(old, None), (new, id)]);
            }
            Change::Remove { path } => {
                let (dir, name) = self.place(&path);
                self.names(dir).since.push(vec![(name, None)]);
            }
            Change::SetLength { path, length } => self.change_data(&path, DataChange::SetLength(length)),
            Change::Write { path, offset, bytes } => {
                self.change_data(&path, DataChange::Write { offset, bytes: Arc::new(bytes) });
            }
            Change::Sync { .. } => {}
        }
    }

    /// What is found after a cut at this moment.
    pub fn after(&self, mut cut: Cut<'_>) -> Image {
        let mut image = Image::default();
        self.collect(ROOT, Path::new(""), &mut cut, &mut image);
        image
    }

    /// The same, while a write that has begun was on its way: some of its pages have arrived.
    pub fn after_kill_within(&self, call: usize, rng: &mut StdRng) -> Option<Image> {
        let Change::Write { path, offset, bytes } = &self.open.get(&call)?.change else { return None };
        let mut image = self.after(Cut::Kill);
        let Some(Node::File(content)) = image.0.get_mut(path) else { return None };
        let pages = rng.random_range(0..=bytes.len() / PAGE_BYTES);
        let kept = Arc::new(bytes[..pages * PAGE_BYTES].to_vec());
        DataChange::Write { offset: *offset, bytes: kept }.apply(Arc::make_mut(content));
        Some(image)
    }

    /// Writes that have begun and not returned.
    fn writes_under_way(&self, id: Id) -> Vec<DataChange> {
        let writes = self.open.values().filter_map(|call| match &call.change {
            Change::Write { path, offset, bytes } if self.find(path) == Some(id) => {
                Some(DataChange::Write { offset: *offset, bytes: Arc::new(bytes.clone()) })
            }
            _ => None,
        });
        writes.collect()
    }

    fn collect(&self, dir: Id, path: &Path, cut: &mut Cut<'_>, image: &mut Image) {
        let Inode::Dir(kept) = &self.inodes[dir] else { unreachable!("only directories are walked") };
        let mut names = kept.durable.clone();
        let upto = match cut {
            Cut::Kill => kept.since.len(),
            Cut::Power => 0,
            Cut::PowerSome(rng) | Cut::PowerTorn(rng) => rng.random_range(0..=kept.since.len()),
        };
        kept.since[..upto].iter().for_each(|change| rename_all(&mut names, change));
        for (name, id) in names {
            let path = path.join(name);
            let node = match &self.inodes[id] {
                Inode::Link(target) => Node::Link(target.clone()),
                Inode::File(file) => Node::File(Arc::new(content_after(file, &self.writes_under_way(id), cut))),
                Inode::Dir(_) => {
                    self.collect(id, &path, cut, image);
                    Node::Dir
                }
            };
            image.0.insert(path, node);
        }
    }

    fn add(&mut self, inode: Inode) -> Id {
        self.inodes.push(inode);
        self.inodes.len() - 1
    }

    fn make(&mut self, path: &Path, inode: Inode) {
        let (dir, name) = self.place(path);
        let id = self.add(inode);
        self.names(dir).since.push(vec![(name, Some(id))]);
    }

    /// A file that has no name any more is nobody's.
    fn change_data(&mut self, path: &Path, change: DataChange) {
        if let Some(Inode::File(file)) = self.find(path).map(|id| &mut self.inodes[id]) {
            file.since.push(change);
        }
    }

    fn place(&self, path: &Path) -> (Id, PathBuf) {
        let dir = self.find(path.parent().unwrap_or(Path::new(""))).expect("a name has a directory");
        (dir, path.file_name().expect("a name").into())
    }

    fn names(&mut self, dir: Id) -> &mut Kept<BTreeMap<PathBuf, Id>, NameChange> {
        match &mut self.inodes[dir] {
            Inode::Dir(names) => names,
            Inode::File(_) | Inode::Link(_) => panic!("a name in what is no directory"),
        }
    }

    /// What the running system finds under `path`.
    fn find(&self, path: &Path) -> Option<Id> {
        path.iter().try_fold(ROOT, |dir, name| {
            let Inode::Dir(kept) = &self.inodes[dir] else { return None };
            let changed = kept.since.iter().rev().flatten().find(|(changed, _)| changed.as_os_str() == name);
            match changed {
                Some((_, id)) => *id,
                None => kept.durable.get(Path::new(name)).copied(),
            }
        })
    }
}

fn rename_all(names: &mut BTreeMap<PathBuf, Id>, change: &NameChange) {
    for (name, id) in change {
        match id {
            Some(id) => names.insert(name.clone(), *id),
            None => names.remove(name),
        };
    }
}

fn content_after(file: &Kept<Vec<u8>, DataChange>, under_way: &[DataChange], cut: &mut Cut<'_>) -> Vec<u8> {
    let mut content = file.durable.clone();
    let since = file.since.iter();
    match cut {
        Cut::Kill => since.for_each(|change| change.apply(&mut content)),
        Cut::Power => {}
        Cut::PowerSome(rng) => {
            since.chain(under_way).filter(|_| rng.random()).for_each(|change| change.apply(&mut content));
        }
        Cut::PowerTorn(rng) => return torn(content, &since.chain(under_way).collect::<Vec<_>>(), rng),
    }
    content
}

/// Each sector as one of the changes has left it, and the length as well.
fn torn(durable: Vec<u8>, since: &[&DataChange], rng: &mut impl Rng) -> Vec<u8> {
    let mut versions: BTreeMap<u64, Vec<Vec<u8>>> = BTreeMap::new();
    let (mut content, mut lengths) = (durable.clone(), vec![durable.len()]);
    for change in since {
        change.apply(&mut content);
        lengths.push(content.len());
        let DataChange::Write { offset, bytes } = change else { continue };
        for sector in offset / SECTOR_BYTES..(offset + bytes.len() as u64).div_ceil(SECTOR_BYTES) {
            let from = (sector * SECTOR_BYTES) as usize;
            let to = (from + SECTOR_BYTES as usize).min(content.len());
            versions.entry(sector).or_default().push(content[from..to].to_vec());
        }
    }
    let mut found = durable;
    let length = lengths[rng.random_range(0..lengths.len())];
    found.resize(found.len().max(*lengths.iter().max().expect("one at least")), 0);
    for (sector, contents) in versions {
        if let Some(content) = contents.get(rng.random_range(0..=contents.len())) {
            let from = (sector * SECTOR_BYTES) as usize;
            found[from..from + content.len()].copy_from_slice(content);
        }
    }
    found.truncate(length);
    found.resize(length, 0);
    found
}
