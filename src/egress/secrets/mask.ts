/**
 * Finds values in text of an answer, however they are written there: as they are, each character percent-encoded or not, in base64 of either
 * alphabet, also as a part of what was encoded. The time is in proportion to the text and the values, whatever both are made of: an answer's
 * headers come from outside, and this runs where everybody waits.
 */
export interface Hidden {
  value: string;
  /** What is shown in its place. */
  placeholder: string;
}

/** Text as it is read: one of its characters for one or three of the answer's. */
interface Reading {
  text: string;
  /** Where each character begins in the answer's text, and at the end where that ends; absent: nowhere else. */
  places?: number[];
}

interface Pattern {
  text: string;
  /** Of each beginning of it: how much of it is repeated at its end (Knuth, Morris and Pratt). */
  repeats: Int32Array;
  placeholder: string;
  /** Characters before and behind it that have a few bits of the value, too. */
  before: number;
  behind: number;
}

/** @param spellings texts that are hidden as they are */
export function masker(hidden: readonly Hidden[], spellings: readonly Hidden[] = []): (text: string) => string {
  let made: { plain: Pattern[]; spaced: Pattern[]; encoded: Pattern[] } | undefined;
  return (text) => {
    if (hidden.length === 0) return text;
    made ??= {
      plain: [...hidden, ...spellings].map(({ value, placeholder }) => pattern(value, placeholder)),
      spaced: hidden.map(({ value, placeholder }) => pattern(value.replaceAll("+", " "), placeholder)),
      encoded: hidden.flatMap(({ value, placeholder }) => inBase64(value, placeholder)),
    };
    const asItIs: Reading = { text };
    const decoded = text.includes("%") ? reading(text) : asItIs;
    const ranges = [...found(asItIs, made.plain), ...found(standard(decoded), made.encoded)];
    if (decoded !== asItIs) ranges.push(...found(decoded, made.plain));
    if (text.includes("+")) ranges.push(...found(spaced(decoded), made.spaced));
    return replaced(text, ranges);
  };
}

interface Range {
  from: number;
  to: number;
  placeholder: string;
}

/** Of those that overlap the one that begins first, and the longest of these. */
function replaced(text: string, ranges: Range[]): string {
  ranges.sort((a, b) => a.from - b.from || b.to - a.to);
  let out = "";
  let end = 0;
  for (const { from, to, placeholder } of ranges) {
    if (from >= end) out += text.slice(end, from) + placeholder;
    end = Math.max(end, to);
  }
  return out + text.slice(end);
}

function reading(text: string): Reading {
  const places: number[] = [];
  const read: string[] = [];
  for (let at = 0; at < text.length; ) {
    const character = text[at] as string;
    const hex = character === "%" ? /^[0-9a-fA-F]{2}/.exec(text.slice(at + 1, at + 3))?.[0] : undefined;
    places.push(at);
    read.push(hex === undefined ? character : String.fromCharCode(Number.parseInt(hex, 16)));
    at += hex === undefined ? 1 : 3;
  }
  places.push(text.length);
  return { text: read.join(""), places };
}

/** In forms a plus sign may be a space, or one itself: both are taken for the same. */
function spaced(read: Reading): Reading {
  return { ...read, text: read.text.replaceAll("+", " ") };
}

/** The alphabet of URLs as the common one. */
function standard(read: Reading): Reading {
  return { ...read, text: read.text.replaceAll("-", "+").replaceAll("_", "/") };
}

/** What of the value's base64 is the same whatever stands before and behind it: that depends on how many bytes stand before. */
function inBase64(value: string, placeholder: string): Pattern[] {
  const bytes = Buffer.from(value, "latin1");
  return [0, 1, 2].map((ahead) => {
    const [first, last] = [8 * ahead, 8 * (ahead + bytes.length)];
    const text = Buffer.concat([Buffer.alloc(ahead), bytes]).toString("base64");
    return {
      ...pattern(text.slice(Math.ceil(first / 6), Math.floor(last / 6)), placeholder),
      before: first % 6 === 0 ? 0 : 1,
      behind: last % 6 === 0 ? 0 : 1,
    };
  });
}

function pattern(text: string, placeholder: string): Pattern {
  const repeats = new Int32Array(text.length);
  for (let at = 1, length = 0; at < text.length; at++) {
    while (length > 0 && text[at] !== text[length]) length = repeats[length - 1] as number;
    if (text[at] === text[length]) length++;
    repeats[at] = length;
  }
  return { text, repeats, placeholder, before: 0, behind: 0 };
}

function found({ text, places }: Reading, patterns: readonly Pattern[]): Range[] {
  const ranges: Range[] = [];
  const place = (at: number): number => (places === undefined ? at : (places[at] as number));
  for (const { text: wanted, repeats, placeholder, before, behind } of patterns) {
    for (let at = 0, length = 0; at < text.length; at++) {
      while (length > 0 && text[at] !== wanted[length]) length = repeats[length - 1] as number;
      if (text[at] === wanted[length]) length++;
      if (length < wanted.length) continue;
      let end = at + 1 + behind;
      // Of base64 the signs that fill it up belong to it.
      if (behind > 0) while (text[end] === "=" && end < at + 4) end++;
      ranges.push({
        from: place(Math.max(0, at + 1 - length - before)),
        to: place(Math.min(end, text.length)),
        placeholder,
      });
      length = 0;
    }
  }
  return ranges;
}
