//! Path patterns: `*` and `?` within a name, `[a-z]`, `{a,b}`, and `**` for any number of directories. Names that begin with a
//! dot are only matched by a pattern that begins with one.

use crate::files::{is, os};
use crate::sys::{Fail, Result};
use crate::walk::{join, walk, Visit};

const MAX_ALTERNATIVES: usize = 256;

/// One name against one part of a pattern.
pub fn matches(pattern: &[u8], name: &[u8]) -> bool {
    if name.first() == Some(&b'.') && pattern.first() != Some(&b'.') {
        return false;
    }
    let (mut p, mut n) = (0, 0);
    // Where to go on when the text after a `*` did not fit.
    let mut back: Option<(usize, usize)> = None;
    while n < name.len() {
        match step(&pattern[p..], &name[n..]) {
            Step::Star => {
                p += 1;
                back = Some((p, n));
            }
            Step::Fits(pl, nl) => {
                p += pl;
                n += nl;
            }
            Step::No => match back {
                Some((bp, bn)) => {
                    p = bp;
                    n = bn + 1;
                    back = Some((bp, bn + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&b| b == b'*')
}

enum Step {
    Star,
    Fits(usize, usize),
    No,
}

fn char_length(name: &[u8]) -> usize {
    std::str::from_utf8(&name[..name.len().min(4)])
        .ok()
        .or_else(|| (1..4).rev().find_map(|n| std::str::from_utf8(name.get(..n)?).ok()))
        .and_then(|s| s.chars().next())
        .map_or(1, |c| c.len_utf8())
}

fn step(pattern: &[u8], name: &[u8]) -> Step {
    match pattern {
        [b'*', ..] => Step::Star,
        [b'?', ..] => Step::Fits(1, char_length(name)),
        [b'\\', c, ..] => if *c == name[0] { Step::Fits(2, 1) } else { Step::No },
        [b'[', rest @ ..] => match class(rest, name[0]) {
            Some((true, length)) => Step::Fits(1 + length, 1),
            Some((false, _)) => Step::No,
            None => if name[0] == b'[' { Step::Fits(1, 1) } else { Step::No },
        },
        [c, ..] => if *c == name[0] { Step::Fits(1, 1) } else { Step::No },
        [] => Step::No,
    }
}

/// `rest` begins after `[`. @returns whether it contains the byte, and its length with the `]`; `None`: not closed
fn class(rest: &[u8], byte: u8) -> Option<(bool, usize)> {
    let negated = matches!(rest.first(), Some(b'!' | b'^'));
    let mut at = usize::from(negated);
    let first = at;
    let mut found = false;
    loop {
        let low = *rest.get(at)?;
        if low == b']' && at > first {
            return Some((found != negated, at + 1));
        }
        match (rest.get(at + 1), rest.get(at + 2)) {
            (Some(b'-'), Some(&high)) if high != b']' => {
                found |= (low..=high).contains(&byte);
                at += 3;
            }
            _ => {
                found |= low == byte;
                at += 1;
            }
        }
    }
}

/// `a{b,c}d` is `abd` and `acd`; braces may nest.
pub fn alternatives(pattern: &[u8]) -> Result<Vec<Vec<u8>>> {
    let mut done = Vec::new();
    let mut open = vec![pattern.to_vec()];
    while let Some(p) = open.pop() {
        if done.len() + open.len() > MAX_ALTERNATIVES {
            return Err(Fail::invalid("too many alternatives in the pattern"));
        }
        match innermost(&p) {
            Some((from, to)) => {
                for choice in p[from + 1..to].split(|&b| b == b',') {
                    open.push([&p[..from], choice, &p[to + 1..]].concat());
                }
            }
            None => done.push(p),
        }
    }
    done.sort();
    done.dedup();
    Ok(done)
}

/// The first `{...}` without another inside that holds a comma.
fn innermost(p: &[u8]) -> Option<(usize, usize)> {
    let mut from = None;
    for (i, &b) in p.iter().enumerate() {
        match (b, from) {
            (b'{', _) => from = Some(i),
            (b'}', Some(f)) => {
                if p[f..i].contains(&b',') {
                    return Some((f, i));
                }
                from = None;
            }
            _ => {}
        }
    }
    None
}

fn is_literal(part: &[u8]) -> bool {
    !part.iter().any(|b| b"*?[\\".contains(b))
}

/// Which parts of the pattern may come next, with `**` also standing for nothing.
fn close(parts: &[&[u8]], mut at: Vec<usize>) -> Vec<usize> {
    let mut i = 0;
    while i < at.len() {
        let next = at[i] + 1;
        if parts.get(at[i]) == Some(&&b"**"[..]) && !at.contains(&next) {
            at.push(next);
        }
        i += 1;
    }
    at
}

fn advance(parts: &[&[u8]], at: &[usize], name: &[u8]) -> Vec<usize> {
    let mut next: Vec<usize> = Vec::new();
    for &i in at {
        let part = match parts.get(i) {
            Some(p) => *p,
            None => continue,
        };
        let to = if part == b"**" {
            if name.first() == Some(&b'.') {
                continue;
            }
            i
        } else if matches(part, name) {
            i + 1
        } else {
            continue;
        };
        if !next.contains(&to) {
            next.push(to);
        }
    }
    close(parts, next)
}

/// Calls `found` for each path that matches one pattern, and with `None` for each that does not, so that a search without
/// results can be cancelled too. `cwd` is absolute.
pub fn glob(pattern: &[u8], cwd: &[u8], mut found: impl FnMut(Option<&[u8]>) -> Result<()>) -> Result<()> {
    let mut parts: Vec<&[u8]> = pattern.split(|&b| b == b'/').filter(|p| !p.is_empty() && *p != b".").collect();
    // The literal beginning is a place, not a search.
    let mut root: Vec<u8> = if pattern.first() == Some(&b'/') { b"/".to_vec() } else { cwd.to_vec() };
    while parts.len() > 1 && is_literal(parts[0]) {
        root = join(&root, parts.remove(0));
    }
    match parts.first() {
        None => return Ok(()),
        Some(part) if parts.len() == 1 && is_literal(part) => {
            let path = join(&root, part);
            return if std::fs::symlink_metadata(os(&path)).is_ok() { found(Some(&path)) } else { Ok(()) };
        }
        Some(_) => {}
    }
    match crate::files::stat(&root, true) {
        Ok(st) if is(&st, libc::S_IFDIR) => {}
        _ => return Ok(()),
    }
    let mut states: Vec<Vec<usize>> = vec![close(&parts, vec![0])];
    walk(&root, |visit, path, _, depth| {
        if visit == Visit::Leave {
            return Ok(true);
        }
        states.truncate(depth);
        let name = path.rsplit(|&b| b == b'/').next().unwrap_or(path);
        let next = match states.last() {
            Some(at) => advance(&parts, at, name),
            None => return Ok(false),
        };
        found(Some(path).filter(|_| next.contains(&parts.len())))?;
        let deeper = visit == Visit::Enter && next.iter().any(|&i| i < parts.len());
        if deeper {
            states.push(next);
        }
        Ok(deeper)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (pattern, name, expected) in [
            ("*.rs", "main.rs", true),
            ("*.rs", "main.rsx", false),
            ("*.rs", ".rs", false),
            (".*", ".env", true),
            ("a*b*c", "aXbXbXc", true),
            ("a*b*c", "aXbXbX", false),
            ("?", "é", true),
            ("??", "é", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[]x]", "]", true),
            ("[a", "[a", true),
            ("\\*", "*", true),
            ("*", "anything", true),
            ("", "", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{} {}", pattern, name);
        }
    }

    #[test]
    fn braces() {
        let mut all = alternatives(b"a{b,c{d,e}}f").unwrap();
        all.sort();
        assert_eq!(all, vec![b"abf".to_vec(), b"acdf".to_vec(), b"acef".to_vec()]);
        assert_eq!(alternatives(b"{x}").unwrap(), vec![b"{x}".to_vec()]);
        assert!(alternatives(&b"{a,b}".repeat(20)).is_err());
    }

    #[test]
    fn trees() {
        let root = std::env::temp_dir().join(format!("agent-glob-{}", std::process::id()));
        std::fs::create_dir_all(root.join("src/deep/er")).unwrap();
        std::fs::create_dir_all(root.join(".git")).unwrap();
        for f in ["top.ts", "src/a.ts", "src/deep/er/b.ts", "src/c.js", ".git/d.ts"] {
            std::fs::write(root.join(f), b"").unwrap();
        }
        let base = root.to_str().unwrap();
        let find = |pattern: &str| {
            let mut all = Vec::new();
            glob(pattern.as_bytes(), base.as_bytes(), |p| {
                all.extend(p.map(|p| String::from_utf8_lossy(&p[base.len() + 1..]).into_owned()));
                Ok(())
            })
            .unwrap();
            all.sort();
            all
        };
        assert_eq!(find("**/*.ts"), vec!["src/a.ts", "src/deep/er/b.ts", "top.ts"]);
        assert_eq!(find("src/*.ts"), vec!["src/a.ts"]);
        assert_eq!(find("*"), vec!["src", "top.ts"]);
        assert_eq!(find("src/**"), vec!["src/a.ts", "src/c.js", "src/deep", "src/deep/er", "src/deep/er/b.ts"]);
        assert_eq!(find("src/**/er/*"), vec!["src/deep/er/b.ts"]);
        assert_eq!(find("top.ts"), vec!["top.ts"]);
        assert_eq!(find("nosuch/*"), Vec::<String>::new());
        std::fs::remove_dir_all(&root).unwrap();
    }
}
