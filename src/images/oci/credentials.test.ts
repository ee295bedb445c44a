import assert from "node:assert/strict";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { test } from "node:test";
import { inspect } from "node:util";
import { findCredentials } from "./credentials.ts";

test("what holds passwords and is damaged is named, and nothing of it is told", async () => {
  const dir = await mkdtemp(join(tmpdir(), "credentials-"));
  const path = process.env.PATH;
  try {
    const file = join(dir, "config.json");
    const helper = join(dir, "docker-credential-broken");
    await writeFile(helper, "#!/bin/sh\necho '{\"Secret\": hunter2}'\n");
    await chmod(helper, 0o755);
    process.env.PATH = `${dir}${delimiter}${path}`;
    for (const [content, words] of [
      ['{"auths": {"a.example": {"password": hunter2}}}', /config\.json is no JSON/],
      ['{"credsStore": "broken", "credHelpers": {"a.example": "broken"}}', /broken did not answer with JSON/],
    ] as const) {
      await writeFile(file, content);
      await assert.rejects(findCredentials("a.example", "x", [file]), (error: Error) => {
        assert.match(error.message, words);
        assert.doesNotMatch(inspect(error, { depth: null }), /hunter/);
        return true;
      });
    }
  } finally {
    process.env.PATH = path;
    await rm(dir, { recursive: true });
  }
});
