/** What a node says of a sandbox that another one shall have. */
import { z } from "zod";
import { imageConfigSchema } from "../../images/bases.ts";
import type { SandboxRecord } from "../../sandboxes/record.ts";
import { sandboxRow } from "../../sandboxes/row-schemas.ts";
import { packedMachine } from "../../sandboxes/transits.ts";
import { contentSchema } from "../transfer/pieces.ts";

const sandbox = z.custom<SandboxRecord>((value) => sandboxRow.safeParse(value).success, "no record of a sandbox");

/** Before it is suspended: whether it could be had. */
export const inquirySchema = z.strictObject({ sandbox, packed: packedMachine });
export type Inquiry = z.infer<typeof inquirySchema>;
export const inquiryAnswer = z.object({ differs: z.array(z.string()) });

/** It is suspended, and whoever takes it under this epoch has it. */
export const offerSchema = z.strictObject({
  ...inquirySchema.shape,
  epoch: z.int(),
  wakes: z.boolean(),
  contents: z.record(z.string(), contentSchema),
});
export type Offer = z.infer<typeof offerSchema>;
export const offerAnswer = z.object({ state: z.string(), bytes: z.number(), known: z.number() });

/** `since`: when it was offered, ms since 1970 as the asker's clock has it */
export const hasSchema = z.strictObject({ id: z.string().max(64), since: z.number() });
/** `ended`: it was here since then, and is no more. `arriving`: it has been offered, and not been taken yet. */
export const hasAnswer = z.object({ is: z.enum(["here", "ended", "arriving", "none"]) });

export const imageSchema = z.strictObject({ digest: z.string().regex(/^sha256:[0-9a-f]{64}$/) });
export const imageAnswer = z.object({
  config: imageConfigSchema,
  blobs: z.array(z.string()),
  content: contentSchema,
});
