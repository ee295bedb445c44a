import assert from "node:assert/strict";
import { test } from "node:test";
import { type Client, NotFoundError, type Sandbox } from "../../sdk/src/index.ts";
import type { StacyError } from "../host/error.ts";
import { findSandbox } from "./client-command.ts";

const IDS = ["sb-db12cafe", "sb-db34cafe"];

/** One that knows these ids and no names. */
const client = {
  get: async (id: string) => {
    if (IDS.includes(id)) return { id } as Sandbox;
    throw new NotFoundError("NOT_FOUND", `there is no sandbox ${id}`);
  },
  list: async () => IDS.map((id) => ({ id, info: { id, owner: "anna", name: `box-${id.slice(3, 7)}` } }) as Sandbox),
} as unknown as Client;

test("a beginning of an id is one with sb-; a name that is gone, or nothing, is no other sandbox", async () => {
  assert.equal((await findSandbox(client, "sb-db12")).id, "sb-db12cafe");
  await assert.rejects(findSandbox(client, "sb-db"), /2 sandboxes begin with sb-db/);
  for (const gone of ["db12", "db", "cafe", "sb-", "sb-ff"])
    await assert.rejects(findSandbox(client, gone), /no sandbox/);
  await assert.rejects(findSandbox(client, ""), /empty/);
});

test("a name that is another owner's is told with its id and its owner", async () => {
  await assert.rejects(findSandbox(client, "box-db12"), (error: StacyError) => {
    assert.equal(error.code, "not-found");
    assert.match(error.message, /no sandbox of your own is called "box-db12"/);
    assert.match(error.remedy ?? "", /sb-db12cafe \(or --as anna\)/);
    return true;
  });
});
