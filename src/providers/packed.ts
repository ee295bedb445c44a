/** What is said of a suspended machine to a host that shall have it. */
import { z } from "zod";
import { machineRecord } from "../launcher/machine-dir.ts";
import { PARTS } from "../launcher/parts.ts";
import { SEAL } from "../launcher/suspended.ts";
import { FILES } from "../vmm/vmm.ts";

/** Of a suspended machine, in its directory; nothing else of that travels. */
const NAMES = new Set([...[...PARTS, SEAL].map((name) => `suspended/${name}`), FILES.console]);

export const packedMachine = z.strictObject({
  record: machineRecord,
  /** What was saved: all of it, or its disk alone. */
  keeps: z.enum(["machine", "disk"]),
  /** Its files, by their names in its directory, with their modes. */
  files: z.record(
    z.string().refine((name) => NAMES.has(name), "no file that travels"),
    z.int().min(0).max(0o777),
  ),
});

export type PackedMachine = z.infer<typeof packedMachine>;
