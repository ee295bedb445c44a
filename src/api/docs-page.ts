/** The HTTP interface as a page with a form to try each request: Swagger UI, served from here. */
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { exists } from "../host/exists.ts";
import { packageRoot } from "../host/paths.ts";
import type { Endpoints } from "./endpoint.ts";
import { type PageFile, servePages } from "./page-files.ts";

const PREFIX = "/docs/";

export function docsRoutes(endpoints: Endpoints): void {
  for (const path of ["/swagger", "/swagger/", "/swagger/index.html"]) endpoints.page(path, (c) => c.redirect(PREFIX));
  servePages(endpoints, {
    prefix: PREFIX,
    policy: ["script-src 'self'", "style-src 'self' 'unsafe-inline'", "connect-src 'self'", "img-src 'self' data:"],
    files,
  });
}

async function files(): Promise<Map<string, PageFile>> {
  const own = join(packageRoot, "web/docs");
  const library = await libraryFolder(own);
  return new Map<string, PageFile>([
    ["", { path: join(own, "index.html"), type: "text/html" }],
    ["start.js", { path: join(own, "start.js"), type: "text/javascript" }],
    ["swagger-ui.css", { path: join(library, "swagger-ui.css"), type: "text/css" }],
    ["swagger-ui-bundle.js", { path: join(library, "swagger-ui-bundle.js"), type: "text/javascript" }],
  ]);
}

/** In the published package it is beside the page: whoever installs that shall not run the library's own install script. */
async function libraryFolder(own: string): Promise<string> {
  if (await exists(join(own, "swagger-ui-bundle.js"))) return own;
  return dirname(createRequire(import.meta.url).resolve("swagger-ui-dist/package.json"));
}
