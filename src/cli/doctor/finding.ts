export interface Finding {
  name: string;
  /** `missing`: a sandbox cannot start. `note`: it can, but something is worth knowing. */
  state: "ok" | "note" | "missing";
  detail: string;
  /** What it is needed for. */
  meaning: string;
  remedy?: string | undefined;
  /** Does what is safe about it. @returns what was done */
  fix?: (() => Promise<string>) | undefined;
}

export type Check = () => Promise<Finding[]>;
