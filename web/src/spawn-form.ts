/** A new sandbox, by what is asked most: image, size, time, network. */
import { el, note } from "./dom.ts";
import type { Live } from "./live.ts";

export function spawnForm(live: Live): HTMLElement {
  const image = el("input", { value: "stacyvm/python", required: true, size: 26 });
  const memory = el("input", { type: "number", value: "256", min: "64", step: "64", required: true });
  const vcpus = el("input", { type: "number", value: "1", min: "1", max: "32", required: true });
  const ttl = el("input", { value: "30m", size: 6, pattern: "(\\d+(\\.\\d+)?(ms|s|m|h))+" });
  const hosts = el("input", {
    placeholder: "none",
    size: 28,
    title: "Hosts that it may connect to: pkg.example, *.example.com",
  });
  const button = el("button", { class: "main" }, "Start");
  const form = el(
    "form",
    { class: "row" },
    el("label", {}, "image", image),
    el("label", {}, "memory, MiB", memory),
    el("label", {}, "CPUs", vcpus),
    el("label", {}, "lives for", ttl),
    el("label", {}, "network", hosts),
    button,
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    button.textContent = "Starting";
    try {
      const allowedHosts = hosts.value.split(/[\s,]+/).filter((host) => host !== "");
      await live.client.create({
        ...{
          image: image.value,
          memoryMb: memory.valueAsNumber,
          vcpus: vcpus.valueAsNumber,
          ttl: ttl.value || undefined,
        },
        ...(allowedHosts.length === 0 ? {} : { allowedHosts }),
      });
      await live.refresh();
    } catch (error) {
      note(error);
    } finally {
      button.disabled = false;
      button.textContent = "Start";
    }
  });
  return el("section", { "aria-label": "New sandbox" }, form);
}
