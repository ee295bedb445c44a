/**
 * `--format '{{.name}} {{.boot.path}}'`, as Docker's commands take it, over the fields that `--json` prints: `.a.b` is a field of a
 * field, `json .a` writes it as JSON. Other actions of Go's templates are refused.
 */
import { InvalidArgumentError, Option } from "commander";
import { shapes } from "../../sdk/src/generated.ts";
import { ownValue } from "../host/own-value.ts";

/** Writes one object; a field that it does not have is empty. */
export type FieldTemplate = (value: object) => string;

const ACTION = /^(json\s+)?\.(\w+(?:\.\w+)*)?$/;

/** @param fields names of the outermost fields @throws InvalidArgumentError */
export function parseFieldTemplate(text: string, fields: readonly string[]): FieldTemplate {
  const parts = text
    .replaceAll("\\t", "\t")
    .replaceAll("\\n", "\n")
    .split(/(\{\{.*?\}\})/)
    .map((part): string | ((value: object) => string) => {
      if (!part.startsWith("{{")) return part;
      const [, json, name] = ACTION.exec(part.slice(2, -2).trim()) ?? [];
      if (name === undefined && json === undefined) {
        throw new InvalidArgumentError("write fields as {{.state}} or {{json .boot}}.");
      }
      const path = name?.split(".") ?? [];
      if (path[0] !== undefined && !fields.includes(path[0])) {
        throw new InvalidArgumentError(`there is no field ${path[0]}; there are: ${fields.join(", ")}.`);
      }
      return (value) => written(fieldOf(value, path), json !== undefined);
    });
  return (value) => parts.map((part) => (typeof part === "string" ? part : part(value))).join("");
}

function fieldOf(value: unknown, path: readonly string[]): unknown {
  return path.reduce(
    (found, name) =>
      typeof found === "object" && found !== null ? ownValue(found as Record<string, unknown>, name) : undefined,
    value,
  );
}

function written(value: unknown, json: boolean): string {
  return json || (typeof value === "object" && value !== null) ? JSON.stringify(value ?? null) : String(value ?? "");
}

/** Of commands that print sandboxes. @param more fields that they print beside a sandbox's */
export function formatOption(...more: string[]): Option {
  const shape = shapes.Sandbox;
  const fields = typeof shape === "object" && "object" in shape ? Object.keys(shape.object) : [];
  const names = [...fields.map((name) => name.replace("?", "")), ...more];
  const text = "print these fields of each alone, for example '{{.id}} {{.boot.path}}'";
  return new Option("--format <template>", text).argParser((given) => parseFieldTemplate(given, names));
}
