/** A build file: our own declarative form (YAML), or a Dockerfile, told apart by what is in it. */
import { isScalar, LineCounter, parseDocument, visit } from "yaml";
import { z } from "zod";
import { BUILD_BOUNDS } from "../host/bounds.ts";
import { StacyError } from "../host/error.ts";
import { schemaWords } from "../host/schema-words.ts";
import { type DockerfileOptions, readDockerfile } from "./dockerfile/dockerfile.ts";
import type { Origin, Plan, Step } from "./plan.ts";

const Text = z.string().min(1).max(65_536);
const Scalar = z.union([z.string(), z.number(), z.boolean()]).transform(String);
const Words = z.array(Scalar).min(1);
const Names = z.record(z.string().regex(/^[^=\0]+$/, "is no name of a variable"), Scalar);

const STEP = z.union([
  z.strictObject({ run: z.union([Text, Words]) }),
  z.strictObject({
    copy: z.union([
      z.array(Text).min(2),
      z.strictObject({
        from: z.union([Text, z.array(Text).min(1)]),
        to: Text,
        owner: Text.optional(),
        mode: z.union([z.string().regex(/^0?[0-7]{3,4}$/), z.int().min(0).max(0o7777)]).optional(),
      }),
    ]),
  }),
  z.strictObject({ env: Names }),
  z.strictObject({ workdir: Text }),
  z.strictObject({ user: z.union([Text, z.number()]).transform(String) }),
]);

/**
 * `steps` are done in order. `env`, `workdir` and `user` beside them hold from the first step on, `entrypoint`, `cmd` and
 * `labels` are only written into the image.
 */
const FILE = z.strictObject({
  from: Text,
  env: Names.optional(),
  workdir: Text.optional(),
  user: z.union([Text, z.number()]).transform(String).optional(),
  steps: z.array(STEP).max(BUILD_BOUNDS.steps).default([]),
  entrypoint: Words.optional(),
  cmd: Words.optional(),
  labels: z.record(z.string(), Scalar).optional(),
});

/** @throws StacyError `invalid`, `not-supported`, with the line */
export function readPlan(text: string, options: DockerfileOptions = {}): Plan {
  const first = firstLine(text);
  if (first === undefined) {
    throw new StacyError("invalid", "the build file is empty: it has comments and blank lines at most", {
      remedy: "begin a Dockerfile with `FROM IMAGE`, or our own form with `from: IMAGE`",
    });
  }
  if (DOCKERFILE.test(first)) return readDockerfile(text, options);
  if (Object.keys(options.args ?? {}).length > 0 || options.target !== undefined) {
    throw new StacyError("invalid", "build arguments and a target are for Dockerfiles only");
  }
  return readDeclarative(text);
}

/** A Dockerfile begins with an instruction, be it one that may not come first, or is none; in our own form a colon follows the word. */
const DOCKERFILE = /^\s*[A-Za-z]+[ \t]+[^:\s]/;

function firstLine(text: string): string | undefined {
  return text.split("\n").find((line) => line.trim() !== "" && !line.trim().startsWith("#"));
}

/** Marks of structure that follow one another, each within the one before: a plan needs two. The parser takes seconds for thousands. */
const TOO_DEEP = /(?:(?:[-?:]|[&!*]\S{0,100})[ \t]{1,100}){50}/;

/** In a text of several lines the parser looks at the rest of a run of blanks from each of its places: seconds for some ten thousand. */
const TOO_BLANK = /[ \t]{257}/;

/** The parser goes into itself for what is in one another, and says so when that is too much for it. */
function parsed(text: string, lineCounter: LineCounter): ReturnType<typeof parseDocument> {
  if (TOO_DEEP.test(text)) throw new StacyError("invalid", "the build file is no plan: it has too much in one another");
  if (TOO_BLANK.test(text)) {
    throw new StacyError("invalid", "the build file is no plan: it has more than 256 blanks in a row");
  }
  try {
    // It would compare each key with all others, show the text around each of thousands of mistakes, and print warnings with words of the
    // file where the server's log goes.
    const document = parseDocument(text, { lineCounter, uniqueKeys: false, prettyErrors: false, logLevel: "error" });
    if (document.errors.length === 0) refuseTwice(document, lineCounter);
    return document;
  } catch (cause) {
    if (cause instanceof StacyError) throw cause;
    throw new StacyError("invalid", `the build file is no YAML: ${(cause as Error).message}`, { cause });
  }
}

/** @throws StacyError `invalid` for a key that stands twice in a map */
function refuseTwice(document: ReturnType<typeof parseDocument>, lines: LineCounter): void {
  visit(document, {
    Map(_, { items }) {
      const seen = new Set<unknown>();
      for (const { key } of items) {
        if (!isScalar(key)) continue;
        if (seen.has(key.value)) {
          const { line } = lines.linePos(key.range?.[0] ?? 0);
          throw new StacyError("invalid", `line ${line}: the key ${String(key.value).slice(0, 100)} is there twice`);
        }
        seen.add(key.value);
      }
    },
  });
}

/** References are met only here: to nothing, or so many of them that the file would be another, larger one. */
function resolved(document: ReturnType<typeof parseDocument>): unknown {
  try {
    return document.toJS();
  } catch (cause) {
    throw new StacyError("invalid", `the build file is no YAML: ${(cause as Error).message}`, { cause });
  }
}

function readDeclarative(text: string): Plan {
  if (text.length > BUILD_BOUNDS.declarativeBytes) {
    throw new StacyError("limit", "the build file is longer than 64 KiB", {
      remedy: "put what is long into scripts that it copies and runs",
    });
  }
  const lines = new LineCounter();
  const document = parsed(text, lines);
  const [problem] = document.errors;
  if (problem !== undefined) {
    const { line } = lines.linePos(problem.pos[0]);
    throw new StacyError("invalid", `the build file is no YAML: line ${line}: ${problem.message}`);
  }
  const read = FILE.safeParse(resolved(document), { error: schemaWords });
  const lineOf = (path: readonly PropertyKey[]): number => {
    for (let n = path.length; n > 0; n--) {
      const node = document.getIn(path.slice(0, n), true) as { range?: [number, number, number] } | undefined;
      if (node?.range !== undefined) return lines.linePos(node.range[0]).line;
    }
    return 1;
  };
  if (!read.success) {
    const issue = read.error.issues[0];
    const path = issue?.path ?? [];
    throw new StacyError(
      "invalid",
      `line ${lineOf(path)}: ${path.join(".") || "the build file"}: ${issue?.message ?? "is not valid"}`,
      { remedy: "write `from: IMAGE` and `steps:` with `run`, `copy`, `env`, `workdir` or `user`" },
    );
  }
  const { from, env, workdir, user, steps, entrypoint, cmd, labels } = read.data;
  const place = (...path: PropertyKey[]) => ({ line: lineOf(path) });
  const list: Step[] = [
    ...(env === undefined ? [] : [{ kind: "env" as const, env, text: "env", ...place("env") }]),
    ...(workdir === undefined ? [] : [workdirStep(workdir, place("workdir").line)]),
    ...(user === undefined ? [] : [{ kind: "user" as const, user, text: `user ${user}`, ...place("user") }]),
    ...steps.map((step, i) => stepOf(step, place("steps", i).line)),
    ...(entrypoint === undefined
      ? []
      : [{ kind: "entrypoint" as const, argv: entrypoint, text: "entrypoint", ...place("entrypoint") }]),
    ...(cmd === undefined ? [] : [{ kind: "cmd" as const, argv: cmd, text: "cmd", ...place("cmd") }]),
    ...(labels === undefined ? [] : [{ kind: "label" as const, labels, text: "labels", ...place("labels") }]),
  ];
  const origin: Origin = from === "scratch" ? { kind: "nothing" } : { kind: "image", reference: from };
  return { stages: [{ name: "", from: origin, steps: () => list }], target: 0 };
}

function workdirStep(path: string, line: number): Step {
  return { kind: "workdir", path, text: `workdir ${path}`, line };
}

function stepOf(step: z.output<typeof STEP>, line: number): Step {
  if ("run" in step) {
    const argv = typeof step.run === "string" ? ["/bin/sh", "-e", "-c", step.run] : step.run;
    const text = typeof step.run === "string" ? step.run : step.run.join(" ");
    return { kind: "run", argv, env: {}, text: `run ${text.trim()}`, line };
  }
  if ("env" in step) return { kind: "env", env: step.env, text: `env ${Object.keys(step.env).join(" ")}`, line };
  if ("workdir" in step) return workdirStep(step.workdir, line);
  if ("user" in step) return { kind: "user", user: step.user, text: `user ${step.user}`, line };
  const { copy } = step;
  if (Array.isArray(copy)) {
    const to = copy.at(-1) ?? "";
    return { kind: "copy", sources: copy.slice(0, -1), to, text: `copy ${copy.join(" ")}`, line };
  }
  const sources = typeof copy.from === "string" ? [copy.from] : copy.from;
  // In YAML `mode: 0644` is a decimal number to some and an octal one to others: the digits are what is meant.
  const mode = copy.mode === undefined ? undefined : Number.parseInt(String(copy.mode), 8);
  return {
    kind: "copy",
    sources,
    to: copy.to,
    ...(copy.owner === undefined ? {} : { owner: copy.owner }),
    ...(mode === undefined ? {} : { mode }),
    text: `copy ${[...sources, copy.to].join(" ")}`,
    line,
  };
}
