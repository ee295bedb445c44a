/** Before `npm pack` in `sdk/`: `dist/` with JavaScript and declarations. After it (`--clean`): gone again. */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { packageRoot } from "../src/host/paths.ts";
import { runTool } from "../src/host/run.ts";

const sdk = join(packageRoot, "sdk");
await rm(join(sdk, "dist"), { recursive: true, force: true });
if (!process.argv.includes("--clean")) {
  await runTool(join(packageRoot, "node_modules/.bin/tsc"), ["--project", join(sdk, "tsconfig.pack.json")]);
}
