/** From the configuration's section `images` to the library's options: the same for the server and for every command. */
import type { ImagesOptions } from "../images/store.ts";
import type { Config } from "./config.ts";

export function imagesOptions(images: Config["images"]): ImagesOptions {
  return {
    aliases: images.aliases,
    policy: { allow: images.allow, deny: images.deny },
    offline: images.offline,
    standIns: { python: "stacyvm/python", busybox: "stacyvm/busybox" },
    registries: Object.fromEntries(
      Object.entries(images.registries).map(([host, { insecure, endpoint, username, password }]) => [
        host,
        {
          ...(insecure === undefined ? {} : { insecure }),
          ...(endpoint === undefined ? {} : { endpoint }),
          ...(username === undefined ? {} : { username }),
          ...(password === undefined ? {} : { password }),
        },
      ]),
    ),
    limits: { bytes: images.max_image_bytes, entries: images.max_image_entries },
  };
}
