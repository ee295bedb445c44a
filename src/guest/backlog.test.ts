import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Backlog } from "./backlog.ts";

test("what comes out is what went in, in order and by channel, whatever the sizes", () => {
  const step = fc.oneof(
    fc.record({ channel: fc.nat(2), size: fc.oneof(fc.nat(40), fc.integer({ min: 30_000, max: 65_536 })) }),
    fc.record({ shift: fc.nat(5) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const backlog = new Backlog();
      const sent: [number, number][] = [];
      const got: [number, number][] = [];
      let count = 0;
      const take = (): boolean => {
        const piece = backlog.shift();
        for (const byte of piece?.data ?? []) got.push([piece?.channel ?? -1, byte]);
        return piece !== undefined;
      };
      for (const each of steps) {
        if ("shift" in each) for (let i = 0; i < each.shift; i++) take();
        else {
          const data = Buffer.alloc(each.size);
          for (let i = 0; i < data.length; i++) data[i] = count++;
          for (const byte of data) sent.push([each.channel, byte]);
          backlog.push(each.channel, data);
          data.length > 32_768 || data.fill(0); // small ones are copied
        }
      }
      assert.equal(backlog.length, sent.length - got.length);
      while (take());
      assert.deepEqual(got, sent);
      assert.equal(backlog.length, 0);
    }),
    { numRuns: 25 },
  );
});

test("bytes that come one by one, on two channels in turn, wait at some tens of bytes each", () => {
  global.gc?.();
  const before = process.memoryUsage();
  const backlog = new Backlog();
  const one = Buffer.from("x");
  for (let i = 0; i < 1_000_000; i++) backlog.push(1 + (i % 2), one);
  const after = process.memoryUsage();
  const grown = after.heapUsed + after.external - before.heapUsed - before.external;
  assert.ok(grown < 64 * 1024 * 1024, `${grown} bytes`);
  assert.equal(backlog.clear(), 1_000_000);
});
