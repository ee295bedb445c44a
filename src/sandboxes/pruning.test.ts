import assert from "node:assert/strict";
import { test } from "node:test";
import { Database } from "./database.ts";
import { fairShare, prune } from "./pruning.ts";

test("what is too much is taken from those who have most", () => {
  assert.equal(fairShare([10, 10], 20) >= 10, true);
  assert.equal(fairShare([60, 10], 50), 40);
  assert.equal(fairShare([60, 60, 10], 50), 20);
  assert.equal(fairShare([60], 50), 50);
  assert.equal(fairShare([], 50) > 0, true);
});

test("an owner who does much forgets its own past, and nobody else's", () => {
  const database = new Database(":memory:");
  const sandbox = (owner: string) => JSON.stringify({ owner });
  const [A, B] = [60_000, 100];
  database.transaction((run) => {
    // The quiet one's are the oldest.
    for (const [owner, n, first] of [
      ["b", B, 0],
      ["a", A, B],
    ] as const) {
      run("INSERT INTO sandboxes (id, state, created_at, updated_at, data) VALUES (?,?,0,?,?)", [
        owner,
        "running",
        1,
        sandbox(owner),
      ]);
      for (let i = first; i < first + n; i++) {
        run("INSERT INTO events (id, data, owner) VALUES (?,?,?)", [i + 1, "{}", owner]);
        run("INSERT INTO execs (id, sandbox_id, data) VALUES (?,?,?)", [i + 1, owner, "{}"]);
      }
    }
    for (let i = 0; i < 6_000; i++) {
      const owner = i < 100 ? "b" : "a";
      run("INSERT INTO sandboxes (id, state, created_at, updated_at, data) VALUES (?,?,0,?,?)", [
        `${i}`,
        "destroyed",
        i,
        sandbox(owner),
      ]);
    }
    // Nothing that is damaged is in the way.
    run("INSERT INTO sandboxes (id, state, created_at, updated_at, data) VALUES (?,?,0,?,?)", [
      "damaged",
      "destroyed",
      1,
      "{",
    ]);
    run("INSERT INTO execs (id, sandbox_id, data) VALUES (?,?,?)", [A + B + 1, "unknown", "{}"]);
  });
  prune(database);
  const count = (sql: string): unknown => database.get(`SELECT count(*) AS n FROM ${sql}`)?.n;
  for (const table of ["events WHERE owner = 'b'", "execs WHERE sandbox_id = 'b'"])
    assert.equal(count(table), B, table);
  assert.deepEqual([count("events"), count("execs")], [50_000, 50_000]);
  assert.equal(database.get("SELECT max(id) AS n FROM events")?.n, A + B, "the newest stay");
  assert.deepEqual(
    [
      count("sandboxes WHERE state = 'destroyed'"),
      count("sandboxes WHERE data LIKE '%\"b\"%' AND state = 'destroyed'"),
    ],
    [5_000, 100],
  );
  assert.equal(count("sandboxes WHERE state = 'running'"), 2);
  prune(database);
  assert.equal(count("events"), 50_000);
  database.close();
});
