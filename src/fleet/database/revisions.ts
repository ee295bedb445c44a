/**
 * Numbers that say whether something has changed: whoever writes to what they are of counts them up, one after another, and tells the others.
 * One that has not changed says that nothing has.
 */
import type { FleetDatabase } from "./database.ts";

/** The beginning of a statement that writes: it counts, tells, and gives one row by the name `told`. Both names are ours, without quotes. */
export function counted(what: string, channel: string): string {
  return `WITH counted AS (UPDATE stacyvm.revisions SET n = n + 1 WHERE what = '${what}' RETURNING n),
    told AS (SELECT pg_notify('${channel}', n::text) FROM counted)`;
}

/** @returns the number, and the id of the fleet; empty where there is none @throws StacyError `unavailable` */
export async function revisionOf(database: FleetDatabase, what: string): Promise<{ n: string; fleet: string }> {
  const { rows } = await database.query<{ n: string; fleet: string }>(
    "SELECT n, (SELECT id FROM stacyvm.fleet) AS fleet FROM stacyvm.revisions WHERE what = $1",
    [what],
  );
  return rows[0] ?? { n: "", fleet: "" };
}
