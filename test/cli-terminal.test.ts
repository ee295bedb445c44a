/** What people see and type, through a real terminal. */
import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { borrow } from "../bench/borrow.ts";
import { Cli } from "./cli-support.ts";

describe("the command line in a terminal", { timeout: 600_000 }, () => {
  let cli: Cli;
  let id: string;
  before(async () => {
    cli = await Cli.create();
    id = await cli.out("spawn", "stacyvm/busybox", "-m", "256");
  });
  after(() => cli[Symbol.asyncDispose]());

  test("shell: size, Ctrl-C, a new size, programs of the whole screen, exit code", async () => {
    const shell = cli.terminal(31, 97, ["shell", id]);
    await shell.until(/# $/);
    shell.type("stty size\r");
    await shell.until(/31 97\n[\s\S]*# $/);
    // The job itself says that it is in the foreground. What is typed before a prompt can get lost.
    shell.type("sh -c 'trap \"exit 4\" INT; echo begun; while :; do sleep 0.1; done'; echo status $?\r");
    await shell.until(/\nbegun\n/);
    shell.type("\x03");
    await shell.until(/\^Cstatus 4\n[\s\S]*# $/);
    shell.resize(20, 60);
    shell.type("until stty size | grep '20 60'; do :; done\r");
    await shell.until(/\n20 60\n[\s\S]*# $/);
    shell.type("vi /etc/passwd; echo vi said $?\r");
    await shell.until(/\/etc\/passwd \d+\/\d+/);
    shell.type(":q!\r");
    await shell.until(/vi said 0\n[\s\S]*# $/);
    shell.type("top; echo top said $?\r");
    await shell.until(/Mem: \d+K used[\s\S]*COMMAND[\s\S]*\/init/);
    shell.type("q");
    await shell.until(/top said 0\n[\s\S]*# $/);
    shell.type("exit 9\r");
    assert.equal(await shell.exited, 9);
  });

  test("~. at the beginning of a line leaves a shell; the sandbox goes on", async () => {
    const shell = cli.terminal(24, 80, ["shell", id]);
    await shell.until(/# $/);
    shell.type("~.");
    await shell.until(/left/);
    assert.equal(await shell.exited, 130);
    assert.equal(await cli.out("exec", id, "echo", "here"), "here");
  });

  test("run -it: progress while it boots, then a Python prompt; the command's exit code", async () => {
    const args = ["run", "-it", "-m", "256", "stacyvm/python", "--", "python3"];
    const python = cli.terminal(24, 80, args);
    await python.until(/booting stacyvm\/python[\s\S]*>>> $/);
    python.type("import os, sys; os.isatty(0), tuple(os.get_terminal_size())\r");
    await python.until(/\n\(True, \(80, 24\)\)\n>>> $/);
    python.type("while True: pass\r\r");
    await python.until(/\n\.\.\. \n$/);
    python.type("\x03");
    await python.until(/KeyboardInterrupt\n>>> $/);
    python.type("1+1\r");
    await python.until(/\n2\n>>> $/);
    python.type("\x04");
    assert.equal(await python.exited, 0);
    const again = cli.terminal(24, 80, [...args, "-c", "input('name? '); exit(5)"]);
    await again.until(/name\? $/);
    again.type("me\r");
    assert.equal(await again.exited, 5);
    assert.doesNotMatch(again.text, /booting/);
  });

  test("progress is one line that is drawn anew and then removed", async () => {
    await cli.out("snapshot", "rm", (await cli.json("snapshot", "build", "stacyvm/busybox", "-m", "320")).key);
    const build = cli.terminal(24, 80, ["snapshot", "build", "stacyvm/busybox", "-m", "320"]);
    await build.until(/booting once/);
    assert.equal(await build.exited, 0);
    assert.match(build.raw, /\r\x1b\[2K[0-9a-f]{64}\r\n$/);
  });

  test("top draws its own screen, again and again, and gives the old one back", async () => {
    const top = cli.terminal(12, 100, ["top"]);
    await top.until(new RegExp(`${id} +stacyvm/busybox +running`));
    await top.until(/(ENDS IN[\s\S]*){2}/);
    top.resize(8, 50);
    await top.until(/(ENDS IN[\s\S]*){2}stacyvm 0/);
    top.type("q");
    assert.equal(await top.exited, 0);
    assert.ok(top.raw.startsWith("\x1b[?1049h") && top.raw.endsWith("\x1b[?25h\x1b[?1049l"));
  });

  test("a server in a terminal says where the console is, and logs lines for people", async () => {
    const own = { STACYVM_DATA_DIR: join(cli.data, "serve"), NO_COLOR: "1" };
    await mkdir(own.STACYVM_DATA_DIR);
    await borrow(own.STACYVM_DATA_DIR);
    const server = cli.terminal(24, 100, ["serve", "--port", "0"], own);
    await server.until(/the console: http:\/\/127\.0\.0\.1:\d+\/ui\//);
    server.type("\x03");
    await server.exited;
    assert.match(server.text, /^\[?\d\d:\d\d:\d\d\.\d+\]? \w+/m);
    assert.doesNotMatch(server.text, /^\{/m);
  });

  test("errors are red on a terminal, wrong usage too; NO_COLOR is kept", async () => {
    for (const [args, words] of [
      [["inspect", "sb-00000000"], /there is no sandbox/],
      [["inspct"], /unknown command 'inspct'\n\(Did you mean inspect\?\)/],
    ] as const) {
      const red = cli.terminal(24, 80, [...args]);
      assert.ok((await red.exited) !== 0);
      assert.match(red.raw, /^\x1b\[31merror:\x1b\[0m /);
      assert.match(red.text, words);
    }
    const plain = cli.terminal(24, 80, ["inspct"], { NO_COLOR: "1" });
    assert.equal(await plain.exited, 2);
    assert.match(plain.raw, /^error: unknown/);
  });

  test("a progress line is no wider than the terminal", async () => {
    const build = cli.terminal(24, 30, ["snapshot", "build", "stacyvm/busybox", "-m", "288"]);
    await build.until(/booting once/);
    assert.equal(await build.exited, 0);
    const [, ...drawn] = build.raw.split("\r\x1b[2K");
    const key = drawn.pop();
    assert.match(key ?? "", /^[0-9a-f]{64}\r\n$/);
    for (const line of drawn) assert.ok(line.length < 30, line);
  });
});
