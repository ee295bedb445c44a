/**
 * The certificate that this node shows to others and the authority that theirs come from (mTLS), from files. They are looked at again and
 * again: new ones are good for new connections at once, and those that cannot be used leave the old ones in force.
 */
import { createPrivateKey, X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createSecureContext } from "node:tls";
import { StacyError } from "../../host/error.ts";

/** Paths of PEM files. */
export interface TlsFiles {
  certificate: string;
  key: string;
  /** Of the authority that alone says who is a node. */
  ca: string;
}

interface Loaded {
  cert: string;
  key: string;
  ca: string;
}

const LOOK_MS = 5_000;

export class NodeTls {
  /** Grows with each change. */
  generation = 1;
  readonly #files: TlsFiles;
  readonly #log: (error: Error | undefined) => void;
  readonly #changed: ((options: object) => void)[] = [];
  #loaded: Loaded;
  #looking: NodeJS.Timeout | undefined;
  #refused: string | undefined;

  private constructor(files: TlsFiles, loaded: Loaded, log: (error: Error | undefined) => void) {
    this.#files = files;
    this.#loaded = loaded;
    this.#log = log;
  }

  /**
   * @param log of new files: an error, when they cannot be used
   * @throws StacyError `invalid` with the file that cannot be used
   */
  static async open(files: TlsFiles, log: (error: Error | undefined) => void, everyMs = LOOK_MS): Promise<NodeTls> {
    const tls = new NodeTls(files, await load(files), log);
    tls.#looking = setInterval(() => void tls.look(), everyMs).unref();
    return tls;
  }

  server(): object {
    return { ...this.#loaded, requestCert: true, rejectUnauthorized: true, minVersion: "TLSv1.3" };
  }

  client(): object {
    return { ...this.#loaded, minVersion: "TLSv1.3" };
  }

  /** @param listener gets what `server` gives */
  onChange(listener: (options: object) => void): void {
    this.#changed.push(listener);
  }

  /** Whether what lies in the files is still what is in force; if not, it is now. */
  async look(): Promise<void> {
    try {
      const loaded = await load(this.#files);
      this.#refused = undefined;
      if (loaded.cert === this.#loaded.cert && loaded.key === this.#loaded.key && loaded.ca === this.#loaded.ca) return;
      this.#loaded = loaded;
      this.generation += 1;
      for (const listener of this.#changed) listener(this.server());
      this.#log(undefined);
    } catch (error) {
      const { message } = error as Error;
      // Files that are being replaced one after another do not fit for a moment: said once.
      if (message !== this.#refused) this.#log(error as Error);
      this.#refused = message;
    }
  }

  [Symbol.dispose](): void {
    clearInterval(this.#looking);
  }
}

async function load({ certificate, key, ca }: TlsFiles): Promise<Loaded> {
  const read = (path: string): Promise<string> =>
    readFile(path, "utf8").catch((cause: Error) => {
      throw new StacyError("invalid", `fleet.certificate_file: ${cause.message}`, { phase: "fleet", cause });
    });
  const loaded = { cert: await read(certificate), key: await read(key), ca: await read(ca) };
  try {
    createSecureContext(loaded);
    new X509Certificate(loaded.ca);
    // A file that is being written is empty for a moment, and no certificate at all would fit as well.
    if (!new X509Certificate(loaded.cert).checkPrivateKey(createPrivateKey(loaded.key)))
      throw new Error("the key is another certificate's");
  } catch (cause) {
    throw new StacyError(
      "invalid",
      `fleet.certificate_file: ${certificate}, ${key} and ${ca} do not fit: ${(cause as Error).message}`,
      {
        phase: "fleet",
        cause,
        remedy: "give a certificate, its key and the authority's certificate, as PEM",
      },
    );
  }
  return loaded;
}
