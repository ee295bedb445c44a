/** What is said of a suspended machine to a host that shall have it. */
import { z } from "zod";
import { machineRecord } from "../launcher/machine-dir.ts";

export const packedMachine = z.strictObject({
  record: machineRecord,
  /** What was saved: all of it, or its disk alone. */
  keeps: z.enum(["machine", "disk"]),
  /** Its files, by their names in its directory, with their modes. */
  files: z.record(z.string().regex(/^(suspended\/)?[a-z0-9-]+\.(bin|ext4|json|log)$/), z.int()),
});

export type PackedMachine = z.infer<typeof packedMachine>;
