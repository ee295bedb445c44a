/** How a value looks on the wire, as data: what `generated.ts` says and `schema.ts` reads. */
export type Shape =
  | "string"
  | "number"
  | "integer"
  | "boolean"
  | "duration"
  | "any"
  | { ref: string }
  | { array: Shape }
  | { record: Shape }
  | { enum: unknown[] }
  /** Names as on the wire; an optional one ends with `?`. */
  | { object: Record<string, Shape> };
