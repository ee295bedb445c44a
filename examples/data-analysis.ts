/** A session over data: upload, look, compute, draw; the plot comes back as a file. Plain Python, so it needs no packages. */
import { writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Sandbox } from "../sdk/src/index.ts";

const target = process.argv[2] ?? join(tmpdir(), "plot.svg");
const days = Array.from({ length: 60 }, (_, day) => day);
const csv = ["day,visits", ...days.map((day) => `${day},${Math.round(200 + 3 * day + 60 * Math.sin(day / 3.5))}`)];

await using sandbox = await Sandbox.create({ image: "stacyvm/python" });
await sandbox.files.write("/workspace/visits.csv", csv.join("\n"));

// One interpreter for the whole session: what a step defines, the next one has.
await using python = await sandbox.spawn(["python3", "-u", "-i", "-q"], { workdir: "/workspace" });
const output = python.text("stdout");

async function step(code: string): Promise<string> {
  const end = `end-${crypto.randomUUID()}`;
  await python.write(`${code}\nprint(${JSON.stringify(end)})\n`);
  let said = "";
  while (!said.includes(end)) {
    const { value, done } = await output.next();
    if (done === true) throw new Error(`Python has ended: ${said}`);
    said += value;
  }
  return said.replace(end, "").trim();
}

console.log(
  await step(`import csv, statistics
rows = [(int(r["day"]), int(r["visits"])) for r in csv.DictReader(open("visits.csv"))]
print(len(rows), "days, mean", round(statistics.mean(v for _, v in rows), 1))`),
);
console.log(
  await step(`fit = statistics.linear_regression([d for d, _ in rows], [v for _, v in rows])
print("trend:", round(fit.slope, 2), "visits per day")`),
);
await step(`width, height, most = 640, 240, max(v for _, v in rows)
x = lambda d: 20 + d * (width - 40) / rows[-1][0]
y = lambda v: height - 20 - v * (height - 40) / most
points = " ".join(f"{x(d):.1f},{y(v):.1f}" for d, v in rows)
line = f'<line x1="{x(0)}" y1="{y(fit.intercept)}" x2="{x(rows[-1][0])}" y2="{y(fit.intercept + fit.slope * rows[-1][0])}" stroke="crimson"/>'
open("plot.svg", "w").write(f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"><polyline points="{points}" fill="none" stroke="steelblue" stroke-width="2"/>{line}</svg>')`);
await writeFile(target, await sandbox.files.readBytes("/workspace/plot.svg"));
console.log(`plot: ${target}`);
