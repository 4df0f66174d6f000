//! Every call that changes a file or a folder. All writes of the program use this module, so that tests can replace the file
//! system and let any of these calls fail.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The calls that change files. Each does what the function of the standard library with its name does.
pub trait FileSystem: Send + Sync {
    fn open(&self, path: &Path, options: &OpenOptions) -> io::Result<File> {
        options.open(path)
    }

    /// Writes a part of `bytes` and returns its length.
    fn write(&self, file: &mut File, _path: &Path, bytes: &[u8]) -> io::Result<usize> {
        file.write(bytes)
    }

    fn set_len(&self, file: &File, _path: &Path, length: u64) -> io::Result<()> {
        file.set_len(length)
    }

    /// Syncs a file or a folder to disk.
    fn sync(&self, file: &File, _path: &Path) -> io::Result<()> {
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }
}

/// The file system of the operating system.
struct SystemFiles;

impl FileSystem for SystemFiles {}

static REPLACED: OnceLock<Box<dyn FileSystem>> = OnceLock::new();

/// Replaces the file system of this process, for tests.
///
/// # Panics
/// It was replaced before.
pub fn replace(files: Box<dyn FileSystem>) {
    assert!(REPLACED.set(files).is_ok(), "the file system is replaced once per process");
}

fn system() -> &'static dyn FileSystem {
    REPLACED.get().map_or(&SystemFiles, |files| &**files)
}

/// A file that is open for writing. Reading and seeking go to the operating system directly.
pub struct OpenFile {
    file: File,
    path: PathBuf,
}

impl OpenFile {
    /// Syncs the content to disk.
    pub fn sync(&self) -> io::Result<()> {
        system().sync(&self.file, &self.path)
    }

    pub fn set_len(&self, length: u64) -> io::Result<()> {
        system().set_len(&self.file, &self.path, length)
    }

    /// Length in bytes.
    pub fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// The file of the operating system, for locks and for the output of other processes.
    pub fn into_file(self) -> File {
        self.file
    }
}

impl Write for OpenFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        system().write(&mut self.file, &self.path, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for OpenFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl Seek for OpenFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
    }
}

/// Opens a file for writing.
pub fn open(path: &Path, options: &OpenOptions) -> io::Result<OpenFile> {
    Ok(OpenFile { file: system().open(path, options)?, path: path.to_owned() })
}

/// Creates an empty file, or empties an existing one.
pub fn create(path: &Path) -> io::Result<OpenFile> {
    open(path, OpenOptions::new().write(true).create(true).truncate(true))
}

/// Opens a file to append to it, and creates it if it does not exist.
pub fn append(path: &Path) -> io::Result<OpenFile> {
    open(path, OpenOptions::new().append(true).create(true))
}

/// Syncs an existing file or folder to disk.
pub fn sync(path: &Path) -> io::Result<()> {
    system().sync(&File::open(path)?, path)
}

pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    system().rename(from, to)
}

pub fn remove_file(path: &Path) -> io::Result<()> {
    system().remove_file(path)
}

pub fn remove_dir_all(path: &Path) -> io::Result<()> {
    system().remove_dir_all(path)
}

pub fn create_dir(path: &Path) -> io::Result<()> {
    system().create_dir(path)
}

pub fn create_dir_all(path: &Path) -> io::Result<()> {
    system().create_dir_all(path)
}
