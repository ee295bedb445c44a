//! The shared vectors, and the decoder under mutated input. `FUZZ_FRAMES=1000000 cargo test --release` runs longer.

use agent::decoder::Decoder;
use agent::protocol::{kind, put_frame, Header, Reader, MAX_FRAME};

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

#[test]
fn vectors_are_encoded_and_decoded_alike() {
    let file = include_str!("../../test/vectors/frames.tsv");
    let mut kinds = [false; 256];
    for line in file.lines() {
        let c: Vec<&str> = line.split('\t').collect();
        let (kind, channel, flags) = (c[1].parse().unwrap(), c[2].parse().unwrap(), c[3].parse().unwrap());
        let (stream, sequence) = (c[4].parse().unwrap(), c[5].parse().unwrap());
        let (payload, frame) = (unhex(c[6]), unhex(c[7]));
        let mut out = Vec::new();
        put_frame(&mut out, kind, channel, flags, stream, sequence, &payload);
        assert_eq!(out, frame, "{}", c[0]);
        let h = Header::parse(&frame).expect(c[0]);
        assert_eq!((h.kind, h.channel, h.flags, h.stream, h.sequence, h.length), (kind, channel, flags, stream, sequence, payload.len()));
        // Alone or cut, the whole frame passes the decoder when its type begins a session and it is the first one.
        if sequence == 0 && flags == 0 && channel == 0 {
            let mut seen = Vec::new();
            drain(&mut Decoder::new(kind), &frame, |_, p| seen = p.to_vec());
            assert_eq!(seen, payload, "{}", c[0]);
        }
        kinds[kind as usize] = true;
    }
    assert!((kind::HELLO..=kind::FAULT).all(|k| kinds[k as usize]));
}

#[test]
fn what_no_decoder_may_take_is_refused() {
    for line in include_str!("../../test/vectors/rejected.tsv").lines() {
        let (name, bytes) = line.split_once('\t').unwrap();
        let bytes = [unhex(bytes), vec![0; MAX_FRAME]].concat();
        for kind in [kind::HELLO, kind::HELLO_ACK, kind::OPEN, kind::DATA] {
            drain(&mut Decoder::new(kind), &bytes, |_, _| panic!("{}", name));
        }
    }
    for line in include_str!("../../test/vectors/bad-fields.tsv").lines() {
        let (name, bytes) = line.split_once('\t').unwrap();
        assert!(Reader::new(&unhex(bytes)).is_err(), "{}", name);
    }
}

#[test]
fn a_reordered_cut_or_repeated_stream_is_noticed() {
    let frames: Vec<Vec<u8>> = (0..4u32)
        .map(|i| {
            let mut out = Vec::new();
            put_frame(&mut out, if i == 0 { kind::HELLO } else { kind::OPEN }, 0, 0, i, i, &[i as u8; 9]);
            out
        })
        .collect();
    let cut = frames[1][..21].to_vec();
    for order in [vec![&frames[2]], vec![&frames[1], &frames[3]], vec![&frames[1], &frames[1]], vec![&cut, &frames[2], &frames[3]]] {
        let mut decoder = Decoder::for_agent();
        assert_eq!(drain(&mut decoder, &frames[0], |_, _| {}), 0);
        let rest: Vec<u8> = order.into_iter().flatten().copied().collect();
        assert!(drain(&mut decoder, &rest, |_, _| {}) > 0);
    }
}

struct Random(u64);
impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

fn drain(decoder: &mut Decoder, bytes: &[u8], mut each: impl FnMut(&Header, &[u8])) -> usize {
    let (mut at, mut violations) = (0, 0);
    while at < bytes.len() {
        let space = decoder.space();
        assert!(!space.is_empty());
        let n = space.len().min(bytes.len() - at);
        space[..n].copy_from_slice(&bytes[at..at + n]);
        decoder.filled(n);
        at += n;
        loop {
            match decoder.next() {
                Ok(Some((h, range))) => {
                    let payload = decoder.payload(range).to_vec();
                    each(&h, &payload);
                }
                Ok(None) => break,
                Err(_) => violations += 1,
            }
        }
    }
    violations
}

#[test]
fn mutated_streams_never_crash_and_a_hello_always_resynchronises() {
    let frames: usize = std::env::var("FUZZ_FRAMES").ok().and_then(|n| n.parse().ok()).unwrap_or(50_000);
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut decoder = Decoder::for_agent();
    let mut done = 0;
    while done < frames {
        let mut stream = Vec::new();
        let mut payloads = Vec::new();
        for sequence in 0..8u32 {
            let payload: Vec<u8> = (0..random.below(200)).map(|_| random.next() as u8).collect();
            let kind = if sequence == 0 { kind::HELLO } else { kind::OPEN };
            put_frame(&mut stream, kind, 0, 0, sequence, sequence, &payload);
            payloads.push(payload);
        }
        match random.below(4) {
            0 => {
                let at = random.below(stream.len());
                stream[at] ^= 1 << random.below(8);
            }
            1 => stream.truncate(random.below(stream.len())),
            2 => {
                let (a, b) = (random.below(stream.len()), random.below(stream.len()));
                stream.drain(a.min(b)..a.max(b));
            }
            _ => {
                let at = random.below(stream.len());
                stream.insert(at, random.next() as u8);
            }
        }
        // A flipped payload byte is the only change that framing does not see: it is not a checksum of the content.
        drain(&mut decoder, &stream, |_, payload| {
            if let Ok(fields) = Reader::new(payload) {
                for (tag, _) in fields.walk() {
                    let _ = fields.number(tag);
                }
            }
        });
        // Whatever state that left, the filler and a hello lead back in step.
        let mut fresh = vec![0u8; MAX_FRAME];
        put_frame(&mut fresh, kind::HELLO, 0, 0, 0, 0, b"again");
        let mut last = Vec::new();
        drain(&mut decoder, &fresh, |_, payload| last = payload.to_vec());
        assert_eq!(last, b"again");
        done += 8;
    }
}
