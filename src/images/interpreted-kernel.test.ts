/** Where a kernel that was built before is found. What compiles it is seen in set-up. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { installInterpretedKernel, recipeInputs } from "./interpreted-kernel.ts";

/** A directory whose `apt-cache` is `script`, in front of the PATH. */
async function apt(
  t: { after(work: () => Promise<void>): void },
  script: string,
): Promise<{ assets: string; cache: string }> {
  const dir = await mkdtemp(join(tmpdir(), "interpreted-"));
  const { PATH } = process.env;
  t.after(async () => {
    process.env.PATH = PATH;
    await rm(dir, { recursive: true, force: true });
  });
  await mkdir(join(dir, "bin"));
  await writeFile(join(dir, "bin", "apt-cache"), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  await writeFile(join(dir, "bin", "apt-get"), "#!/bin/sh\nexit 100\n", { mode: 0o755 });
  process.env.PATH = `${join(dir, "bin")}:${PATH}`;
  return { assets: join(dir, "assets"), cache: join(dir, "cache") };
}

async function cached(cache: string, version: string, inputs: string, more: object = {}): Promise<void> {
  const dir = join(cache, "kernels", inputs.slice(0, 16));
  await mkdir(dir, { recursive: true });
  await writeFile(join(dir, "vmlinux"), version);
  await writeFile(
    join(dir, "kernel.json"),
    JSON.stringify({ release: "6.12.9-interpreted", inputs, source: `linux-source-6.12 ${version}`, ...more }),
  );
}

for (const [what, script] of [
  ["says nothing", "exit 0"],
  ["fails", "echo 'no lists' >&2; exit 100"],
] as const) {
  test(`apt that ${what}: the kernel that was built of this recipe is taken`, async (t) => {
    const { assets, cache } = await apt(t, script);
    await cached(cache, "6.12.1-other", "0123456789abcdef0123");
    await assert.rejects(installInterpretedKernel(assets, {}, cache), { code: "unavailable" });
    await cached(cache, "6.12.9-1", await recipeInputs("6.12.9-1"));
    const { kernel, result } = await installInterpretedKernel(assets, {}, cache);
    assert.equal(result, "cached");
    assert.equal(await readFile(kernel.vmlinux, "utf8"), "6.12.9-1");
    assert.equal((await installInterpretedKernel(assets, {}, cache)).result, "present");
  });
}

test("one that was cut short after it was built is not taken, neither from the cache nor where it is used", async (t) => {
  const { assets, cache } = await apt(t, "exit 0");
  const image = createHash("sha256").update("6.12.9-1").digest("hex");
  const inputs = await recipeInputs("6.12.9-1");
  await cached(cache, "6.12.9-1", inputs, { image });
  const { kernel } = await installInterpretedKernel(assets, {}, cache);
  await writeFile(kernel.vmlinux, "");
  assert.equal((await installInterpretedKernel(assets, {}, cache)).result, "cached");
  assert.equal(await readFile(kernel.vmlinux, "utf8"), "6.12.9-1");
  // Then it is built again, for which this apt has no source.
  await rm(kernel.vmlinux);
  await writeFile(join(cache, "kernels", inputs.slice(0, 16), "vmlinux"), "6.12");
  await assert.rejects(installInterpretedKernel(assets, {}, cache), { code: "unavailable" });
});
