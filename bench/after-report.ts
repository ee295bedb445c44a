/**
 * Loaded into a server beforehand (`node --import`): its answers say in `x-after-report` how long ago the launcher had reported the
 * latest machine, ms. `STACYVM_BENCH_TREE` is the checkout whose server it is.
 */
import { ServerResponse } from "node:http";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const tree = process.env.STACYVM_BENCH_TREE;
if (tree !== undefined && process.argv[2] === "serve") {
  const module = pathToFileURL(join(tree, "src/launcher/launcher.ts")).href;
  const { Launcher } = (await import(module)) as typeof import("../src/launcher/launcher.ts");
  let reported: number | undefined;
  const { launch } = Launcher.prototype;
  Launcher.prototype.launch = async function (...args) {
    const launched = await launch.apply(this, args);
    reported = performance.now();
    return launched;
  };
  const { writeHead } = ServerResponse.prototype;
  ServerResponse.prototype.writeHead = function (this: ServerResponse, ...args: never[]) {
    if (reported !== undefined) this.setHeader("x-after-report", String(performance.now() - reported));
    reported = undefined;
    return (writeHead as (...all: never[]) => ServerResponse).apply(this, args);
  } as typeof writeHead;
}
