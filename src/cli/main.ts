#!/usr/bin/env -S node --
/** The command line: one way in, and one way out for errors. */
import { mkdirSync } from "node:fs";
import module from "node:module";
import { join } from "node:path";
import { defaultDataDir } from "../host/paths.ts";

const OLDEST = 24;
if (Number(process.versions.node.split(".")[0]) < OLDEST) {
  process.stderr.write(`error: StacyVM needs Node ${OLDEST} or newer, this is ${process.versions.node}\n`);
  process.exit(69);
}
// Compiled code is kept beside the data, which is ours; the default would be a directory that all users share.
const cache = join(defaultDataDir(), "cache", "node");
try {
  mkdirSync(cache, { recursive: true, mode: 0o700 });
  module.enableCompileCache(cache);
} catch {} // a directory that cannot be written is the command's to complain about
const { main } = await import("./start.ts");
await main();
