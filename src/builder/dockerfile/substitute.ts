/**
 * Variables in a Dockerfile's words (docs.docker.com, "Environment replacement"): `$NAME`, `${NAME}`, `${NAME:-word}` and the
 * other forms with `-`, `+`, `?`, with or without the colon; `#`, `##`, `%`, `%%` take a pattern away from an end, `/` and `//`
 * replace one. Quotes and escapes go.
 */
import type { StacyError } from "../../host/error.ts";
import { anything, Glob, literal, type Token } from "../glob.ts";

export interface Scope {
  variables: Pick<ReadonlyMap<string, string>, "get">;
  escapeChar: string;
  fail: (why: string) => StacyError;
  /** Not all variables are known yet: `${NAME:?why}` is no error. */
  lenient?: boolean;
  /** Quotes are ordinary characters: in here-documents. */
  quotes?: boolean;
  /** Told of each character that is made, and of what is looked at for it. @throws StacyError when it is too much */
  spend: (work: number) => void;
}

export function substitute(text: string, scope: Scope): string {
  return new Reader(text, scope).read("");
}

/** Braces in one another. */
const MOST_DEEP = 100;

class Reader {
  readonly #text: string;
  readonly #scope: Scope;
  #at = 0;
  #depth = 0;

  constructor(text: string, scope: Scope) {
    this.#text = text;
    this.#scope = scope;
  }

  /** Up to one of the characters of `stop` outside of quotes, or to the end where that is empty. */
  read(stop: string, pattern = false): string {
    let out = "";
    let quote = "";
    // Before it is there: a variable can be large, and its name short.
    const append = (piece: string): void => {
      this.#scope.spend(piece.length);
      out += piece;
    };
    for (;;) {
      const c = this.#text.charAt(this.#at);
      if (c === "") {
        if (quote !== "") throw this.#scope.fail("a quote is not closed");
        if (stop !== "") throw this.#scope.fail("a brace is not closed");
        return out;
      }
      if (quote === "" && stop.includes(c)) return out;
      this.#at++;
      if (c === this.#scope.escapeChar && quote !== "'") {
        const next = this.#text.charAt(this.#at++);
        const kept = pattern || (quote === '"' && !`"$${this.#scope.escapeChar}`.includes(next));
        append(kept ? `${c}${next}` : next);
      } else if ((c === '"' || c === "'") && this.#scope.quotes !== true && (quote === "" || quote === c)) {
        quote = quote === "" ? c : "";
      } else if (c === "$" && quote !== "'") append(this.#variable());
      else append(c);
    }
  }

  #variable(): string {
    const { variables } = this.#scope;
    const rest = this.#text.slice(this.#at);
    const braced = rest.startsWith("{");
    const name = /^[A-Za-z_][A-Za-z0-9_]*/.exec(braced ? rest.slice(1) : rest)?.[0];
    if (name === undefined) {
      if (braced) throw this.#unknown(rest);
      return "$";
    }
    this.#at += name.length + (braced ? 1 : 0);
    if (!braced) return variables.get(name) ?? "";
    if (++this.#depth > MOST_DEEP) throw this.#scope.fail("there are too many braces in one another");
    const value = this.#form(name, rest);
    this.#depth -= 1;
    this.#at++; // the brace
    return value;
  }

  /** What follows the name in braces. */
  #form(name: string, rest: string): string {
    const { variables, fail, lenient } = this.#scope;
    const value = variables.get(name);
    const [operator] = /^(?::[-+?]|[-+?]|##?|%%?|\/\/?|\})/.exec(this.#text.slice(this.#at)) ?? [];
    if (operator === "}") return value ?? "";
    if (operator === undefined) throw this.#unknown(rest);
    this.#at += operator.length;
    const isSet = operator.startsWith(":") ? value !== undefined && value !== "" : value !== undefined;
    switch (operator.at(-1)) {
      case "-": {
        const word = this.read("}");
        return isSet ? (value ?? "") : word;
      }
      case "+": {
        const word = this.read("}");
        return isSet ? word : "";
      }
      case "?": {
        const word = this.read("}");
        if (!isSet && lenient !== true) throw fail(`${name}: ${word === "" ? "is not set" : word}`);
        return value ?? "";
      }
      case "/": {
        const pattern = this.read("/}", true);
        let by = "";
        if (this.#text.charAt(this.#at) === "/") {
          this.#at++;
          by = this.read("}");
        }
        return replaced(value ?? "", pattern, by, operator === "//", this.#scope.spend);
      }
      case "#":
        return trimStart(value ?? "", this.read("}", true), operator === "##", this.#scope.spend);
      default:
        return trimEnd(value ?? "", this.read("}", true), operator === "%%", this.#scope.spend);
    }
  }

  #unknown(rest: string): StacyError {
    return this.#scope.fail(`${"$"}${rest.slice(0, 20)} is not a form of substitution that is known here`);
  }
}

/** A shell's pattern, with `*` and `?`. */
function glob(pattern: string): Glob {
  const characters = [...pattern];
  const tokens: Token[] = [];
  for (let at = 0; at < characters.length; at++) {
    const c = characters[at] as string;
    const escaped = c === "\\" ? characters[at + 1] : undefined;
    if (escaped !== undefined) at += 1;
    if (escaped !== undefined) tokens.push(literal(escaped));
    else
      tokens.push(c === "*" ? { is: "run", fits: anything } : c === "?" ? { is: "one", fits: anything } : literal(c));
  }
  return new Glob(tokens);
}

function trimStart(value: string, pattern: string, longest: boolean, spend: Scope["spend"]): string {
  spend(value.length);
  const text = [...value];
  return text.slice(endOf(glob(pattern), text, longest, spend) ?? 0).join("");
}

function trimEnd(value: string, pattern: string, longest: boolean, spend: Scope["spend"]): string {
  spend(value.length);
  const text = [...value];
  const backwards = text.toReversed();
  return text.slice(0, text.length - (endOf(glob(pattern).reversed(), backwards, longest, spend) ?? 0)).join("");
}

function endOf(
  pattern: Glob,
  text: readonly string[],
  longest: boolean,
  spend: Scope["spend"],
  from = 0,
): number | undefined {
  let found: number | undefined;
  for (const end of pattern.ends(text, from, spend)) {
    found = end;
    if (!longest) break;
  }
  return found;
}

/** Of the first places, or all of them, that the pattern means, as much as it can. */
function replaced(value: string, pattern: string, by: string, all: boolean, spend: Scope["spend"]): string {
  spend(value.length);
  const text = [...value];
  const fits = glob(pattern);
  let out = "";
  let before = -1;
  for (let at = 0; at <= text.length; ) {
    const end = endOf(fits, text, true, spend, at);
    // Nothing right behind what was replaced is not replaced again.
    const found = end !== undefined && !(end === at && at === before);
    if (found) {
      spend(by.length);
      out += by;
      if (!all) return out + text.slice(end).join("");
      before = end;
    }
    if (found && end > at) at = end;
    else out += text[at++] ?? "";
  }
  return out;
}
