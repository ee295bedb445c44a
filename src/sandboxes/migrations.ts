/** The database's schema, step by step. A step is never changed once published; new needs append a step. */
export const MIGRATIONS: readonly string[] = [
  `
  CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
  CREATE TABLE sandboxes (
    id TEXT PRIMARY KEY, state TEXT NOT NULL, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, data TEXT NOT NULL
  ) STRICT;
  CREATE INDEX sandboxes_by_state ON sandboxes (state, updated_at);
  CREATE TABLE templates (name TEXT PRIMARY KEY, data TEXT NOT NULL) STRICT;
  CREATE TABLE quotas (owner_id TEXT PRIMARY KEY, data TEXT NOT NULL) STRICT;
  CREATE TABLE checkpoints (id TEXT PRIMARY KEY, sandbox_id TEXT NOT NULL, data TEXT NOT NULL) STRICT;
  CREATE TABLE execs (id INTEGER PRIMARY KEY AUTOINCREMENT, sandbox_id TEXT NOT NULL, data TEXT NOT NULL) STRICT;
  CREATE INDEX execs_by_sandbox ON execs (sandbox_id, id);
  CREATE TABLE events (id INTEGER PRIMARY KEY, data TEXT NOT NULL) STRICT;
  `,
];
