/** Whose each sandbox is, in an administrator's list: names are each owner's own, so that two may have the same. */
import type { SandboxInfo } from "../../sdk/src/index.ts";

export interface OwnerColumn {
  /** Empty where all have one owner: the column would say nothing. */
  head: "OWNER"[];
  cell(info: SandboxInfo): string[];
}

export function ownerColumn(infos: SandboxInfo[]): OwnerColumn {
  const several = new Set(infos.map(({ owner }) => owner)).size > 1;
  return several ? { head: ["OWNER"], cell: ({ owner }) => [owner] } : { head: [], cell: () => [] };
}
