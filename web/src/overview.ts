/** All sandboxes, how they were started, what the host has left, and a form for a new one. */
import type { PoolStatus, SandboxInfo, SystemStats } from "../../sdk/src/index.ts";
import { spawnChart, spawnTable } from "./charts.ts";
import { action, distance, el, ms, note, table } from "./dom.ts";
import type { Live } from "./live.ts";
import { spawnForm } from "./spawn-form.ts";

const POLL_MS = 3_000;

export function overview(live: Live, root: HTMLElement): () => void {
  const tiles = el("div", { class: "tiles" });
  const spawns = el("section", { "aria-label": "Spawns" });
  const events = el("section", { "aria-label": "Events" });
  const sandboxes = el("section", { "aria-label": "Sandboxes" });
  root.append(tiles, spawnForm(live), sandboxes, el("div", { class: "two" }, spawns, events));
  let system: SystemStats | undefined;
  let pool: PoolStatus | undefined;

  const draw = (): void => {
    tiles.replaceChildren(...tilesOf(live, system, pool));
    sandboxes.replaceChildren(
      el("h2", {}, "Sandboxes"),
      live.sandboxes.length === 0
        ? el("p", { class: "empty" }, "None. The form above starts one.")
        : table(
            ["id", "state", "image", "size", "started", "ends in", ""],
            live.sandboxes.map((info) => row(live, info)),
          ),
    );
    spawns.replaceChildren(
      el("h2", {}, "Spawns, by the way they took"),
      spawnChart(live.spawns),
      spawnTable(live.spawns),
    );
    events.replaceChildren(
      el("h2", {}, "Events"),
      table(
        ["when", "what", "sandbox"],
        live.events
          .slice(0, 12)
          .map(({ timestamp, type, sandboxId }) => [new Date(timestamp).toLocaleTimeString(), type, sandboxId ?? ""]),
      ),
    );
  };
  const poll = async (): Promise<void> => {
    [system, pool] = await Promise.all([live.client.systemStats(), live.client.pool()]);
    draw();
  };
  const timer = setInterval(() => void poll().catch(() => {}), POLL_MS); // one that fails is followed by the next
  const off = live.onChange(draw);
  draw();
  poll().catch(note);
  return () => {
    clearInterval(timer);
    off();
  };
}

function tilesOf(live: Live, system: SystemStats | undefined, pool: PoolStatus | undefined): HTMLElement[] {
  const count = (state: SandboxInfo["state"]): number => live.sandboxes.filter((each) => each.state === state).length;
  const memory = live.sandboxes
    .filter(({ state }) => state === "running" || state === "paused")
    .reduce((sum, { memoryMb }) => sum + memoryMb, 0);
  const warm = (pool?.pools ?? []).reduce((sum, each) => sum + Number(each.warm), 0);
  const last = live.spawns.at(-1)?.boot;
  const tile = (value: string, what: string): HTMLElement =>
    el("div", { class: "tile" }, el("b", {}, value), el("span", {}, what));
  const resting = count("paused") + count("suspended");
  return [
    tile(String(count("running")), `running${resting > 0 ? `, ${resting} at rest` : ""}`),
    tile(last === undefined ? "–" : ms(last.totalMs), last === undefined ? "last spawn" : `last spawn, ${last.path}`),
    tile(pool?.enabled === false ? "–" : String(warm), "machines kept warm"),
    tile(`${memory} MiB`, "memory asked for"),
    ...(system === undefined
      ? []
      : [
          tile(`${Math.round(system.cpuPct)} %`, "of the host's CPUs"),
          tile(`${Math.round(system.memPct)} %`, "of its memory"),
        ]),
  ];
}

function row(live: Live, info: SandboxInfo): HTMLTableRowElement {
  const { id, state, image, vcpus, memoryMb, boot, createdAt, expiresAt } = info;
  const end = action("remove", async () => (await live.client.get(id)).destroy(), "danger");
  const started =
    boot === undefined
      ? el("span", { class: "soft" }, distance(createdAt))
      : el("span", { class: boot.path, title: `${distance(createdAt)} ago` }, `${boot.path}, ${ms(boot.totalMs)}`);
  const cells = [
    el("a", { href: `#/${id}`, class: "mono" }, id),
    el("span", { class: `state ${state}` }, state),
    image,
    `${vcpus} CPU, ${memoryMb} MiB`,
    started,
    distance(expiresAt),
    end,
  ];
  return el("tr", {}, ...cells.map((cell) => el("td", {}, cell)));
}
