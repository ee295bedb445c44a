/**
 * Variables in a Dockerfile's words (docs.docker.com, "Environment replacement"): `$NAME`, `${NAME}`, `${NAME:-word}` and the
 * other forms with `-`, `+`, `?`, with or without the colon; `#`, `##`, `%`, `%%` take a pattern away from an end, `/` and `//`
 * replace one. Quotes and escapes go.
 */
import type { StacyError } from "../../host/error.ts";

export interface Scope {
  variables: ReadonlyMap<string, string>;
  escapeChar: string;
  fail: (why: string) => StacyError;
  /** Not all variables are known yet: `${NAME:?why}` is no error. */
  lenient?: boolean;
  /** Quotes are ordinary characters: in here-documents. */
  quotes?: boolean;
}

export function substitute(text: string, scope: Scope): string {
  return new Reader(text, scope).read("");
}

class Reader {
  readonly #text: string;
  readonly #scope: Scope;
  #at = 0;

  constructor(text: string, scope: Scope) {
    this.#text = text;
    this.#scope = scope;
  }

  /** Up to one of the characters of `stop` outside of quotes, or to the end where that is empty. */
  read(stop: string, pattern = false): string {
    let out = "";
    let quote = "";
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
        out += kept ? `${c}${next}` : next;
      } else if ((c === '"' || c === "'") && this.#scope.quotes !== true && (quote === "" || quote === c)) {
        quote = quote === "" ? c : "";
      } else if (c === "$" && quote !== "'") out += this.#variable();
      else out += c;
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
    const value = this.#form(name, rest);
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
        return (value ?? "").replace(glob(pattern, "", "", operator === "//" ? "g" : ""), () => by);
      }
      case "#":
        return trimStart(value ?? "", this.read("}", true), operator === "##");
      default:
        return trimEnd(value ?? "", this.read("}", true), operator === "%%");
    }
  }

  #unknown(rest: string): StacyError {
    return this.#scope.fail(`${"$"}${rest.slice(0, 20)} is not a form of substitution that is known here`);
  }
}

/** A shell's pattern, with `*` and `?`, as a regular expression. */
function glob(pattern: string, before: string, after: string, flags = ""): RegExp {
  const source = pattern.replace(/\\([\s\S])|[\s\S]/g, (c, escaped: string | undefined) => {
    if (escaped !== undefined) return escaped.replace(/[^A-Za-z0-9]/g, "\\$&");
    return c === "*" ? "[\\s\\S]*" : c === "?" ? "[\\s\\S]" : c.replace(/[^A-Za-z0-9]/g, "\\$&");
  });
  return new RegExp(`${before}${source}${after}`, flags);
}

function trimStart(value: string, pattern: string, longest: boolean): string {
  const fits = glob(pattern, "^(?:", ")$");
  const lengths = Array.from({ length: value.length + 1 }, (_, n) => (longest ? value.length - n : n));
  const cut = lengths.find((length) => fits.test(value.slice(0, length)));
  return cut === undefined ? value : value.slice(cut);
}

function trimEnd(value: string, pattern: string, longest: boolean): string {
  const fits = glob(pattern, "^(?:", ")$");
  const starts = Array.from({ length: value.length + 1 }, (_, n) => (longest ? n : value.length - n));
  const cut = starts.find((at) => fits.test(value.slice(at)));
  return cut === undefined ? value : value.slice(0, cut);
}
