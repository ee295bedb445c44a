/**
 * The page for people, below `/ui/`: the files of `web/`, the SDK that it uses, and the terminal's own. Exactly these are
 * served, by name; nothing in a request becomes a path. In a checkout the browser gets TypeScript without its types, in the
 * published package what the compiler made of it.
 */
import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { createRequire, stripTypeScriptTypes } from "node:module";
import { dirname, join } from "node:path";
import { packageRoot } from "../host/paths.ts";
import type { Api } from "./endpoint.ts";
import { httpError } from "./problem.ts";

/** What modules of the page import by name. */
const PACKAGES = {
  "@xterm/xterm": { url: "vendor/xterm.mjs", file: "lib/xterm.mjs" },
  "@xterm/addon-fit": { url: "vendor/addon-fit.mjs", file: "lib/addon-fit.mjs" },
};
const IMPORTS = JSON.stringify({
  imports: Object.fromEntries(Object.entries(PACKAGES).map(([name, { url }]) => [name, `./${url}`])),
});

const HEADERS = {
  // The terminal sets styles from its program; pictures and scripts are ours alone.
  "content-security-policy": [
    "default-src 'none'",
    `script-src 'self' 'sha256-${createHash("sha256").update(IMPORTS).digest("base64")}'`,
    "style-src 'self' 'unsafe-inline'",
    "connect-src 'self'",
    "img-src data:",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join("; "),
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cache-control": "no-cache",
};

interface Asset {
  path: string;
  type: "text/html" | "text/css" | "text/javascript";
}

export function consoleRoutes(app: Api): void {
  let assets: Promise<Map<string, Asset>> | undefined;
  app.get("/", (c) => c.redirect("/ui/"));
  app.get("/ui", (c) => c.redirect("/ui/"));
  app.get("/ui/*", async (c) => {
    c.set("route", "/ui/*");
    assets ??= findAssets();
    assets.catch(() => {
      assets = undefined; // the next request tries again
    });
    const asset = (await assets).get(c.req.path.slice("/ui/".length));
    if (asset === undefined) throw httpError(404, `there is no page ${c.req.path}`);
    const body = await read(asset);
    return new Response(body, { headers: { ...HEADERS, "content-type": `${asset.type}; charset=utf-8` } });
  });
}

async function findAssets(): Promise<Map<string, Asset>> {
  const assets = new Map<string, Asset>();
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

async function read({ path, type }: Asset): Promise<string> {
  const text = await readFile(path, "utf8");
  if (type === "text/html") {
    const page = text.replace("<!--imports-->", `<script type="importmap">${IMPORTS}</script>`);
    // The names of the modules where they are compiled.
    return import.meta.url.endsWith(".ts") ? page : page.replace("main.ts", "main.js");
  }
  return path.endsWith(".ts") ? stripTypeScriptTypes(text) : text;
}
