/**
 * The page for people, below `/ui/`: the files of `web/`, the SDK and the libraries that it uses. Exactly these are
 * served, by name. In a checkout the browser gets TypeScript without its types, in the published package what the compiler made of
 * it.
 */
import { createHash } from "node:crypto";
import { readdir } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { packageRoot } from "../host/paths.ts";
import type { Endpoints } from "./endpoint.ts";
import { type PageFile, servePages } from "./page-files.ts";

/** What modules of the page import by name: the package that has it, and the file in there. */
const PACKAGES = {
  preact: { url: "vendor/preact.mjs", package: "preact", file: "dist/preact.mjs" },
  "preact/hooks": { url: "vendor/hooks.mjs", package: "preact", file: "hooks/dist/hooks.mjs" },
  htm: { url: "vendor/htm.mjs", package: "htm", file: "dist/htm.mjs" },
  // Half as long as its module, which nobody has made small.
  uplot: {
    url: "vendor/uplot.mjs",
    package: "uplot",
    file: "dist/uPlot.iife.min.js",
    append: "\nexport default uPlot;\n",
  },
  "@xterm/xterm": { url: "vendor/xterm.mjs", package: "@xterm/xterm", file: "lib/xterm.mjs" },
  "@xterm/addon-fit": { url: "vendor/addon-fit.mjs", package: "@xterm/addon-fit", file: "lib/addon-fit.mjs" },
};
const STYLES = {
  "vendor/xterm.css": { package: "@xterm/xterm", file: "css/xterm.css" },
  "vendor/uplot.css": { package: "uplot", file: "dist/uPlot.min.css" },
};
const IMPORTS = JSON.stringify({
  imports: Object.fromEntries(Object.entries(PACKAGES).map(([name, { url }]) => [name, `./${url}`])),
});

export function consoleRoutes(endpoints: Endpoints): void {
  endpoints.page("/", (c) => c.redirect("/ui/"));
  servePages(endpoints, {
    prefix: "/ui/",
    // The terminal sets styles from its program; pictures and scripts are ours alone.
    policy: [
      `script-src 'self' 'sha256-${createHash("sha256").update(IMPORTS).digest("base64")}'`,
      "style-src 'self' 'unsafe-inline'",
      "connect-src 'self'",
      // Pictures that a sandbox has made are shown from memory: as pictures, in which no script runs.
      "img-src data: blob:",
    ],
    files: findAssets,
    html: (text) => {
      const page = text.replace("<!--imports-->", `<script type="importmap">${IMPORTS}</script>`);
      // The names of the modules where they are compiled.
      return import.meta.url.endsWith(".ts") ? page : page.replace("main.ts", "main.js");
    },
  });
}

async function findAssets(): Promise<Map<string, PageFile>> {
  const assets = new Map<string, PageFile>();
  const web = join(packageRoot, "web");
  assets.set("", { path: join(web, "index.html"), type: "text/html" });
  assets.set("style.css", { path: join(web, "style.css"), type: "text/css" });
  for (const folder of ["web/src", "sdk/src"]) {
    for (const name of await readdir(join(packageRoot, folder), { recursive: true })) {
      if (!/^[\w/-]+\.[jt]s$/.test(name)) continue;
      assets.set(`${folder}/${name}`, { path: join(packageRoot, folder, name), type: "text/javascript" });
    }
  }
  const require = createRequire(import.meta.url);
  // Not by its package.json, which a package need not let others resolve.
  const vendor = (name: string, file: string): string => {
    const entry = require.resolve(name);
    const root = join("node_modules", name);
    return join(entry.slice(0, entry.lastIndexOf(root) + root.length), file);
  };
  for (const { url, package: name, file, ...rest } of Object.values(PACKAGES))
    assets.set(url, { path: vendor(name, file), type: "text/javascript", ...rest });
  for (const [url, { package: name, file }] of Object.entries(STYLES))
    assets.set(url, { path: vendor(name, file), type: "text/css" });
  return assets;
}
