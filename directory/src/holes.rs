//! Where in a directory files of the server's own are seen: on their own way, and on that of every other mount of them.

use crate::sys;

/// A line of /proc/self/mountinfo (Linux, Documentation/filesystems/proc.rst, 3.5).
struct Mount {
    id: u64,
    device: Vec<u8>,
    /// Of what is mounted, in its own file system.
    root: Vec<u8>,
    place: Vec<u8>,
}

/// @returns ways from the directory, none of them empty
pub fn holes(directory: &[u8], hidden: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let hidden_mount = match mount_of(hidden) {
        Err(libc::ENOENT) => return Ok(Vec::new()),
        found => found.map_err(|_| "the server's own directory cannot be looked at")?,
    };
    let own_mount = mount_of(directory).map_err(|_| "it cannot be looked at")?;
    let table = std::fs::read("/proc/self/mountinfo").map_err(|e| format!("the host's mounts: {}", e))?;
    find(&parse(&table), (directory, own_mount), (hidden, hidden_mount))
}

fn mount_of(path: &[u8]) -> Result<u64, i32> {
    sys::mount_id(&sys::open_absolute(path, libc::O_PATH | libc::O_DIRECTORY)?)
}

fn find(mounts: &[Mount], (directory, own_mount): (&[u8], u64), (hidden, hidden_mount): (&[u8], u64)) -> Result<Vec<Vec<u8>>, String> {
    let inner = |id: u64, path: &[u8]| {
        let mount = mounts.iter().find(|mount| mount.id == id)?;
        Some((&mount.device, join(&mount.root, below(&mount.place, path)?)))
    };
    let unknown = "its mount is not among the host's";
    let (device, secret) = inner(hidden_mount, hidden).ok_or(unknown)?;
    let (own_device, own) = inner(own_mount, directory).ok_or(unknown)?;
    let below_it = mounts.iter().filter_map(|mount| match below(directory, &mount.place)? {
        b"" => None,
        way => Some((&mount.device, mount.root.clone(), way.to_vec())),
    });
    let mut found = Vec::new();
    for (its, root, way) in std::iter::once((own_device, own, Vec::new())).chain(below_it) {
        if its != device {
            continue;
        }
        if below(&secret, &root).is_some() {
            found.push(way);
        } else if let Some(rest) = below(&root, &secret) {
            found.push(if way.is_empty() { rest.to_vec() } else { join(&way, rest) });
        }
    }
    if found.iter().any(|way| way.is_empty()) {
        return Err("it is, or lies in, the server's own directory".into());
    }
    Ok(found)
}

/// The way from one directory to another in it, empty for itself.
fn below<'a>(directory: &[u8], path: &'a [u8]) -> Option<&'a [u8]> {
    if directory == b"/" {
        return path.strip_prefix(b"/");
    }
    match path.strip_prefix(directory)? {
        b"" => Some(b""),
        rest => rest.strip_prefix(b"/"),
    }
}

fn join(directory: &[u8], way: &[u8]) -> Vec<u8> {
    match (directory, way) {
        (_, b"") => directory.to_vec(),
        (b"/", _) => [b"/", way].concat(),
        _ => [directory, b"/", way].concat(),
    }
}

fn parse(table: &[u8]) -> Vec<Mount> {
    let lines = table.split(|byte| *byte == b'\n').filter_map(|line| {
        let words: Vec<&[u8]> = line.splitn(6, |byte| *byte == b' ').collect();
        let id = std::str::from_utf8(words.first()?).ok()?.parse().ok()?;
        Some(Mount { id, device: words.get(2)?.to_vec(), root: unescaped(words.get(3)?), place: unescaped(words.get(4)?) })
    });
    lines.collect()
}

/// White space and backslashes are written in octal.
fn unescaped(word: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((&byte, more)) = rest.split_first() {
        let digits = more.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(octal) if byte == b'\\' => {
                path.push(octal);
                rest = &more[3..];
            }
            _ => {
                path.push(byte);
                rest = more;
            }
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::{below, find, parse};

    const TABLE: &[u8] = b"21 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
        30 21 254:16 / /mnt/big rw - ext4 /dev/vdb rw\n\
        31 21 254:16 /stacyvm /var/lib/stacyvm rw - ext4 /dev/vdb rw\n\
        32 21 254:16 /stacyvm/sandboxes /srv/a\\040b rw - ext4 /dev/vdb rw\n\
        33 21 0:40 / /tmp rw - tmpfs none rw\n";

    fn seen(directory: (&[u8], u64), hidden: (&[u8], u64)) -> Result<Vec<String>, String> {
        let ways = find(&parse(TABLE), directory, hidden)?;
        Ok(ways.into_iter().map(|way| String::from_utf8(way).unwrap()).collect())
    }

    #[test]
    fn on_its_own_way() {
        assert_eq!(seen((b"/home", 21), (b"/home/me/.data", 21)), Ok(vec!["me/.data".into()]));
        assert_eq!(seen((b"/", 21), (b"/home/me", 21)), Ok(vec!["home/me".into()]));
        assert_eq!(seen((b"/home/other", 21), (b"/home/me", 21)), Ok(vec![]));
        assert_eq!(seen((b"/tmp", 33), (b"/home/me", 21)), Ok(vec![]));
    }

    #[test]
    fn by_another_mount() {
        let hidden = (&b"/var/lib/stacyvm"[..], 31);
        assert_eq!(seen((b"/mnt/big", 30), hidden), Ok(vec!["stacyvm".into()]));
        assert_eq!(seen((b"/", 21), hidden), Ok(vec!["mnt/big/stacyvm".into(), "var/lib/stacyvm".into(), "srv/a b".into()]));
        for inside in [(&b"/mnt/big/stacyvm"[..], 30), (b"/srv/a b", 32), (b"/srv/a b/sb-1", 32), (b"/var/lib/stacyvm/x", 31)] {
            assert!(seen(inside, hidden).is_err());
        }
    }

    #[test]
    fn ways() {
        assert_eq!(below(b"/a", b"/a/b/c"), Some(&b"b/c"[..]));
        assert_eq!(below(b"/", b"/a"), Some(&b"a"[..]));
        assert_eq!(below(b"/a", b"/a"), Some(&b""[..]));
        for other in [&b"/ab"[..], b"/", b"/b/a"] {
            assert_eq!(below(b"/a", other), None);
        }
    }
}
