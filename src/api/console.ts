/**
 * The page for people, below `/ui/`: the files of `web/`, the SDK that it uses, and the terminal's own. Exactly these are
 * served, by name. In a checkout the browser gets TypeScript without its types, in the published package what the compiler made of
 * it.
 */
import { createHash } from "node:crypto";
import { readdir } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { packageRoot } from "../host/paths.ts";
import type { Endpoints } from "./endpoint.ts";
import { type PageFile, servePages } from "./page-files.ts";

/** What modules of the page import by name. */
const PACKAGES = {
  "@xterm/xterm": { url: "vendor/xterm.mjs", file: "lib/xterm.mjs" },
  "@xterm/addon-fit": { url: "vendor/addon-fit.mjs", file: "lib/addon-fit.mjs" },
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
      "img-src data:",
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
    for (const name of await readdir(join(packageRoot, folder))) {
      if (!/^[\w-]+\.[jt]s$/.test(name)) continue;
      assets.set(`${folder}/${name}`, { path: join(packageRoot, folder, name), type: "text/javascript" });
    }
  }
  const require = createRequire(import.meta.url);
  for (const [name, { url, file }] of Object.entries(PACKAGES)) {
    const root = dirname(require.resolve(`${name}/package.json`));
    assets.set(url, { path: join(root, file), type: "text/javascript" });
    if (name === "@xterm/xterm")
      assets.set("vendor/xterm.css", { path: join(root, "css/xterm.css"), type: "text/css" });
  }
  return assets;
}
