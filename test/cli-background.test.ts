/** The server that commands start for each other: no machine is needed to see it come, serve, give way and go. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { findLocal } from "../src/cli/local-socket.ts";
import { processesIn } from "../src/host/process.ts";
import { soon } from "./browser-support.ts";
import { Cli } from "./cli-support.ts";

const STARTED = /started a server in the background/;

test("a server in the background: started once where a sandbox is, used, replaced, given up, ended by itself", async () => {
  await using cli = await Cli.create();
  const run = async (idle: string, args: string[], env: Record<string, string> = {}) => {
    const ran = await cli.run(args, { env: { STACYVM_BACKGROUND: idle, ...env } });
    assert.equal(ran.code, 0, ran.stderr);
    return { ...ran, said: STARTED.test(ran.stderr) };
  };
  const pid = async (): Promise<number | undefined> =>
    readFile(join(cli.data, "server.key"), "utf8").then(
      (text) => JSON.parse(text).pid,
      () => undefined,
    );
  // Without a sandbox it does not pay.
  assert.deepEqual([(await run("10m", ["ls", "-q"])).said, await pid()], [false, undefined]);
  const one = async (): Promise<void> =>
    void (await mkdir(join(cli.data, "sandboxes/sb-00000000"), { recursive: true }));

  await one();
  assert.equal((await run("off", ["ls", "-q"])).said, false);
  await one();
  // Whoever finds it by its socket finds its key, too.
  const found = (async () => {
    for (;;) {
      using local = await findLocal(cli.data);
      if (local !== undefined) return pid();
      await new Promise((wake) => setTimeout(wake, 1));
    }
  })();
  assert.equal((await run("10m", ["ls", "-q"])).said, true);
  const first = await pid();
  assert.equal(await found, first);
  assert.ok(first !== undefined);
  assert.equal((await run("10m", ["ls", "-q"])).said, false);
  assert.equal(await pid(), first);

  // Whoever sets something else is served by one that has read it.
  await one();
  const other = { STACYVM_LOGGING_LEVEL: "error" };
  assert.equal((await run("10m", ["ls", "-q"], other)).said, true);
  const second = await pid();
  assert.notEqual(second, first);

  // One command needs no server: it does what its own settings say, and that one stays.
  const refused = { STACYVM_IMAGES_DENY: "stacyvm/busybox" };
  const ran = await cli.run(["run", "stacyvm/busybox", "--", "true"], {
    env: { STACYVM_BACKGROUND: "10m", ...refused },
  });
  assert.match(ran.stderr, /is not allowed on this host/);
  assert.equal(await pid(), second);

  // The user's own takes its place.
  const serve = cli.start(["serve", "--port", "0"], other);
  const listening = once(serve.stdout ?? assert.fail(), "data");
  const ended = once(serve, "exit");
  assert.match(String((await listening)[0]), /listening on/);
  assert.deepEqual([(await run("10m", ["ls", "-q"])).said, await pid()], [false, serve.pid]);
  serve.kill("SIGTERM");
  await ended;

  await one();
  assert.equal((await run("200ms", ["ls", "-q"])).said, true);
  await soon(async () => (await processesIn(cli.data)).length === 0);
  assert.equal(await pid(), undefined);
  assert.equal(await readFile(join(cli.data, "server.log"), "utf8"), "");
});
