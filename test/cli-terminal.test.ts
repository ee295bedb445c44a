/** What people see and type, through a real terminal. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
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

  test("run -it: progress while it boots, a terminal, the command's exit code", async () => {
    const run = cli.terminal(24, 80, ["run", "-it", "-m", "256", "stacyvm/busybox", "--", "sh"]);
    await run.until(/# $/);
    run.type("tty; stty size; exit 5\r");
    await run.until(/\/dev\/pts\/0\n24 80\n/);
    assert.equal(await run.exited, 5);
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

  test("errors are red on a terminal, and NO_COLOR is kept", async () => {
    const red = cli.terminal(24, 80, ["inspect", "sb-00000000"]);
    assert.equal(await red.exited, 1);
    assert.match(red.raw, /\x1b\[31merror:\x1b\[0m there is no sandbox/);
  });
});
