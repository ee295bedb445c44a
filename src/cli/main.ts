#!/usr/bin/env node
/** The command line: one way in, and one way out for errors. */
import { enableCompileCache } from "node:module";
import { join } from "node:path";
import { defaultDataDir } from "../host/paths.ts";

// Compiled code is kept beside the data, which is ours; the default would be a directory that all users share.
enableCompileCache(join(defaultDataDir(), "cache", "node"));
const { main } = await import("./start.ts");
await main();
