import { z } from "@hono/zod-openapi";
import type { WarmContext } from "../../interpreter/contexts.ts";
import { LANGUAGES } from "../../interpreter/language.ts";
import { parseDuration } from "../../sandboxes/duration.ts";
import { OWNER_NAME } from "../../sandboxes/owner.ts";

export const ErrorBody = z
  .object({
    code: z.string().openapi({ example: "NOT_FOUND" }),
    message: z.string(),
    phase: z.string().optional(),
    remedy: z.string().optional(),
    request_id: z.string().optional(),
  })
  .openapi("Error");

/** A Go duration; ms inside. Empty is absent. */
export const Duration = z
  .string()
  .max(128)
  .transform((text, context): number | undefined => {
    if (text === "") return undefined;
    try {
      return parseDuration(text);
    } catch (error) {
      context.addIssue({ code: "custom", message: (error as Error).message });
      return z.NEVER;
    }
  })
  .openapi({ type: "string", example: "30m", description: "A Go duration: 300ms, 90s, 1h30m" });

/** A duration in a quota: Go's form, or a number of seconds; whole seconds. ms inside. */
export const QuotaDuration = z
  .union([z.string(), z.number()])
  .transform((value, context): number => {
    try {
      const ms = typeof value === "number" ? value * 1000 : value === "" ? 0 : parseDuration(value);
      if (ms >= 0 && Number.isInteger(ms / 1000)) return ms;
    } catch {}
    context.addIssue({ code: "custom", message: 'must be a duration in whole seconds, such as "1h30m"' });
    return z.NEVER;
  })
  .openapi({ type: "string", example: "1h0m0s" });

/** Of a sandbox the id or the name. */
export const SandboxId = z.object({ id: z.string().openapi({ example: "sb-0a1b2c3d" }) });
export const NameParam = z.object({ name: z.string().max(128) });

const noNul = (value: string): boolean => !value.includes("\0");

/** Text for the guest's kernel, which ends strings at NUL. */
export const GuestText = z.string().refine(noNul, "must not contain NUL");
export const GuestPath = GuestText.min(1, "is required").max(4096).openapi({ example: "/workspace/main.py" });

/** Linux takes 128 KiB as one argument or variable, with its name and a NUL. */
export const StringMap = z.record(z.string().max(256), z.string().max(131_072));
export const EnvMap = StringMap.refine(
  (env) => Object.entries(env).every(([key, value]) => key !== "" && !key.includes("=") && noNul(key) && noNul(value)),
  "names must not be empty or contain =, and nothing may contain NUL",
).openapi({ type: "object", additionalProperties: { type: "string" } });

/** Hosts that a sandbox may connect to; what each may look like is in egress/host-rules.ts. */
export const AllowedHosts = z
  .array(z.string().max(300))
  .max(256)
  .openapi({
    example: ["pkg.example", "*.pkgfiles.example"],
    description:
      "`example.com` (ports 80 and 443), `*.example.com`, `example.com:8080`, `example.com:8000-8999`, `example.com:*`, `example.com:123/udp` (datagrams; no other rule permits any), an address, a range such as `10.1.0.0/16:5432`, a group such as `@pypi`, or `*`; with `!` in front: not that, whatever else permits it.",
  });

/** A query flag: `?recursive=true`. */
export const Flag = z
  .enum(["true", "false", "1", "0", ""])
  .optional()
  .transform((value) => value === "true" || value === "1")
  .openapi({ type: "string", enum: ["true", "false"] });

export function whole(min: number, max: number) {
  return z.coerce.number().int().min(min).max(max).openapi({ type: "integer", minimum: min, maximum: max });
}

/** null counts as absent: clients in other languages send it for what they do not set. */
export function maybe<S extends z.ZodType>(schema: S) {
  return schema.nullish().transform((value): z.output<S> | undefined => value ?? undefined);
}

export const OwnerName = z.string().trim().regex(OWNER_NAME, "is not an owner's name: letters, digits, and . _ @ -");

export const StatusBody = z.object({ status: z.string() }).openapi("Status");

/** Contexts of the code interpreter that a machine is saved with: a language, and what it runs before, such as imports. */
export const WarmContexts = z
  .array(z.object({ language: z.enum(LANGUAGES), code: maybe(GuestText.max(65_536)) }))
  .max(8);

export function warmContexts(contexts: z.output<typeof WarmContexts> | undefined): WarmContext[] | undefined {
  return contexts?.map(({ language, code = "" }) => ({ language, code }));
}
