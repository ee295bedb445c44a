/** Calls that end by an error, as clients read them. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { StacyError } from "../../host/error.ts";
import type { E2bParts } from "../parts.ts";
import { Envd } from "./envd.ts";
import type { Target } from "./guest.ts";

async function codeOf(lease: () => Promise<unknown>, headers: Record<string, string> = {}): Promise<string> {
  const images = { of: () => ({ resolve: async () => undefined }) };
  const parts = { config: { server: { max_file_json_bytes: 1024 } }, images, stopping: new AbortController().signal };
  const target = { id: "x", sandboxes: { owner: "default", lease } } as unknown as Target;
  const init = { method: "POST", headers: { "content-type": "application/json", ...headers }, body: '{"path":"/"}' };
  const request = new Request("http://x/filesystem.Filesystem/Stat", init);
  const answer = await new Envd(parts as unknown as E2bParts).handle(target, request);
  return ((await answer.json()) as { code: string }).code;
}

test("a call whose time is over says so, whatever the end of its time has broken", async () => {
  // As the guest's agent tells a call that was given up.
  const readFile = (_path: string, { signal }: { signal: AbortSignal }) =>
    new Promise((_, reject) => {
      const ended = () => reject(new StacyError("cancelled", "cancelled: READ"));
      if (signal.aborted) ended();
      else signal.addEventListener("abort", ended, { once: true });
    });
  const agent = { readFile, stat: () => Promise.reject(new Error("nobody asks")) };
  const lease = async () => ({ agent, sandbox: { record: { image: "x" } }, [Symbol.dispose]: () => {} });
  assert.equal(await codeOf(lease, { "connect-timeout-ms": "1" }), "deadline_exceeded");
});

test("a sandbox that has gone is none of its files, and what nobody foresaw is told without the host's words", async () => {
  for (const code of ["not-found", "conflict", "machine-exited"] as const) {
    assert.equal(await codeOf(() => Promise.reject(new StacyError(code, "it is gone"))), "unavailable", code);
  }
  assert.equal(await codeOf(() => Promise.reject(new Error("unforeseen"))), "internal");
});
