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
  // Owners. What was made before there were any belongs to the default one. Names of templates and users are each owner's own.
  // A damaged row stays as it is: json_set would end the migration.
  `
  UPDATE sandboxes SET data = json_set(data, '$.owner', 'default') WHERE json_valid(data);
  UPDATE checkpoints SET data = json_set(data, '$.owner', 'default') WHERE json_valid(data);
  ALTER TABLE templates RENAME TO templates_before;
  CREATE TABLE templates (owner TEXT NOT NULL, name TEXT NOT NULL, data TEXT NOT NULL, PRIMARY KEY (owner, name)) STRICT;
  INSERT INTO templates SELECT 'default', name, iif(json_valid(data), json_set(data, '$.owner', 'default'), data) FROM templates_before;
  DROP TABLE templates_before;
  ALTER TABLE quotas RENAME TO quotas_before;
  CREATE TABLE quotas (owner TEXT NOT NULL, owner_id TEXT NOT NULL, data TEXT NOT NULL, PRIMARY KEY (owner, owner_id)) STRICT;
  INSERT INTO quotas SELECT 'default', owner_id, iif(json_valid(data), json_set(data, '$.owner', 'default'), data) FROM quotas_before;
  DROP TABLE quotas_before;
  ALTER TABLE events ADD COLUMN owner TEXT;
  UPDATE events SET owner = 'default', data = json_set(data, '$.owner', 'default')
    WHERE json_valid(data) AND (data ->> '$.sandboxId' IS NOT NULL
      OR data ->> '$.type' GLOB 'template.*' OR data ->> '$.type' GLOB 'quota.*');
  CREATE INDEX events_by_owner ON events (owner, id);
  CREATE TABLE keys (id TEXT PRIMARY KEY, data TEXT NOT NULL) STRICT;
  CREATE TABLE audit (id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, data TEXT NOT NULL) STRICT;
  `,
  // What is small, read as a whole at the start and found by its id: tenants, environments and their builds.
  `
  CREATE TABLE documents (kind TEXT NOT NULL, id TEXT NOT NULL, data TEXT NOT NULL, PRIMARY KEY (kind, id)) STRICT;
  `,
  // Secrets: of owners by name, of single sandboxes by their id, a slash and the name.
  `
  CREATE TABLE secrets (owner TEXT NOT NULL, name TEXT NOT NULL, data TEXT NOT NULL, PRIMARY KEY (owner, name)) STRICT;
  `,
];
