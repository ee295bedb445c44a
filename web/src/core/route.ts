/** Where in the page one is: what is behind the `#`. */
export const PAGES = ["sandboxes", "images", "templates", "saved", "events", "host", "access"] as const;
export const TABS = [
  "terminal",
  "files",
  "processes",
  "logs",
  "ports",
  "metrics",
  "checkpoints",
  "events",
  "details",
] as const;
export type Tab = (typeof TABS)[number];

export type Route =
  | { page: (typeof PAGES)[number] }
  | { page: "new"; fill: Record<string, string> }
  | { page: "sandbox"; id: string; tab: Tab; of?: string };

export function routeOf(hash: string): Route {
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split("?");
  const [first = "", second, third, fourth] = path.split("/");
  if (first === "new") return { page: "new", fill: Object.fromEntries(new URLSearchParams(query)) };
  // The second form is that of earlier versions.
  const id = first === "sandboxes" ? second : /^sb-[0-9a-f]{8}$/.test(first) ? first : undefined;
  if (id !== undefined && id !== "") {
    const tab = TABS.find((each) => each === third) ?? "terminal";
    return { page: "sandbox", id, tab, ...(fourth === undefined ? {} : { of: fourth }) };
  }
  return { page: PAGES.find((page) => page === first) ?? "sandboxes" };
}

/** @param of what the tab begins with: of logs, a command's id */
export function sandboxLink(id: string, tab?: Tab, of?: string): string {
  return ["#/sandboxes", id, tab, of].filter((part) => part !== undefined).join("/");
}

export function spawnLink(fill: Record<string, string> = {}): string {
  const query = new URLSearchParams(fill).toString();
  return `#/new${query === "" ? "" : `?${query}`}`;
}
