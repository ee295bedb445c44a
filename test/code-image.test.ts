/** `stacyvm/code`: what is in it works. Making it takes minutes and gigabytes of downloads, so it is no part of the suite (STACYVM_LONG=1). */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Client, type Sandbox } from "../sdk/src/index.ts";
import { Server } from "./server-support.ts";

const skip = process.env.STACYVM_LONG === "1" ? false : "STACYVM_LONG=1 runs it: it makes an image of many packages";

describe("stacyvm/code, the long form", { skip, timeout: 3_600_000 }, () => {
  let server: Server;
  let sandbox: Sandbox;
  before(async () => {
    server = await Server.create("providers: {default: qemu}\n");
    const client = new Client({ url: server.url });
    await client.images.pull("stacyvm/code", { pull: "missing" });
    sandbox = await client.create({ image: "stacyvm/code", memoryMb: 1024, ttl: "1h" });
  });
  after(() => server?.[Symbol.asyncDispose]());

  const run = async (command: string): Promise<string> => {
    const { exitCode, stdout, stderr } = await sandbox.exec(command, { timeout: "5m" });
    assert.equal(exitCode, 0, `${command}: ${stderr}`);
    return stdout.trim();
  };

  test("commands begin in an empty /workspace, and the versions are these", async (t) => {
    assert.equal(await run("pwd; ls -A"), "/workspace");
    for (const command of [
      "python3 -V",
      "pip --version",
      "node -v",
      "npm -v",
      "git --version",
      "gcc -dumpfullversion",
    ]) {
      t.diagnostic(`${command}: ${await run(command)}`);
    }
  });

  test("git keeps a history", async () => {
    await run("git init -q repo && cd repo && echo 1 > a && git add a");
    await run("cd repo && git -c user.name=t -c user.email=t@example.com commit -qm first");
    assert.match(await run("cd repo && git log --oneline"), /^[0-9a-f]+ first$/);
  });

  test("gcc and make build a program that runs", async () => {
    await run(
      `printf '#include <stdio.h>\\nint main(void) { return puts("compiled") < 0; }\\n' > hello.c && make -s hello`,
    );
    assert.equal(await run("./hello"), "compiled");
  });

  test("npm installs a package, and Node finds it", async () => {
    await run(
      `mkdir -p tool app && cd tool && npm init -y >/dev/null && echo 'module.exports = () => "called";' > index.js`,
    );
    await run("cd app && npm init -y >/dev/null && npm install --offline --no-audit ../tool >/dev/null");
    assert.equal(await run(`cd app && node -p 'require("tool")()'`), "called");
  });

  test("pip installs a package into the system, and Python finds it", async () => {
    await run(
      `mkdir -p lib/greet && cd lib && echo 'def hello(): return "greeted"' > greet/__init__.py && ` +
        `printf '[build-system]\\nrequires = ["setuptools"]\\nbuild-backend = "setuptools.build_meta"\\n[project]\\nname = "greet"\\nversion = "1"\\n' > pyproject.toml && ` +
        "pip install --no-index --no-build-isolation -q .",
    );
    assert.equal(await run(`cd / && python3 -c 'import greet; print(greet.hello())'`), "greeted");
  });

  test("the libraries are there, and a figure of matplotlib is an image", async () => {
    await run("python3 -c 'import numpy, pandas, requests, yaml, bs4, lxml, PIL, pytest'");
    const { results, error } = await sandbox.runCode(
      "import matplotlib.pyplot as plt\nplt.plot([1, 3, 2])\nplt.show()",
    );
    assert.equal(error, undefined);
    assert.match(results[0]?.png ?? "", /^iVBOR/);
  });
});
