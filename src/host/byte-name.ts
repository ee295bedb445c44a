/**
 * Names on Linux are bytes; nearly all of them are UTF-8, and are text to us. A byte that is no part of valid UTF-8 becomes a lone
 * surrogate, U+DC80 to U+DCFF for 0x80 to 0xFF, which no valid text has: every name has one text, and every such text is one name.
 * It is what Python's `os.fsdecode` gives (PEP 383), and JSON carries it as an escape (`"\\udcff"`). In a URL the bytes
 * themselves are percent-encoded (`%FF`).
 */
import { isUtf8 } from "node:buffer";

const LONE = 0xdc00;

export function nameText(bytes: Uint8Array): string {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  if (isUtf8(view)) return view.toString("utf8");
  let text = "";
  let valid = 0;
  for (let at = 0; at < view.length; ) {
    const length = sequenceLength(view, at);
    if (length === 0) {
      text += view.toString("utf8", valid, at) + String.fromCharCode(LONE + view.readUInt8(at));
      valid = at + 1;
    }
    at += Math.max(1, length);
  }
  return text + view.toString("utf8", valid);
}

/** Bytes of the valid sequence that begins here, or 0. */
function sequenceLength(view: Buffer, at: number): number {
  const first = view.readUInt8(at);
  if (first < 0x80) return 1;
  const length = first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
  return length > 0 && at + length <= view.length && isUtf8(view.subarray(at, at + length)) ? length : 0;
}

export function nameBytes(text: string): Buffer {
  if (text.isWellFormed()) return Buffer.from(text, "utf8");
  const parts: Buffer[] = [];
  for (const character of text) {
    const code = character.codePointAt(0) ?? 0;
    const byte = code - LONE;
    parts.push(byte >= 0x80 && byte <= 0xff ? Buffer.of(byte) : Buffer.from(character, "utf8"));
  }
  return Buffer.concat(parts);
}

/** Of a part of a URL. @throws URIError when it is not percent-encoded as it should be */
export function decodeName(encoded: string): string {
  if (!encoded.includes("%")) return encoded;
  if (/%(?![0-9a-f]{2})/i.test(encoded)) throw new URIError("a % that begins no byte");
  const bytes = encoded.split(/((?:%[0-9a-f]{2})+)/i).map((part, i) =>
    // Every second part is a run of encoded bytes.
    i % 2 === 0 ? nameBytes(part) : Buffer.from(part.replaceAll("%", ""), "hex"),
  );
  return nameText(Buffer.concat(bytes));
}
