import assert from "node:assert/strict";
import { test } from "node:test";
import { validateConfig } from "./load.ts";
import { isPublishedConfig, migrateConfig } from "./published.ts";

test("what is theirs is recognised, and ours is not", () => {
  for (const theirs of [
    { providers: { default: "docker" } },
    { providers: { firecracker: { enabled: true } } },
    { database: { driver: "sqlite" } },
    { auth: { oidc_enabled: false } },
    { pool: { enabled: true } },
    { environments: { enabled: true } },
  ])
    assert.ok(isPublishedConfig(theirs), JSON.stringify(theirs));
  for (const ours of [
    {},
    { environments: { allowed_hosts: [] } },
    { providers: { default: "qemu", aliases: { docker: "qemu" } } },
    { server: { port: 1 } },
  ])
    assert.ok(!isPublishedConfig(ours), JSON.stringify(ours));
});

test("a whole file becomes a valid one of ours that serves the same clients", () => {
  const { config, notes } = migrateConfig({
    server: {
      host: "0.0.0.0",
      port: 7423,
      preview_domain: "boxes.example",
      cors_allowed_origins: ["https://a.example"],
    },
    providers: {
      default: "docker",
      docker: { enabled: true, network_mode: "bridge", user: "1000:1000" },
      firecracker: { enabled: false },
    },
    defaults: { ttl: "30m", image: "alpine:latest", max_sandboxes: 100, pool_size: 0, spawn_overflow: "queue" },
    auth: { enabled: true, api_key: "one", admin_api_key: "two", oidc_enabled: true, worker_token: "w" },
    rate_limit: { enabled: true, requests_per_minute: 120, burst: 60, key_by: "owner", bucket_ttl: "15m" },
    database: { driver: "sqlite", path: "stacyvm.db" },
    logging: { level: "info", format: "json" },
    pool: { enabled: true, max_vms: 10 },
    unknown: { thing: 1 },
  });
  assert.deepEqual(config, {
    server: {
      host: "0.0.0.0",
      port: 7423,
      preview_domain: "boxes.example",
      cors_allowed_origins: ["https://a.example"],
    },
    defaults: {
      ttl: "30m",
      image: "alpine:latest",
      max_sandboxes: 100,
      spawn_overflow: "queue",
      workdir: "/workspace",
      allowed_hosts: ["*:*"],
    },
    auth: { api_key: "one", admin_api_key: "two" },
    rate_limit: { enabled: true, requests_per_minute: 120, burst: 60, key_by: "owner" },
    logging: { level: "info", format: "json" },
  });
  validateConfig(structuredClone(config), "");
  assert.equal(isPublishedConfig(config), false);
  for (const word of [
    ...["unknown.thing", "pool.enabled", "auth.oidc_enabled", "auth.worker_token"],
    ...["server.preview_domain: ", "providers.docker: "],
  ])
    assert.ok(
      notes.some((note) => note.startsWith(word)),
      word,
    );
});

test("previews of localhost are asked of the server itself", () => {
  for (const server of [{ port: 8080 }, { port: 8080, preview_domain: "localhost" }]) {
    const { config } = migrateConfig({ server, providers: { default: "mock" } });
    assert.equal((config.server as { preview_domain: string }).preview_domain, "localhost:8080");
  }
});

test("an open server of theirs becomes one for this host only", () => {
  const { config, notes } = migrateConfig({ providers: { default: "mock" } });
  assert.equal((config.server as { host: string }).host, "127.0.0.1");
  assert.ok(notes.some((note) => /loopback/.test(note)));
});
