/**
 * The fleet's tables, in a PostgreSQL schema of their own (`stacyvm`), and how they become those of this version. Whoever starts brings
 * them forward, one at a time by an advisory lock. Servers of two versions run side by side during an upgrade, so a step adds only; one
 * that takes something away says which versions of the tables can still be worked with (`works`).
 *
 * Times are ms since 1970 where a server says them, `timestamptz` where the database does.
 */
import { StacyError } from "../../host/error.ts";
import type { FleetDatabase } from "./database.ts";

interface Step {
  sql: string;
  /** The oldest version of this list that can work with the tables from now on. */
  works: number;
}

/** Never changed once released: only added to. */
const STEPS: readonly Step[] = [
  {
    works: 1,
    sql: `
      CREATE TABLE stacyvm.nodes (
        id uuid PRIMARY KEY,
        -- Of the process that has registered last: one that was told otherwise is not this node any more.
        incarnation uuid NOT NULL,
        name text NOT NULL,
        url text NOT NULL,
        role text NOT NULL,
        version text NOT NULL,
        labels jsonb NOT NULL,
        architecture text NOT NULL,
        providers jsonb NOT NULL,
        host_identity text NOT NULL,
        load jsonb NOT NULL,
        draining boolean NOT NULL DEFAULT false,
        heartbeat_ms integer NOT NULL,
        seen_at timestamptz NOT NULL DEFAULT now(),
        -- Of everything but seen_at.
        changed_at timestamptz NOT NULL DEFAULT now(),
        removed_at timestamptz
      );
      CREATE UNIQUE INDEX nodes_name ON stacyvm.nodes (name) WHERE removed_at IS NULL;
      CREATE SEQUENCE stacyvm.epoch;
      CREATE TABLE stacyvm.sandboxes (
        id text PRIMARY KEY,
        node_id uuid NOT NULL REFERENCES stacyvm.nodes,
        epoch bigint NOT NULL DEFAULT nextval('stacyvm.epoch'),
        owner text NOT NULL,
        name text,
        state text NOT NULL,
        image text NOT NULL,
        created_at bigint NOT NULL,
        expires_at bigint NOT NULL
      );
      CREATE UNIQUE INDEX sandboxes_name ON stacyvm.sandboxes (owner, name) WHERE name IS NOT NULL;
      CREATE INDEX sandboxes_node ON stacyvm.sandboxes (node_id);
    `,
  },
  {
    works: 1,
    sql: `
      CREATE TABLE stacyvm.fleet AS SELECT gen_random_uuid() AS id;
      -- Counted up by whoever writes what it is of.
      CREATE TABLE stacyvm.revisions (what text PRIMARY KEY, n bigint NOT NULL DEFAULT 0);
      INSERT INTO stacyvm.revisions (what) VALUES ('keys');
      CREATE TABLE stacyvm.keys (
        id text PRIMARY KEY,
        version bigint NOT NULL DEFAULT 1,
        data json NOT NULL,
        last_used_at bigint
      );
    `,
  },
  {
    works: 1,
    sql: `
      INSERT INTO stacyvm.revisions (what) VALUES ('templates'), ('quotas');
      CREATE TABLE stacyvm.shared (
        kind text NOT NULL,
        key text NOT NULL,
        version bigint NOT NULL DEFAULT 1,
        data json NOT NULL,
        PRIMARY KEY (kind, key)
      );
    `,
  },
  {
    works: 1,
    sql: `
      ALTER TABLE stacyvm.sandboxes
        -- The user that its client has named.
        ADD COLUMN owner_id text,
        ADD COLUMN memory_mib bigint NOT NULL DEFAULT 0,
        ADD COLUMN vcpus bigint NOT NULL DEFAULT 0,
        ADD COLUMN disk_mib bigint NOT NULL DEFAULT 0,
        -- Of the request that it was made for, as its client has chosen it.
        ADD COLUMN request_key text;
      CREATE INDEX sandboxes_owner ON stacyvm.sandboxes (owner, owner_id);
      CREATE UNIQUE INDEX sandboxes_request ON stacyvm.sandboxes (owner, request_key) WHERE request_key IS NOT NULL;

      -- What an owner's sandboxes take together, or one user's of it; without one of them. Failed ones have no machine.
      CREATE FUNCTION stacyvm.taken(of_owner text, of_user text, besides text)
        RETURNS TABLE (sandboxes bigint, memory_mib bigint, vcpus bigint, disk_mib bigint) LANGUAGE sql STABLE AS $$
        SELECT count(*), coalesce(sum(s.memory_mib), 0)::bigint, coalesce(sum(s.vcpus), 0)::bigint, coalesce(sum(s.disk_mib), 0)::bigint
        FROM stacyvm.sandboxes s
        WHERE s.owner = of_owner AND (of_user IS NULL OR s.owner_id = of_user) AND s.id <> besides AND s.state <> 'error'
      $$;

      -- Whether a sandbox may be: most is {"user": {"sandboxes": 5, ...}, "all": {...}}, its own is {"sandboxes": 1, ...}. A key that was used
      -- for one that has failed, or for an old one, is free.
      CREATE FUNCTION stacyvm.admit(itself text, of_owner text, of_user text, own jsonb, most jsonb, request text, forgotten bigint)
        RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
        DECLARE scope text; has jsonb; what text; at_most bigint;
        BEGIN
          FOREACH scope IN ARRAY ARRAY['user', 'all'] LOOP
            CONTINUE WHEN most->scope IS NULL;
            -- One after another: each statement here sees what those before have written.
            PERFORM pg_advisory_xact_lock(7423002, hashtext(CASE scope WHEN 'user' THEN of_owner || ' ' || of_user ELSE of_owner END));
            SELECT to_jsonb(t) INTO has FROM stacyvm.taken(of_owner, CASE scope WHEN 'user' THEN of_user END, itself) t;
            FOR what, at_most IN SELECT key, value::bigint FROM jsonb_each_text(most->scope) LOOP
              IF (has->>what)::bigint + (own->>what)::bigint > at_most THEN
                RAISE EXCEPTION 'over the limit' USING ERRCODE = 'SV001',
                  DETAIL = jsonb_build_object('what', what, 'has', has->what, 'most', at_most);
              END IF;
            END LOOP;
          END LOOP;
          UPDATE stacyvm.sandboxes s SET request_key = NULL
            WHERE s.owner = of_owner AND s.request_key = request AND s.id <> itself AND (s.state = 'error' OR s.created_at < forgotten);
          RETURN true;
        END $$;
    `,
  },
  {
    works: 1,
    sql: `
      ALTER TABLE stacyvm.fleet ADD COLUMN events_base bigint NOT NULL DEFAULT 0;
      INSERT INTO stacyvm.revisions (what) VALUES ('events swept');
      -- How far a server has brought its own, by its own numbers.
      CREATE TABLE stacyvm.event_marks (node_id uuid PRIMARY KEY, n bigint NOT NULL);
      CREATE TABLE stacyvm.events (
        n bigint PRIMARY KEY,
        at bigint NOT NULL,
        owner text,
        sandbox_id text,
        type text NOT NULL,
        data json
      );
      CREATE INDEX events_owner ON stacyvm.events (owner, n);
    `,
  },
];

export const SCHEMA_VERSION = STEPS.length;

/** Of all fleets' locks in one database: this one is for the tables. */
const LOCK = 7_423_001;

/** Brings the tables forward. Idempotent. @throws StacyError `conflict` when they are newer than this version can work with */
export async function migrate(database: FleetDatabase): Promise<void> {
  await database.transaction(async (query) => {
    await query("SELECT pg_advisory_xact_lock($1)", [LOCK]);
    // Asked first: one that is there may be another user's, who alone may make some.
    const [there] = await query<{ missing: boolean }>("SELECT to_regnamespace('stacyvm') IS NULL AS missing");
    if (there?.missing === true) await query("CREATE SCHEMA stacyvm");
    await query(
      "CREATE TABLE IF NOT EXISTS stacyvm.steps (version integer PRIMARY KEY, works integer NOT NULL, made_at timestamptz NOT NULL DEFAULT now())",
    );
    const [found] = await query<{ version: number; works: number }>(
      "SELECT coalesce(max(version), 0)::integer AS version, coalesce(max(works), 0)::integer AS works FROM stacyvm.steps",
    );
    const { version = 0, works = 0 } = found ?? {};
    if (works > SCHEMA_VERSION) {
      throw new StacyError(
        "conflict",
        `the fleet's database is of a newer version (${version}) than this server knows`,
        {
          remedy: "upgrade this server to the version of the others",
        },
      );
    }
    for (const [index, step] of STEPS.entries()) {
      if (index < version) continue;
      await query(step.sql);
      await query("INSERT INTO stacyvm.steps (version, works) VALUES ($1, $2)", [index + 1, step.works]);
    }
  });
}
