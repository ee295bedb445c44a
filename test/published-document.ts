/** The published server's OpenAPI document, for whoever has it: whether an answer is what it says. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";

interface Schema {
  $ref?: string;
  type?: string;
  enum?: unknown[];
  items?: Schema;
  allOf?: Schema[];
  properties?: Record<string, Schema>;
  additionalProperties?: boolean | Schema;
}
interface Operation {
  method: string;
  path: string;
  pattern: RegExp;
  /** By status. */
  replies: Record<string, Schema | undefined>;
}
export interface PublishedDocument {
  schemas: Record<string, Schema>;
  operations: Operation[];
}

/** Its answers have other fields than it says, and clients read the answers: "`GET /metrics`" in docs/differences.md. */
const NOT_AS_DOCUMENTED = /^\/(admin\/)?metrics$/;

/** OpenAPI 3. @param path of a file; `undefined`: there is none */
export async function readDocument(path: string | undefined): Promise<PublishedDocument | undefined> {
  if (path === undefined) return undefined;
  const { paths, components } = JSON.parse(await readFile(path, "utf8"));
  const operations: Operation[] = [];
  for (const [route, methods] of Object.entries(paths)) {
    for (const [method, { responses }] of Object.entries(methods as Record<string, { responses: object }>)) {
      const replies = Object.entries(responses).map(([status, each]) => [
        status,
        each.content?.["application/json"]?.schema,
      ]);
      operations.push({
        method: method.toUpperCase(),
        path: route,
        pattern: new RegExp(`^${route.replaceAll(/\{\w+\}/g, "[^/]+")}$`),
        replies: Object.fromEntries(replies),
      });
    }
  }
  return { schemas: components.schemas, operations };
}

/** Nothing is said of what it is silent about, and of fields that an answer leaves out or has besides. */
export function agree(document: PublishedDocument, method: string, path: string, status: number, value: unknown): void {
  const route = path.replace(/\?.*/, "");
  if (NOT_AS_DOCUMENTED.test(route)) return;
  const found = document.operations.find((each) => each.method === method && each.pattern.test(route));
  const schema = found?.replies[status];
  if (schema !== undefined) fits(document, schema, value, `${method} ${route}`);
}

function fits(document: PublishedDocument, given: Schema, value: unknown, where: string): void {
  const schema = given.$ref === undefined ? given : (document.schemas[given.$ref.split("/").at(-1) ?? ""] ?? {});
  for (const part of schema.allOf ?? []) fits(document, part, value, where);
  if (schema.enum !== undefined) assert.ok(schema.enum.includes(value), `${where}: ${value} is none of ${schema.enum}`);
  const said = `${where}: ${JSON.stringify(value)} is not ${schema.type}`;
  if (schema.type === "integer") assert.ok(Number.isInteger(value), said);
  else if (schema.type === "array") {
    assert.ok(Array.isArray(value), said);
    for (const [i, each] of value.entries()) fits(document, schema.items ?? {}, each, `${where}[${i}]`);
  } else if (schema.type === "object") {
    assert.ok(typeof value === "object" && value !== null && !Array.isArray(value), said);
    for (const [name, each] of Object.entries(value)) {
      const more = schema.additionalProperties;
      const own = schema.properties?.[name] ?? (typeof more === "object" ? more : undefined);
      if (own !== undefined) fits(document, own, each, `${where}.${name}`);
    }
  } else if (schema.type !== undefined) assert.equal(typeof value, schema.type, said);
}
