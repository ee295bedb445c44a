import assert from "node:assert/strict";
import { test } from "node:test";
import { z } from "@hono/zod-openapi";
import { ExecRequest } from "./schemas/exec.ts";
import { SpawnRequest } from "./schemas/sandbox.ts";
import { TemplateRequest } from "./schemas/template.ts";
import { refuseUnknown } from "./unknown-fields.ts";

const refused = (schema: z.ZodType, value: unknown): { message: string; remedy?: string } => {
  try {
    refuseUnknown(schema, value);
  } catch (error) {
    return error as { message: string; remedy?: string };
  }
  throw new assert.AssertionError({ message: `${JSON.stringify(value)} was taken` });
};

test("a field that no sandbox has is refused with the one that was meant: by spelling, by unit, by what others call it", () => {
  for (const [name, meant] of [
    ["memory", "memory_mb"],
    ["memoryMb", "memory_mb"],
    ["memoryMiB", "memory_mb"],
    ["Image", "image"],
    ["cpus", "vcpus"],
    ["timeoutMs", "ttl"],
    ["envs", "env"],
    ["labels", "metadata"],
    ["allowedHosts", "allowed_hosts"],
  ] as const)
    assert.equal(refused(SpawnRequest, { image: "i", [name]: 1 }).remedy, `write ${meant}`);
  assert.equal(refused(ExecRequest, { command: "ls", cwd: "/" }).remedy, "write workdir");
  assert.equal(refused(ExecRequest, { command: "ls", timeoutMs: 1 }).remedy, "write timeout");
});

test("where nothing like it is known all fields are named; names of every object's own are no fields", () => {
  const { message, remedy } = refused(SpawnRequest, { nonsense: 1 });
  assert.equal(message, 'there is no field "nonsense"');
  assert.match(remedy ?? "", /^the fields here are name, image, .*forkable$/);
  assert.match(refused(SpawnRequest, { constructor: 1 }).message, /"constructor"/);
});

test("fields within fields are looked at, maps are not, and what a record has may come back with it", () => {
  const part = z.object({ list: z.array(z.object({ name: z.string() })).nullish() });
  assert.equal(refused(part, { list: [{ name: "a" }, { nam: "b" }] }).message, 'there is no field "list.1.nam"');
  refuseUnknown(SpawnRequest, { env: { memory: "1" }, metadata: { memory: "1" }, tenant_id: "t" });
  refuseUnknown(TemplateRequest, { image: "i", owner: "o", created_at: "", updated_at: "", env: null });
  for (const value of [null, 1, "text", [1]]) refuseUnknown(SpawnRequest, value);
});
