/**
 * What is wrong with a value that does not fit its schema, in words for whoever wrote it: "must be a number, not text". The library's own
 * ("Invalid input: expected number, received string") are about its types.
 */

/** What zod (v4) knows of an issue when it asks for its message. */
export interface SchemaIssue {
  code?: string | undefined;
  input?: unknown;
  expected?: unknown;
  origin?: unknown;
  minimum?: unknown;
  maximum?: unknown;
  values?: unknown;
  keys?: unknown;
  /** Of a union: what is wrong for each of its forms. */
  errors?: unknown;
}

const THINGS: Record<string, string> = {
  string: "text",
  number: "a number",
  int: "a whole number",
  boolean: "true or false",
  array: "a list",
  object: "an object",
  record: "an object",
  null: "null",
};

/** For `safeParse(value, { error: schemaWords })`; `undefined` leaves it to the schema, or to the library. */
export function schemaWords(issue: SchemaIssue): string | undefined {
  switch (issue.code) {
    case "invalid_type": {
      const wanted = THINGS[String(issue.expected)];
      if (wanted === undefined) return undefined;
      if (issue.input === undefined) return `is missing; it must be ${wanted}`;
      const given = kindOf(issue.input);
      return given === wanted || issue.expected === "int" ? `must be ${wanted}` : `must be ${wanted}, not ${given}`;
    }
    case "too_big":
      return `must ${bound(issue.origin, "at most", issue.maximum)}`;
    case "too_small":
      return `must ${bound(issue.origin, "at least", issue.minimum)}`;
    case "invalid_value":
      return `must be ${(issue.values as readonly unknown[]).map(String).join(" or ")}`;
    case "invalid_union": {
      const forms = (issue.errors as { message?: string; path: PropertyKey[] }[][] | undefined) ?? [];
      const said = new Set(forms.flatMap(([first]) => (first?.path.length === 0 ? (first.message ?? []) : [])));
      return said.size === 0 ? "has none of the forms that it may have" : [...said].join(", or ");
    }
    case "unrecognized_keys":
      return `has no field ${(issue.keys as readonly string[]).map((key) => JSON.stringify(key)).join(", ")}`;
    default:
      return undefined;
  }
}

function kindOf(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "a list";
  return THINGS[typeof value] ?? "that";
}

function bound(origin: unknown, which: "at most" | "at least", limit: unknown): string {
  const unit = origin === "string" ? "character" : origin === "array" || origin === "set" ? "entry" : undefined;
  if (unit === undefined) return `be ${which} ${limit}`;
  const units = Number(limit) === 1 ? unit : unit === "entry" ? "entries" : `${unit}s`;
  return `have ${which} ${limit} ${units}`;
}
