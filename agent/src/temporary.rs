//! The names of files that are written beside another one, to be renamed to it once they are whole. Such a name says whether
//! it takes the place of something, because who watches the directory sees only the names.

use crate::sys;
use std::sync::atomic::{AtomicU64, Ordering};

const NEW: &str = ".stacyvm-new-";
const OVER: &str = ".stacyvm-over-";

pub fn make(replaces: bool) -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("{}{:x}-{:x}", if replaces { OVER } else { NEW }, sys::monotonic(), number)
}

/// Of a name that `make` has made: whether it takes the place of something.
pub fn parse(name: &[u8]) -> Option<bool> {
    let (rest, replaces) = match (name.strip_prefix(NEW.as_bytes()), name.strip_prefix(OVER.as_bytes())) {
        (Some(rest), _) => (rest, false),
        (_, Some(rest)) => (rest, true),
        _ => return None,
    };
    let hex = |part: &[u8]| !part.is_empty() && part.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let mut parts = rest.split(|b| *b == b'-');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(time), Some(number), None) if hex(time) && hex(number) => Some(replaces),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_our_own_making_are_taken_for_ours() {
        assert_eq!(parse(make(true).as_bytes()), Some(true));
        assert_eq!(parse(make(false).as_bytes()), Some(false));
        for other in [&b".stacyvm-new-"[..], b".stacyvm-new-1", b".stacyvm-new-1-", b".stacyvm-over-1-2-3", b".stacyvm-over-1-g", b".stacyvm-1-2", b"new-1-2", b""] {
            assert_eq!(parse(other), None);
        }
    }
}
