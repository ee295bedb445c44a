/** What of E2B's own tests does not pass here, and why: a pattern of names, and the reason. */
const KNOWN: [RegExp, string][] = [
  [/env_vars.(test_)?(java|r)\b|cwd[_ ](java|r)\b|(java|r)_kernel|in (java|r)\b/i, "code in Java and R: by design not"],
  [/create.context.with.options/, "a context in /root, where the user `user` may not go: code runs as root at E2B"],
  [/test_async_systemd|test_systemd|systemd/, "ends E2B's own processes in the sandbox, which are not there"],
  [
    /test_watch_iterated|test_watch_recursive_directory_changes$/,
    "count three events of a new file: here it is there at once with its permissions and content, which are two",
  ],
  [/MCP|mcp/, "the MCP gateway: not yet"],
  [/transform/, "rules that change requests: not yet"],
  [
    /internet.access (enabled|default)|internet_access_(enabled|default)/i,
    "asks the internet, which sandboxes do not reach by default",
  ],
  [/works without token/, "gives a server 3 s to listen, beside others"],
  [/requires traffic|allow_public_traffic_false/, "gives a server 3 s to listen, beside others"],
  [/mask.?request.?host/i, "gives a server 2 s to listen, beside others"],
  [
    /allow only 1\.1|deny specific|takes precedence|updateNetwork|allow_specific_ip|deny_specific_ip|takes_precedence|update_network/,
    "asks addresses of the internet, or for ranges of them",
  ],
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
