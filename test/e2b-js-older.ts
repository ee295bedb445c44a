/**
 * Run by e2b-js.test.ts: all scenarios with an older version of the SDKs, which reaches the code interpreter and files by the domain.
 * Arguments: the packages, the server's address, and names of scenarios, as JSON, that ask for what this version does not know and
 * does without. Prints what came of it as JSON.
 */
import "./e2b-domain-names.ts";
import type { Sdk } from "./e2b-js-scenarios.ts";
import { Scenarios } from "./e2b-scenarios.ts";

const { sandboxScenarios } = await import("./e2b-js-scenarios.ts");
const [e2b = "", interpreter = "", url = "", without = "[]"] = process.argv.slice(2);
const unknown = JSON.parse(without) as string[];
const sdk: Sdk = { e2b: await import(e2b), interpreter: await import(interpreter) };
const all = new Scenarios((name) => !unknown.includes(name), true);
await sandboxScenarios(all, sdk, { url, key: process.env.E2B_API_KEY ?? "" });
all.absent.push(...unknown);
process.stdout.write(JSON.stringify({ results: all.results, absent: all.absent }));
process.exit(0); // older ones keep connections
