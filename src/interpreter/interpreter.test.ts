/** Contexts with their real drivers, run by this host's programs in place of a guest's. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { Agent, Command, ExecOptions, OutputEvent, ProcessInfo } from "../guest/agent.ts";
import { StacyError } from "../host/error.ts";
import { Contexts, type InterpreterGuest, warmContexts } from "./contexts.ts";
import type { CodeEvent } from "./wire.ts";

/** What of the agent contexts use: processes that go on without followers, and give a new one what they said. */
class HostAgent {
  readonly #dir: string;
  readonly #all: { child: ChildProcess; text: string; said: OutputEvent[]; more: EventTarget }[] = [];

  constructor(dir: string) {
    this.#dir = dir;
  }

  async writeFile(path: string, data: Uint8Array): Promise<void> {
    await writeFile(join(this.#dir, basename(path)), data);
  }

  async start({ argv, env, cwd }: ExecOptions): Promise<Command> {
    const words = argv.map((word) => (word.startsWith("/run/") ? join(this.#dir, basename(word)) : word));
    const program = words[0] === "node" ? process.execPath : (words[0] ?? "");
    const child = spawn(program, words.slice(1), {
      env: { ...process.env, ...env },
      detached: true,
      ...(cwd === undefined ? {} : { cwd }),
    });
    const failed: unknown = await once(child, "spawn").then(
      () => undefined,
      (error) => error,
    );
    if (failed !== undefined) throw new StacyError("not-found", String(failed));
    const one = { child, text: argv.join(" "), said: [] as OutputEvent[], more: new EventTarget() };
    for (const type of ["stdout", "stderr"] as const) {
      child[type]?.on("data", (data: Buffer) => {
        one.said.push({ type, data });
        one.more.dispatchEvent(new Event("more"));
      });
    }
    child.once("close", () => one.more.dispatchEvent(new Event("more")));
    this.#all.push(one);
    return this.attach(String(this.#all.length - 1));
  }

  async stat(path: string): Promise<object> {
    if (existsSync(path)) return {};
    throw new StacyError("not-found", path);
  }

  async attach(id: string): Promise<Command> {
    const one = this.#all[Number(id)];
    if (one === undefined) throw new Error(`no ${id}`);
    const { child, said, more } = one;
    const gone = (): boolean => child.exitCode !== null || child.signalCode !== null;
    const exited = gone() ? Promise.resolve() : once(child, "close");
    return {
      id,
      pid: child.pid ?? 0,
      async *output() {
        for (let at = 0; ; ) {
          const next = said[at];
          if (next !== undefined) {
            at += 1;
            yield next;
          } else if (gone()) return;
          else await once(more as never, "more");
        }
      },
      exited: exited.then(() => ({ exitCode: child.exitCode ?? 128, reason: "exited" })),
      write: async (data: Uint8Array) => void child.stdin?.write(data),
      kill: async (signal: number) => void (gone() || process.kill(-(child.pid ?? 0), signal)),
      detach: async () => {},
    } as unknown as Command;
  }

  async processes(): Promise<ProcessInfo[]> {
    return this.#all.map(({ child, text }, i) => {
      return {
        id: String(i),
        pid: child.pid ?? 0,
        command: text,
        startedAt: 0,
        running: child.exitCode === null && child.signalCode === null,
      };
    });
  }

  end(): void {
    for (const { child } of this.#all) child.kill("SIGKILL");
  }
}

const lacking = (): Promise<never> => Promise.reject(new StacyError("not-found", "no such program"));

describe("contexts", { timeout: 60_000 }, () => {
  let dir: string;
  let host: HostAgent;
  let guest: InterpreterGuest;
  let contexts: Contexts;
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "contexts-"));
    host = new HostAgent(dir);
    guest = { id: "sb-1", agent: host as unknown as Agent, env: { OF_ALL: "it's" } };
    contexts = new Contexts();
  });
  after(async () => {
    host.end();
    await rm(dir, { recursive: true });
  });

  const run = async (language: "python" | "javascript" | "bash", code: string, env = {}): Promise<CodeEvent[]> => {
    const context = await contexts.default(guest, { language, env: { OF_ALL: "it's" } });
    return await Array.fromAsync(context.run({ code, env }, new AbortController().signal));
  };
  const output = (events: CodeEvent[]): string =>
    events.map(({ type, text }) => (type === "stdout" || type === "stderr" ? String(text) : "")).join("");
  const value = (events: CodeEvent[]): unknown => events.find(({ type }) => type === "result")?.text;
  const interrupted = async (language: "javascript" | "bash" | "python", code: string): Promise<CodeEvent[]> => {
    const context = await contexts.default(guest, { language });
    const abort = new AbortController();
    const events: CodeEvent[] = [];
    for await (const event of context.run({ code, env: {} }, abort.signal)) {
      events.push(event);
      if (output(events).includes("begun")) abort.abort();
    }
    return events;
  };

  test("bash: what is set stays, output as it is, status, variables of one piece", async () => {
    await run("bash", "declare -A map; map[a]=1; f() { echo in f; }; cd /tmp");
    const both = await run("bash", `f; echo "\${map[a]} $PWD $OF_ALL"; echo wrong >&2`);
    const of = (stream: string): string => output(both.filter(({ type }) => type === stream));
    assert.deepEqual([of("stdout"), of("stderr")], ["in f\n1 /tmp it's\n", "wrong\n"]);
    const failed = await run("bash", "no_such_command_here; (exit 7)");
    assert.match(output(failed), /no_such_command_here: command not found/);
    assert.deepEqual(failed.find(({ type }) => type === "error")?.value, "7");
    assert.equal(output(await run("bash", 'echo "$A"; printf "\\0x"', { A: "b 'c'" })), "b 'c'\n\0x");
    assert.equal(output(await run("bash", `echo "\${A-none}"; cat`)), "none\n");
    assert.match(output(await run("bash", "if then")), /syntax error/);
    await assert.rejects(run("bash", "true", { "A B": "" }), { code: "invalid" });
    await assert.rejects(run("bash", "true", { A: "a\0b" }), { code: "invalid" });
    assert.equal((await run("bash", "true")).at(-1)?.type, "end");
  });

  test("a directory that is not there is the caller's mistake, and no program that the image lacks", async () => {
    const making = contexts.create(guest, { language: "bash", cwd: join(dir, "none") });
    await assert.rejects(making, { code: "invalid", message: /^cwd: .*none$/ });
    const agent = { start: lacking, stat: host.stat, writeFile: async () => {}, processes: async () => [] };
    const lost = { ...guest, id: "sb-none", agent: agent as unknown as Agent };
    const program = contexts.create(lost, { language: "bash", cwd: dir });
    await assert.rejects(program, { code: "not-supported", message: /has no bash/ });
  });

  test("bash: an interruption ends what runs, and the rest of its piece", async () => {
    for (const code of ["echo begun; while :; do :; done; echo no", "echo begun; sleep 60; echo no"]) {
      const events = await interrupted("bash", code);
      assert.equal(output(events), "begun\n");
      assert.equal(events.find(({ type }) => type === "error")?.value, "130");
    }
    assert.equal(output(await run("bash", `echo "\${map[a]}"`)), "1\n");
  });

  test("JavaScript: what is declared stays, await, errors, a value's own forms", async () => {
    await run("javascript", "const x = 41; let y = { a: 1 }; function f() { return 7 }");
    assert.equal(value(await run("javascript", "x + 1")), "42");
    assert.equal(value(await run("javascript", "await new Promise((wake) => setTimeout(wake, 5)); f()")), "7");
    assert.equal(
      output(await run("javascript", "console.log('hi'); console.error('oh')"))
        .split("\n")
        .sort()
        .join(),
      ",hi,oh",
    );
    const error = (await run("javascript", "null.x")).find(({ type }) => type === "error");
    assert.equal(error?.name, "TypeError");
    assert.equal((await run("javascript", "const x = 1")).find(({ type }) => type === "error")?.name, "SyntaxError");
    const own = "display({ [Symbol.for('Jupyter.display')]: () => ({ 'text/html': '<b>' }) })";
    assert.deepEqual((await run("javascript", own))[0], { type: "result", is_main_result: false, html: "<b>" });
    assert.equal(value(await run("javascript", "process.env.A + process.env.OF_ALL", { A: "b" })), `"bit's"`);
    assert.equal(value(await run("javascript", "process.env.A ?? 'none'")), "'none'");
    // What is thrown may be anything, also what has no text.
    for (const thrown of ["Object.create(null)", "{ name: 1n }", "{ get stack() { throw 1 } }"]) {
      assert.equal((await run("javascript", `throw ${thrown}`)).at(-2)?.type, "error", thrown);
    }
    assert.equal(value(await run("javascript", "x")), "41");
  });

  test("JavaScript: imports as statements, again and again, and texts that look like them", async () => {
    const code = `
      import { sep as slash, join } from 'path'
      import path, { basename } from "path"; import * as all from 'path'
      import 'fs'
      [slash, join('a', 'b'), path.dirname('a/b'), basename('a/b'), all.extname('a.c')].join(" ")`;
    for (let i = 0; i < 2; i++) assert.equal(value(await run("javascript", code)), "'/ a/b a b .c'");
    assert.equal(value(await run("javascript", "join('kept', slash)")), "'kept/'");
    const text = "`\nimport a from 'b'\n`.length";
    assert.equal(value(await run("javascript", text)), "19");
    const error = (await run("javascript", "import { none from 'path'")).find(({ type }) => type === "error");
    assert.equal(error?.name, "SyntaxError");
  });

  test("JavaScript: an interruption ends a wait, and a loop one way or the other", async () => {
    const events = await interrupted("javascript", "console.log('begun'); await new Promise(() => {})");
    assert.equal(events.at(-2)?.type, "error");
    assert.equal(value(await run("javascript", "x")), "41");
    // Node does not always break off what computes; then its process ends, and the default context begins anew.
    const context = await contexts.create(guest, { language: "javascript" });
    const abort = new AbortController();
    const running = context.run({ code: "console.log('begun'); while (true) {}", env: {} }, abort.signal);
    assert.equal((await running.next()).value?.type, "stdout");
    abort.abort();
    const ended = await Array.fromAsync(running).catch((error: unknown) => error);
    if (ended instanceof Error) assert.match(ended.message, /process has ended/);
    else {
      assert.equal((ended as CodeEvent[]).at(-2)?.type, "error");
      await contexts.remove(guest, context.info.id);
    }
  });

  test("TypeScript, where Node strips its types", async () => {
    const context = await contexts.create(guest, { language: "typescript" });
    const code = "interface A { n: number }; const a: A = { n: 2 }; a.n";
    assert.equal(value(await Array.fromAsync(context.run({ code, env: {} }, new AbortController().signal))), "2");
    await contexts.remove(guest, context.info.id);
    await assert.rejects(contexts.get(guest, context.info.id), { code: "not-found" });
  });

  test("TypeScript in an older Node: by the image's esbuild, or refused by name", async () => {
    await writeFile(join(dir, "older.cjs"), "require('node:module').stripTypeScriptTypes = undefined;");
    // Takes away what the first piece has of types, and finds the second wrong.
    const esbuild = `#!/bin/sh\nread code\ncase $code in *wrong*) echo 'no: wrong' >&2; exit 1;; *) echo 'const a = 3; a';; esac\n`;
    const found = { NODE_OPTIONS: `--require=${join(dir, "older.cjs")}`, PATH: `${dir}:${process.env.PATH}` };
    await writeFile(join(dir, "esbuild"), esbuild, { mode: 0o755 });
    const ask = async (env: Record<string, string>, code: string): Promise<CodeEvent[]> => {
      const context = await contexts.create(guest, { language: "typescript", env });
      const events = await Array.fromAsync(context.run({ code, env: {} }, new AbortController().signal));
      await contexts.remove(guest, context.info.id);
      return events;
    };
    assert.equal(value(await ask(found, "const a: number = 3; a")), "3");
    const wrong = (await ask(found, "wrong")).find(({ type }) => type === "error");
    assert.deepEqual([wrong?.name, wrong?.value], ["SyntaxError", "no: wrong"]);
    const without = (await ask({ ...found, PATH: "/nowhere" }, "1")).find(({ type }) => type === "error");
    assert.match(String(without?.value), /TypeScript needs Node 22.13 or esbuild/);
  });

  test("another server finds them with their state, and ends what nobody follows", async () => {
    await run("python", "kept = 1");
    const context = await contexts.default(guest, { language: "python" });
    const lost = context.run(
      { code: "print('begun', flush=True)\nwhile True: pass", env: {} },
      new AbortController().signal,
    );
    assert.equal((await lost.next()).value?.type, "stdout"); // and its server is gone
    const others = new Contexts();
    assert.deepEqual((await others.list(guest)).map(({ id }) => id).sort(), ["bash", "javascript", "python"]);
    for (const [language, code, wanted] of [
      ["python", "kept", "1"],
      ["javascript", "y.a", "1"],
    ] as const) {
      const found = await others.default(guest, { language });
      assert.equal(value(await Array.fromAsync(found.run({ code, env: {} }, new AbortController().signal))), wanted);
    }
    const bash = await others.default(guest, { language: "bash" });
    const said = await Array.fromAsync(bash.run({ code: `echo "\${map[a]}"`, env: {} }, new AbortController().signal));
    assert.equal(output(said), "1\n");
  });

  test("a saved context gives each copy its environment and its random numbers, until its user has run something", async () => {
    const saved = { id: "sb-2", agent: new HostAgent(dir) as unknown as Agent, env: { MINE: "a" } };
    await warmContexts(saved.agent, [{ language: "python", code: "import os, random\nready = 1\nrandom.seed(1)" }]);
    const numbers: unknown[] = [];
    for (const env of [{ MINE: "a" }, { MINE: "b" }]) {
      const begin = { language: "python", env: { USER: "its user" } } as const;
      const context = await new Contexts().default({ ...saved, env }, begin);
      const code = "(ready, os.environ['MINE'] + os.environ['USER'], random.random())";
      numbers.push(value(await Array.fromAsync(context.run({ code, env: {} }, new AbortController().signal))));
    }
    assert.match(String(numbers[0]), /^\(1, 'aits user', 0\.(?!13436424411240122)/);
    assert.match(String(numbers[1]), /^\(1, 'aits user', /, "it is the same process, used before");
    for (const [language, code, draw] of [
      ["javascript", "Math.random = () => 1", "console.log(Math.random())"],
      ["bash", "RANDOM=1", "echo $RANDOM$RANDOM$RANDOM"],
    ] as const) {
      const said: string[] = [];
      for (let i = 0; i < 2; i++) {
        const copy = { ...saved, agent: new HostAgent(dir) as unknown as Agent };
        await warmContexts(copy.agent, [{ language, code }]);
        const context = await new Contexts().default(copy, { language });
        said.push(output(await Array.fromAsync(context.run({ code: draw, env: {} }, new AbortController().signal))));
        (copy.agent as unknown as HostAgent).end();
      }
      assert.match(said.join(""), language === "bash" ? /^(\d+\n){2}$/ : /^(0\.\d+\n){2}$/);
      assert.notEqual(said[0], said[1]);
    }
    await assert.rejects(warmContexts(saved.agent, [{ language: "bash", code: "exit 3" }]), { code: "unavailable" });
    await assert.rejects(warmContexts(saved.agent, [{ language: "bash", code: "(exit 3)" }]), /bash context failed/);
    (saved.agent as unknown as HostAgent).end();
  });

  test("a context that ends is said to have ended, and the default one begins anew", async () => {
    const context = await contexts.default(guest, { language: "bash" });
    const ending = Array.fromAsync(context.run({ code: "exit 3", env: {} }, new AbortController().signal));
    await assert.rejects(ending, { code: "unavailable" });
    assert.equal(output(await run("bash", `echo "\${map[a]-anew}"`)), "anew\n");
  });
});
