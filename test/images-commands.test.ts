/** `stacyvm image ...` as a user runs it: pull with moving tags, import from everything, remove and collect. */
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { mkdir, readdir, rm, symlink, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { packageRoot } from "../src/host/paths.ts";
import { faultProxy, push, type Registry, run, scratch, startRegistry, tar, umociImage } from "./images-support.ts";
import { Server } from "./server-support.ts";

const MAIN = join(packageRoot, "src/cli/main.ts");

interface Result {
  code: number;
  stdout: string;
  stderr: string;
}

let work: Awaited<ReturnType<typeof scratch>>;
let registry: Registry;
let layout: string;
let data: string;

before(async () => {
  work = await scratch();
  data = join(work.path, "data");
  layout = join(work.path, "layout");
  registry = await startRegistry(join(work.path, "registry-data"));
  await umociImage(layout, "one", [tar([{ path: "etc/version", content: "1" }])], ["--config.cmd", "/bin/one"]);
  await umociImage(layout, "two", [tar([{ path: "etc/version", content: "2" }])]);
  await push(layout, "one", `${registry.host}/team/tool:latest`);
});
after(async () => {
  await registry[Symbol.asyncDispose]();
  await work[Symbol.asyncDispose]();
});

function stacyvm(args: string[], env: Record<string, string> = {}): Promise<Result> {
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      [MAIN, "image", ...args],
      { env: { ...process.env, STACYVM_DATA_DIR: data, HOME: work.path, ...env }, cwd: work.path },
      (error, stdout, stderr) => resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr }),
    );
  });
}

// biome-ignore lint/suspicious/noExplicitAny: the tests look into every kind of answer
async function json(args: string[], env: Record<string, string> = {}): Promise<any> {
  const { code, stdout, stderr } = await stacyvm(args, env);
  assert.equal(code, 0, stderr);
  return JSON.parse(stdout);
}

/** As if the image had last been used an hour ago: what was used in this minute is never collected. */
async function age(digest: string): Promise<void> {
  const then = new Date(Date.now() - 3_600_000);
  await utimes(join(data, "images", digest.slice(7), "image.json"), then, then);
  const blobs = join(data, "images", "blobs");
  for (const name of await readdir(blobs).catch(() => [])) await utimes(join(blobs, name), then, then);
}

describe("stacyvm image", () => {
  test("pull refreshes a tag; the old image stays while a machine has it, and goes with the next pull after", async () => {
    const name = `${registry.host}/team/tool`;
    const first = await json(["pull", name, "--json"]);
    assert.equal(first.reference, `${name}:latest`);
    assert.deepEqual(first.config.cmd, ["/bin/one"]);
    await push(layout, "two", `${registry.host}/team/tool:latest`);
    const unchanged = await json(["pull", name, "--policy", "missing", "--json"]);
    assert.equal(unchanged.digest, first.digest);
    await age(first.digest);
    const machine = join(data, "sandboxes", "sb-00000000");
    await mkdir(machine, { recursive: true });
    await symlink(`../../images/${first.digest.slice(7)}/base.img`, join(machine, "base.img"));
    const second = await json(["pull", name, "--json"]);
    assert.notEqual(second.digest, first.digest);
    const bases = async (): Promise<string[]> =>
      (await readdir(join(data, "images")))
        .filter((entry) => /^[0-9a-f]{64}$/.test(entry))
        .map((hex) => `sha256:${hex}`);
    assert.deepEqual((await bases()).sort(), [first.digest, second.digest].sort(), "a machine uses the old one");
    const refused = await stacyvm(["rm", first.digest]);
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /in use/);
    await rm(machine, { recursive: true });
    const would = await json(["gc", "--dry-run", "--json"]);
    assert.deepEqual(would.images, [first.digest]);
    assert.equal((await bases()).length, 2, "a dry run removes nothing");
    await stacyvm(["pull", name]);
    assert.deepEqual(await bases(), [second.digest]);
  });

  test("import takes a layout, its archive, an archive of docker save, a tar and a directory; ls and inspect show them", async () => {
    const file = (name: string): string => join(work.path, name);
    await run("tar", ["-C", layout, "-cf", file("oci.tar"), "."]);
    await run("skopeo", ["copy", `oci:${layout}:one`, `docker-archive:${file("docker.tar")}:tool:saved`]);
    await writeFile(file("tree.tar"), tar([{ path: "etc/version", content: "1" }]));
    await mkdir(file("tree/etc"), { recursive: true });
    await writeFile(file("tree/etc/version"), "1");
    const from = async (source: string, name: string, ...more: string[]) =>
      json(["import", source, `local/${name}:1`, "--json", ...more]);
    const directory = await from(layout, "layout", "--tag", "one");
    const archive = await from(file("oci.tar"), "archive", "--tag", "one");
    const docker = await from(file("docker.tar"), "docker");
    const tree = await from(file("tree.tar"), "tar");
    await from(file("tree"), "directory", "--cmd", "cat", "/etc/version");
    assert.equal(archive.digest, directory.digest);
    assert.deepEqual(docker.config, directory.config);
    assert.deepEqual(tree.config.cmd, ["sh"]);
    const several = await stacyvm(["import", layout, "local/none:1"]);
    assert.match(several.stderr, /several images.*--tag/s);
    const names = (await json(["ls", "--json"])).map((image: { reference: string }) => image.reference);
    for (const name of ["layout", "archive", "docker", "tar", "directory"]) {
      assert.ok(names.includes(`docker.io/local/${name}:1`), name);
    }
    const [details] = await json(["inspect", "local/directory:1"]);
    assert.deepEqual(details.config.cmd, ["cat", "/etc/version"]);
    assert.deepEqual((await json(["inspect", "local/layout:1"]))[0].references.length, 2);
    const removed = await stacyvm(["rm", "local/layout:1", "local/archive:1"]);
    assert.equal(removed.code, 0, removed.stderr);
    assert.match((await stacyvm(["inspect", "local/layout:1"])).stderr, /not on this host/);
  });

  test("a limit removes the least recently used, never what a machine has", async () => {
    const images = await json(["ls", "--json"]);
    assert.ok(images.length >= 3);
    for (const { digest } of images) await age(digest);
    const [kept] = images;
    const machine = join(data, "sandboxes", "sb-00000001");
    await mkdir(machine, { recursive: true });
    await symlink(`../../images/${kept.digest.slice(7)}/base.img`, join(machine, "base.img"));
    await json(["gc", "--max", "0m", "--json"]);
    await rm(machine, { recursive: true });
    const left = new Set((await json(["ls", "--json"])).map((image: { digest: string }) => image.digest));
    assert.deepEqual(left, new Set([kept.digest]));
  });

  test("what a killed pull leaves behind goes with the next one", async () => {
    const own = join(work.path, "killed");
    const begun = Promise.withResolvers<void>();
    let stall = true;
    await using proxy = await faultProxy(registry.port, (incoming, response) => {
      if (!stall || !incoming.url?.includes("/blobs/")) return false;
      response.writeHead(200, { "content-length": "1000000" });
      response.write("x");
      begun.resolve();
      return true;
    });
    const name = `${proxy.host}/team/tool:latest`;
    const env = { ...process.env, STACYVM_DATA_DIR: own, HOME: work.path };
    const child = spawn(process.execPath, [MAIN, "image", "pull", name], { env, cwd: work.path, stdio: "ignore" });
    const gone = new Promise((resolve) => child.once("exit", resolve));
    await Promise.race([begun.promise, gone]);
    assert.equal((await readdir(join(own, "tmp"))).length, 1);
    child.kill("SIGKILL");
    await gone;
    stall = false;
    await json(["pull", name, "--json"], { STACYVM_DATA_DIR: own });
    assert.deepEqual(await readdir(join(own, "tmp")), []);
    assert.equal((await readdir(join(own, "images", "blobs"))).length, 2);
  });

  test("over HTTP: how far a pull is, line by line; at last the image, or the error", async () => {
    await using server = await Server.create(`images: {registries: {"${registry.host}": {}}}\n`);
    await rm(join(server.root, "images"));
    const pull = async (reference: string) => {
      const response = await fetch(`${server.url}/api/v1/images/pull`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ reference, stream: true }),
      });
      const lines = (await response.text()).trim().split("\n");
      return lines.map((line) => JSON.parse(line));
    };
    await push(layout, "one", `${registry.host}/team/tool:http`);
    const lines = await pull(`${registry.host}/team/tool:http`);
    const end = lines.findLast(({ step }) => step === "pulling 1 layer");
    assert.ok(end?.total > 0 && end.done === end.total && end.unit === "bytes", JSON.stringify(lines));
    assert.deepEqual(lines.at(-1).image.config.cmd, ["/bin/one"]);
    const [failed] = (await pull(`${registry.host}/team/none:1`)).slice(-1);
    assert.equal(failed.error.code, "NOT_FOUND");
    assert.match(failed.error.message, /there is no image .*team\/none:1/);
  });

  test("policy, aliases and offline mode come from the configuration", async () => {
    const name = `${registry.host}/team/tool:latest`;
    const denied = await stacyvm(["pull", name], { STACYVM_IMAGES_DENY: "**/team/*" });
    assert.equal(denied.code, 1);
    assert.match(denied.stderr, /not allowed on this host/);
    const offline = await stacyvm(["pull", "team/unknown"], { STACYVM_IMAGES_OFFLINE: "true" });
    assert.match(offline.stderr, /not on this host.*stacyvm image import/s);
    const aliases = JSON.stringify({ "alpine:latest": name });
    assert.equal((await json(["pull", "alpine", "--json"], { STACYVM_IMAGES_ALIASES: aliases })).reference, name);
  });
});
