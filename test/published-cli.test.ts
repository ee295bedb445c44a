/** The published StacyVM's command line, typed at ours; and the way from its configuration and database to ours. */
import assert from "node:assert/strict";
import { mkdir, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { parse } from "yaml";
import { Cli } from "./cli-support.ts";
import { Server } from "./server-support.ts";

const KEY = "key-in-the-command-line";

test("its commands and options do what ours do, and say what they are called here", async () => {
  await using cli = await Cli.create();
  await using server = await Server.create(`auth: { api_key: ${KEY} }\ndefaults: { memory_mb: 128 }\n`);
  const run = (...args: string[]) => cli.run(["--server", server.url, "--api-key", KEY, ...args]);

  const spawned = await run("spawn", "--image", "stacyvm/busybox", "--ttl", "5m", "--memory", "128", "--vcpus", "1");
  assert.equal(spawned.code, 0, spawned.stderr);
  const id = spawned.stdout.trim();
  assert.match(id, /^sb-[0-9a-f]{8}$/);
  assert.match(spawned.stderr, /`spawn --image IMAGE` is `spawn IMAGE` here/);
  assert.match(spawned.stderr, /can see a key/);
  const listed = await run("list");
  assert.ok(listed.stdout.includes(id));
  assert.match(listed.stderr, /`list` is `ls` here/);
  const said = await run("exec", id, "--shell", "--", "echo one && echo two");
  assert.deepEqual([said.code, said.stdout], [0, "one\ntwo\n"], said.stderr);
  assert.equal(
    (await cli.run(["exec", id, "--server", server.url, "--api-key", KEY, "--", "echo", "three"])).stdout,
    "three\n",
  );
  assert.equal((await run("exec", id, "--", "sh", "-c", "exit 3")).code, 3);
  const unknown = await cli.run(["list", "--server", server.url]);
  assert.equal(unknown.code, 1, "without a key");
  assert.match(unknown.stderr, /set STACYVM_API_KEY, or name the key's file with --api-key-file/);

  // A word with two meanings: theirs destroys, ours needs a command to signal.
  const killed = await run("kill", id);
  assert.equal(killed.code, 2);
  assert.match(killed.stderr, new RegExp(`stacyvm rm ${id}`));
  assert.ok((await run("list")).stdout.includes(id));

  const bundle = join(cli.data, "bundle.json");
  assert.equal((await run("support", "bundle", bundle, "--include-server")).code, 0);
  const text = await readFile(bundle, "utf8");
  assert.ok(!text.includes(KEY));
  assert.equal(JSON.parse(text).server.store.healthy, true);
  assert.ok(JSON.parse(text).doctor.length > 3);
});

test("its commands for configuration and database", async () => {
  await using cli = await Cli.create();
  await writeFile(join(cli.data, "good.yaml"), "server: { port: 1 }\n");
  await writeFile(join(cli.data, "bad.yaml"), "server: { port: many }\n");
  assert.equal((await cli.run(["config", "lint", "--file", "good.yaml"])).code, 0);
  assert.equal((await cli.run(["config", "lint", "--file", "bad.yaml"])).code, 2);
  assert.match((await cli.run(["config", "lint", "--file", "good.yaml", "--production"])).stderr, /auth.api_key/);

  await cli.out("template", "create", "kept", "stacyvm/busybox");
  await cli.out("db", "backup", "copy.db");
  assert.equal((await stat(join(cli.data, "copy.db"))).mode & 0o777, 0o600, "it has what people ran");
  assert.deepEqual(
    (await readdir(cli.data)).filter((name) => name.startsWith("copy.db")),
    ["copy.db"],
  );
  assert.notEqual((await cli.run(["db", "backup", "copy.db"])).code, 0, "it would replace the copy");
  await cli.out("template", "rm", "kept");
  assert.match((await cli.run(["db", "restore", "copy.db"])).stderr, /--yes/);
  await cli.out("db", "restore", "copy.db", "--yes");
  assert.match(await cli.out("template", "ls"), /kept/);
  await writeFile(join(cli.data, "nonsense"), "x".repeat(10_000));
  assert.notEqual((await cli.run(["db", "restore", "nonsense", "--yes"])).code, 0);
  assert.match(await cli.out("template", "ls"), /kept/);
});

test("a backup brings back a suspended sandbox and a checkpoint: the directories first, then the database", async () => {
  await using cli = await Cli.create();
  await using server = await Server.create("defaults: { memory_mb: 128 }\n");
  const database = (...args: string[]) => cli.run(["db", ...args], { env: { STACYVM_DATA_DIR: server.root } });
  const [copy, parts] = [join(cli.data, "copy.db"), ["snapshots", "images", "sandboxes"]];
  const note = async (id: string) =>
    (await server.ok("POST", `/sandboxes/${id}/exec`, { command: "cat /root/note" })).stdout;
  const { id } = await server.ok("POST", "/sandboxes", { image: "stacyvm/busybox", ttl: "2h" });
  await server.ok("POST", `/sandboxes/${id}/exec`, { command: "echo kept > /root/note" });
  const { id: checkpoint } = await server.ok("POST", `/sandboxes/${id}/checkpoints`, { name: "mark" });
  await server.ok("POST", `/sandboxes/${id}/suspend`);

  assert.equal((await database("backup", copy)).code, 0);
  const backup = join(cli.data, "backup");
  await mkdir(backup);
  await cli.program(["cp", "-a", "--sparse=always", ...parts.map((part) => join(server.root, part)), backup]);
  await server.stop("SIGTERM");
  for (const lost of [...parts, "stacyvm.db"]) await rm(join(server.root, lost), { recursive: true });

  await cli.program(["cp", "-a", "--sparse=always", ...parts.map((part) => join(backup, part)), server.root]);
  assert.equal((await database("restore", copy, "--yes")).code, 0);
  await server.start();
  await server.ok("POST", `/sandboxes/${id}/resume`);
  assert.equal(await note(id), "kept\n");
  const again = await server.ok("POST", "/sandboxes", { checkpoint });
  assert.equal(await note(again.id), "kept\n");
});

test("its configuration and database become ours; sandboxes are named as not movable", async () => {
  await using cli = await Cli.create();
  const config = join(cli.data, "stacyvm.yaml");
  const theirs = `
server: { port: 7423, host: 0.0.0.0 }
providers: { default: docker, docker: { enabled: true, runtime: runc } }
defaults: { ttl: 20m, image: stacyvm/busybox, max_sandboxes: 9 }
database: { driver: sqlite, path: theirs.db }
`;
  await writeFile(config, theirs);
  publishedDatabase(join(cli.data, "theirs.db"));

  // A start on it says what to do. It lies where ours would.
  const started = await cli.run(["serve", "--port", "0"]);
  assert.notEqual(started.code, 0);
  assert.match(started.stderr, /stacyvm migrate .*stacyvm\.yaml/);

  const dry = await cli.run(["migrate", "stacyvm.yaml", "--dry-run"]);
  assert.equal(dry.code, 0, dry.stderr);
  assert.equal(parse(dry.stdout).defaults.max_sandboxes, 9);
  for (const said of [/policies: acme: deny image/, /members of acme need keys/, /acme: deny network host/])
    assert.match(dry.stderr, said, "before anything is changed");
  assert.equal(await readFile(config, "utf8"), theirs);

  const report = await cli.json("migrate", "stacyvm.yaml");
  assert.deepEqual(report.templates, ["builder"]);
  assert.deepEqual(report.quotas, ["alice"]);
  assert.deepEqual(report.tenants, ["acme"]);
  assert.deepEqual(report.policies, ["acme: deny image alpine:*"]);
  assert.deepEqual(report.environments, ["science"]);
  for (const word of [
    /the members of acme need keys: .*bob \(read\)/,
    /not taken over: the policy acme: deny network host/,
    /policies for all were not taken over \(deny image bad/,
  ]) {
    assert.ok(
      report.notes.some((note: string) => word.test(note)),
      report.notes,
    );
  }
  assert.deepEqual(report.sandboxes, ["sb-11111111"]);
  assert.ok(
    report.notes.some((note: string) => /broken was not taken over/.test(note)),
    report.notes,
  );
  assert.equal(await readFile(`${config}.published`, "utf8"), theirs);
  const [template] = await cli.json("template", "ls");
  assert.equal(template.name, "builder");
  assert.deepEqual(template.setup, ["echo ready"]);
  assert.equal(template.ttl_seconds, 600);
  const again = await cli.run(["migrate", "stacyvm.yaml"]);
  assert.match(again.stderr, /is not a configuration of the published StacyVM/);
  await writeFile(join(cli.data, "postgres.yaml"), "database: { driver: postgres }\n");
  assert.match((await cli.run(["migrate", "postgres.yaml", "--dry-run"])).stderr, /PostgreSQL, which is not read/);
});

test("what is wrong with its files is said, with the file; one bad row holds nothing up, and nothing is taken over twice", async () => {
  await using cli = await Cli.create();
  const at = (name: string): string => join(cli.data, name);
  const theirs = "providers: { default: docker }\n";
  for (const [text, says] of [
    ["a: [b\n c: }", /wrong\.yaml is not YAML/],
    ["a: 1\na: 2\n", /wrong\.yaml is not YAML/],
    ["- a\n", /wrong\.yaml must hold keys and values/],
    [`${theirs}---\nb: 1\n`, /wrong\.yaml is not YAML/],
    [`${theirs}database: { path: 5 }\n`, /database\.path is no path/],
  ] as const) {
    await writeFile(at("wrong.yaml"), text);
    const { code, stderr } = await cli.run(["migrate", "wrong.yaml"]);
    assert.match(stderr, says);
    assert.equal(code, 2, stderr);
    assert.equal(await readFile(at("wrong.yaml"), "utf8"), text);
  }

  // What an earlier one has kept stays; what one that was ended left behind does not matter.
  await writeFile(at("c.yaml"), theirs);
  await writeFile(at("c.yaml.published"), "kept before");
  await writeFile(at("c.yaml.new"), "left behind");
  assert.match((await cli.run(["migrate", "c.yaml", "--no-database"])).stderr, /c\.yaml\.published is there already/);
  assert.deepEqual(
    [await readFile(at("c.yaml"), "utf8"), await readFile(at("c.yaml.published"), "utf8")],
    [theirs, "kept before"],
  );
  await rm(at("c.yaml.published"));
  await cli.out("migrate", "c.yaml", "--no-database");
  assert.equal(await readFile(at("c.yaml.published"), "utf8"), theirs);

  publishedDatabase(at("theirs.db"));
  {
    using db = new DatabaseSync(at("theirs.db"));
    db.exec(`
      INSERT INTO templates VALUES ('garbled', 1, 'alpine', '', '[no JSON', '', 128, 1, 600, '', '', 0);
      INSERT INTO templates VALUES ('sparse', 1, 'alpine', '', '', '', 128, 1, 600, '', '', 0);
      INSERT INTO policies VALUES ('pol-4', 'nobody', 'image', 'deny', 'x', 10);
      INSERT INTO policies VALUES ('pol-5', 'acme', 'image', 'deny', 'first', -5);
      INSERT INTO policies VALUES ('pol-6', 'acme', 'image', 'deny', 'usual', 0);
    `);
  }
  const first = await cli.json("migrate", "c.yaml", "--database", "theirs.db");
  assert.deepEqual(first.templates, ["builder", "sparse"]);
  for (const word of [/the template garbled cannot be read/, /the policy deny image x of nobody was not taken over/]) {
    assert.ok(
      first.notes.some((note: string) => word.test(note)),
      first.notes,
    );
  }
  await cli.json("migrate", "c.yaml", "--database", "theirs.db");
  using ours = new DatabaseSync(at("stacyvm.db"), { readOnly: true });
  const policies = ours.prepare("SELECT data FROM documents WHERE kind = 'policy'").all();
  assert.deepEqual(policies.map(({ data }) => JSON.parse(String(data)).pattern).sort(), ["alpine:*", "first", "usual"]);
});

function publishedDatabase(path: string): void {
  using db = new DatabaseSync(path);
  db.exec(`
    CREATE TABLE schema_migrations (version INTEGER);
    CREATE TABLE sandboxes (id TEXT, state TEXT, provider TEXT, image TEXT, owner_id TEXT);
    INSERT INTO sandboxes VALUES ('sb-11111111', 'running', 'docker', 'alpine:latest', 'alice');
    INSERT INTO sandboxes VALUES ('sb-22222222', 'destroyed', 'docker', 'alpine:latest', '');
    CREATE TABLE templates (name TEXT, version INTEGER, image TEXT, description TEXT, setup TEXT, allowed_hosts TEXT,
      memory_mb INTEGER, cpu_cores INTEGER, ttl_seconds INTEGER, env TEXT, secrets TEXT, pool_size INTEGER);
    INSERT INTO templates VALUES ('builder', 3, 'stacyvm/busybox', 'builds', '["echo ready"]', 'null', 128, 1, 600,
      '{"A":"b"}', '[]', 0);
    INSERT INTO templates VALUES ('broken', 1, 'stacyvm/busybox', '', '[]', '["https://not a host"]', 128, 1, 600, '{}', '[]', 0);
    CREATE TABLE owner_quotas (owner_id TEXT, max_sandboxes INTEGER, max_ttl_seconds INTEGER, max_exec_timeout_seconds INTEGER);
    CREATE TABLE tenants (id TEXT, name TEXT, owner_id TEXT, settings TEXT);
    INSERT INTO tenants VALUES ('acme', 'Acme Corp', '', '{"a":1}');
    INSERT INTO tenants VALUES ('no owner name', 'Broken', '', '{}');
    CREATE TABLE tenant_members (tenant_id TEXT, user_id TEXT, role TEXT);
    INSERT INTO tenant_members VALUES ('acme', 'bob', 'viewer');
    CREATE TABLE policies (id TEXT, tenant_id TEXT, resource_type TEXT, effect TEXT, pattern TEXT, priority INTEGER);
    INSERT INTO policies VALUES ('pol-1', 'acme', 'image', 'deny', 'alpine:*', 10);
    INSERT INTO policies VALUES ('pol-3', '', 'image', 'deny', 'bad:*', 10);
    INSERT INTO policies VALUES ('pol-2', 'acme', 'network', 'deny', 'host', 10);
    CREATE TABLE environment_specs (id TEXT, owner_id TEXT, name TEXT, base_image TEXT, python_packages TEXT, apt_packages TEXT, python_version TEXT);
    INSERT INTO environment_specs VALUES ('e', 'alice', 'science', 'python:3.12', '["numpy"]', 'null', '3.12');
    INSERT INTO owner_quotas VALUES ('alice', 4, 3600, 0);
  `);
}
