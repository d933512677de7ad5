//! Archives made by hand, so that they can say anything.

use std::io::Write;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder};

pub const FILE: u8 = b'0';
pub const HARD_LINK: u8 = b'1';
pub const SYMLINK: u8 = b'2';
pub const DEVICE: u8 = b'3';
pub const DIRECTORY: u8 = b'5';
pub const PAX: u8 = b'x';
pub const PAX_GLOBAL: u8 = b'g';
pub const LONG_NAME: u8 = b'L';

#[derive(Default)]
pub struct Tar(Vec<u8>);

impl Tar {
    pub fn file(self, name: &str, content: &[u8]) -> Tar {
        self.entry(FILE, name, "", content, content.len() as u64)
    }

    pub fn link(self, kind: u8, name: &str, to: &str) -> Tar {
        self.entry(kind, name, to, b"", 0)
    }

    /// `size` is what the header says, whatever there is.
    pub fn entry(self, kind: u8, name: &str, to: &str, content: &[u8], size: u64) -> Tar {
        let mut header = [0u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..108].copy_from_slice(b"0006777\0");
        header[108..124].copy_from_slice(b"0000000\x000000000\0");
        header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        header[136..148].copy_from_slice(b"00000000000\0");
        header[156] = kind;
        header[157..157 + to.len()].copy_from_slice(to.as_bytes());
        header[257..265].copy_from_slice(b"ustar\x0000");
        self.sign_and_add(header, content)
    }

    /// As tars were before they had a magic, a prefix and kinds.
    pub fn oldest(self, name: &str, content: &[u8]) -> Tar {
        let mut header = [0u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..108].copy_from_slice(b"0000755\0");
        header[124..136].copy_from_slice(format!("{:011o} ", content.len()).as_bytes());
        self.sign_and_add(header, content)
    }

    fn sign_and_add(mut self, mut header: [u8; 512], content: &[u8]) -> Tar {
        header[148..156].copy_from_slice(b"        ");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend(header);
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }

    pub fn gz(self) -> Vec<u8> {
        gz(&self.end())
    }
}

pub fn gz(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

/// The records of a pax extension.
pub fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let mut text = String::new();
    for (key, value) in records {
        let rest = format!(" {key}={value}\n");
        let length = (1..).find(|length: &usize| length.to_string().len() + rest.len() == *length).unwrap();
        text += &format!("{length}{rest}");
    }
    text.into_bytes()
}

#[derive(Default)]
pub struct Zip {
    bytes: Vec<u8>,
    directory: Vec<u8>,
    entries: u16,
}

impl Zip {
    pub fn file(self, name: &str, content: &[u8]) -> Zip {
        self.entry(name, 0o100_644, content, true)
    }

    pub fn entry(self, name: &str, mode: u32, content: &[u8], deflated: bool) -> Zip {
        let packed = if deflated {
            let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap()
        } else {
            content.to_owned()
        };
        self.said(name, mode, if deflated { 8 } else { 0 }, &packed, content.len() as u32, crc32fast::hash(content))
    }

    /// `size` is what the headers say, whatever there is.
    pub fn said(mut self, name: &str, mode: u32, method: u16, packed: &[u8], size: u32, crc: u32) -> Zip {
        let at = self.bytes.len() as u32;
        let mut common = Vec::new();
        common.extend([0u8, 0]);
        common.extend(method.to_le_bytes());
        common.extend([0, 0, 0x21, 0x5c]);
        common.extend(crc.to_le_bytes());
        common.extend((packed.len() as u32).to_le_bytes());
        common.extend(size.to_le_bytes());
        common.extend((name.len() as u16).to_le_bytes());
        common.extend([0, 0]);
        self.bytes.extend(b"PK\x03\x04\x14\0");
        self.bytes.extend(&common);
        self.bytes.extend(name.as_bytes());
        self.bytes.extend(packed);
        self.directory.extend(b"PK\x01\x02\x14\x03\x14\0");
        self.directory.extend(&common);
        self.directory.extend([0; 6]);
        self.directory.extend((mode << 16).to_le_bytes());
        self.directory.extend(at.to_le_bytes());
        self.directory.extend(name.as_bytes());
        self.entries += 1;
        self
    }

    pub fn end(mut self) -> Vec<u8> {
        let (at, length) = (self.bytes.len() as u32, self.directory.len() as u32);
        self.bytes.extend(&self.directory);
        self.bytes.extend(b"PK\x05\x06\0\0\0\0");
        self.bytes.extend(self.entries.to_le_bytes());
        self.bytes.extend(self.entries.to_le_bytes());
        self.bytes.extend(length.to_le_bytes());
        self.bytes.extend(at.to_le_bytes());
        self.bytes.extend([0, 0]);
        self.bytes
    }
}
