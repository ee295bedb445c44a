/** A daemon's work for test/firecracker-crash.test.ts: spawns Firecracker sandboxes one after another until it is killed. */
import { dataPaths } from "../src/host/paths.ts";
import { createImages } from "../src/images/store.ts";
import { createMicrovmProvider } from "../src/providers/microvm.ts";
import { createFirecracker } from "../src/vmm/firecracker/firecracker.ts";
import { specOf } from "./spawn-spec.ts";

const [root = "", mode, image = ""] = process.argv.slice(2);
const { images, assets } = dataPaths();
const paths = { ...dataPaths(root), images, assets };
const provider = createMicrovmProvider({
  vmm: createFirecracker({ assets }),
  images: createImages(paths),
  paths,
  ...(mode === "pool" ? { pool: { adaptive: true, maxIdle: 2 } } : {}),
});
for (let i = 0; ; i++) {
  const id = `sb-${i.toString(16).padStart(8, "0")}`;
  const machine = await provider.spawn({ ...specOf(image), id });
  process.stdout.write(`${machine.boot.path} ${id}\n`);
}
