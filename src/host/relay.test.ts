import assert from "node:assert/strict";
import { once } from "node:events";
import { Duplex, Readable, Writable } from "node:stream";
import { test } from "node:test";
import { relay } from "./relay.ts";

const turn = () => new Promise((resolve) => setImmediate(resolve));

test("single bytes for a writer that does not take them: few wait there, and all arrive when it does", async () => {
  let sent = 0;
  const from = new Readable({
    read() {
      this.push(sent++ < 5000 ? Buffer.from("x") : null);
    },
    highWaterMark: 1,
  });
  let got = 0;
  const taken: (() => void)[] = [];
  let open = false;
  const to = new Writable({
    highWaterMark: 65_536,
    write(piece: Buffer, _encoding, done) {
      got += piece.length;
      if (open) done();
      else taken.push(done);
    },
  });
  relay(from, to);
  for (let i = 0; i < 200; i++) await turn();
  assert.ok(to.writableLength < 20, `${to.writableLength} wait`);
  open = true;
  for (const done of taken.splice(0)) done();
  await once(to, "finish");
  assert.equal(got, 5000);
});

test("an error of either side ends both, and is told once", async () => {
  for (const fails of ["from", "to"] as const) {
    const pair = {
      from: new Duplex({ read() {} }),
      to: new Duplex({ read() {}, write: (_piece, _encoding, done) => done() }),
    };
    const told: (Error | undefined)[] = [];
    relay(pair.from, pair.to, (error) => told.push(error));
    pair[fails].destroy(new Error("gone"));
    await turn();
    await turn();
    assert.ok(pair.from.destroyed && pair.to.destroyed);
    assert.deepEqual(
      told.map((error) => error?.message),
      ["gone"],
    );
  }
});

test("a reader that closes before its end is no end", async () => {
  const from = new Readable({ read() {} });
  const to = new Writable({ write: (_piece, _encoding, done) => done() });
  relay(from, to);
  from.destroy();
  await turn();
  assert.ok(to.destroyed && !to.writableFinished);
});
