import { z } from "@hono/zod-openapi";
import type { Placement } from "../../egress/secrets/secret.ts";
import type { SecretInfo, SecretInput } from "../../sandboxes/secrets.ts";
import { maybe } from "./common.ts";
import { defined, iso } from "./values.ts";

const kind = z.enum(["bearer", "header", "basic", "query"]);

const PlacementBody = z
  .object({
    kind,
    name: z.string().optional(),
    template: z.string().optional(),
    username: z.string().optional(),
  })
  .openapi("SecretPlacement");

const PlacementRequest = z
  .object({
    kind: kind.openapi({
      description:
        "`bearer`: `Authorization: Bearer VALUE`; `header`: the header `name`, whose text is `template` with the value for `{}`; `basic`: the password beside `username`; `query`: the parameter `name` of the URL",
    }),
    name: maybe(z.string().max(128)),
    template: maybe(z.string().max(1_024)),
    username: maybe(z.string().max(256)),
  })
  .openapi("SecretPlacementRequest");

const common = {
  hosts: maybe(z.array(z.string().max(300)).max(64)).openapi({
    type: "array",
    items: { type: "string" },
    example: ["api.example.com", "*.models.example:8443"],
    description: "The value goes to these alone, over TLS; `http://` in front: without.",
  }),
  placement: maybe(PlacementRequest),
  placeholder: maybe(z.string().max(256)).openapi({ type: "string", description: "What programs see in its place" }),
  value: maybe(z.string().max(8_192)),
};

export const SecretRequest = z
  .object({
    ...common,
    file: maybe(z.string().max(4_096)).openapi({
      type: "string",
      description: "A file of the server that has the value, read for each request; for administrators",
    }),
    variable: maybe(z.string().max(256)).openapi({
      type: "string",
      description: "A variable of the server's environment that has the value; for administrators",
    }),
    everywhere: maybe(z.boolean()).openapi({ type: "boolean", description: "Each new sandbox of the owner gets it" }),
  })
  .openapi("SecretRequest");

/** With a spawn, for its sandbox alone. */
export const OwnSecret = z.object({ name: z.string().max(128), ...common }).openapi("OwnSecret");

export const SecretBody = z
  .object({
    name: z.string(),
    owner: z.string(),
    hosts: z.array(z.string()),
    placement: PlacementBody,
    placeholder: z.string(),
    source: z.enum(["value", "file", "environment"]),
    everywhere: z.boolean(),
    available: z.boolean().openapi({ description: "The value is there" }),
    kept: z.boolean().openapi({ description: "It is there after the server's next start, too" }),
    created_at: z.string(),
    updated_at: z.string(),
  })
  .openapi("Secret");

export function secretInput(
  name: string,
  { placement, ...rest }: z.output<typeof SecretRequest> | Omit<z.output<typeof OwnSecret>, "name">,
): SecretInput {
  return { name, ...defined(rest), ...(placement === undefined ? {} : { placement: placementOf(placement) }) };
}

/** What is missing is seen where the placement is judged. */
function placementOf({
  kind,
  name = "",
  template = "{}",
  username = "",
}: z.output<typeof PlacementRequest>): Placement {
  if (kind === "header") return { kind, name, template };
  if (kind === "query") return { kind, name };
  return kind === "basic" ? { kind, username } : { kind };
}

export function secretBody(secret: SecretInfo): z.output<typeof SecretBody> {
  return {
    name: secret.name,
    owner: secret.owner,
    hosts: secret.hosts,
    placement: secret.placement,
    placeholder: secret.placeholder,
    source: secret.source.kind,
    everywhere: secret.everywhere === true,
    available: secret.available,
    kept: secret.kept,
    created_at: iso(secret.createdAt),
    updated_at: iso(secret.updatedAt),
  };
}
