/** Secrets of the caller's owner: what they are for is shown, what they are never. */
import { z } from "@hono/zod-openapi";
import type { ApiContext, Endpoints } from "../endpoint.ts";
import { json } from "../endpoint.ts";
import { httpError } from "../problem.ts";
import { NameParam, StatusBody } from "../schemas/common.ts";
import { SecretBody, SecretRequest, secretBody, secretInput } from "../schemas/secret.ts";

export function secretRoutes(endpoints: Endpoints): void {
  const tag = "secrets";
  const one = { 200: { description: "The secret, without its value", schema: SecretBody } };
  endpoints.add(
    {
      method: "get",
      path: "/secrets",
      scope: "read",
      tag,
      summary: "All secrets, without their values",
      responses: { 200: { description: "By name", schema: z.array(SecretBody) } },
    },
    ({ sandboxes }) => json(sandboxes.secrets.list().map(secretBody)),
  );
  endpoints.add(
    {
      method: "get",
      path: "/secrets/{name}",
      scope: "read",
      tag,
      summary: "One secret, without its value",
      params: NameParam,
      responses: one,
      errors: [404],
    },
    ({ sandboxes, params }) => json(secretBody(sandboxes.secrets.get(params.name))),
  );
  endpoints.add(
    {
      method: "put",
      path: "/secrets/{name}",
      scope: "use",
      tag,
      summary: "Make a secret, or change what is given of it",
      description:
        "Another value counts from the next request of every sandbox on. A new one needs `hosts` and one of `value`, `file` and `variable`.",
      params: NameParam,
      body: SecretRequest,
      responses: one,
    },
    async ({ c, sandboxes, params, body }) => {
      assertMayName(c, body);
      return json(secretBody(await sandboxes.secrets.put(secretInput(params.name, body))));
    },
  );
  endpoints.add(
    {
      method: "delete",
      path: "/secrets/{name}",
      scope: "use",
      tag,
      summary: "Delete a secret",
      description: "Sandboxes that have it cannot use it any more.",
      params: NameParam,
      responses: { 200: { description: "It is gone", schema: StatusBody } },
      errors: [404],
    },
    async ({ sandboxes, params }) => {
      await sandboxes.secrets.remove(params.name);
      return json({ status: "deleted" });
    },
  );
}

/** Whoever may name a file of this host could send it to a host of his own. */
function assertMayName(c: ApiContext, { file, variable }: z.output<typeof SecretRequest>): void {
  if ((file === undefined && variable === undefined) || c.get("identity").scopes.has("admin")) return;
  throw httpError(403, "only administrators name files and variables of the server");
}
