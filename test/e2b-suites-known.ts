/** What of E2B's own tests does not pass here, and why: a pattern of names, and the reason. */
const KNOWN: [RegExp, string][] = [
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
