/** What of E2B's own tests does not pass here, and why: a pattern of names, and the reason. */
const KNOWN: [RegExp, string][] = [
  [/env_vars.*(test_|\b)(java|r)\b|cwd_(java|r)\b|(java|r)_kernel|in (java|r)\b/i, "code in Java and R: by design not"],
  [/ts_kernel|cwd_typescript|typescript/i, "TypeScript needs Node 22.13, and Debian 12 has 18"],
  [/js_esm_imports|esm imports/i, "imports as statements in a JavaScript cell: not yet, `await import()` is there"],
  [/create_context_with_options/, "a context in /root, where the user `user` may not go"],
  [/list_contexts/, "counts contexts of languages that nobody has used, which are made at their first use"],
  [/test_async_systemd|test_systemd|systemd/, "ends E2B's own processes in the sandbox, which are not there"],
  [/get_image_on_save/, "a picture that is saved into a file is no result here"],
  [/box_and_whiskers|box and whisker/i, "box plots as chart data: not yet"],
  [/metadata\.test|test_metadata/, "metadata of files: not yet"],
  [/entry.info|network.mounts/, "events with the file's information, watching network mounts: not yet (a newer agent)"],
  [/MCP|mcp/, "the MCP gateway: not yet"],
  [/transform/, "rules that change requests: not yet"],
  [
    /internet.access (enabled|default)|internet_access_(enabled|default)/i,
    "asks the internet, which sandboxes do not reach by default",
  ],
  [/works without token/, "gives a server 3 s to listen, beside others"],
  [/requires traffic|allow_public_traffic_false/, "gives a server 3 s to listen, beside others"],
  [/network\.test|test_network/, "asks addresses of the internet, or for ranges of them"],
  [/user that does not exist|user_that_does_not_exist/, "the build fails as it should, and says it in other words"],
  [
    /pty connect\/reconnect|test_pty_connect/,
    "gives a shell 0.3 s to answer, which an emulated machine beside others may not",
  ],
  [/requires.connect|auto.resume.wakes/, "gives a machine 2 s to be paused"],
  [/completed long running|with http server/, "gives a command 2 s, or a server 5 s, beside others"],
];

export function knownReason(name: string): string | undefined {
  return KNOWN.find(([pattern]) => pattern.test(name))?.[1];
}
