/** What of E2B's own tests does not pass here, and why: a pattern of names, and the reason. */
const KNOWN: [RegExp, string][] = [
  [/metadata\.test|test_metadata/, "metadata of files: not yet"],
  [/entry.info|network.mounts/, "events with the file's information, watching network mounts: not yet (a newer agent)"],
  [/MCP|mcp/, "the MCP gateway: not yet"],
  [
    /internet.access (enabled|default)|internet_access_(enabled|default)/i,
    "asks the internet, which sandboxes do not reach by default",
  ],
  [
    /host\.test|test_host|test_ping_server|without token|requires traffic|auto-resume wakes|requires connect/,
    "asks for a name below E2B's domain: these run by the two variables",
  ],
  [
    /pty connect\/reconnect|test_pty_connect/,
    "gives a shell 0.3 s to answer, which an emulated machine beside others may not",
  ],
  [/network\.test|test_network/, "ranges of addresses, rules, hosts of the internet: not yet, or not reached"],
];

export function knownReason(name: string): string | undefined {
  return KNOWN.find(([pattern]) => pattern.test(name))?.[1];
}
