/** What is published, used as others use it: packed, installed into an empty directory, without the repository. */
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { after, before, describe, test } from "node:test";
import { promisify } from "node:util";
import { dataPaths, packageRoot } from "../src/host/paths.ts";
import { processStartTime } from "../src/host/process.ts";
import { soon } from "./browser-support.ts";

/** For npm, which may have to fetch a dozen small packages, and for the compiler of the agent, which may be the first to be asked. */
const LIMIT_MS = 240_000;
const exec = promisify(execFile);

/** The part of the lock file that users of the package need. */
async function lockedDependencies(): Promise<object> {
  const lock = JSON.parse(await readFile(join(packageRoot, "package-lock.json"), "utf8"));
  const packages = Object.entries(lock.packages as Record<string, { dev?: boolean }>);
  return {
    lockfileVersion: lock.lockfileVersion,
    requires: true,
    packages: Object.fromEntries(packages.filter(([path, entry]) => path !== "" && entry.dev !== true)),
  };
}

describe("the packed packages", { timeout: 600_000 }, () => {
  let dir: string;
  let env: Record<string, string>;
  before(async () => {
    dir = await mkdtemp(join(process.env.STACYVM_TEST_DIR ?? tmpdir(), "package-"));
    const data = join(dir, "data");
    const shared = dataPaths();
    await mkdir(join(data, "assets"), { recursive: true });
    // Kernel and images take their time from the network; everything else is the package's own.
    await symlink(join(shared.assets, "kernel"), join(data, "assets", "kernel"));
    await mkdir(shared.images, { recursive: true });
    await symlink(shared.images, join(data, "images"));
    env = {
      PATH: `${dirname(process.execPath)}${delimiter}${process.env.PATH}`,
      HOME: dir,
      STACYVM_DATA_DIR: data,
      STACYVM_PROVIDER: "qemu",
      STACYVM_BACKGROUND: "1s",
    };
    // npm's settings are the developer's: a registry may be named in them. So is its Node: Debian's npm runs with Debian's only.
    const foreign = (process.env.PATH ?? "").split(delimiter).filter((entry) => !entry.startsWith(packageRoot));
    const own = {
      ...process.env,
      PATH: foreign.join(delimiter),
      npm_config_cache: join(packageRoot, ".build", "npm"),
      npm_config_update_notifier: "false",
    };
    for (const source of [packageRoot, join(packageRoot, "sdk")]) {
      await exec("npm", ["pack", "--silent", "--pack-destination", dir], {
        cwd: source,
        env: own,
        timeout: LIMIT_MS,
      });
    }
    const packed = (await readdir(dir)).filter((name) => name.endsWith(".tgz")).map((name) => join(dir, name));
    assert.equal(packed.length, 2);
    for (const path of packed) assert.ok((await stat(path)).size < 4 * 2 ** 20, path);
    // In the versions of our lock file, which set-up has fetched: to ask for the newest of each takes minutes on a slow network.
    await writeFile(join(dir, "package-lock.json"), JSON.stringify(await lockedDependencies()));
    const flags = ["--no-audit", "--no-fund", "--prefer-offline", "--no-progress"];
    await exec("npm", ["install", ...flags, ...packed], { cwd: dir, env: own, timeout: LIMIT_MS });
  });
  after(() => rm(dir, { recursive: true, force: true }));

  test("stacyvm: run, spawn, exec, rm; no compiler, no repository", async () => {
    const bin = join(dir, "node_modules", ".bin", "stacyvm");
    const stacyvm = async (...args: string[]) => (await exec(bin, args, { cwd: dir, env, timeout: LIMIT_MS })).stdout;
    const root = join(dir, "node_modules", "stacyvm");
    assert.deepEqual((await readdir(root)).sort(), ["LICENSE", "README.md", "dist", "package.json"]);
    assert.equal(await stacyvm("run", "stacyvm/busybox", "--", "echo", "from the package"), "from the package\n");
    const id = (await stacyvm("spawn", "stacyvm/busybox", "-m", "256")).trim();
    assert.equal(await stacyvm("exec", id, "uname"), "Linux\n");
    const doctor = JSON.parse(await stacyvm("doctor", "--json"));
    assert.equal(doctor.ready, true);
    assert.match(JSON.stringify(doctor), /node_modules\/stacyvm\/dist\/prebuilt\/stacyvm-agent/);
    // The server that spawn has started in the background, and that the others used, ends by itself.
    const { pid } = JSON.parse(await readFile(join(env.STACYVM_DATA_DIR as string, "server.key"), "utf8"));
    assert.equal((await stacyvm("rm", id)).trim(), id);
    await soon(async () => (await processStartTime(pid)) === undefined);
  });

  test("the console is in it, in JavaScript, each module that it imports as well", async () => {
    const bin = join(dir, "node_modules", ".bin", "stacyvm");
    const child = spawn(bin, ["serve", "--port", "0"], { cwd: dir, env, stdio: ["ignore", "pipe", "inherit"] });
    try {
      const [said] = (await once(child.stdout, "data")) as [Buffer];
      const url = /listening on (\S+)/.exec(String(said))?.[1] ?? "";
      const page = await (await fetch(`${url}/ui/`)).text();
      const { imports } = JSON.parse(/<script type="importmap">(.*?)<\/script>/.exec(page)?.[1] ?? "") as {
        imports: Record<string, string>;
      };
      const seen = new Set<string>();
      const load = async (address: string): Promise<void> => {
        if (seen.has(address)) return;
        seen.add(address);
        const answer = await fetch(address);
        assert.equal(answer.status, 200, address);
        if (/\.(mjs|css)$/.test(address)) return;
        assert.match(answer.headers.get("content-type") ?? "", /javascript/);
        const code = await answer.text();
        const named = [
          ...code.matchAll(/^(?:import|export)\b.*? from "([^"]+)";$/gm),
          ...code.matchAll(/\bimport\("([^"]+)"\)/g),
        ];
        for (const [, name = ""] of named) {
          await load(new URL(imports[name] ?? name, imports[name] === undefined ? address : `${url}/ui/`).href);
        }
      };
      for (const [, name = ""] of page.matchAll(/(?:src|href)="([\w/.-]+\.(?:js|css))"/g))
        await load(`${url}/ui/${name}`);
      assert.ok([...seen].some((address) => address.endsWith("/sdk/src/client.js")));
      assert.ok([...seen].some((address) => address.endsWith("/vendor/xterm.mjs")));
      assert.ok([...seen].some((address) => address.endsWith("/web/src/sandbox/page.js")));
      assert.equal((await fetch(`${url}/ui/..%2f..%2fpackage.json`)).status, 404);
    } finally {
      const ended = once(child, "exit");
      child.kill("SIGTERM");
      await ended;
    }
  });

  test("@stacyvm/sdk can be imported, and its types are there", async () => {
    const program = `
      import { Client, StacyError } from "@stacyvm/sdk";
      import { MockServer } from "@stacyvm/sdk/mock";
      const client = new Client({ url: "http://127.0.0.1:1", retries: 0 });
      const error = await client.list().catch((error) => error);
      console.log(error instanceof StacyError, error.code, typeof MockServer);`;
    await writeFile(join(dir, "use.mjs"), program);
    const { stdout } = await exec(process.execPath, ["use.mjs"], { cwd: dir, env });
    assert.equal(stdout, "true CONNECTION function\n");
    await stat(join(dir, "node_modules/@stacyvm/sdk/dist/index.d.ts"));
  });
});
