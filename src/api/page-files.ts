/** Pages for people: exactly the named files are served; nothing in a request becomes a path. */
import { readFile, stat } from "node:fs/promises";
import { stripTypeScriptTypes } from "node:module";
import { promisify } from "node:util";
import { gzip } from "node:zlib";
import type { Endpoints } from "./endpoint.ts";
import { httpError } from "./problem.ts";

export interface PageFile {
  path: string;
  type: "text/html" | "text/css" | "text/javascript";
  /** What stands at its end besides: an export, of a script that has none. */
  append?: string;
}

const compress = promisify(gzip);

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
  const made = new Map<string, { version: string; body: string; compressed: Buffer }>();
  /** As it goes out, made once for each version of the file. */
  const make = async ({ path, type, append = "" }: PageFile): Promise<{ body: string; compressed: Buffer }> => {
    const { mtimeMs, size } = await stat(path);
    const version = `${mtimeMs} ${size}`;
    const last = made.get(path);
    if (last?.version === version) return last;
    const text = `${await readFile(path, "utf8")}${append}`;
    const body = type === "text/html" ? html(text) : path.endsWith(".ts") ? stripTypeScriptTypes(text) : text;
    const fresh = { version, body, compressed: await compress(body, { level: 9 }) };
    made.set(path, fresh);
    return fresh;
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
    const { body, compressed } = await make(file);
    const zipped = /\bgzip\b/.test(c.req.header("accept-encoding") ?? "");
    return new Response(zipped ? (compressed as Uint8Array<ArrayBuffer>) : body, {
      headers: {
        ...headers,
        "content-type": `${file.type}; charset=utf-8`,
        vary: "Accept-Encoding",
        ...(zipped ? { "content-encoding": "gzip" } : {}),
      },
    });
  });
}
