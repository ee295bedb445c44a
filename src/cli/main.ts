#!/usr/bin/env node
/** The command line: one way in, and one way out for errors. */
import { mkdirSync } from "node:fs";
import { enableCompileCache } from "node:module";
import { join } from "node:path";
import { defaultDataDir } from "../host/paths.ts";

// Compiled code is kept beside the data, which is ours; the default would be a directory that all users share.
const cache = join(defaultDataDir(), "cache", "node");
try {
  mkdirSync(cache, { recursive: true, mode: 0o700 });
  enableCompileCache(cache);
} catch {} // a directory that cannot be written is the command's to complain about
const { main } = await import("./start.ts");
await main();
