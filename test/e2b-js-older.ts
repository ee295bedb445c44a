/**
 * Run by e2b-js.test.ts: all scenarios with an older version of the SDKs, which reaches the code interpreter and files by the domain.
 * Arguments: the packages. Prints what came of it as JSON.
 */
import "./e2b-domain-names.ts";
import type { Sdk } from "./e2b-js-scenarios.ts";
import { Scenarios } from "./e2b-scenarios.ts";

const { sandboxScenarios } = await import("./e2b-js-scenarios.ts");
const [e2b = "", interpreter = ""] = process.argv.slice(2);
const sdk: Sdk = { e2b: await import(e2b), interpreter: await import(interpreter) };
const all = new Scenarios(() => true, true);
const { E2B_API_URL: url = "", E2B_API_KEY: key = "" } = process.env;
await sandboxScenarios(all, sdk, { url, key });
process.stdout.write(JSON.stringify({ results: all.results, absent: all.absent }));
process.exit(0); // older ones keep connections
