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

/** A number, and the id of the fleet; empty where there is none. */
export interface Revision {
  n: string;
  fleet: string;
}

/** All of them, by what they are of. @throws StacyError `unavailable` */
export async function revisions(database: FleetDatabase): Promise<ReadonlyMap<string, Revision>> {
  const { rows } = await database.query<Revision & { what: string }>(
    "SELECT what, n, (SELECT id FROM stacyvm.fleet) AS fleet FROM stacyvm.revisions",
  );
  return new Map(rows.map(({ what, ...revision }) => [what, revision]));
}

/** @throws StacyError `unavailable` */
export async function revisionOf(database: FleetDatabase, what: string): Promise<Revision> {
  return (await revisions(database)).get(what) ?? { n: "", fleet: "" };
}
