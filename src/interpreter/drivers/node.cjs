/**
 * Runs pieces of JavaScript in one context: what they declare stays from one to the next, and `await` may stand anywhere.
 *
 * In, on standard input: a mark and a request `{code, env, prepare?, settle?, seed?}` as JSON
 * (prepare: it is not the user's; settle: the environment stays, and a saved context gets random numbers by the seed, unless code of
 * the user has run), each ended by a NUL. Out: what the code writes, and among it on
 * standard output events as NUL, the mark, a space, JSON, NUL; at last NUL, the mark, " end 0", NUL, and on standard error NUL, the
 * mark, NUL. SIGINT ends the piece that runs.
 */
"use strict";
const { spawnSync } = require("node:child_process");
const { PassThrough } = require("node:stream");
const repl = require("node:repl");
const util = require("node:util");
const vm = require("node:vm");
const { stripTypeScriptTypes } = require("node:module");

const typescript = process.argv.at(-2) === "typescript";
const { stdout, stderr } = process;
let mark = "";
let failed;
let used = false;
let prepared = false;
const sink = new PassThrough();
sink.resume();
// The one part of Node that evaluates pieces one after another, with `await` at their top level.
function evaluator(breakEvalOnSigint) {
  const made = repl.start({
    ...{ input: new PassThrough(), output: sink, prompt: "", terminal: false, useGlobal: false, breakEvalOnSigint },
    handleError: (error) => {
      failed?.(error);
      return "ignore";
    },
  });
  // Where errors go in versions that do not know `handleError`.
  made._domain?.removeAllListeners("error");
  made._domain?.on("error", (error) => failed?.(error));
  return made;
}
// Node breaks off what computes only where nobody listens for the signal; what waits needs a listener from its first moment on.
const computing = evaluator(true);
const waiting = evaluator(false);
const { context } = computing;
context.console = console;
context.display = (value) => show(value, false);

const told = (text) => stdout.write(`\0${mark} ${text}\0`);

const FORMS = {
  ...{ "text/plain": "text", "text/html": "html", "text/markdown": "markdown", "image/svg+xml": "svg" },
  ...{ "image/png": "png", "image/jpeg": "jpeg", "application/pdf": "pdf", "text/latex": "latex" },
  ...{ "application/json": "json", "application/javascript": "javascript" },
};

function show(value, main) {
  // How values of notebooks show themselves in JavaScript.
  const own = value?.[Symbol.for("Jupyter.display")];
  const bundle = typeof own === "function" ? own.call(value) : { "text/plain": util.inspect(value) };
  const forms = Object.entries(bundle).map(([name, form]) => [FORMS[name] ?? name, form]);
  told(JSON.stringify({ type: "result", is_main_result: main, ...Object.fromEntries(forms) }));
}

/** In place of the engine's generator, which stands at the same number in each copy of a saved context. */
function generator(seed) {
  let [a, b, c, d] = seed.match(/[0-9a-f]{8}/g).map((word) => Number.parseInt(word, 16));
  const next = () => {
    const sum = (a + b + d) | 0;
    d = (d + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = ((c << 21) | (c >>> 11)) + sum;
    return sum >>> 0;
  };
  for (let i = 0; i < 12; i++) next();
  return () => ((next() >>> 5) * 2 ** 26 + (next() >>> 6)) / 2 ** 53;
}

/** Anything can be thrown, also what cannot be made a text. */
function word(of) {
  try {
    return String(of());
  } catch {
    return "";
  }
}

function interrupt() {
  failed?.(new Error("interrupted"));
}

/** Node's own means keep lines and columns; esbuild is what images with an older one may have. */
function untyped(code) {
  if (stripTypeScriptTypes !== undefined) return stripTypeScriptTypes(code);
  // What is imported here may be used by a later piece.
  const settings = '--tsconfig-raw={"compilerOptions":{"preserveValueImports":true}}';
  const flags = ["--loader=ts", "--log-level=error", settings];
  const options = { input: code, encoding: "utf8", maxBuffer: 64 << 20 };
  const { error, status, stdout: made, stderr: complaints } = spawnSync("esbuild", flags, options);
  if (error?.code === "ENOENT") throw new Error("TypeScript needs Node 22.13 or esbuild, and the image has neither");
  if (error !== undefined) throw error;
  if (status !== 0) throw new SyntaxError(complaints.trim());
  return made;
}

const IMPORT =
  /(?<=^|;)[ \t]*import\b\s*(?:([\w$]+)?\s*,?\s*(?:\*\s*as\s+([\w$]+)|\{([^}]*)\})?\s*\bfrom\s*)?(["'])([^"'\n]+)\4(?:\s*(with|assert)\s*(\{[^}]*\}))?/gm;

/** Imports as statements belong to modules, which a piece of code is not. `var`, since pieces repeat their imports. */
function withoutImports(source) {
  if (!/\bimport\b/.test(source)) return source;
  try {
    new vm.Script(`(async () => {${source}\n})`);
    return source;
  } catch (error) {
    if (!/import statement/.test(error.message)) return source;
  }
  return source.replace(IMPORT, (_, own, all, names, __, from, word, how) => {
    const module = `await import(${JSON.stringify(from)}${how === undefined ? "" : `, { ${word}: ${how} }`})`;
    const fields = [own && `default: ${own}`, names?.replace(/\bas\b/g, ":")].filter(Boolean);
    const parts = [all && `var ${all} = ${module}`, fields.length > 0 && `var { ${fields.join(", ")} } = ${module}`];
    return `${parts.filter(Boolean).join("; ") || module};`;
  });
}

function evaluate(code) {
  return new Promise((resolve, reject) => {
    failed = reject;
    const source = withoutImports(typescript && code !== "" ? untyped(code) : code);
    const done = (error, value) => (error ? reject(error) : resolve(value));
    if (/\bawait\b/.test(source)) return waiting.eval(`${source}\n`, context, "cell", done);
    process.off("SIGINT", interrupt);
    computing.eval(`${source}\n`, context, "cell", done);
    process.on("SIGINT", interrupt);
  });
}

async function run({ code, env, seed, prepare = false, settle = false }) {
  if (settle && used) return; // what its user has made of it stays
  // Older versions show the context's own objects to its code alone.
  if (settle && prepared) vm.runInContext("Math", context).random = generator(seed);
  prepared ||= prepare;
  used ||= !settle && !prepare;
  const before = Object.fromEntries(Object.keys(env).map((name) => [name, process.env[name]]));
  Object.assign(process.env, env);
  try {
    const value = await evaluate(code);
    if (value !== undefined) show(value, true);
  } catch (thrown) {
    // An unfinished piece is an error here, not the beginning of a longer one.
    const error = thrown instanceof repl.Recoverable ? thrown.err : thrown;
    const traceback = word(() => error?.stack ?? error).replace(/\n {4}at (?!cell)[\s\S]*$/, "");
    const name = word(() => error?.name ?? "Error");
    told(JSON.stringify({ type: "error", name, value: word(() => error?.message ?? error), traceback }));
  } finally {
    failed = undefined;
    for (const [name, value] of settle ? [] : Object.entries(before)) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
  }
}

process.on("SIGINT", interrupt);
for (const event of ["uncaughtException", "unhandledRejection"]) {
  process.on(event, (error) => stderr.write(`${error?.stack ?? error}\n`));
}

(async () => {
  let rest = "";
  const parts = [];
  process.stdin.setEncoding("utf8");
  for await (const text of process.stdin) {
    const [first, ...more] = text.split("\0");
    rest += first;
    for (const next of more) {
      parts.push(rest);
      rest = next;
    }
    while (parts.length >= 2) {
      mark = parts.shift();
      await run(JSON.parse(parts.shift()));
      stdout.write(`\0${mark} end 0\0`);
      stderr.write(`\0${mark}\0`);
    }
  }
  process.exit(0);
})();
