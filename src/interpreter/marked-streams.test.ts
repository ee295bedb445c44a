/** The wire of drivers that leave standard output to the code, in pieces of every size. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { jsonLines } from "./json-lines.ts";
import { markedStreams } from "./marked-streams.ts";
import { type CodeEvent, parseEvent } from "./wire.ts";

setFlagsFromString("--expose-gc");
const gc = runInNewContext("gc") as () => void;

test("words among output are the same in pieces of every size, and have an end", () => {
  const wire = markedStreams({ ask: ({ code }) => code, settle: () => "" })();
  const said = (size: number): CodeEvent[] => {
    const mark = wire.ask({ code: "x", env: {} }).toString("latin1").slice(0, 32);
    const result = JSON.stringify({ type: "result", png: "p".repeat(100) });
    const all = { stdout: `be\0fore\0${mark} ${result}\0after\0${mark} end 0\0`, stderr: `\0${mark}\0` };
    return (["stdout", "stderr"] as const).flatMap((type) => {
      const data = Buffer.from(all[type]);
      const pieces = Array.from({ length: Math.ceil(data.length / size) }, (_, i) =>
        data.subarray(i * size, (i + 1) * size),
      );
      return pieces.flatMap((piece) => wire.read({ type, data: piece }));
    });
  };
  for (const size of [1, 2, 7, 33, 34, 35, 50, 1_000]) {
    const events = said(size);
    const text = events.map(({ type, text }) => (type === "stdout" ? text : "")).join("");
    assert.equal(text, "be\0foreafter", String(size));
    assert.deepEqual(
      events.filter(({ type }) => type !== "stdout").map(({ type, png }) => [type, String(png ?? "").length]),
      [
        ["result", 100],
        ["end", 0],
      ],
      String(size),
    );
  }
  const mark = wire.ask({ code: "x", env: {} }).toString("latin1").slice(0, 32);
  wire.read({ type: "stdout", data: Buffer.from(`\0${mark} {`) });
  const piece = Buffer.alloc(1 << 20, "p");
  const endless = (): void => {
    for (let i = 0; i < 100; i++) wire.read({ type: "stdout", data: piece });
  };
  assert.throws(endless, { code: "limit" });
});

test("an event that comes byte by byte, and never ends, costs its bytes and no more", () => {
  const heap = (): number => {
    gc();
    const { heapUsed, external } = process.memoryUsage();
    return heapUsed + external;
  };
  const bytes = 1 << 20;
  const one = Buffer.from("p");
  const marked = markedStreams({ ask: ({ code }) => code, settle: () => "" })();
  const mark = marked.ask({ code: "x", env: {} }).toString("latin1").slice(0, 32);
  marked.read({ type: "stdout", data: Buffer.from(`\0${mark} {`) });
  for (const wire of [marked, jsonLines()]) {
    const before = heap();
    for (let i = 0; i < bytes; i++) wire.read({ type: "stdout", data: Buffer.from(one) });
    const cost = heap() - before;
    assert.ok(cost < 8 * bytes, `${cost} bytes for ${bytes}`);
    assert.deepEqual(wire.read({ type: "stderr", data: one }).length, wire === marked ? 1 : 0, "it is used still");
  }
});

test("a picture is an event; what takes long to read is none", () => {
  const event = (value: string): Buffer => Buffer.from(`{"type":"result","data":${value}}`);
  assert.equal(parseEvent(event(`"${"p".repeat(15 << 20)}"`))?.type, "result");
  assert.equal(parseEvent(event(`"${'\\"\\\\'.repeat(150_000)}"`))?.type, "result");
  const lists = [`[${"[],".repeat(2 << 20)}[]]`, `"${'\\"'.repeat(1 << 20)}"`, `[${'"",'.repeat(1 << 20)}""]`];
  for (const value of [...lists, `"${"p".repeat(16 << 20)}"`]) {
    assert.throws(() => parseEvent(event(value)), { code: "limit" });
  }
  assert.equal(parseEvent(Buffer.from("no json")), undefined);
});

test("lines without end, before the driver has begun, are not read one by one", () => {
  const wire = jsonLines();
  wire.begin({ env: {}, seed: "" });
  const lines = Buffer.alloc(1 << 20, "\n");
  const begun = performance.now();
  for (let i = 0; i < 4; i++) assert.deepEqual(wire.read({ type: "stdout", data: lines }), []);
  const other = jsonLines();
  const { mark } = JSON.parse(other.begin({ env: {}, seed: "" }).toString());
  const said = Buffer.from(`{"type":"x"}\n${mark}\n{"type":"configured","mark":"${mark}"}\n{"type":"end","count":1}\n`);
  const events = [...said].flatMap((byte) => other.read({ type: "stdout", data: Buffer.of(byte) }));
  assert.deepEqual(events, [{ type: "begun" }, { type: "end", execution_count: 1 }]);
  const whole = jsonLines();
  const { mark: second } = JSON.parse(whole.begin({ env: {}, seed: "" }).toString());
  assert.deepEqual(whole.read({ type: "stdout", data: Buffer.from(said.toString().replaceAll(mark, second)) }), events);
  assert.ok(performance.now() - begun < 15_000, "each line was an error of its own once");
});
