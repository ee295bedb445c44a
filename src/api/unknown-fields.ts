/**
 * Fields of a request that its schema does not know. Ignored, `memory: 512` would be a sandbox of another size than its client believes;
 * so it is refused, with the name that was meant where that can be told.
 */
import { z } from "@hono/zod-openapi";
import { StacyError } from "../host/error.ts";
import { ownValue } from "../host/own-value.ts";

/** What records have, whatever they are of: clients make another one out of them. The server decides these itself. */
const SENT_BACK = new Set(["id", "owner", "owner_id", "tenant_id", "created_at", "updated_at"]);

/** What fields are called elsewhere: in the command line here, by Docker, by E2B's clients and others. */
const ELSEWHERE: Record<string, string[]> = {
  cmd: ["command"],
  cores: ["vcpus"],
  cpu: ["vcpus"],
  cpus: ["vcpus"],
  cpucount: ["vcpus"],
  cwd: ["workdir"],
  directory: ["workdir"],
  workingdir: ["workdir"],
  environment: ["env"],
  envs: ["env"],
  envvars: ["env"],
  hosts: ["allowed_hosts"],
  allow: ["allowed_hosts"],
  initcommands: ["setup"],
  labels: ["metadata"],
  lifetime: ["ttl"],
  ram: ["memory_mb"],
  mem: ["memory_mb"],
  storage: ["disk_mb"],
  templateid: ["template"],
  timeout: ["ttl"],
};

/** Of what was sent, in an error. */
const LONGEST_NAME = 100;

/** Names of what an object may have. */
export function fieldsOf(schema: z.ZodType | undefined): ReadonlySet<string> {
  const inner = schema === undefined ? undefined : unwrapped(schema);
  return new Set(inner instanceof z.ZodObject ? Object.keys(inner.shape) : []);
}

/**
 * @param record fields of what stands at this address, as clients get it: they send it back with what they have changed in it
 * @throws StacyError `invalid` for the first one
 */
export function refuseUnknown(schema: z.ZodType, value: unknown, record: ReadonlySet<string> = new Set()): void {
  const own = (name: string, path: readonly string[]): boolean => path.length === 0 && record.has(name);
  const found = unknownField(schema, value, [], own);
  if (found === undefined) return;
  const { path, known } = found;
  const name = (path.at(-1) ?? "").slice(0, LONGEST_NAME);
  const meant = meantBy(name, known);
  throw new StacyError("invalid", `there is no field ${JSON.stringify([...path.slice(0, -1), name].join("."))}`, {
    remedy:
      meant === undefined
        ? `the fields here are ${known.join(", ")}`
        : `write ${[...path.slice(0, -1), meant].join(".")}`,
  });
}

function unknownField(
  schema: z.ZodType,
  value: unknown,
  path: string[],
  isRecords: (name: string, path: readonly string[]) => boolean,
): { path: string[]; known: string[] } | undefined {
  const inner = unwrapped(schema);
  if (Array.isArray(value)) {
    if (!(inner instanceof z.ZodArray)) return undefined;
    const element = unwrapped(inner.element as z.ZodType);
    if (!(element instanceof z.ZodObject)) return undefined;
    return first(value.entries(), (each, index) => unknownField(element, each, [...path, String(index)], isRecords));
  }
  if (!(inner instanceof z.ZodObject) || typeof value !== "object" || value === null) return undefined;
  const shape = inner.shape as Record<string, z.ZodType>;
  const known = Object.keys(shape);
  return first(Object.entries(value), (each, name) => {
    const field = ownValue(shape, name);
    if (field !== undefined) return unknownField(field, each, [...path, name], isRecords);
    return SENT_BACK.has(name) || isRecords(name, path) ? undefined : { path: [...path, name], known };
  });
}

function first<K, V, R>(entries: Iterable<[K, V]>, look: (value: V, key: K) => R | undefined): R | undefined {
  for (const [key, value] of entries) {
    const found = look(value, key);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** What stands behind `nullish`, `default`, `transform` and the like. */
function unwrapped(schema: z.ZodType): z.ZodType {
  for (let at = schema; ; ) {
    if (at instanceof z.ZodPipe) at = at.in as z.ZodType;
    else if (at instanceof z.ZodOptional || at instanceof z.ZodNullable || at instanceof z.ZodDefault)
      at = at.unwrap() as z.ZodType;
    else return at;
  }
}

/** By spelling without case, lines and units (`memoryMb`, `memory-mb`, `memory`), else by what others call it. */
function meantBy(name: string, known: readonly string[]): string | undefined {
  const bare = (text: string): string => text.toLowerCase().replaceAll(/[^a-z0-9]/g, "");
  const withoutUnit = (text: string): string => bare(text).replace(/(?:mi?b|gi?b|ms|seconds|secs?)$/, "");
  return (
    known.find((each) => bare(each) === bare(name)) ??
    known.find((each) => withoutUnit(each) === withoutUnit(name)) ??
    [bare(name), withoutUnit(name)]
      .flatMap((each) => ownValue(ELSEWHERE, each) ?? [])
      .find((each) => known.includes(each))
  );
}
