/**
 * Before `npm pack`: `dist/`, a tree like this one but in JavaScript, since Node strips no types below `node_modules`, and with
 * the agent compiled. After it (`--clean`): gone again.
 */
import { chmod, copyFile, cp, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { dataPaths, packageRoot } from "../src/host/paths.ts";
import { runTool } from "../src/host/run.ts";
import { buildAgent, buildDirectoryHelper, buildSpawner } from "../src/images/crate-build.ts";
import { compileCell } from "../src/vmm/cell.ts";

const dist = join(packageRoot, "dist");
await rm(dist, { recursive: true, force: true });
if (!process.argv.includes("--clean")) {
  await runTool(join(packageRoot, "node_modules/.bin/tsc"), ["--project", join(packageRoot, "tsconfig.pack.json")]);
  await runTool(join(packageRoot, "node_modules/.bin/tsc"), ["--project", join(packageRoot, "web/tsconfig.pack.json")]);
  for (const name of ["index.html", "style.css"]) {
    await copyFile(join(packageRoot, "web", name), join(dist, "web", name));
  }
  await mkdir(join(dist, "web/docs"));
  for (const name of ["index.html", "start.js"]) {
    await copyFile(join(packageRoot, "web/docs", name), join(dist, "web/docs", name));
  }
  const swagger = join(packageRoot, "node_modules/swagger-ui-dist");
  for (const name of [
    "swagger-ui.css",
    "swagger-ui-bundle.js",
    "swagger-ui-bundle.js.LICENSE.txt",
    "LICENSE",
    "NOTICE",
  ]) {
    await copyFile(join(swagger, name), join(dist, "web/docs", name));
  }
  const drivers = "src/interpreter/drivers";
  await cp(join(packageRoot, drivers), join(dist, drivers), { recursive: true });
  const { assets } = dataPaths();
  await mkdir(assets, { recursive: true });
  await buildAgent(assets);
  await buildSpawner(assets);
  await buildDirectoryHelper(assets);
  await mkdir(join(dist, "prebuilt"));
  for (const name of ["agent", "spawner", "directory"]) {
    await copyFile(join(assets, `${name}/stacyvm-${name}`), join(dist, `prebuilt/stacyvm-${name}`));
    await chmod(join(dist, `prebuilt/stacyvm-${name}`), 0o755);
  }
  const { program, preload } = await compileCell(join(assets, "cell"));
  for (const file of [program, preload]) await cp(file, join(dist, "prebuilt", basename(file)));
  await chmod(join(dist, "src/cli/main.js"), 0o755);
  // The root of the tree, as host/paths.ts finds it.
  const { name, version, type } = JSON.parse(await readFile(join(packageRoot, "package.json"), "utf8"));
  await writeFile(join(dist, "package.json"), `${JSON.stringify({ name, version, type })}\n`);
}
