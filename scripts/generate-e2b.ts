/** Writes `src/e2b/envd/gen/` from the definitions beside it (`src/e2b/envd/proto/`). Needs the network, for its two tools. */
import { join } from "node:path";
import { packageRoot } from "../src/host/paths.ts";
import { runTool } from "../src/host/run.ts";

const TOOLS = ["@bufbuild/buf@1.75.0", "@bufbuild/protoc-gen-es@2.13.0"];
const dir = join(packageRoot, "src/e2b/envd");
const options = ["target=ts", "import_extension=ts", "erasable_syntax=true"];
const template = { version: "v2", plugins: [{ local: "protoc-gen-es", out: join(dir, "gen"), opt: options }] };
const packages = TOOLS.map((tool) => `--package=${tool}`);
const generate = ["buf", "generate", join(dir, "proto"), "--template", JSON.stringify(template)];
await runTool("npm", ["exec", "--yes", ...packages, "--", ...generate], { cwd: dir, package: "npm" });
