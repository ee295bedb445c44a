import assert from "node:assert/strict";
import { test } from "node:test";
import { unreachable } from "./unreachable.ts";

const refused = Object.assign(new Error("connect ECONNREFUSED"), { code: "ECONNREFUSED" });
const remedy = (env: NodeJS.ProcessEnv, error: Error = refused) =>
  unreachable(new URL("https://registry.example/v2/"), error, env).remedy;

test("a proxy in the environment that Node was not told to use is the first thing to say when a registry is not reached", () => {
  assert.match(remedy({ HTTPS_PROXY: "http://p:3128" }) ?? "", /^HTTPS_PROXY is used only with NODE_USE_ENV_PROXY=1/);
  assert.match(remedy({ https_proxy: "http://p:3128" }) ?? "", /^https_proxy is used only/);
  for (const env of [{}, { HTTP_PROXY: "http://p:3128" }, { HTTPS_PROXY: "http://p:3128", NODE_USE_ENV_PROXY: "1" }])
    assert.match(remedy(env) ?? "", /^check the network/);
  assert.match(remedy({}, Object.assign(new Error("x"), { code: "CERT_HAS_EXPIRED" })) ?? "", /NODE_EXTRA_CA_CERTS/);
});
