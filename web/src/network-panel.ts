/** Which hosts the sandbox may connect to: shown, changed, and how that went so far. */
import type { Sandbox } from "../../sdk/src/index.ts";
import { action, el } from "./dom.ts";

export function networkPanel(sandbox: Sandbox): HTMLElement {
  const hosts = el("textarea", {
    rows: 4,
    cols: 34,
    "aria-label": "Allowed hosts",
    placeholder: "none\none host a line: pkg.example, *.example.com",
  });
  const counts = el("p", { class: "soft", role: "status" });
  const look = async (): Promise<void> => {
    const { allowedHosts, open, connected, refused, failed, problem } = await sandbox.network();
    if (document.activeElement !== hosts) hosts.value = allowedHosts.join("\n");
    counts.textContent = problem ?? `${open} open now; ${connected} connections, ${refused} refused, ${failed} failed`;
  };
  const set = action("set", async () => {
    await sandbox.allow(hosts.value.split(/[\s,]+/).filter((host) => host !== ""));
    await look();
  });
  look().catch(() => {}); // one that is gone has none
  return el(
    "section",
    { "aria-label": "Network" },
    el("div", { class: "bar" }, el("h2", {}, "Network"), set, action("look again", look)),
    hosts,
    counts,
  );
}
