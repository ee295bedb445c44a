/** Bounds what the database keeps of the past. What is too much goes from the owners who have most: nobody's history is forgotten for another's. */
import type { Database, Value } from "./database.ts";

/** Rows that are kept, of all owners together. */
const KEEP = { events: 50_000, execs: 50_000, destroyed: 5_000, audit: 100_000 } as const;

interface History {
  keep: number;
  /** Selects `owner` and `rows`, how many are that owner's. */
  counts: string;
  /** Takes an owner and how many of its newest rows stay. */
  remove: string;
}

const OWNER = "CASE WHEN json_valid(data) THEN data ->> '$.owner' END";
const DESTROYED = "FROM sandboxes WHERE state = 'destroyed'";

const HISTORIES: readonly History[] = [
  {
    keep: KEEP.events,
    counts: "SELECT owner, count(*) AS rows FROM events GROUP BY owner",
    remove:
      "DELETE FROM events WHERE owner IS ?1 AND id <= (SELECT id FROM events WHERE owner IS ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
  },
  {
    keep: KEEP.execs,
    counts: `SELECT (SELECT ${OWNER} FROM sandboxes WHERE id = sandbox_id) AS owner, sum(n) AS rows
      FROM (SELECT sandbox_id, count(*) AS n FROM execs GROUP BY sandbox_id) GROUP BY 1`,
    // Those of sandboxes that are not known any more belong to nobody.
    remove: `WITH theirs AS MATERIALIZED (SELECT id FROM execs WHERE sandbox_id IN (SELECT id FROM sandboxes WHERE ${OWNER} IS ?1)
      OR (?1 IS NULL AND sandbox_id NOT IN (SELECT id FROM sandboxes)))
      DELETE FROM execs WHERE id IN (SELECT id FROM theirs ORDER BY id DESC LIMIT -1 OFFSET ?2)`,
  },
  {
    keep: KEEP.destroyed,
    counts: `SELECT ${OWNER} AS owner, count(*) AS rows ${DESTROYED} GROUP BY 1`,
    remove: `DELETE FROM sandboxes WHERE id IN (SELECT id ${DESTROYED} AND ${OWNER} IS ?1 ORDER BY updated_at DESC LIMIT -1 OFFSET ?2)`,
  },
];

export function prune(database: Database): void {
  database.transaction((run) => {
    for (const { keep, counts, remove } of HISTORIES) {
      const owners = database.all(counts);
      const share = fairShare(
        owners.map(({ rows }) => Number(rows)),
        keep,
      );
      for (const { owner, rows } of owners) {
        if (Number(rows) > share) run(remove, [owner as Value, share]);
      }
    }
    run("DELETE FROM audit WHERE id <= (SELECT max(id) FROM audit) - ?", [KEEP.audit]);
  });
}

/** How many each may have at most, so that all together have no more than `keep`; who has fewer leaves the rest to the others. */
export function fairShare(counts: readonly number[], keep: number): number {
  let [left, owners] = [keep, counts.length];
  for (const count of counts.toSorted((a, b) => a - b)) {
    const share = Math.floor(left / owners);
    if (count > share) return share;
    left -= count;
    owners -= 1;
  }
  return Number.MAX_SAFE_INTEGER;
}
