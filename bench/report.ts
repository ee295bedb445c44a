/** A run as files that people read: a table and a chart in Markdown, the chart as SVG, everything as JSON. */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Report } from "./harness.ts";

const METHOD = `Each tier is measured from the request to the answered handshake, and on to the first command's output (\`echo\`), in process; the rows
with \`http\` are the same over HTTP, from a client in another process to a real daemon. Building images and golden snapshots is not
included. All tiers are interleaved in one run. Machines that waited for minutes are claimed in turns with such that waited for a second. A
warm machine's refill waits until both figures of a sample are taken; in \`pool.xN\` and \`poisson\` it runs beside, as it does for users.
Failures are counted, and nothing is dropped. Repeat it with \`npm run -s bench -- ready --out=DIR\`.`;

export async function writeReport(report: Report, out: string, tiers: readonly string[]): Promise<void> {
  await mkdir(out, { recursive: true });
  const names = Object.keys(report.results);
  const sides = ["qemu", "firecracker"].filter((side) => names.some((name) => name.startsWith(`${side}.`)));
  for (const side of sides) await writeFile(join(out, `${side}.svg`), chart(report, side, tiers));
  await writeFile(join(out, "report.json"), `${JSON.stringify(report, null, 2)}\n`);
  await writeFile(join(out, "report.md"), markdown(report, sides));
}

function markdown(report: Report, sides: readonly string[]): string {
  const facts = (record: Record<string, string | number>): string =>
    Object.entries(record)
      .map(([name, value]) => `${name} ${value}`)
      .join(", ");
  return [
    `# Starting sandboxes, ${report.at.slice(0, 10)}`,
    "",
    "Look up how long each way to start a sandbox takes, from a cold boot to a machine that waits ready.",
    "",
    `Machine: ${facts(report.machine)}. Versions: ${facts(report.versions)}. Failures: ${report.failures}.`,
    "",
    ...report.notes.map((note) => `- ${note}`),
    "",
    METHOD,
    "",
    ...sides.map((side) => `![${side}](${side}.svg)`),
    "",
    "| | unit | n | min | p50 | p95 | p99 | max |",
    "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ...Object.entries(report.results).map(
      ([name, s]) => `| ${name} | ${s.unit} | ${s.n} | ${s.min} | ${s.p50} | ${s.p95} | ${s.p99} | ${s.max} |`,
    ),
    "",
  ].join("\n");
}

const ROW = 26;
const LEFT = 210;
const WIDTH = 760;

/** Bars of p50 with a line to p95. */
function chart(report: Report, side: string, tiers: readonly string[]): string {
  const rows = tiers.flatMap((tier) =>
    [
      [`${tier}: handshake`, "total"],
      [`${tier}: first output`, "total.first-exec"],
    ].flatMap(([label, what]) => {
      const found = report.results[`${side}.${tier}.${what}`];
      return found === undefined ? [] : [{ label: label as string, p50: found.p50, p95: found.p95 }];
    }),
  );
  // Cold boots are hundreds of times longer than warm claims: only a logarithm shows both.
  const longest = Math.max(...rows.map(({ p95 }) => p95), 10);
  const x = (ms: number): number => LEFT + (Math.log10(Math.max(1, ms)) / Math.log10(longest)) * (WIDTH - LEFT - 90);
  const bars = rows.map(({ label, p50, p95 }, i) => {
    const y = 40 + i * ROW;
    return [
      `<text x="${LEFT - 8}" y="${y + 13}" text-anchor="end">${label}</text>`,
      `<rect x="${LEFT}" y="${y}" width="${(x(p50) - LEFT).toFixed(1)}" height="16" fill="#3b7dd8"/>`,
      `<line x1="${x(p50).toFixed(1)}" y1="${y + 8}" x2="${x(p95).toFixed(1)}" y2="${y + 8}" stroke="#333"/>`,
      `<text x="${(x(p95) + 6).toFixed(1)}" y="${y + 13}">${p50.toFixed(1)} ms</text>`,
    ].join("\n");
  });
  const height = 60 + rows.length * ROW;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" font-family="sans-serif" font-size="13">`,
    `<title>${side}: time to the handshake and to the first output, by tier</title>`,
    `<rect width="100%" height="100%" fill="white"/>`,
    `<text x="8" y="20">${side}: p50 (bar) to p95 (line), logarithmic</text>`,
    ...bars,
    "</svg>",
    "",
  ].join("\n");
}
