//! Requests, decoded while they come.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

#[derive(Debug, PartialEq)]
pub enum Request {
    Spawn(Spawn),
    Kill(i32),
    Limit(String, i32, u64),
}

#[derive(Debug, PartialEq)]
pub struct Spawn {
    pub id: String,
    pub cwd: OsString,
    pub log: OsString,
    pub fds: Vec<u32>,
    pub args: Vec<OsString>,
    pub env: Vec<OsString>,
}

#[derive(Default)]
pub struct Requests {
    /// What came of the field that is not at its end yet.
    partial: Vec<u8>,
    fields: VecDeque<Vec<u8>>,
}

impl Requests {
    pub fn push(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == 0) {
            match part.split_last() {
                Some((0, rest)) => {
                    self.partial.extend_from_slice(rest);
                    self.fields.push_back(std::mem::take(&mut self.partial));
                }
                _ => self.partial.extend_from_slice(part),
            }
        }
    }

    /// The next whole one. What makes no sense is left out: only our own server writes here.
    pub fn next(&mut self) -> Option<Request> {
        loop {
            let count = number(self.fields.front()?)?;
            if self.fields.len() <= count {
                return None;
            }
            self.fields.pop_front();
            let fields: VecDeque<Vec<u8>> = self.fields.drain(..count).collect();
            if let Some(request) = decode(fields) {
                return Some(request);
            }
        }
    }
}

fn decode(mut fields: VecDeque<Vec<u8>>) -> Option<Request> {
    match fields.pop_front()?.as_slice() {
        b"kill" => Some(Request::Kill(number(&fields.pop_front()?)? as i32)),
        b"limit" => {
            let id = String::from_utf8(fields.pop_front()?).ok()?;
            let pid = number(&fields.pop_front()?)? as i32;
            Some(Request::Limit(id, pid, number(&fields.pop_front()?)? as u64))
        }
        b"spawn" => {
            let id = String::from_utf8(fields.pop_front()?).ok()?;
            let cwd = OsString::from_vec(fields.pop_front()?);
            let log = OsString::from_vec(fields.pop_front()?);
            let fds = take(&mut fields)?.iter().map(|each| Some(number(each)? as u32)).collect::<Option<_>>()?;
            let args = take(&mut fields)?.into_iter().map(OsString::from_vec).collect();
            let env = fields.into_iter().map(OsString::from_vec).collect();
            Some(Request::Spawn(Spawn { id, cwd, log, fds, args, env }))
        }
        _ => None,
    }
}

/// A number, and so many fields.
fn take(fields: &mut VecDeque<Vec<u8>>) -> Option<Vec<Vec<u8>>> {
    let count = number(&fields.pop_front()?)?;
    if count > fields.len() {
        return None;
    }
    Some(fields.drain(..count).collect())
}

fn number(field: &[u8]) -> Option<usize> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(fields: &[&str]) -> Vec<u8> {
        let mut all = format!("{}\0", fields.len()).into_bytes();
        for field in fields {
            all.extend_from_slice(field.as_bytes());
            all.push(0);
        }
        all
    }

    #[test]
    fn requests_come_whole_however_they_are_cut() {
        let mut all = bytes(&["spawn", "7", "/dir", "/log", "1", "9", "2", "true", "", "A=b"]);
        all.extend(bytes(&["kill", "42"]));
        all.extend(bytes(&["limit", "8", "42", "5000000000"]));
        for cut in 0..all.len() {
            let mut requests = Requests::default();
            requests.push(&all[..cut]);
            let mut found: Vec<Request> = std::iter::from_fn(|| requests.next()).collect();
            requests.push(&all[cut..]);
            found.extend(std::iter::from_fn(|| requests.next()));
            let spawn = Spawn {
                id: "7".into(),
                cwd: "/dir".into(),
                log: "/log".into(),
                fds: vec![9],
                args: vec!["true".into(), "".into()],
                env: vec!["A=b".into()],
            };
            assert_eq!(found, [Request::Spawn(spawn), Request::Kill(42), Request::Limit("8".into(), 42, 5_000_000_000)]);
        }
    }
}
