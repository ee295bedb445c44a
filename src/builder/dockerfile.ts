/**
 * The common part of the Dockerfile format (docs.docker.com, "Dockerfile reference"): FROM (one stage), RUN, COPY, ENV, ARG,
 * WORKDIR, USER, CMD, ENTRYPOINT, LABEL, EXPOSE, STOPSIGNAL, SHELL. Everything else is refused by name and line, because a
 * build that leaves something out is worse than none.
 */
import { StacyError } from "../host/error.ts";
import type { Plan, Step } from "./plan.ts";

interface Instruction {
  name: string;
  rest: string;
  line: number;
}

type Variables = Map<string, string>;

/** @throws StacyError `invalid`, `not-supported` */
export function readDockerfile(text: string, args: Record<string, string>): Plan {
  const instructions = split(text);
  const { from } = interpret(instructions, args, []);
  // What `$PATH` stands for is known once the base image is.
  return { from, steps: ({ env }) => interpret(instructions, args, env).steps };
}

function interpret(
  instructions: readonly Instruction[],
  args: Record<string, string>,
  env: readonly string[],
): { from: string; steps: Step[] } {
  const declared = new Map<string, string>();
  const steps: Step[] = [];
  const variables: Variables = new Map(
    env.map((entry) => [entry.split("=", 1)[0] ?? "", entry.replace(/^[^=]*=/, "")]),
  );
  /** Of `ARG` after FROM: in the environment of RUN, not in the image. */
  const buildArgs: Record<string, string> = {};
  let from: string | undefined;
  let shell = ["/bin/sh", "-c"];
  for (const { name, rest, line } of instructions) {
    const fail = (why: string): StacyError => new StacyError("invalid", `line ${line}: ${name}: ${why}`);
    const unsupported = (what: string, remedy: string): StacyError =>
      new StacyError("not-supported", `line ${line}: ${what} is not supported`, { remedy });
    const text = `${name} ${rest}`;
    const at = { text: text.length > 200 ? `${text.slice(0, 199)}…` : text, line };
    const expand = (value: string): string => substitute(value, variables, fail);
    const argv = (): string[] => jsonWords(rest) ?? [...shell, rest];
    if (name === "") throw new StacyError("invalid", `line ${line}: this is no instruction`);
    if (rest === "") throw fail("says nothing");
    if (from === undefined && name !== "FROM" && name !== "ARG") throw fail("comes before FROM");
    switch (name) {
      case "FROM": {
        if (from !== undefined) {
          throw unsupported("a second FROM", "build each stage as an image of its own, and begin the next one FROM it");
        }
        const [image, as] = rest.split(/\s+/);
        if (image?.startsWith("--") === true) throw unsupported(`FROM ${image}`, "leave the option out");
        if (image === undefined || (as !== undefined && as.toLowerCase() !== "as")) throw fail("names no image");
        from = substitute(image, declared, fail);
        if (from === "scratch") throw unsupported("FROM scratch", "import the files with `stacyvm image import`");
        break;
      }
      case "ARG": {
        for (const { key, value } of words(rest, fail).map(assignment)) {
          if (!isName(key)) throw fail(`${key} is no name of a variable`);
          const given = args[key] ?? (value === undefined ? declared.get(key) : substitute(value, variables, fail));
          if (from === undefined) {
            if (given !== undefined) declared.set(key, given);
          } else if (given !== undefined) {
            // An ENV of the same name wins.
            if (variables.has(key) && !(key in buildArgs)) continue;
            variables.set(key, given);
            buildArgs[key] = given;
          }
        }
        break;
      }
      case "RUN": {
        if (rest.startsWith("--")) throw unsupported(`RUN ${rest.split(/\s/)[0]}`, "leave the option out");
        if (/<<-?["']?[A-Za-z_]/.test(rest)) throw unsupported("a here-document", "write a script and COPY it");
        steps.push({ kind: "run", argv: argv(), env: { ...buildArgs }, ...at });
        break;
      }
      case "COPY": {
        const { options, rest: paths } = flags(rest);
        for (const option of options.keys()) {
          if (option !== "chown" && option !== "chmod") {
            throw unsupported(`COPY --${option}`, "copy from the build's own files only");
          }
        }
        const list = (jsonWords(paths) ?? words(paths, fail)).map(expand);
        const to = list.pop();
        if (to === undefined || list.length === 0) throw fail("needs a source and a destination");
        const owner = options.get("chown");
        const mode = options.get("chmod");
        if (mode !== undefined && !/^[0-7]{3,4}$/.test(mode)) throw fail("--chmod must be an octal number");
        steps.push({
          kind: "copy",
          sources: list,
          to,
          ...(owner === undefined ? {} : { owner: expand(owner) }),
          ...(mode === undefined ? {} : { mode: Number.parseInt(mode, 8) }),
          ...at,
        });
        break;
      }
      case "ENV":
      case "LABEL": {
        const values: Record<string, string> = {};
        const [first = ""] = words(rest, fail);
        if (first.includes("=")) {
          for (const { key, value } of words(rest, fail).map(assignment)) values[expand(key)] = expand(value ?? "");
        } else {
          // The old form: one name, and the rest of the line is its value.
          const match = /^(\S+)\s+(.*)$/s.exec(rest);
          if (match === null) throw fail("has no value");
          values[match[1] ?? ""] = expand(match[2] ?? "");
        }
        if (name === "LABEL") {
          steps.push({ kind: "label", labels: values, ...at });
          break;
        }
        for (const [key, value] of Object.entries(values)) {
          if (!isName(key)) throw fail(`${key} is no name of a variable`);
          variables.set(key, value);
          delete buildArgs[key];
        }
        steps.push({ kind: "env", env: values, ...at });
        break;
      }
      case "WORKDIR":
        steps.push({ kind: "workdir", path: expand(rest), ...at });
        break;
      case "USER":
        steps.push({ kind: "user", user: expand(rest), ...at });
        break;
      case "CMD":
        steps.push({ kind: "cmd", argv: argv(), ...at });
        break;
      case "ENTRYPOINT":
        steps.push({ kind: "entrypoint", argv: argv(), ...at });
        break;
      case "EXPOSE":
        steps.push({
          kind: "expose",
          ports: words(rest, fail).map((word) => (word.includes("/") ? expand(word) : `${expand(word)}/tcp`)),
          ...at,
        });
        break;
      case "STOPSIGNAL":
        steps.push({ kind: "stop-signal", signal: expand(rest), ...at });
        break;
      case "SHELL": {
        const given = jsonWords(rest);
        if (given === undefined || given.length === 0) throw fail('must be a list like ["/bin/bash", "-c"]');
        shell = given;
        break;
      }
      case "ADD":
        throw unsupported("ADD", "use COPY; download or unpack with RUN");
      default:
        throw unsupported(`the instruction ${name}`, "take it out of the file");
    }
  }
  if (from === undefined) throw new StacyError("invalid", "the Dockerfile has no FROM");
  return { from, steps };
}

/** Lines joined at their continuations; comments go, also between continued lines. */
function split(text: string): Instruction[] {
  const lines = text.replace(/^\uFEFF/, "").split(/\r?\n/);
  const directive = /^\s*#\s*escape\s*=\s*(\S)/i.exec(lines.find((line) => line.trim() !== "") ?? "");
  const continuation = directive?.[1] ?? "\\";
  const found: Instruction[] = [];
  let current = "";
  let begin = 0;
  lines.forEach((line, i) => {
    if (/^\s*#/.test(line) || (line.trim() === "" && current !== "")) return;
    if (line.trim() === "") return;
    if (current === "") begin = i + 1;
    const continues = line.trimEnd().endsWith(continuation);
    current += continues ? line.trimEnd().slice(0, -1) : line;
    if (continues && i < lines.length - 1) return;
    const match = /^\s*([A-Za-z]+)(?:\s+([\s\S]*?))?\s*$/.exec(current);
    const [, name = "", rest = ""] = match ?? [];
    found.push({ name: name.toUpperCase(), rest, line: begin });
    current = "";
  });
  return found;
}

/** The form `["a", "b"]`; `undefined` when it is not one. */
function jsonWords(text: string): string[] | undefined {
  if (!text.trimStart().startsWith("[")) return undefined;
  try {
    const list: unknown = JSON.parse(text);
    if (Array.isArray(list) && list.every((word) => typeof word === "string")) return list;
  } catch {
    // Docker takes it for a shell command too.
  }
  return undefined;
}

const WORD = /(?:\\[\s\S]|"(?:\\[\s\S]|[^"\\])*"|'[^']*'|[^\s"'\\])+/g;

/** Words with quotes kept: they matter to `substitute`, which removes them. */
function words(text: string, fail: (why: string) => StacyError): string[] {
  if (text.replace(WORD, "").trim() !== "") throw fail("a quote is not closed");
  return text.match(WORD) ?? [];
}

function assignment(word: string): { key: string; value: string | undefined } {
  const at = word.indexOf("=");
  return at === -1 ? { key: word, value: undefined } : { key: word.slice(0, at), value: word.slice(at + 1) };
}

function flags(text: string): { options: Map<string, string>; rest: string } {
  const options = new Map<string, string>();
  const rest = text.replace(/^(?:--[a-z-]+(?:=\S*)?\s+)*/, (all) => {
    for (const flag of all.split(/\s+/).filter((word) => word !== "")) {
      const { key, value } = assignment(flag.slice(2));
      options.set(key, value ?? "");
    }
    return "";
  });
  return { options, rest };
}

function isName(text: string): boolean {
  return /^[A-Za-z_][A-Za-z0-9_]*$/.test(text);
}

/** `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME:+other}`, escapes and quotes. */
function substitute(text: string, variables: Variables, fail: (why: string) => StacyError): string {
  let out = "";
  let quote = "";
  for (let i = 0; i < text.length; i++) {
    const c = text.charAt(i);
    if (c === "\\" && quote !== "'") {
      i++;
      const next = text.charAt(i);
      out += quote === '"' && !'"$\\'.includes(next) ? `\\${next}` : next;
    } else if ((c === '"' || c === "'") && (quote === "" || quote === c)) {
      quote = quote === "" ? c : "";
    } else if (c === "$" && quote !== "'") {
      const rest = text.slice(i + 1);
      const braced = /^\{([A-Za-z_][A-Za-z0-9_]*)(?::([-+])([^}]*))?\}/.exec(rest);
      const plain = /^[A-Za-z_][A-Za-z0-9_]*/.exec(rest);
      if (braced !== null) {
        const [all, name = "", operator, word = ""] = braced;
        const value = variables.get(name) ?? "";
        if (operator === "-") out += value === "" ? substitute(word, variables, fail) : value;
        else if (operator === "+") out += value === "" ? "" : substitute(word, variables, fail);
        else out += value;
        i += all.length;
      } else if (plain !== null) {
        out += variables.get(plain[0]) ?? "";
        i += plain[0].length;
      } else if (rest.startsWith("{")) {
        throw fail(`${"$"}${rest.slice(0, 20)} is not a form of substitution that is known here`);
      } else out += c;
    } else out += c;
  }
  if (quote !== "") throw fail("a quote is not closed");
  return out;
}
