/**
 * The made parts of the Python package (called by generate-sdk.ts): `models.py`, dataclasses of every reply, from the server's
 * OpenAPI document; and the synchronous half, which is the asynchronous one without its `async` and `await`.
 */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { packageRoot } from "../src/host/paths.ts";
import type { JsonSchema, OpenApi } from "./openapi.ts";

export const PACKAGE = join(packageRoot, "python", "src", "stacyvm_sdk");
const MADE = "# Made by scripts/generate-sdk.ts; not edited by hand.\n";

/** Path and content of each made file. */
export async function pythonFiles(document: OpenApi): Promise<[string, string][]> {
  const files: [string, string][] = [[join(PACKAGE, "models.py"), pythonModels(document)]];
  for (const name of (await readdir(join(PACKAGE, "_async"))).sort()) {
    if (!name.endsWith(".py")) continue;
    const text = await readFile(join(PACKAGE, "_async", name), "utf8");
    files.push([join(PACKAGE, "_sync", name), name === "__init__.py" ? MADE : `${MADE}${synchronous(text)}`]);
  }
  return files;
}

/** In this order: a longer word before one that is in it. */
const WORDS: [RegExp, string][] = [
  [/\basynccontextmanager\b/g, "contextmanager"],
  [/\bimport asyncio\b/g, "import time"],
  [/\basyncio\.sleep\b/g, "time.sleep"],
  [/\bwebsockets\.asyncio\b/g, "websockets.sync"],
  [/\basync (def|with|for)\b/g, "$1"],
  [/\bawait /g, ""],
  [/\bAsync(\w+)/g, "$1"],
  [/\b__a(enter|exit|iter)__\b/g, "__$1__"],
  [/\ba(close|read)\b/g, "$1"],
  [/\baiter_/g, "iter_"],
];

export function synchronous(text: string): string {
  return WORDS.reduce((result, [from, to]) => result.replace(from, to), text);
}

/** Of Python 3, `keyword.kwlist`: no field of a class can be called so, and the whole package fails to load. */
const KEYWORDS = new Set(
  (
    "False None True and as assert async await break class continue def del elif else except finally for from global if import in is " +
    "lambda nonlocal not or pass raise return try while with yield"
  ).split(" "),
);

const refName = (ref: string): string => ref.split("/").at(-1) ?? ref;

function pythonModels(document: OpenApi): string {
  const { schemas } = document.components;
  const wanted = new Set<string>();
  const want = (schema: JsonSchema | undefined): void => {
    if (schema === undefined) return;
    if (schema.$ref !== undefined) {
      const name = refName(schema.$ref);
      if (wanted.has(name)) return;
      wanted.add(name);
      want(schemas[name]);
    }
    for (const each of [...(schema.anyOf ?? []), ...(schema.oneOf ?? []), ...(schema.allOf ?? [])]) want(each);
    for (const each of Object.values(schema.properties ?? {})) want(each);
    if (typeof schema.additionalProperties === "object") want(schema.additionalProperties);
    want(schema.items);
  };
  for (const operation of Object.values(document.paths).flatMap((methods) => Object.values(methods))) {
    for (const [status, { content }] of Object.entries(operation.responses)) {
      if (Number(status) < 300) want(content?.["application/json"]?.schema);
    }
  }
  const classes = [...wanted].sort().flatMap((name) => {
    const { properties, required } = merged(schemas[name] ?? {}, schemas);
    if (properties === undefined) return [];
    const fields = Object.entries(properties).map(([field, schema]) => {
      if (KEYWORDS.has(field)) throw new Error(`${name}.${field}: is a word of Python's; call it something else`);
      const doc = schema.description === undefined ? "" : `    #: ${schema.description.replaceAll("\n", " ")}\n`;
      const type = pythonType(schema);
      return required?.includes(field) ? `${doc}    ${field}: ${type}` : `${doc}    ${field}: ${type} | None = None`;
    });
    return [`@dataclass(frozen=True, kw_only=True)\nclass ${name}:\n${fields.join("\n")}\n`];
  });
  return `${MADE}"""What the server answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

${classes.map((text) => `\n${text}`).join("\n")}`;
}

function merged(schema: JsonSchema, schemas: Record<string, JsonSchema>): JsonSchema {
  if (schema.allOf === undefined) return schema;
  const parts = schema.allOf.map((part) =>
    merged(part.$ref === undefined ? part : (schemas[refName(part.$ref)] ?? {}), schemas),
  );
  return {
    properties: Object.assign({}, ...parts.map((part) => part.properties)),
    required: [...new Set(parts.flatMap((part) => part.required ?? []))],
  };
}

function pythonType(schema: JsonSchema): string {
  if (schema.$ref !== undefined) return refName(schema.$ref);
  if (schema.enum !== undefined) {
    return `Literal[${schema.enum
      .filter((value) => value !== null)
      .map((value) => (typeof value === "boolean" ? (value ? "True" : "False") : JSON.stringify(value)))
      .join(", ")}]`;
  }
  switch ([schema.type].flat().find((type) => type !== "null")) {
    case "string":
      return "str";
    case "integer":
      return "int";
    case "number":
      return "float";
    case "boolean":
      return "bool";
    case "array":
      return `list[${pythonType(schema.items ?? {})}]`;
    case "object":
      return typeof schema.additionalProperties === "object" && schema.properties === undefined
        ? `dict[str, ${pythonType(schema.additionalProperties)}]`
        : "dict[str, Any]";
    default:
      return "Any";
  }
}
