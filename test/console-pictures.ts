/**
 * Takes the pictures of docs/console.md and README anew, from a real server with real sandboxes: `node test/console-pictures.ts`.
 * The names and what runs in them are made up; times, sizes and loads are what the host showed.
 */
import { join } from "node:path";
import { Client, type Sandbox } from "../sdk/src/index.ts";
import { packageRoot } from "../src/host/paths.ts";
import { startBrowser } from "./browser-support.ts";
import { Server } from "./server-support.ts";

/** Writes two damped waves as a picture, and what it has drawn as a table. */
const PROGRAM = `import math
points = [(x / 10, math.cos(x / 10) * math.exp(-x / 90), math.sin(x / 10) * math.exp(-x / 60)) for x in range(95)]
with open("results.csv", "w") as table:
    table.write("x,position,speed\\n")
    table.writelines(f"{x},{a:.4f},{b:.4f}\\n" for x, a, b in points)
def line(column, colour):
    path = " ".join(f"{40 + p[0] * 70:.0f},{120 - p[column] * 90:.0f}" for p in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="3"/>'
with open("plot.svg", "w") as picture:
    picture.write('<svg xmlns="http://www.w3.org/2000/svg" width="720" height="250"><path d="M40 10V240H710" fill="none" stroke="gray"/>')
    picture.write(line(1, "#a04000") + line(2, "#0a58b0") + "</svg>")
print("wrote", len(points), "points")
`;

await using server = await Server.create();
const client = new Client({ url: server.url });
const browser = await startBrowser();
try {
  const made = new Map<string, Sandbox>();
  for (const [name, image, ttl, team] of [
    ["build-agent", "stacyvm/busybox", "30m", "infra"],
    ["notebook", "stacyvm/python", "8h", "search"],
    ["review-412", "stacyvm/python", "45m", "web"],
    ["review-413", "stacyvm/busybox", "52m", "web"],
    ["crawler", "stacyvm/busybox", "1h", "search"],
    ["scratch", "stacyvm/busybox", "65m", "search"],
  ] as const) {
    made.set(name, await client.create({ name, image, ttl, metadata: { team } }));
  }
  const get = (name: string): Sandbox => made.get(name) as Sandbox;
  const notebook = get("notebook");
  await notebook.exec(["mkdir", "-p", "/workspace/data"]);
  await notebook.files.write("/workspace/measure.py", PROGRAM);
  await notebook.exec(["python3", "measure.py"], { workdir: "/workspace" });
  await get("crawler").start([
    "sh",
    "-c",
    "while :; do i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 0.1; done",
  ]);
  await get("review-413").pause();

  const page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
  page.setDefaultTimeout(60_000);
  const picture = async (name: string): Promise<void> => {
    await page.mouse.move(0, 0);
    await page.screenshot({ path: join(packageRoot, "docs", `${name}.png`) });
  };
  const button = (name: string) => page.getByRole("button", { name, exact: true });

  await page.goto(`${server.url}/ui/#/`);
  await page
    .getByRole("row")
    .filter({ hasText: "crawler" })
    .getByText(/[1-9]\d* %/)
    .waitFor();
  await picture("console");

  await page.goto(`${server.url}/ui/#/sandboxes/${notebook.id}/terminal`);
  await button("Open a shell").click();
  const screen = page.locator(".terminal .xterm-rows");
  await screen.getByText("#").first().waitFor();
  await page.keyboard.type("cd /workspace; python3 measure.py; ls -l; head -3 results.csv\n");
  await screen.getByText("0.0,1.0000").waitFor();
  await picture("console-terminal");

  await page.goto(`${server.url}/ui/#/sandboxes/${notebook.id}/files`);
  const files = page.getByRole("region", { name: "Files", exact: true });
  await files.getByLabel("Directory").fill("/workspace");
  await button("Go").click();
  await files.getByRole("button", { name: "plot.svg", exact: true }).click();
  const plot = page.getByRole("img", { name: "plot.svg" });
  await plot.scrollIntoViewIfNeeded();
  await picture("console-files");

  await page.setViewportSize({ width: 1280, height: 1000 });
  await page.goto(`${server.url}/ui/#/new`);
  const form = page.getByRole("form", { name: "New sandbox" });
  await form.getByRole("combobox", { name: "Image" }).fill("stacyvm/python");
  for (const [label, text] of [
    ["Name", "notebook-2"],
    ["Time limit", "2h"],
    ["Environment", "STAGE=demo"],
    ["Labels", "team=search"],
    ["Network: allowed hosts", "pypi.example\n*.files.example"],
  ] as const)
    await form.getByLabel(label, { exact: true }).fill(text);
  await button("TypeScript").click();
  await picture("console-new");
} finally {
  await browser.close();
  for (const { id } of await client.list()) await client.get(id).then((sandbox) => sandbox.destroy());
}
