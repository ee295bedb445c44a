import assert from "node:assert/strict";
import { test } from "node:test";
import { z } from "zod";
import { schemaWords } from "./schema-words.ts";

const SHAPE = z.strictObject({
  memory: z.int().min(1).max(32),
  name: z.string().min(1).max(8).optional(),
  tags: z.array(z.string()).max(2).optional(),
  action: z.enum(["pause", "suspend"]).optional(),
  env: z.record(z.string(), z.string()).optional(),
  on: z.boolean().optional(),
  secret: z.union([z.string(), z.object({ value: z.string() })]).optional(),
  time: z
    .string()
    .refine((text) => /^\d+s$/.test(text), { error: ({ input }) => `${JSON.stringify(input)} is no time` })
    .optional(),
});

const wrong = (value: unknown): string => {
  const { error } = SHAPE.safeParse(value, { error: schemaWords });
  const [issue] = error?.issues ?? [];
  return `${issue?.path.join(".")}: ${issue?.message}`;
};

test("what does not fit is said in words for whoever wrote it", () => {
  const of = (fields: object): string => wrong({ memory: 1, ...fields });
  assert.equal(wrong({}), "memory: is missing; it must be a number");
  assert.equal(wrong([]), ": must be an object, not a list");
  assert.equal(of({ memory: "1g" }), "memory: must be a number, not text");
  assert.equal(of({ memory: 1.5 }), "memory: must be a whole number");
  assert.equal(of({ memory: 33 }), "memory: must be at most 32");
  assert.equal(of({ memory: 0 }), "memory: must be at least 1");
  assert.equal(of({ name: "" }), "name: must have at least 1 character");
  assert.equal(of({ name: "123456789" }), "name: must have at most 8 characters");
  assert.equal(of({ tags: ["a", "b", "c"] }), "tags: must have at most 2 entries");
  assert.equal(of({ tags: [null] }), "tags.0: must be text, not null");
  assert.equal(of({ action: "stop" }), "action: must be pause or suspend");
  assert.equal(of({ env: { A: 1 } }), "env.A: must be text, not a number");
  assert.equal(of({ on: "yes" }), "on: must be true or false, not text");
  assert.equal(of({ secret: 7 }), "secret: must be text, not a number, or must be an object, not a number");
  assert.equal(of({ x: 1 }), ': has no field "x"');
});

test("what a schema says of itself stays", () => {
  assert.equal(wrong({ memory: 1, time: "soon" }), 'time: "soon" is no time');
});
