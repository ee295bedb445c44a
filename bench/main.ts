/** `npm run -s bench -- [SUITE] [--json] [...]`: runs one suite, `ready` unless named; with `--json` standard output is one JSON document. */
import { renderTable, runSuite, type Suite } from "./harness.ts";

const SUITES = [
  "spawn",
  "firecracker",
  "on-demand",
  "agent",
  "server",
  "service",
  "path",
  "images",
  "ready",
  "network",
  "check",
  "volumes",
  "fleet",
];

const named = process.argv[2]?.startsWith("-") === false;
const name = named ? (process.argv[2] as string) : "ready";
const rest = process.argv.slice(named ? 3 : 2);
if (!SUITES.includes(name) || rest.includes("--help")) {
  process.stderr.write(`usage: npm run -s bench -- SUITE [--json]\nsuites: ${SUITES.join(", ")}\n`);
  process.exit(2);
}
const json = rest.includes("--json");
const abort = new AbortController();
process.once("SIGINT", () => abort.abort(new Error("interrupted")));
process.once("SIGTERM", () => abort.abort(new Error("terminated")));
const { suite } = (await import(`./${name}.ts`)) as { suite: Suite };
const args = rest.filter((arg) => arg !== "--json");
const report = await runSuite(suite, args, abort.signal).catch((error: unknown) => {
  if (!abort.signal.aborted) throw error;
  process.stderr.write(`${abort.signal.reason.message}; what was started is gone\n`);
  process.exit(130);
});
if (json) process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
else
  process.stdout.write(
    `${[renderTable(report), "", ...(suite.render?.(report) ?? []), ...report.conclusion].join("\n")}\n`,
  );
await suite.finish?.(report, rest);
process.exitCode = report.failures === 0 ? 0 : 1;
