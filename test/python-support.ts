import { join } from "node:path";
import { exists } from "../src/host/exists.ts";
import { packageRoot } from "../src/host/paths.ts";
import { runTool } from "../src/host/run.ts";

/** A Python with the published SDK, installed once per checkout from the package index by name and version. */
export async function sdkPython(): Promise<string> {
  const venv = join(packageRoot, ".build", "python-sdk");
  const python = join(venv, "bin", "python");
  const done = join(venv, "lib", "installed");
  const installed = await exists(done);
  if (!installed) {
    await runTool("python3", ["-m", "venv", venv], { package: "python3-venv" });
    await runTool(python, ["-m", "pip", "install", "--quiet", "stacyvm==0.1.1"]);
    await runTool("touch", [done]);
  }
  return python;
}
