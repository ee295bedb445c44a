/** Paused or suspended by itself, a sandbox comes back by its next use; by hand, only by `resume`. Everybody sees which of the two it is. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { connection } from "../../test/fake-access.ts";
import { fakeApp } from "../../test/fake-app.ts";
import { API_BASE } from "./endpoint.ts";

test("suspended by idleness and suspended by hand are one state with two words: the interface says which one its next use brings back", async () => {
  const { app, clock, sandboxes } = fakeApp({ ownUser: true });
  await sandboxes.open(); // with its timers
  // biome-ignore lint/suspicious/noExplicitAny: tests look into every kind of answer
  const call = async (method: string, path: string, body?: object): Promise<any> => {
    const init = {
      method,
      headers: { host: "localhost", "content-type": "application/json" },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    };
    return (await app.request(`${API_BASE}${path}`, init, connection())).json();
  };
  const idle = await call("POST", "/sandboxes", { idle_timeout: "5s", idle_action: "suspend" });
  const asked = await call("POST", "/sandboxes", {});
  assert.deepEqual([idle.state, idle.resume_on_use], ["running", undefined]);
  await clock.pass(7_000);
  assert.equal((await call("POST", `/sandboxes/${asked.id}/suspend`)).state, "suspended");
  const shown = Object.fromEntries(
    (await call("GET", "/sandboxes")).map((each: Record<string, unknown>) => [
      each.id,
      [each.state, each.resume_on_use],
    ]),
  );
  assert.deepEqual(shown, { [idle.id]: ["suspended", true], [asked.id]: ["suspended", undefined] });
  // Suspended once more by hand it stays as it is.
  assert.equal((await call("POST", `/sandboxes/${idle.id}/resume`)).resume_on_use, undefined);
  assert.deepEqual(
    (await call("POST", `/sandboxes/${idle.id}/suspend`)) as object,
    await call("GET", `/sandboxes/${idle.id}`),
  );
  assert.equal((await call("GET", `/sandboxes/${idle.id}`)).resume_on_use, undefined);
  await sandboxes.close({ destroy: false });
});
