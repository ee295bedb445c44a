/**
 * Checks and converts what goes over the wire, by data that was made from the server's own schemas (generated.ts). The wire has
 * `snake_case` names, programs have `camelCase`; keys of maps (metadata, env) are the user's and stay as they are.
 */
import { ReplyError } from "./errors.ts";
import { shapes } from "./generated.ts";
import type { Shape } from "./shape.ts";

const camel = (name: string): string => name.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase());

const originals = new WeakMap<object, unknown>();

/** A reply as the server wrote it, with its names; anything else is returned unchanged. */
export function wireOf(value: unknown): unknown {
  return typeof value === "object" && value !== null ? (originals.get(value) ?? value) : value;
}

/** A reply, checked. Fields that this version does not know are dropped. @throws ReplyError naming the field */
export function decode(shape: Shape, value: unknown, at = "the reply"): unknown {
  if (typeof shape === "string") {
    const wanted = shape === "duration" ? "string" : shape;
    const fits =
      wanted === "any" ||
      (wanted === "integer" ? Number.isInteger(value) : typeof value === wanted) ||
      (wanted === "number" && typeof value === "number");
    if (!fits) throw mismatch(at, wanted, value);
    return value;
  }
  if ("ref" in shape) return decode(shapes[shape.ref] ?? "any", value, at);
  if ("enum" in shape) {
    // A newer server may know more values; programs must have a default anyway.
    if (!shape.enum.includes(value) && typeof value !== typeof shape.enum[0]) throw mismatch(at, "known value", value);
    return value;
  }
  if ("array" in shape) {
    if (!Array.isArray(value)) throw mismatch(at, "array", value);
    const list = value.map((item, i) => decode(shape.array, item, `${at}[${i}]`));
    originals.set(list, value);
    return list;
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw mismatch(at, "object", value);
  const source = value as Record<string, unknown>;
  const result: Record<string, unknown> = {};
  originals.set(result, value);
  if ("record" in shape) {
    for (const [key, item] of Object.entries(source)) put(result, key, decode(shape.record, item, `${at}.${key}`));
    return result;
  }
  for (const [key, item] of Object.entries(shape.object)) {
    const optional = key.endsWith("?");
    const name = optional ? key.slice(0, -1) : key;
    const found = source[name];
    if (optional && (found === undefined || found === null)) continue;
    put(result, camel(name), decode(item, found, `${at}.${name}`));
  }
  return result;
}

/** A request as it goes over the wire: known names in the server's spelling, durations as text, nothing undefined. */
export function encode(shape: Shape, value: unknown): unknown {
  if (value === undefined || value === null) return undefined;
  if (shape === "duration") return typeof value === "number" ? `${value}ms` : value;
  if (typeof shape === "string" || "enum" in shape) return value;
  if ("ref" in shape) return encode(shapes[shape.ref] ?? "any", value);
  if ("array" in shape) return (value as unknown[]).map((item) => encode(shape.array, item));
  if ("record" in shape) return value;
  const source = value as Record<string, unknown>;
  const result: Record<string, unknown> = {};
  for (const [key, item] of Object.entries(shape.object)) {
    const name = key.replace(/\?$/, "");
    const encoded = encode(item, source[camel(name)]);
    if (encoded !== undefined) result[name] = encoded;
  }
  return result;
}

/** Also a key such as `__proto__` becomes a plain property. */
function put(target: Record<string, unknown>, key: string, value: unknown): void {
  Object.defineProperty(target, key, { value, enumerable: true, writable: true, configurable: true });
}

function mismatch(at: string, wanted: string, value: unknown): ReplyError {
  const found = value === null ? "null" : Array.isArray(value) ? "an array" : typeof value;
  return new ReplyError("BAD_REPLY", `${at} should be of type ${wanted} and is ${found}`, {
    hint: "the server and the SDK may be of different versions",
  });
}
