import { Command } from "commander";
import { dataPaths } from "../../host/paths.ts";
import { createImages } from "../../images/store.ts";
import { printTable } from "../table.ts";

/** `stacyvm image ls`: base disks on this host. */
export function imageCommand(): Command {
  const command = new Command("image").description("list base images");
  command
    .command("ls")
    .description("images on this host")
    .option("--json", "for programs")
    .action(async (options: { json?: boolean }) => {
      const list = await createImages(dataPaths()).list();
      if (options.json === true) {
        process.stdout.write(`${JSON.stringify(list, null, 2)}\n`);
        return;
      }
      printTable(
        ["IMAGE", "DIGEST", "FILESYSTEM", "SIZE", "CREATED"],
        list.map((image) => [
          image.reference,
          image.digest.slice(0, 19),
          image.filesystem,
          `${(image.sizeBytes / 2 ** 20).toFixed(1)} MiB`,
          new Date(image.createdAt).toISOString(),
        ]),
      );
    });
  return command;
}
