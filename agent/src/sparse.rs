//! What is sent comes with zeros where its file had holes. In a file that is made, whole blocks of zeros are passed over instead of
//! written: a sparse file takes no more room here than where it comes from.

use crate::sys::{self, last_errno, Fd};

const BLOCK: usize = 4096;

pub struct SparseWriter<'a> {
    file: &'a Fd,
    at: u64,
    /// What is before `at` was not written.
    passed: bool,
}

impl<'a> SparseWriter<'a> {
    /// @param file new, or empty: what is passed over has to be zeros already
    pub fn new(file: &'a Fd) -> SparseWriter<'a> {
        SparseWriter { file, at: 0, passed: false }
    }

    pub fn write(&mut self, piece: &[u8]) -> std::result::Result<(), i32> {
        // A piece begins and ends anywhere, so that the first and the last part of it may be less than a block.
        let (mut written, mut next) = (0, 0);
        while next < piece.len() {
            let begin = next;
            next = (begin + BLOCK - (self.at as usize + begin - written) % BLOCK).min(piece.len());
            if zeros(&piece[begin..next]) {
                self.put(&piece[written..begin])?;
                written = next;
                self.at += (next - begin) as u64;
                self.passed = true;
            }
        }
        self.put(&piece[written..])
    }

    fn put(&mut self, data: &[u8]) -> std::result::Result<(), i32> {
        if data.is_empty() {
            return Ok(());
        }
        // SAFETY: plain integers.
        if std::mem::take(&mut self.passed) && unsafe { libc::lseek(self.file.raw(), self.at as libc::off_t, libc::SEEK_SET) } < 0 {
            return Err(last_errno());
        }
        self.at += data.len() as u64;
        sys::write_all(self.file.raw(), data)
    }

    /// The file's end may be a hole. @returns its size
    pub fn finish(self) -> std::result::Result<u64, i32> {
        // SAFETY: plain integers.
        if self.passed && unsafe { libc::ftruncate(self.file.raw(), self.at as libc::off_t) } < 0 {
            return Err(last_errno());
        }
        Ok(self.at)
    }
}

fn zeros(block: &[u8]) -> bool {
    let words = block.chunks_exact(16);
    words.remainder().iter().all(|&byte| byte == 0) && words.into_iter().all(|word| word == [0; 16])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn zeros_are_passed_over_and_read_back() {
        let path = std::env::temp_dir().join(format!("sparse-{}", std::process::id()));
        let mut content = vec![0u8; 40 * BLOCK + 100];
        content[3] = 1;
        content[20 * BLOCK + 7] = 2;
        content[21 * BLOCK] = 3;
        for end in [content.len(), 30 * BLOCK, 30 * BLOCK + 1, 21 * BLOCK, 1, 0] {
            for size in [1, 100, BLOCK, BLOCK + 1, 7 * BLOCK, content.len()] {
                let file = sys::open(path.as_os_str().to_str().unwrap().as_bytes(), libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC, 0o600).unwrap();
                let mut writer = SparseWriter::new(&file);
                for piece in content[..end].chunks(size) {
                    writer.write(piece).unwrap();
                }
                assert_eq!(writer.finish().unwrap(), end as u64);
                assert_eq!(std::fs::read(&path).unwrap(), &content[..end]);
                if size >= BLOCK {
                    assert!(std::fs::metadata(&path).unwrap().blocks() * 512 <= 5 * BLOCK as u64);
                }
            }
        }
        std::fs::remove_file(&path).unwrap();
    }
}
