/**
 * The Dockerfile format (docs.docker.com, "Dockerfile reference") as a plan. What is not done here is refused by name and line,
 * because a build that leaves something out is worse than none.
 */
import { signalNumber } from "../../guest/signal-number.ts";
import { BUILD_BOUNDS } from "../../host/bounds.ts";
import { StacyError } from "../../host/error.ts";
import { ownValue } from "../../host/own-value.ts";
import type { ImageConfig } from "../../images/image.ts";
import { hostArchitecture } from "../../images/oci/documents.ts";
import { variablesOf } from "../configuration.ts";
import { isFileMode } from "../file-mode.ts";
import { type Origin, type Plan, SCRIPT, type Stage, type Step } from "../plan.ts";
import { type Instruction, isHeredoc, rawWords, readLines, words } from "./lines.ts";
import { substitute } from "./substitute.ts";

export interface DockerfileOptions {
  /** Values for `ARG`. */
  args?: Record<string, string>;
  /** Name or number of the stage that is wanted; default: the last. */
  target?: string;
}

type Variables = Map<string, string>;

/** What a stage hands to one that begins with it. */
interface Scope {
  variables: Variables;
  /** Of `ARG` after FROM: in the environment of RUN, not in the image. What RUN has been given never changes. */
  args: Readonly<Record<string, string>>;
  shell: readonly string[];
  onBuild: string[];
}

type ReadSection = Scope & { steps: Step[] };

interface Section {
  name: string;
  from: Origin;
  line: number;
  instructions: Instruction[];
}

const PLATFORM = `linux/${hostArchitecture}`;
/** Declared for every FROM; a stage declares them again with ARG. */
const PREDEFINED = new Map(
  ["TARGET", "BUILD"].flatMap((prefix): [string, string][] => [
    [`${prefix}PLATFORM`, PLATFORM],
    [`${prefix}OS`, "linux"],
    [`${prefix}ARCH`, hostArchitecture],
    [`${prefix}VARIANT`, ""],
  ]),
);
const DEFAULT_SHELL = ["/bin/sh", "-c"];
const PORT = /^(\d{1,5})(?:-(\d{1,5}))?(?:\/(?:tcp|udp|sctp))?$/i;
/** What a variable costs that is copied, in characters. */
const ENTRY = 16;

/** @throws StacyError `invalid`, `not-supported` */
export function readDockerfile(text: string, options: DockerfileOptions = {}): Plan {
  return new Dockerfile(text, options).plan();
}

class Dockerfile {
  readonly #options: DockerfileOptions;
  #left: number = BUILD_BOUNDS.work;
  readonly #escape: string;
  /** `ARG` before the first FROM. */
  readonly #declared: Variables = new Map(PREDEFINED);
  readonly #sections: Section[] = [];
  /** By the configuration that they begin with: a section is read once, however many stand on it. */
  readonly #done = new Map<ImageConfig | undefined, Map<Section, ReadSection>>();

  constructor(text: string, options: DockerfileOptions) {
    this.#options = options;
    if (text.length > BUILD_BOUNDS.planBytes) throw tooMuch("it is too long");
    const { instructions, escapeChar } = readLines(text);
    this.#escape = escapeChar;
    for (const instruction of instructions) this.#sort(instruction);
  }

  plan(): Plan {
    if (this.#sections.length === 0) throw new StacyError("invalid", "the Dockerfile has no FROM");
    // Mistakes show before a base is looked for, although what `$PATH` stands for is known once it is there.
    for (const section of this.#sections) this.#read(section, undefined);
    const many = this.#sections.length > 1;
    const stages = this.#sections.map(
      (section, i): Stage => ({
        name: many ? section.name || String(i) : "",
        from: section.from,
        steps: (root) => this.#read(section, root).steps,
      }),
    );
    return { stages, target: this.#target() };
  }

  #target(): number {
    const { target } = this.#options;
    if (target === undefined) return this.#sections.length - 1;
    const found = this.#stage(target) ?? -1;
    if (found >= 0) return found;
    throw new StacyError("not-found", `the Dockerfile has no stage ${target}`, {
      remedy: `it has ${this.#sections.map(({ name }, i) => name || i).join(", ")}`,
    });
  }

  /** Number of a stage by its name or number. @param before only stages above this one */
  #stage(name: string, before = this.#sections.length): number | undefined {
    const named = this.#sections.findLastIndex((section, i) => i < before && section.name === name.toLowerCase());
    if (named !== -1) return named;
    return /^\d+$/.test(name) && Number(name) < before ? Number(name) : undefined;
  }

  #sort(instruction: Instruction): void {
    const { name, rest, line } = instruction;
    if (name === "") throw new StacyError("invalid", `line ${line}: this is no instruction`);
    if (rest === "") throw failure(instruction, "says nothing");
    if (this.#sections.length > BUILD_BOUNDS.stages) throw tooMuch("it has too many stages");
    if (name === "FROM") this.#sections.push(this.#from(instruction));
    else if (this.#sections.length > 0) this.#sections.at(-1)?.instructions.push(instruction);
    else if (name === "ARG") {
      for (const { key, value } of declarations(instruction)) {
        const given =
          ownValue(this.#options.args ?? {}, key) ??
          (value === undefined ? undefined : this.#expand(value, instruction, this.#declared));
        if (given !== undefined) this.#declared.set(key, given);
      }
    } else throw failure(instruction, "comes before FROM");
  }

  #from(instruction: Instruction): Section {
    const { options, rest } = flags(instruction.rest);
    const [image, as, name, more] = rest.split(/\s+/);
    const wrong = as !== undefined && (as.toLowerCase() !== "as" || name === undefined || more !== undefined);
    if (image === undefined || image === "" || wrong) throw failure(instruction, "names no image");
    if (name !== undefined && !/^[A-Za-z][A-Za-z0-9_.-]*$/.test(name))
      throw failure(instruction, `${name} is no name of a stage`);
    for (const [option, value] of options) {
      const platform = option === "platform" ? this.#expand(value, instruction, this.#declared) : "";
      if (platform !== PLATFORM && platform !== "linux") {
        throw unsupported(
          instruction,
          `FROM --${option}${platform && `=${platform}`}`,
          `images are built for ${PLATFORM} here: leave the option out`,
        );
      }
    }
    const reference = this.#expand(image, instruction, this.#declared);
    if (reference === "") throw failure(instruction, `${image} is empty`);
    return {
      name: (name ?? "").toLowerCase(),
      from: this.#origin(reference),
      line: instruction.line,
      instructions: [],
    };
  }

  /** What `FROM` means: a stage by its name, else an image. */
  #origin(reference: string): Origin {
    const stage = this.#sections.findLastIndex(({ name }) => name === reference.toLowerCase());
    if (stage !== -1) return { kind: "stage", stage };
    return reference === "scratch" ? { kind: "nothing" } : { kind: "image", reference };
  }

  /** @param root `undefined`: only to find mistakes */
  #read(section: Section, root: ImageConfig | undefined): ReadSection {
    const done = this.#done.get(root) ?? new Map<Section, ReadSection>();
    this.#done.set(root, done);
    const read = done.get(section) ?? this.#readAnew(section, root);
    done.set(section, read);
    return read;
  }

  #readAnew(section: Section, root: ImageConfig | undefined): ReadSection {
    const { from } = section;
    const below = from.kind === "stage" ? this.#sections[from.stage] : undefined;
    const inherited = below === undefined ? undefined : this.#read(below, root);
    const reader = new SectionReader({
      scope: {
        variables: new Map(inherited?.variables ?? (root && variablesOf(root))),
        args: inherited?.args ?? {},
        shell: inherited?.shell ?? DEFAULT_SHELL,
        onBuild: [],
      },
      declared: this.#declared,
      given: this.#options.args ?? {},
      escapeChar: this.#escape,
      lenient: root === undefined,
      spend: this.#spend,
      stageOf: (name) => this.#stage(name, this.#sections.indexOf(section)),
    });
    this.#spend(ENTRY * reader.scope.variables.size);
    const triggers = (inherited === undefined ? root?.onBuild : inherited.onBuild) ?? [];
    for (const trigger of triggers) {
      for (const instruction of readLines(trigger).instructions) reader.read({ ...instruction, line: section.line });
    }
    for (const instruction of section.instructions) reader.read(instruction);
    return { ...reader.scope, steps: reader.steps };
  }

  #expand(text: string, instruction: Instruction, variables: Variables): string {
    const fail = (why: string): StacyError => failure(instruction, why);
    return substitute(text, { variables, escapeChar: this.#escape, fail, spend: this.#spend });
  }

  /** Variables may hold many others, and stages stand on many: a short file can ask for any amount of work. */
  readonly #spend = (work: number): void => {
    this.#left -= work;
    if (this.#left < 0) throw tooMuch("its variables and steps become too long");
  };
}

interface SectionOptions {
  scope: Scope;
  declared: ReadonlyMap<string, string>;
  given: Record<string, string>;
  escapeChar: string;
  lenient: boolean;
  spend: (work: number) => void;
  stageOf: (name: string) => number | undefined;
}

/** One stage's instructions, in order. */
class SectionReader {
  readonly scope: Scope;
  readonly steps: Step[] = [];
  readonly #options: SectionOptions;
  #count = 0;

  constructor(options: SectionOptions) {
    this.scope = options.scope;
    this.#options = options;
  }

  read(instruction: Instruction): void {
    const { name, rest, line } = instruction;
    if (++this.#count > BUILD_BOUNDS.steps) throw tooMuch(`a stage has more than ${BUILD_BOUNDS.steps} instructions`);
    this.#options.spend(rest.length);
    const text = `${name} ${rest}`;
    const at = { text: text.length > 200 ? `${text.slice(0, 199)}…` : text, line };
    const fail = (why: string): StacyError => failure(instruction, why);
    const expand = (value: string): string => this.#expand(value, instruction);
    /** What variables of the base stand for is not known while mistakes are looked for. */
    const sure = !this.#options.lenient || !rest.includes("$");
    const argv = (): string[] => jsonWords(rest) ?? this.#byShell(rest);
    switch (name) {
      case "ARG":
        this.#declare(instruction);
        break;
      case "RUN":
        this.#run(instruction, at);
        break;
      case "COPY":
      case "ADD":
        this.#copy(instruction, at);
        break;
      case "ENV":
      case "LABEL":
        this.#assign(instruction, at);
        break;
      case "MAINTAINER":
        this.steps.push({ kind: "label", labels: { maintainer: rest }, ...at });
        break;
      case "WORKDIR":
        this.steps.push({ kind: "workdir", path: expand(rest), ...at });
        break;
      case "USER":
        this.steps.push({ kind: "user", user: expand(rest), ...at });
        break;
      case "CMD":
        this.steps.push({ kind: "cmd", argv: argv(), ...at });
        break;
      case "ENTRYPOINT":
        this.steps.push({ kind: "entrypoint", argv: argv(), ...at });
        break;
      case "EXPOSE": {
        const ports = words({ ...instruction, rest }, fail).flatMap((word) => expand(word).split(/\s+/));
        const odd = ports.find((port) => !isPort(port));
        if (odd !== undefined && sure)
          throw fail(`${odd === "" ? "a port is empty" : `${odd} is no port`}: write it like 80, 53/udp or 8000-8010`);
        this.steps.push({ kind: "expose", ports: ports.flatMap((port) => this.#each(port)), ...at });
        break;
      }
      case "STOPSIGNAL": {
        const signal = expand(rest);
        if (signalNumber(signal) === undefined && sure)
          throw fail(`${signal || "nothing"} is no signal: write it like SIGQUIT or 3`);
        this.steps.push({ kind: "stop-signal", signal, ...at });
        break;
      }
      case "VOLUME": {
        const paths = (jsonWords(rest) ?? words({ ...instruction, rest }, fail)).map(expand);
        const odd = paths.find((path) => !path.startsWith("/"));
        if (odd !== undefined && sure) throw fail(`${odd === "" ? "a path is empty" : `${odd} is not absolute`}`);
        this.steps.push({ kind: "volume", paths, ...at });
        break;
      }
      case "SHELL": {
        const given = jsonWords(rest);
        if (given === undefined || given.length === 0) throw fail('must be a list like ["/bin/bash", "-c"]');
        this.scope.shell = given;
        break;
      }
      case "HEALTHCHECK":
        if (rest.trim().toUpperCase() !== "NONE") {
          throw unsupported(
            instruction,
            "HEALTHCHECK",
            "take it out: nothing here would run it; ask with `stacyvm exec`",
          );
        }
        break;
      case "ONBUILD": {
        const [trigger = ""] = rest.split(/\s/);
        if (/^(ONBUILD|FROM|MAINTAINER)$/i.test(trigger)) throw fail(`${trigger} cannot be put off`);
        const [inner] = readLines(rest).instructions;
        if (inner === undefined || inner.name === "") throw fail("holds no instruction");
        this.scope.onBuild = [...this.scope.onBuild, rest];
        this.steps.push({ kind: "on-build", instruction: rest, ...at });
        break;
      }
      default:
        throw unsupported(instruction, `the instruction ${name}`, "take it out of the file");
    }
  }

  /** Of a range, as image configurations have ports. */
  #each(ports: string): string[] {
    if (!isPort(ports)) return [ports];
    const [numbers = "", protocol = "tcp"] = ports.toLowerCase().split("/");
    const [first = 0, last = first] = numbers.split("-").map(Number);
    this.#options.spend(ENTRY * (last - first));
    return Array.from({ length: last - first + 1 }, (_, i) => `${first + i}/${protocol}`);
  }

  /** Each step has its own. */
  #byShell(script: string): string[] {
    for (const word of this.scope.shell) this.#options.spend(word.length);
    return [...this.scope.shell, script];
  }

  #expand(text: string, instruction: Instruction, quotes = false): string {
    const { escapeChar, lenient, spend } = this.#options;
    const fail = (why: string): StacyError => failure(instruction, why);
    return substitute(text, { variables: this.scope.variables, escapeChar, fail, lenient, quotes, spend });
  }

  #declare(instruction: Instruction): void {
    const { variables } = this.scope;
    const { declared, given, spend } = this.#options;
    spend(ENTRY * Object.keys(this.scope.args).length);
    const args = { ...this.scope.args };
    this.scope.args = args;
    for (const { key, value } of declarations(instruction)) {
      const chosen =
        ownValue(given, key) ?? (value === undefined ? declared.get(key) : this.#expand(value, instruction));
      if (chosen === undefined) continue;
      // An ENV of the same name wins.
      if (variables.has(key) && !Object.hasOwn(args, key)) continue;
      variables.set(key, chosen);
      args[key] = chosen;
    }
  }

  /** An ENV of the same name wins. */
  #forgetArgs(names: readonly string[]): void {
    const { args } = this.scope;
    if (!names.some((name) => Object.hasOwn(args, name))) return;
    this.#options.spend(ENTRY * Object.keys(args).length);
    const left = { ...args };
    for (const name of names) delete left[name];
    this.scope.args = left;
  }

  #run(instruction: Instruction, at: { text: string; line: number }): void {
    const { options, rest } = flags(instruction.rest);
    for (const [option, value] of options) {
      const usual = (option === "network" && value === "default") || (option === "security" && value === "sandbox");
      if (!usual) throw unsupported(instruction, `RUN --${option}`, "leave the option out");
    }
    if (rest === "") throw failure(instruction, "says nothing");
    const { heredocs } = instruction;
    const env = this.scope.args;
    for (const [key, value] of Object.entries(env)) this.#options.spend(ENTRY + key.length + value.length);
    const push = (argv: string[], script?: string): void => {
      this.steps.push({ kind: "run", argv, env, ...(script === undefined ? {} : { script }), ...at });
    };
    const [only] = heredocs;
    if (only === undefined) push(jsonWords(rest) ?? this.#byShell(rest));
    else if (heredocs.length === 1 && rawWords({ ...instruction, rest }).length === 1 && isHeredoc(rest)) {
      if (only.content.startsWith("#!")) push([SCRIPT], only.content);
      else push(this.#byShell(only.content));
    } else {
      // The shell reads them itself.
      const whole = heredocs.reduce((text, { name, content }) => `${text}\n${content}${name}`, rest);
      push(this.#byShell(whole));
    }
  }

  #copy(instruction: Instruction, at: { text: string; line: number }): void {
    const { name, heredocs } = instruction;
    const fail = (why: string): StacyError => failure(instruction, why);
    const expand = (value: string): string => this.#expand(value, instruction);
    const { options, rest } = flags(instruction.rest);
    for (const option of options.keys()) {
      const known = ["chown", "chmod", "link", ...(name === "COPY" ? ["from"] : [])];
      if (!known.includes(option))
        throw unsupported(instruction, `${name} --${option}`, "leave the option out, and do the rest with RUN");
    }
    const paths = jsonWords(rest) ?? words({ ...instruction, rest }, fail);
    const to = paths.pop();
    if (to === undefined || paths.length === 0) throw fail("needs a source and a destination");
    let next = 0;
    const sources = paths.map((path) => {
      const heredoc = isHeredoc(path) ? heredocs[next++] : undefined;
      if (heredoc === undefined) return expand(path);
      const { content } = heredoc;
      return { name: heredoc.name, content: heredoc.expand ? this.#expand(content, instruction, true) : content };
    });
    if (name === "ADD") for (const source of sources) if (typeof source === "string") refuseRemote(instruction, source);
    const owner = options.get("chown");
    const mode = options.has("chmod") ? expand(options.get("chmod") ?? "") : undefined;
    const octal = mode !== undefined && /^[0-7]+$/.test(mode);
    if (mode !== undefined && !isFileMode(mode) && (!this.#options.lenient || !instruction.rest.includes("$")))
      throw fail(`--chmod=${mode} is no mode: write it like 755, u=rwX,go=rX or +x`);
    const from = options.has("from") ? this.#source(expand(options.get("from") ?? ""), instruction) : undefined;
    if (from !== undefined && heredocs.length > 0) throw fail("--from and a here-document exclude each other");
    this.steps.push({
      kind: "copy",
      sources,
      to: expand(to),
      ...(from === undefined ? {} : { from }),
      ...(owner === undefined ? {} : { owner: expand(owner) }),
      ...(mode === undefined ? {} : { mode: octal ? Number.parseInt(mode, 8) : mode }),
      ...(name === "ADD" ? { unpack: true } : {}),
      ...at,
    });
  }

  /** What `COPY --from` means: a stage above, else an image. */
  #source(name: string, instruction: Instruction): Exclude<Origin, { kind: "nothing" }> {
    const stage = this.#options.stageOf(name);
    if (stage !== undefined) return { kind: "stage", stage };
    if (name === "" || /^\d+$/.test(name)) throw failure(instruction, `there is no stage ${name} above`);
    return { kind: "image", reference: name };
  }

  #assign(instruction: Instruction, at: { text: string; line: number }): void {
    const { name, rest } = instruction;
    const fail = (why: string): StacyError => failure(instruction, why);
    const found: [key: string, value: string][] = [];
    const list = words({ ...instruction, rest }, fail);
    if (list[0]?.includes("=")) {
      for (const { key, value } of list.map(assignment)) {
        if (value === undefined) throw fail(`${key} has no value`);
        found.push([this.#expand(key, instruction), this.#expand(value, instruction)]);
      }
    } else {
      // The old form: one name, and the rest of the line is its value.
      const match = /^(\S+)\s+(.*)$/s.exec(rest);
      if (match === null) throw fail("has no value");
      found.push([match[1] ?? "", this.#expand(match[2] ?? "", instruction)]);
    }
    const values = Object.fromEntries(found);
    if (name === "LABEL") {
      for (const [key] of found) {
        if (key === "") throw fail("a name is empty");
        if (key === "__proto__") throw fail(`${key} is no name that a label may have here`);
      }
      this.steps.push({ kind: "label", labels: values, ...at });
      return;
    }
    for (const [key, value] of Object.entries(values)) {
      if (!isName(key)) throw fail(key === "" ? "a name is empty" : `${key} is no name of a variable`);
      this.scope.variables.set(key, value);
    }
    this.#forgetArgs(Object.keys(values));
    this.steps.push({ kind: "env", env: values, ...at });
  }
}

function refuseRemote(instruction: Instruction, source: string): void {
  const git = /^git@|^git:\/\/|^ssh:\/\//.test(source) || source.endsWith(".git") || source.includes(".git#");
  if (git && /[:/]/.test(source)) {
    throw unsupported(
      instruction,
      `ADD of the git source ${source}`,
      "clone it beside the file and COPY it, or RUN git clone with `--allow HOST`",
    );
  }
  if (/^[a-z]+:\/\//i.test(source)) {
    throw unsupported(
      instruction,
      `ADD of the URL ${source}`,
      "download it beside the file and COPY it, or with RUN and `--allow HOST`",
    );
  }
}

function tooMuch(why: string): StacyError {
  return new StacyError("limit", `the Dockerfile asks for more than is allowed: ${why}`, {
    remedy: "make it shorter, or put what is long into a script that it runs",
  });
}

function failure({ name, line }: Instruction, why: string): StacyError {
  return new StacyError("invalid", `line ${line}: ${name}: ${why}`);
}

function unsupported({ line }: Instruction, what: string, remedy: string): StacyError {
  return new StacyError("not-supported", `line ${line}: ${what} is not supported`, { remedy });
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

interface Assignment {
  key: string;
  value: string | undefined;
}

function assignment(word: string): Assignment {
  const at = word.indexOf("=");
  return at === -1 ? { key: word, value: undefined } : { key: word.slice(0, at), value: word.slice(at + 1) };
}

function declarations(instruction: Instruction): Assignment[] {
  return words(instruction, (why) => failure(instruction, why)).map((word) => {
    const one = assignment(word);
    if (!isName(one.key))
      throw failure(instruction, one.key === "" ? "a name is empty" : `${one.key} is no name of a variable`);
    return one;
  });
}

function flags(text: string): { options: Map<string, string>; rest: string } {
  const options = new Map<string, string>();
  const rest = text.replace(/^\s*(?:--[a-z-]+(?:=\S*)?(?:\s+|$))*/, (all) => {
    for (const flag of all.split(/\s+/).filter((word) => word !== "")) {
      const { key, value } = assignment(flag.slice(2));
      options.set(key, value ?? "");
    }
    return "";
  });
  return { options, rest };
}

/** Whatever the system takes, as engines do: `discovery.type` is a name, although no shell can read it. */
function isName(text: string): boolean {
  return text !== "" && !/[=\0]/.test(text);
}

/** A port, or a range of them, with a protocol or without. */
function isPort(text: string): boolean {
  const [, first, last = first] = PORT.exec(text) ?? [];
  return first !== undefined && Number(first) <= Number(last) && Number(last) <= 65_535;
}
