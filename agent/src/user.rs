//! Who a command runs as: `name`, `uid`, `name:group` or `uid:gid`, looked up in the image's own files.

use crate::sys::{Fail, Result};
use std::fs;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

/// Bytes of /etc/passwd and /etc/group that are looked at.
const MAX_DATABASE: u64 = 4 << 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub home: Vec<u8>,
    pub name: Vec<u8>,
}

impl User {
    /// Needs no look-up, which keeps the usual case short.
    pub fn root() -> User {
        User { uid: 0, gid: 0, groups: Vec::new(), home: b"/root".to_vec(), name: b"root".to_vec() }
    }

    pub fn resolve(spec: &[u8]) -> Result<User> {
        if matches!(spec, b"" | b"root" | b"0" | b"0:0" | b"root:root") {
            return Ok(User::root());
        }
        let (passwd, group) = (database("/etc/passwd"), database("/etc/group"));
        resolve_in(spec, &passwd, &group)
    }
}

/// The image's own file, whatever it is: a pipe must not hold the agent, a huge one not fill its memory.
fn database(path: &str) -> Vec<u8> {
    let mut text = Vec::new();
    if let Ok(file) = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path) {
        let _ = file.take(MAX_DATABASE).read_to_end(&mut text);
    }
    text
}

fn digits(b: &[u8]) -> Option<u32> {
    if !b.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // Container engines take ids up to this one.
    std::str::from_utf8(b).ok()?.parse().ok().filter(|&id| id <= i32::MAX as u32)
}

fn rows(file: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    file.split(|&b| b == b'\n').map(|line| line.split(|&b| b == b':').collect())
}

fn resolve_in(spec: &[u8], passwd: &[u8], group: &[u8]) -> Result<User> {
    let mut parts = spec.splitn(2, |&b| b == b':');
    // Without a user, `:group`, it is root, as container engines have it.
    let who = parts.next().filter(|w| !w.is_empty()).unwrap_or(b"0");
    let with = parts.next().filter(|g| !g.is_empty());
    let row = rows(passwd).find(|r| r.len() >= 6 && (r[0] == who || (digits(who).is_some() && digits(r[2]) == digits(who))));
    let unknown = |what: &str, name: &[u8]| Fail::new(crate::protocol::status::NOT_FOUND, format!("no {} `{}` in the image", what, String::from_utf8_lossy(name)));
    let mut user = match (&row, digits(who)) {
        (Some(r), _) => User {
            uid: digits(r[2]).ok_or_else(|| unknown("user", who))?,
            gid: digits(r[3]).unwrap_or(0),
            groups: Vec::new(),
            home: if r[5].is_empty() { b"/".to_vec() } else { r[5].to_vec() },
            name: r[0].to_vec(),
        },
        (None, Some(uid)) => User { uid, gid: 0, groups: Vec::new(), home: b"/".to_vec(), name: who.to_vec() },
        (None, None) => return Err(unknown("user", who)),
    };
    if let Some(g) = with {
        user.gid = rows(group)
            .find(|r| r.len() >= 3 && r[0] == g)
            .and_then(|r| digits(r[2]))
            .or_else(|| digits(g))
            .ok_or_else(|| unknown("group", g))?;
    } else {
        user.groups = rows(group)
            .filter(|r| r.len() >= 4 && r[3].split(|&b| b == b',').any(|m| m == user.name.as_slice()))
            .filter_map(|r| digits(r[2]))
            .take(64)
            .collect();
    }
    Ok(user)
}

#[cfg(test)]
mod tests {
    use super::*;
    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\nnode:x:1000:1001::/home/node:/bin/sh\nbroken\n";
    const GROUP: &[u8] = b"root:x:0:\nnode:x:1001:\nstaff:x:50:node,other\n";

    #[test]
    fn names_numbers_and_groups() {
        let node = resolve_in(b"node", PASSWD, GROUP).unwrap();
        assert_eq!((node.uid, node.gid, node.groups.as_slice(), node.home.as_slice()), (1000, 1001, &[50][..], &b"/home/node"[..]));
        assert_eq!(resolve_in(b"1000", PASSWD, GROUP).unwrap().name, b"node");
        assert_eq!(resolve_in(b"node:staff", PASSWD, GROUP).unwrap().gid, 50);
        let nobody = resolve_in(b"7:8", PASSWD, GROUP).unwrap();
        assert_eq!((nobody.uid, nobody.gid), (7, 8));
        let root = resolve_in(b":2000", PASSWD, GROUP).unwrap();
        assert_eq!((root.uid, root.gid, root.home.as_slice()), (0, 2000, &b"/root"[..]));
        assert_eq!(resolve_in(b":staff", PASSWD, GROUP).unwrap().gid, 50);
        assert_eq!(resolve_in(b"1000:", PASSWD, GROUP).unwrap().gid, 1001);
        for odd in [&b"-1"[..], b"+1", b"2147483648", b"4294967295", b"7:-1", b" 7"] {
            assert!(resolve_in(odd, PASSWD, GROUP).is_err());
        }
        assert!(resolve_in(b"nosuch", PASSWD, GROUP).is_err());
        assert!(resolve_in(b"node:nosuch", PASSWD, GROUP).is_err());
    }
}
