/** The audit log in the published server's form, as JSON and as CSV. */
import { z } from "@hono/zod-openapi";
import type { AuditEntry } from "../../access/audit.ts";
import { iso, isoSeconds } from "./values.ts";

export const PublishedAuditBody = z
  .object({
    id: z.int(),
    actor: z.string(),
    method: z.string(),
    path: z.string(),
    status: z.int(),
    duration_ms: z.int(),
    request_id: z.string(),
    remote_addr: z.string(),
    user_agent: z.string(),
    tenant_id: z.string(),
    created_at: z.string(),
  })
  .openapi("AdminAuditEntry");

export type PublishedAudit = z.output<typeof PublishedAuditBody>;

export function auditBody(entry: AuditEntry & { id: number }): PublishedAudit {
  return {
    id: entry.id,
    actor: entry.actor,
    method: entry.method,
    path: entry.path,
    status: entry.status,
    duration_ms: Math.round(entry.durationMs ?? 0),
    request_id: entry.requestId,
    remote_addr: entry.address ?? "",
    user_agent: entry.userAgent ?? "",
    tenant_id: entry.owner,
    created_at: iso(entry.at),
  };
}

const COLUMNS = [
  ...[
    "id",
    "created_at",
    "actor",
    "method",
    "path",
    "status",
    "duration_ms",
    "request_id",
    "remote_addr",
    "user_agent",
  ],
] as const satisfies readonly (keyof PublishedAudit)[];

export function auditCsv(entries: PublishedAudit[]): string {
  const rows = entries.map((entry) => ({ ...entry, created_at: isoSeconds(Date.parse(entry.created_at)) }));
  return [COLUMNS.join(","), ...rows.map((row) => COLUMNS.map((column) => cell(String(row[column]))).join(","))]
    .map((line) => `${line}\n`)
    .join("");
}

/** RFC 4180; what a spreadsheet would take for a formula begins with an apostrophe. */
function cell(text: string): string {
  const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
