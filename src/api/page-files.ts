/** Pages for people: exactly the named files are served; nothing in a request becomes a path. */
import { readFile } from "node:fs/promises";
import { stripTypeScriptTypes } from "node:module";
import type { Endpoints } from "./endpoint.ts";
import { httpError } from "./problem.ts";

export interface PageFile {
  path: string;
  type: "text/html" | "text/css" | "text/javascript";
}

export interface Pages {
  /** Below this, with slashes at both ends. */
  prefix: string;
  /** Besides what every page has; its own policy of contents. */
  policy: readonly string[];
  /** By what follows the prefix; "" is the page itself. */
  files: () => Promise<Map<string, PageFile>>;
  /** The HTML as it is served. */
  html?: (text: string) => string;
}

export function servePages(endpoints: Endpoints, { prefix, policy, files, html = (text) => text }: Pages): void {
  const headers = {
    "content-security-policy": [
      "default-src 'none'",
      ...policy,
      "base-uri 'none'",
      "form-action 'none'",
      "frame-ancestors 'none'",
    ].join("; "),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
  };
  let known: Promise<Map<string, PageFile>> | undefined;
  endpoints.page(prefix.slice(0, -1), (c) => c.redirect(prefix));
  endpoints.page(`${prefix}*`, async (c) => {
    c.set("route", `${prefix}*`);
    known ??= files();
    known.catch(() => {
      known = undefined; // the next request tries again
    });
    const file = (await known).get(c.req.path.slice(prefix.length));
    if (file === undefined) throw httpError(404, `there is no page ${c.req.path}`);
    const text = await readFile(file.path, "utf8");
    const body = file.type === "text/html" ? html(text) : file.path.endsWith(".ts") ? stripTypeScriptTypes(text) : text;
    return new Response(body, { headers: { ...headers, "content-type": `${file.type}; charset=utf-8` } });
  });
}
