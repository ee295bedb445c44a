/**
 * Bounds of the structure of JSON: strings are read in no time, whatever their length; values are not.
 *
 * `JSON.parse` has one on how deep a text may nest. Node 26 (V8 14) writes outside of its memory when a text breaks off below some
 * thousand objects that are still open: `'{"a":1,"b":'.repeat(20_000) + '"\x01'`, in a body, a line of a guest or a document of a registry,
 * ended the whole process. Node 24 does not. Libraries parse such texts too, so it is done for all of the process, at its start.
 *
 * What a client sends has one on its values, too: 16 MiB of `[]` keep everybody waiting for a second. Our own documents have none:
 * the manifest of a large machine in pieces has more.
 */
import { JSON_BOUNDS } from "./bounds.ts";

const QUOTE = 0x22;
const COMMA = 0x2c;
const BACKSLASH = 0x5c;
const { parse } = JSON;

/** From now on `JSON.parse` throws a SyntaxError for a text of more levels than `JSON_BOUNDS` allows. */
export function boundJsonLevels(): void {
  if (JSON.parse !== parse) return;
  JSON.parse = (text, reviver) => {
    const whole = String(text);
    assertBounds(whole, Number.POSITIVE_INFINITY);
    return parse(whole, reviver);
  };
}

/** What a client sent. @throws JsonBoundError; another SyntaxError for what is no JSON */
export function parseClientJson(text: string): unknown {
  assertClientJson(text);
  return parse(text);
}

/** For what a library parses. @param text bytes as Latin-1 will do @throws JsonBoundError */
export function assertClientJson(text: string): void {
  assertBounds(text, JSON_BOUNDS.clientValues);
}

/** Its words name the bound. */
export class JsonBoundError extends SyntaxError {}

/** A text that is no JSON may be refused for its brackets first: up to its fault the parser sees the same levels. */
function assertBounds(text: string, mostValues: number): void {
  if (text.length <= JSON_BOUNDS.levels) return;
  let levels = 0;
  let values = 0;
  for (let at = 0; at < text.length; at++) {
    switch (text.charCodeAt(at)) {
      case QUOTE:
        at = endOfString(text, at);
        break;
      case 0x5b: // [
      case 0x7b: // {
        if (++levels > JSON_BOUNDS.levels) throw new JsonBoundError(`JSON of more than ${JSON_BOUNDS.levels} levels`);
        if (++values > mostValues) throw new JsonBoundError(`JSON of more than ${mostValues} values`);
        break;
      case COMMA:
        if (++values > mostValues) throw new JsonBoundError(`JSON of more than ${mostValues} values`);
        break;
      case 0x5d: // ]
      case 0x7d: // }
        levels--;
    }
  }
}

/** @returns where the quote is that ends the string of `at`; the end of the text if none does */
function endOfString(text: string, at: number): number {
  for (let end = text.indexOf('"', at + 1); end >= 0; end = text.indexOf('"', end + 1)) {
    let escapes = 0;
    while (text.charCodeAt(end - 1 - escapes) === BACKSLASH) escapes++;
    if (escapes % 2 === 0) return end;
  }
  return text.length;
}
