import assert from "node:assert/strict";
import { test } from "node:test";
import type { Agent, Command, OutputEvent } from "../guest/agent.ts";
import { keptOutput, lastLines, MAIN, numberOf, type Window } from "./kept-output.ts";

const piece = (text: string, time?: number): OutputEvent => ({
  type: "stdout",
  data: Buffer.from(text),
  ...(time === undefined ? {} : { time }),
});
const textOf = (events: OutputEvent[]): string[] =>
  events.map((event) => (event.type === "lost" ? `lost ${event.bytes}` : event.data.toString()));

/** A command that has written `kept`, and writes the rest when somebody goes on reading. */
function command(kept: OutputEvent[], rest: OutputEvent[] = [], written?: number) {
  const state = { read: 0 };
  async function* output(): AsyncGenerator<OutputEvent> {
    for (const event of [...kept, ...rest]) {
      state.read += 1;
      yield event;
    }
  }
  const size = (event: OutputEvent): number => (event.type === "lost" ? event.bytes : event.data.length);
  const all = written ?? kept.reduce((sum, event) => sum + size(event), 0);
  return { command: { output, written: all } as unknown as Command, state };
}

async function read(of: Command, window: Omit<Window, "owner">): Promise<string[]> {
  return textOf(await Array.fromAsync(keptOutput(of, { ...window, owner: "a" })));
}

test("the last lines, over pieces that end anywhere", () => {
  const pieces = [piece("a\nb"), piece("b\n"), piece("\nlast", 7)];
  assert.deepEqual(textOf(lastLines(pieces, 1)), ["last"]);
  assert.deepEqual(textOf(lastLines(pieces, 2)), ["\nlast"]);
  assert.deepEqual(textOf(lastLines(pieces, 3)), ["b", "b\n", "\nlast"]);
  assert.deepEqual(textOf(lastLines(pieces, 99)), ["a\nb", "b\n", "\nlast"]);
  assert.deepEqual(lastLines(pieces, 0), []);
  assert.equal((lastLines(pieces, 1)[0] as { time?: number }).time, 7);
  assert.deepEqual(textOf(lastLines([piece("x\ny\n")], 1)), ["y\n"]);
  assert.deepEqual(textOf(lastLines([piece("x\n"), piece("y\n")], 1)), ["y\n"]);
});

test("without following, it ends with what is there, whatever the command does", async () => {
  const running = () => command([{ type: "lost", bytes: 5 }, piece("1\n"), piece("2\n")], [piece("3\n")]);
  assert.deepEqual(await read(running().command, { follow: false }), ["lost 5", "1\n", "2\n"]);
  assert.deepEqual(await read(running().command, { follow: false, tail: 1 }), ["2\n"]);
  const silent = command([], [piece("late\n")]);
  assert.deepEqual(await read(silent.command, { follow: false }), []);
  assert.equal(silent.state.read, 0, "one that has written nothing is not waited for");
});

test("following: the last lines of what is there, then all that comes", async () => {
  const { command: one } = command([piece("1\n"), piece("2\n")], [piece("3\n"), piece("4\n")]);
  assert.deepEqual(await read(one, { follow: true, tail: 1 }), ["2\n", "3\n", "4\n"]);
  const { command: all } = command([piece("1\n")], [piece("2\n")]);
  assert.deepEqual(await read(all, { follow: true }), ["1\n", "2\n"]);
});

test("an agent that does not say how much it has kept is followed, and else refused with what to do", async () => {
  const { command: old } = command([piece("1\n")]);
  delete (old as { written?: number }).written;
  assert.deepEqual(await read(old, { follow: true }), ["1\n"]);
  await assert.rejects(read(old, { follow: false }), { code: "not-supported" });
});

test("main is the command that was last started to go on by itself", async () => {
  const agent = (all: { id: string; detached?: boolean }[]) => ({ processes: async () => all }) as unknown as Agent;
  const { signal } = new AbortController();
  const one = agent([
    { id: "9", detached: true },
    { id: "10", detached: true },
    { id: "11", detached: false },
  ]);
  assert.equal(await numberOf(one, MAIN, "sb-1", signal), "10");
  assert.equal(await numberOf(one, "9", "sb-1", signal), "9");
  assert.equal(await numberOf(agent([{ id: "3" }]), MAIN, "sb-1", signal), "3");
  await assert.rejects(numberOf(agent([{ id: "3", detached: false }]), MAIN, "sb-1", signal), { code: "not-found" });
});

test("the last lines of a program that is quiet come at once", async () => {
  const { command: quiet } = command([piece("1\n"), piece("2\n")], [piece("later\n")]);
  const output = keptOutput(quiet, { follow: true, tail: 1, owner: "a" });
  const source = quiet.output;
  let read = 0;
  quiet.output = async function* () {
    for await (const event of source()) {
      // The program writes nothing more before its last line was seen.
      if (read++ === 2) await new Promise(() => {});
      yield event;
    }
  };
  const first = await output.next();
  assert.deepEqual(textOf([first.value as OutputEvent]), ["2\n"]);
});

test("a guest that says it has kept more than any agent does costs no more than that", async () => {
  const { command: liar } = command([], [], 2 ** 50);
  const megabyte = Buffer.alloc(1 << 20, "x\n");
  liar.output = async function* () {
    for (let i = 0; i < 200; i++) yield { type: "stdout", data: megabyte } as OutputEvent;
  };
  const events = await Array.fromAsync(keptOutput(liar, { follow: true, tail: 1_000_000_000, owner: "a" }));
  const bytes = events.reduce((sum, event) => sum + (event.type === "lost" ? 0 : event.data.length), 0);
  assert.ok(bytes <= 20 << 20, `${bytes} bytes were held`);
});

test("many that read what lying guests keep have one bound, of which an owner has a share, and which each gives back", async () => {
  const open: (() => void)[] = [];
  const megabyte = Buffer.alloc(1 << 20, "x\n");
  const read = (owner = "a"): { tail: Promise<OutputEvent[]>; full: Promise<void> } => {
    const { command: liar } = command([], [], 2 ** 50);
    const full = Promise.withResolvers<void>();
    const end = Promise.withResolvers<void>();
    open.push(end.resolve);
    liar.output = async function* () {
      for (let i = 0; i < 19; i++) yield { type: "stdout", data: megabyte } as OutputEvent;
      full.resolve();
      await end.promise;
    };
    const tail = Array.fromAsync(keptOutput(liar, { follow: true, tail: 1, owner }));
    return { tail, full: Promise.race([full.promise, tail.then(() => {})]) };
  };
  const readers: ReturnType<typeof read>[] = [];
  for (const owner of ["a", "a", "a", "a", "a", "a", "b", "b", "b"]) {
    readers.push(read(owner));
    await readers.at(-1)?.full;
  }
  for (const owner of ["a", "b"]) await assert.rejects(read(owner).full, { code: "limit", remedy: /try again/ });
  for (const end of open) end();
  for (const { tail } of readers) assert.equal((await tail).length, 1);
  const again = read();
  await again.full;
  open.at(-1)?.();
  assert.equal((await again.tail).length, 1);
});
