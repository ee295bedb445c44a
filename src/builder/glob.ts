/**
 * Patterns of names and values. Whoever writes one also writes what it is held against, so it is not made a regular expression, whose work
 * grows by a power with each star: here it is the length of the text times that of the pattern.
 */

import { BUILD_BOUNDS } from "../host/bounds.ts";
import { StacyError } from "../host/error.ts";

/** Whether a name is meant. */
export interface Fits {
  (name: string): boolean;
  /** The same, to be left for a while at each step: there may be much to do, and others want to be served between. */
  steps(name: string): Generator<undefined, boolean>;
}

/** Places that are looked at in a step: some hundred microseconds. */
const STEP = 1_024;

/** What one place of a pattern means. */
export type Token =
  /** One character. */
  | { is: "one"; fits: (c: string) => boolean }
  /** Any number of them. */
  | { is: "run"; fits: (c: string) => boolean }
  /** Nothing, or whatever ends with a slash. */
  | { is: "directories" };

export const anything = (): boolean => true;
export const butSlash = (c: string): boolean => c !== "/";

export function literal(character: string): Token {
  return { is: "one", fits: (c) => c === character };
}

export class Glob {
  readonly #tokens: readonly Token[];

  constructor(tokens: readonly Token[]) {
    // Two runs of the same are one, and so are two of directories.
    this.#tokens = tokens.filter((token, at) => {
      const before = tokens[at - 1];
      if (token.is === "directories") return before?.is !== "directories";
      return !(token.is === "run" && before?.is === "run" && before.fits === token.fits);
    });
  }

  /** @param name what has the pattern. @throws StacyError `limit` for one that costs more than any name needs */
  assertShort(name: () => string): void {
    // What stands for more than one character costs something for each of a text.
    const wildcards = this.#tokens.filter(({ is }) => is !== "one").length;
    const { patternWildcards, patternLetters } = BUILD_BOUNDS;
    if (wildcards > patternWildcards)
      throw new StacyError("limit", `${name()} has more than ${patternWildcards} wildcards`, {
        remedy: "name directories in place of their files",
      });
    if (wildcards > 0 && this.#tokens.length > patternLetters)
      throw new StacyError("limit", `${name()} has more than ${patternLetters} letters`, {
        remedy: "one without wildcards may be longer",
      });
  }

  /** The same of a text that is read backwards. */
  reversed(): Glob {
    return new Glob(this.#tokens.toReversed());
  }

  /** @param spend told of the work, a place for a character @returns where the matches that begin at `from` end, in order */
  *ends(text: readonly string[], from: number, spend: (work: number) => void): Generator<number> {
    for (const end of this.#walk(text, from, spend)) if (end !== undefined) yield end;
  }

  /** Whether a match from the begin on ends where it may. */
  *meets(text: readonly string[], mayEnd: (end: number) => boolean): Generator<undefined, boolean> {
    for (const end of this.#walk(text, 0, () => {})) {
      if (end === undefined) yield;
      else if (mayEnd(end)) return true;
    }
    return false;
  }

  /** `undefined` is a step. */
  *#walk(text: readonly string[], from: number, spend: (work: number) => void): Generator<number | undefined> {
    const last = this.#tokens.length;
    let left = STEP;
    let [now, next] = [new Set<number>(), new Set<number>()];
    const entered = new Set<number>();
    this.#enter(now, 0, entered);
    for (let at = from; ; at++) {
      if (now.has(last)) yield at;
      const c = text[at];
      if (c === undefined || now.size === 0) return;
      spend(now.size);
      left -= now.size;
      if (left < 0) {
        left = STEP;
        yield undefined;
      }
      entered.clear();
      for (const place of now) {
        const token = this.#tokens[place];
        if (token === undefined) continue;
        if (token.is === "directories") {
          // In the middle of a name it only goes on.
          if (c === "/") this.#enter(next, place + 1, entered);
          next.add(place);
        } else if (token.fits(c)) this.#enter(next, token.is === "run" ? place : place + 1, entered);
      }
      [now, next] = [next, now];
      next.clear();
    }
  }

  /** Also the places behind what may be nothing. @param entered for this character already, with all behind them */
  #enter(places: Set<number>, place: number, entered: Set<number>): void {
    for (let at = place; !entered.has(at); at++) {
      entered.add(at);
      places.add(at);
      const token = this.#tokens[at];
      if (token === undefined || token.is === "one") return;
    }
  }
}

export function bySteps(steps: Fits["steps"]): Fits {
  const atOnce = (name: string): boolean => {
    const looking = steps(name);
    for (;;) {
      const { done, value } = looking.next();
      if (done === true) return value;
    }
  };
  return Object.assign(atOnce, { steps });
}

/**
 * A set of characters in brackets, from `at`, which is behind the bracket, as Go's filepath.Match has them.
 * @returns where it ends; `undefined`: it does not end, or holds nothing
 */
export function readSet(pattern: readonly string[], at: number): { token: Token; end: number } | undefined {
  const not = pattern[at] === "^";
  const ranges: [number, number][] = [];
  let i = not ? at + 1 : at;
  const one = (): number | undefined => {
    if (pattern[i] === "\\") i += 1;
    return pattern[i++]?.codePointAt(0);
  };
  while (pattern[i] !== "]") {
    const from = one();
    if (from === undefined) return undefined;
    const isRange = pattern[i] === "-" && pattern[i + 1] !== undefined && pattern[i + 1] !== "]";
    if (isRange) i += 1;
    const to = isRange ? one() : from;
    if (to === undefined) return undefined;
    ranges.push([from, to]);
  }
  if (ranges.length === 0) return undefined;
  const among = (c: string): boolean => {
    const code = c.codePointAt(0) ?? 0;
    return ranges.some(([from, to]) => from <= code && code <= to);
  };
  return { token: { is: "one", fits: (c) => butSlash(c) && among(c) !== not }, end: i + 1 };
}
