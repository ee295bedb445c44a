import assert from "node:assert/strict";
import { test } from "node:test";
import { pathOf, type UserDefaults, Users } from "./users.ts";

const PASSWD = "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\nweb:x:7:7::/srv:/bin/sh\n";

/** Who it is when nobody is named, and where a command of theirs runs; then the same of root. */
async function defaults(of: UserDefaults): Promise<string[]> {
  const users = await Users.read({ readFile: async () => Buffer.from(PASSWD) } as never, of);
  const [user, root] = [users.find(undefined), users.find("root")];
  return [user.name, pathOf("", user), pathOf("", root), pathOf("a", user), pathOf("~", user)];
}

test("who and where commands run as when nobody says so: `user` at home, and what the last steps of a template named", async () => {
  assert.deepEqual(await defaults({}), ["user", "/home/user", "/root", "/home/user/a", "/home/user"]);
  // An image's own say is for those who have no `user`.
  assert.equal((await defaults({ user: "web" }))[0], "user");
  assert.deepEqual(await defaults({ user: "user", template: { cwd: "/home/user" } }), await defaults({}));
  const chosen = { user: "web:web", template: { cwd: "/app" } };
  assert.deepEqual(await defaults(chosen), ["web", "/app", "/app", "/srv/a", "/srv"]);
  assert.deepEqual((await defaults({ template: {} }))[0], "user");
});
