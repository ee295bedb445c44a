/** Holds real answers against the OpenAPI document that the server itself serves. */
import assert from "node:assert/strict";
import { z } from "zod";

type Json = Record<string, unknown>;

export interface Operation {
  method: string;
  /** As in the document, with `{id}`. */
  path: string;
  scope: "read" | "use" | "admin";
  responses: Record<string, { content?: Record<string, { schema: Json }> }>;
  hasJsonBody: boolean;
}

export interface Answer {
  status: number;
  headers: Headers;
  text: string;
  // biome-ignore lint/suspicious/noExplicitAny: the tests look into every kind of answer
  body: any;
}

export class Contract {
  readonly operations: Operation[];
  /** `METHOD path` of what has answered with a success. */
  readonly succeeded = new Set<string>();
  readonly #url: string;
  readonly #schemas: Record<string, Json>;

  private constructor(url: string, document: Json) {
    this.#url = url;
    this.#schemas = (document.components as { schemas: Record<string, Json> }).schemas;
    this.operations = Object.entries(document.paths as Record<string, Json>).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, value]) => {
        const operation = value as { description: string; responses: Operation["responses"]; requestBody?: Json };
        const scope = /Scope: (\w+)\./.exec(operation.description)?.[1] as Operation["scope"];
        assert.ok(scope, `${method} ${path} does not say its scope`);
        const content = (operation.requestBody?.content ?? {}) as Json;
        const hasJsonBody = "application/json" in content;
        return { method: method.toUpperCase(), path, scope, responses: operation.responses, hasJsonBody };
      }),
    );
  }

  static async of(url: string, key: string): Promise<Contract> {
    const response = await fetch(`${url}/api/v1/openapi.json`, { headers: { "x-api-key": key } });
    assert.equal(response.status, 200);
    return new Contract(url, (await response.json()) as Json);
  }

  find(method: string, path: string): Operation {
    const found = this.operations.find((each) => each.method === method && each.path === `/api/v1${path}`);
    assert.ok(found, `${method} ${path} is not in the document`);
    return found;
  }

  /**
   * Calls a documented operation; its status must be documented, and its JSON must fit the schema of that status.
   * @param at values for `{names}` in the path; `query` without `?`; `firstOnly` reads one piece of an endless stream
   */
  async call(
    method: string,
    path: string,
    options: {
      at?: Record<string, string>;
      query?: string;
      json?: unknown;
      raw?: string | Uint8Array<ArrayBuffer>;
      headers?: Record<string, string>;
      firstOnly?: boolean;
    } = {},
  ): Promise<Answer> {
    const operation = this.find(method, path);
    const filled = operation.path.replaceAll(/\{(\w+)\}/g, (_, name: string) => options.at?.[name] ?? "");
    const body = options.json === undefined ? options.raw : JSON.stringify(options.json);
    const response = await fetch(`${this.#url}${filled}${options.query ? `?${options.query}` : ""}`, {
      method,
      headers: options.headers ?? {},
      ...(body === undefined ? {} : { body }),
    });
    let text = "";
    if (options.firstOnly === true && response.body !== null) {
      const reader = response.body.getReader();
      text = new TextDecoder().decode((await reader.read()).value);
      await reader.cancel();
    } else text = await response.text();
    const where = `${method} ${filled}: ${response.status} ${text.slice(0, 300)}`;
    assert.ok(response.headers.get("x-request-id"), `${where}: no request id`);
    const documented = operation.responses[String(response.status)];
    assert.ok(documented, `${where}: this status is not documented`);
    const type = (response.headers.get("content-type") ?? "").split(";")[0] ?? "";
    let parsed: unknown;
    if (documented.content !== undefined) {
      const content = documented.content[type];
      assert.ok(content, `${where}: the type ${type} is not documented`);
      if (type === "application/json") {
        parsed = JSON.parse(text);
        const checked = this.#validator(content.schema).safeParse(parsed);
        assert.ok(checked.success, `${where}: ${checked.error?.message}`);
        if (response.status >= 400) assert.match((parsed as { code: string }).code ?? "not_ready", /^[A-Z_]+$/, where);
      }
    }
    if (response.status < 400) this.succeeded.add(`${method} ${operation.path}`);
    return { status: response.status, headers: response.headers, text, body: parsed };
  }

  #validator(schema: Json): z.ZodType {
    return z.fromJSONSchema(this.#inline(schema) as never);
  }

  #inline(value: unknown): unknown {
    if (Array.isArray(value)) return value.map((each) => this.#inline(each));
    if (typeof value !== "object" || value === null) return value;
    const { $ref } = value as { $ref?: string };
    if ($ref !== undefined) return this.#inline(this.#schemas[$ref.split("/").at(-1) ?? ""]);
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, this.#inline(each)]));
  }
}
