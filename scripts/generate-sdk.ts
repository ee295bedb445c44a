/**
 * Writes `sdk/src/generated.ts` from the server's OpenAPI document, which comes from its zod schemas: TypeScript types, and the
 * same as data by which the SDK checks every reply; and the made parts of the Python package (generate-python.ts). `--check` only
 * says whether all is up to date.
 */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { packageRoot } from "../src/host/paths.ts";
import { runTool } from "../src/host/run.ts";
import { pythonFiles } from "./generate-python.ts";
import { type JsonSchema, type OpenApi, type Operation, openApiDocument } from "./openapi.ts";

export const GENERATED = join(packageRoot, "sdk", "src", "generated.ts");
const BASE = "/api/v1";

const camel = (name: string): string => name.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase());
const refName = (ref: string): string => ref.split("/").at(-1) ?? ref;
const isDuration = (schema: JsonSchema): boolean => schema.description?.startsWith("A Go duration") === true;

function kinds(schema: JsonSchema): { types: string[]; nullable: boolean } {
  const all = schema.type === undefined ? [] : [schema.type].flat();
  return { types: all.filter((type) => type !== "null"), nullable: all.includes("null") };
}

function isRecord(schema: JsonSchema): schema is JsonSchema & { additionalProperties: JsonSchema } {
  return typeof schema.additionalProperties === "object" && schema.properties === undefined;
}

/** A schema as a TypeScript type. */
function typeOf(schema: JsonSchema): string {
  if (schema.$ref !== undefined) return refName(schema.$ref);
  const union = schema.anyOf ?? schema.oneOf;
  if (union !== undefined) return [...new Set(union.map(typeOf).filter((type) => type !== "null"))].join(" | ");
  if (schema.enum !== undefined) {
    return schema.enum
      .filter((value) => value !== null)
      .map((value) => JSON.stringify(value))
      .join(" | ");
  }
  if (isDuration(schema)) return "Duration";
  const [type] = kinds(schema).types;
  if (type === "string") return "string";
  if (type === "integer" || type === "number") return "number";
  if (type === "boolean") return "boolean";
  if (type === "array") {
    const item = typeOf(schema.items ?? {});
    return item.includes(" ") ? `(${item})[]` : `${item}[]`;
  }
  if (isRecord(schema)) return `Record<string, ${typeOf(schema.additionalProperties)}>`;
  if (schema.properties !== undefined) return `{\n${membersOf(schema)}}`;
  return type === "object"
    ? "Record<string, unknown>"
    : type === undefined && schema.type === "null"
      ? "null"
      : "unknown";
}

function membersOf(schema: JsonSchema): string {
  const required = new Set(schema.required ?? []);
  return Object.entries(schema.properties ?? {})
    .map(([name, member]) => {
      const doc = member.description === undefined ? "" : `/** ${member.description} */\n`;
      return `${doc}${camel(name)}${required.has(name) ? "" : "?"}: ${typeOf(member)}${required.has(name) ? "" : " | undefined"};\n`;
    })
    .join("");
}

/** A schema as data for `sdk/src/schema.ts`. */
function shapeOf(schema: JsonSchema): unknown {
  if (schema.$ref !== undefined) return { ref: refName(schema.$ref) };
  const union = schema.anyOf ?? schema.oneOf;
  if (union !== undefined) return union.length === 1 && union[0] !== undefined ? shapeOf(union[0]) : "any";
  if (schema.enum !== undefined) return { enum: schema.enum.filter((value) => value !== null) };
  if (isDuration(schema)) return "duration";
  const [type] = kinds(schema).types;
  if (type === "string" || type === "number" || type === "integer" || type === "boolean") return type;
  if (type === "array") return { array: shapeOf(schema.items ?? {}) };
  if (isRecord(schema)) return { record: shapeOf(schema.additionalProperties) };
  if (schema.properties !== undefined) {
    const required = new Set(schema.required ?? []);
    return {
      object: Object.fromEntries(
        Object.entries(schema.properties).map(([name, member]) => [
          required.has(name) ? name : `${name}?`,
          shapeOf(member),
        ]),
      ),
    };
  }
  return "any";
}

function jsonOf(content: Record<string, { schema: JsonSchema }> | undefined): JsonSchema | undefined {
  return content?.["application/json"]?.schema;
}

function replyOf(operation: Operation): JsonSchema | undefined {
  for (const [status, response] of Object.entries(operation.responses)) {
    if (Number(status) < 300 && jsonOf(response.content) !== undefined) return jsonOf(response.content);
  }
  return undefined;
}

/** `allOf`, by which the document says that a schema extends another, as one object. */
function merged(schema: JsonSchema, schemas: Record<string, JsonSchema>): JsonSchema {
  if (schema.allOf === undefined) return schema;
  const parts = schema.allOf.map((part) =>
    merged(part.$ref === undefined ? part : (schemas[refName(part.$ref)] ?? {}), schemas),
  );
  return {
    type: "object",
    properties: Object.assign({}, ...parts.map((part) => part.properties)),
    required: [...new Set(parts.flatMap((part) => part.required ?? []))],
  };
}

export async function generate(document: OpenApi): Promise<string> {
  const types: string[] = [];
  const operations: string[] = [];
  const shapes: Record<string, unknown> = {};
  const { schemas } = document.components;
  for (const [name, written] of Object.entries(schemas)) {
    const schema = merged(written, schemas);
    // The server's name for it would hide the language's.
    const own = name === "Error" ? "Problem" : name;
    shapes[own] = shapeOf(schema);
    types.push(
      schema.properties === undefined
        ? `export type ${own} = ${typeOf(schema)};`
        : `export interface ${own} {\n${membersOf(schema)}}`,
    );
  }
  const table: Record<string, unknown> = {};
  for (const [path, methods] of Object.entries(document.paths)) {
    if (!path.startsWith(BASE)) continue;
    for (const [method, operation] of Object.entries(methods)) {
      const key = `${method.toUpperCase()} ${path.slice(BASE.length)}`;
      const body = jsonOf(operation.requestBody?.content);
      const reply = replyOf(operation);
      table[key] = {
        ...(body === undefined ? {} : { body: shapeOf(body) }),
        ...(reply === undefined ? {} : { reply: shapeOf(reply) }),
      };
      operations.push(
        `/** ${operation.summary ?? ""} */\n${JSON.stringify(key)}: { body: ${body === undefined ? "undefined" : typeOf(body)}; reply: ${reply === undefined ? "undefined" : typeOf(reply)} };`,
      );
    }
  }
  const text = `// Made by scripts/generate-sdk.ts from the server's schemas; not edited by hand.
import type { Shape } from "./shape.ts";

/** Milliseconds, or text such as \`90s\` or \`1h30m\`. The server always answers with text. */
export type Duration = string | number;

${types.join("\n\n")}

/** Every operation of the server: the body it takes and the reply it gives. */
export interface Operations {
${operations.join("\n")}
}

export const shapes: Record<string, Shape> = ${JSON.stringify(shapes)};

export const operations: Record<keyof Operations, { body?: Shape; reply?: Shape }> = ${JSON.stringify(table)};
`;
  const biome = join(packageRoot, "node_modules", ".bin", "biome");
  return (
    await runTool(biome, ["format", "--stdin-file-path=sdk/src/generated.ts"], { input: Buffer.from(text) })
  ).toString("utf8");
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const document = await openApiDocument();
  const files: [string, string][] = [[GENERATED, await generate(document)], ...(await pythonFiles(document))];
  if (process.argv.includes("--check")) {
    const texts = await Promise.all(files.map(([path]) => readFile(path, "utf8").catch(() => "")));
    const same = files.every(([, text], i) => texts[i] === text);
    process.stdout.write(same ? "up to date\n" : "out of date: run `node scripts/generate-sdk.ts`\n");
    process.exitCode = same ? 0 : 1;
  } else for (const [path, text] of files) await writeFile(path, text);
}
