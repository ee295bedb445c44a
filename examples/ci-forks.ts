/** A CI job: check out and prepare once, then run the shards in copies of that very machine, side by side. */
import { Sandbox } from "../sdk/src/index.ts";

const SHARDS = 3;
const project: Record<string, string> = {
  "numbers.sh": "double() { echo $(($1 * 2)); }\n",
  "test-1.sh": ". ./numbers.sh\n[ $(double 4) = 8 ]\n",
  "test-2.sh": ". ./numbers.sh\n[ $(double 0) = 0 ]\n",
  "test-3.sh": ". ./numbers.sh\n[ $(double 5) = 11 ]\n",
};

await using base = await Sandbox.create({ image: "stacyvm/busybox", ttl: "30m" });
for (const [name, content] of Object.entries(project)) await base.files.write(`/workspace/${name}`, content);
// What takes long in a real job (dependencies, a build) happens here, once.
await base.exec("echo prepared on $(date) > prepared", { workdir: "/workspace", check: true });

const copies = await base.fork({ count: SHARDS, ttl: "10m" });
try {
  const results = await Promise.all(
    copies.map(async (copy, shard) => {
      const test = `test-${shard + 1}.sh`;
      const { exitCode, stderr } = await copy.exec(["sh", test], { workdir: "/workspace" });
      return { test, exitCode, stderr };
    }),
  );
  for (const { test, exitCode } of results) console.log(`${exitCode === 0 ? "passed" : "FAILED"} ${test}`);
  process.exitCode = results.every(({ exitCode }) => exitCode === 0) ? 0 : 1;
} finally {
  await Promise.all(copies.map((copy) => copy.destroy()));
}
