import { z } from "@hono/zod-openapi";
import { LANGUAGES } from "../../interpreter/language.ts";
import type { CodeEvent, CodeRequest as CodeInput, ContextInfo } from "../../sandboxes/code.ts";
import { Duration, EnvMap, GuestPath, GuestText, maybe } from "./common.ts";
import { defined } from "./values.ts";

const Language = maybe(z.string().max(32)).openapi({
  type: "string",
  description: `${LANGUAGES.join(", ")}. Default: python.`,
});

export const CodeRequest = z
  .object({
    code: GuestText.max(16 << 20),
    language: Language,
    context: maybe(z.string().max(128)).openapi({
      type: "string",
      description: "A context's id. Default: the one of the language, which is started when it is needed.",
    }),
    env: maybe(EnvMap),
    timeout: maybe(Duration),
    stream: maybe(z.boolean()),
  })
  .openapi("CodeRequest");

export function codeInput(body: z.output<typeof CodeRequest>): CodeInput {
  return {
    code: body.code,
    env: body.env ?? {},
    ...defined({ language: body.language, context: body.context, timeoutMs: body.timeout }),
  };
}

/** The forms that have a name; what else a value has goes under `other`, by its type. */
const TEXTS = ["text", "html", "markdown", "svg", "png", "jpeg", "pdf", "latex", "javascript"] as const;

export const CodeResultBody = z
  .object({
    main: z.boolean().openapi({ description: "The value of the last expression; else it was displayed." }),
    text: z.string().optional(),
    html: z.string().optional(),
    markdown: z.string().optional(),
    svg: z.string().optional(),
    png: z.string().optional().openapi({ description: "base64" }),
    jpeg: z.string().optional().openapi({ description: "base64" }),
    pdf: z.string().optional().openapi({ description: "base64" }),
    latex: z.string().optional(),
    javascript: z.string().optional(),
    json: z.unknown().optional(),
    data: z.unknown().optional().openapi({ description: "A table's columns." }),
    chart: z.unknown().optional().openapi({ description: "What a figure shows, as data." }),
    other: z.record(z.string(), z.unknown()).optional(),
  })
  .openapi("CodeResult");

export const CodeErrorBody = z
  .object({ name: z.string(), value: z.string(), traceback: z.string() })
  .openapi("CodeError");

export const CodeBody = z
  .object({
    results: z.array(CodeResultBody),
    stdout: z.string(),
    stderr: z.string(),
    error: CodeErrorBody.optional(),
    execution_count: z.int(),
  })
  .openapi("CodeExecution");

/** What the guest shows, as far as it has the right form. */
export function codeResult(event: CodeEvent): z.output<typeof CodeResultBody> {
  const { type: _, is_main_result, json, data, chart, ...rest } = event;
  const result: z.output<typeof CodeResultBody> = { main: is_main_result === true, ...defined({ json, data, chart }) };
  const other: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(rest)) {
    const known = TEXTS.find((each) => each === name);
    if (known === undefined) other[name] = value;
    else result[known] = typeof value === "string" ? value : JSON.stringify(value);
  }
  return Object.keys(other).length === 0 ? result : { ...result, other };
}

export function codeError(event: CodeEvent): z.output<typeof CodeErrorBody> {
  const text = (value: unknown): string => (typeof value === "string" ? value : "");
  return { name: text(event.name), value: text(event.value), traceback: text(event.traceback) };
}

export const ContextRequest = z
  .object({
    language: Language,
    workdir: maybe(GuestPath.max(1_024)),
    user: maybe(GuestText.max(256)),
    env: maybe(EnvMap),
  })
  .openapi("ContextRequest");

export const ContextBody = z
  .object({ id: z.string(), language: z.string(), workdir: z.string().optional() })
  .openapi("CodeContext");

export function contextBody({ id, language, cwd }: ContextInfo): z.output<typeof ContextBody> {
  return { id, language, ...defined({ workdir: cwd }) };
}
