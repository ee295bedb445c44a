/** Gives the OpenAPI document the words of `field-words.ts`, where its schemas say nothing themselves. */
import { FIELD_WORDS } from "./field-words.ts";

interface Schema {
  $ref?: string;
  description?: string;
  properties?: Record<string, Schema>;
  items?: Schema;
  additionalProperties?: Schema | boolean;
  anyOf?: Schema[];
  oneOf?: Schema[];
  allOf?: Schema[];
}
type Content = Record<string, { schema?: Schema }>;
interface Operation {
  parameters?: { name: string; description?: string; schema?: Schema }[];
  requestBody?: { content: Content };
  responses?: Record<string, { content?: Content }>;
}
export interface Document {
  components?: { schemas?: Record<string, Schema> };
  paths?: Record<string, Record<string, Operation>>;
}

const BASE = "/api/v1";
/** What the schema of durations says of its form; what a field means comes behind it. */
const DURATION = "A Go duration";
const IN_FORM = ` (${DURATION.replace("A", "a")})`;

/** Gives each field and parameter of an OpenAPI document its words, in place. @returns which words were used, and what has none */
export function describeFields(document: Document): { used: Set<string>; missing: string[] } {
  const used = new Set<string>();
  const missing: string[] = [];
  const wordsOf = (name: string, special: string, where: string): string | undefined => {
    const key = [special, name].find((each) => Object.hasOwn(FIELD_WORDS, each));
    if (key === undefined) missing.push(where);
    else used.add(key);
    return key === undefined ? undefined : FIELD_WORDS[key];
  };
  const walk = (schema: Schema | boolean | undefined, at: string): void => {
    if (typeof schema !== "object") return;
    for (const [name, field] of Object.entries(schema.properties ?? {})) {
      const here = `${at}.${name}`;
      // What refers to an object is explained by that object.
      const form = field.description?.startsWith(DURATION) ? `${field.description}. ` : undefined;
      if (field.$ref === undefined && (field.description === undefined || form !== undefined)) {
        const words = wordsOf(name, here, here);
        if (words !== undefined)
          field.description = form === undefined ? words : `${form}${words.replace(IN_FORM, "")}`;
      }
      walk(field, here);
    }
    walk(schema.items, at);
    walk(schema.additionalProperties, at);
    for (const part of [schema.anyOf, schema.oneOf, schema.allOf]) for (const each of part ?? []) walk(each, at);
  };
  for (const [name, schema] of Object.entries(document.components?.schemas ?? {})) walk(schema, name);
  for (const [path, methods] of Object.entries(document.paths ?? {})) {
    for (const [method, operation] of Object.entries(methods)) {
      const route = `${method.toUpperCase()} ${path.replace(BASE, "")}`;
      for (const parameter of operation.parameters ?? []) {
        if (parameter.description !== undefined || parameter.schema?.description !== undefined) continue;
        const special = `${route} ${parameter.name}`;
        const words = wordsOf(parameter.name, special, special);
        if (words !== undefined) parameter.description = words;
      }
      const contents = [
        operation.requestBody?.content,
        ...Object.values(operation.responses ?? {}).map((r) => r.content),
      ];
      for (const content of contents) {
        for (const { schema } of Object.values(content ?? {})) walk(schema, route);
      }
    }
  }
  return { used, missing };
}
