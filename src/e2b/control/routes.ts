/** The control plane's routes: none without who may call it, and nothing of one runs before its caller has been admitted. */
import { type Context, Hono } from "hono";
import type { Scope } from "../../access/identity.ts";
import { errorResponse, notThere } from "../error.ts";
import type { ControlContext, ControlEnv, ControlRoute } from "./env.ts";

export class ControlRoutes {
  readonly table: ControlRoute[] = [];
  readonly #app = new Hono<ControlEnv>();

  constructor() {
    this.#app.onError((error) => errorResponse(error));
    // What is not there is told to whoever has a key.
    const nothing: ControlRoute = { method: "ALL", path: "*", access: "read", protocol: "E2B" };
    this.#app.notFound((c) =>
      admitted(c, nothing, async () => errorResponse(notThere(`${c.req.method} ${c.req.path}`))),
    );
  }

  /** @param method `ALL`: any. @param path with `:names` */
  on<P extends string>(
    method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE" | "ALL",
    path: P,
    access: Scope,
    handler: (c: Context<ControlEnv, P>) => Promise<Response> | Response,
    { link }: { link?: true } = {},
  ): void {
    const route: ControlRoute = { method, path, access, protocol: "E2B", ...(link === true ? { link } : {}) };
    this.table.push(route);
    const guarded = (c: Context<ControlEnv, P>): Promise<Response> => admitted(c, route, async () => handler(c));
    if (method === "ALL") this.#app.all(path, guarded);
    else this.#app.on(method, path, guarded);
  }

  async answer(request: Request, env: ControlEnv["Bindings"]): Promise<Response> {
    return await this.#app.fetch(request, env);
  }
}

function admitted(c: ControlContext, route: ControlRoute, work: () => Promise<Response>): Promise<Response> {
  return c.env.admit(route, (sandboxes, credential) => {
    c.set("sandboxes", sandboxes);
    c.set("credential", credential);
    return work();
  });
}
