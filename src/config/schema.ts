/**
 * Every key of the configuration, with its type and its default. Keys are those of the published StacyVM where they concern one
 * box. Where they come from: load.ts; what each layer gets of them: options.ts.
 */
import { z } from "zod";
import { parseDuration } from "../sandboxes/duration.ts";
import { DEFAULT_SIZE } from "../sandboxes/limits.ts";
import { OWNER_NAME } from "../sandboxes/owner.ts";

const duration = z.union([z.string(), z.literal(0)]).transform((text, context): number => {
  try {
    const ms = parseDuration(String(text));
    if (ms >= 0) return ms;
  } catch {}
  context.addIssue({ code: "custom", message: 'must be a duration such as "30s", "10m" or "1h30m"' });
  return z.NEVER;
});
const count = z.int().min(0);
const text = z.string();
const list = z.union([
  z.array(text),
  text.transform((value) => (value === "" ? [] : value.split(",").map((s) => s.trim()))),
]);
const section = <T extends z.ZodRawShape>(shape: T) => z.strictObject(shape).prefault({} as never);

const keySchema = z.strictObject({
  name: z.string().min(1),
  /** Plain, or `sha256:` and the hash in hex. */
  key: z.string().min(1),
  scopes: z.array(z.enum(["read", "use", "admin"])).min(1),
  /** Whose everything is that it makes; default: the default owner's. */
  owner: z.string().regex(OWNER_NAME, "is not an owner's name").optional(),
  /** What the sandboxes that it makes or sets may connect to at most. */
  allowed_hosts: list.optional(),
});

const providerName = z.enum(["auto", "firecracker", "qemu"]);

export const configSchema = z.strictObject({
  server: section({
    host: text.default("127.0.0.1"),
    port: z.int().min(0).max(65_535).default(7423),
    preview_domain: text.default("localhost"),
    /** Previews by host name need no key. */
    preview_public: z.boolean().default(false),
    /** Empty: no other origin may call from a browser. `*`: any. */
    cors_allowed_origins: list.default([]),
    /** Answer to these host names too, when no key protects the server (DNS rebinding). */
    allowed_hosts: list.default([]),
    /** Without a key, answer what a proxy on this host passes on for somebody on this host, too: the published server's `web-ui`. */
    local_proxies: z.boolean().default(false),
    max_json_bytes: z.int().min(1024).default(1_048_576),
    max_file_json_bytes: z.int().min(1024).default(67_108_864),
    max_upload_bytes: z.int().min(0).default(0),
    header_timeout: duration.default(10_000),
    /** The longest silence in the middle of a request's body. */
    body_timeout: duration.default(30_000),
    /** An event stream with nothing to tell says so this often, which keeps proxies from closing it. */
    event_heartbeat: duration.refine((ms) => ms >= 100, "must be at least 100ms").default(15_000),
    max_connections: z.int().min(1).default(4_096),
  }),
  data_dir: text.default(""),
  providers: section({
    default: providerName.default("auto"),
    /** Names that clients of the published StacyVM send, and what stands for them here. */
    aliases: z
      .record(text, providerName)
      .default({ docker: "auto", mock: "auto", proot: "auto", e2b: "auto", custom: "auto" }),
  }),
  firecracker: section({
    /** The binary. Empty: `STACYVM_FIRECRACKER`, the one on the PATH, or the one that set-up installs. */
    path: text.default(""),
    /** Empty: `STACYVM_JAILER`, or the one beside the binary. */
    jailer: text.default(""),
    /** A kernel of your own for Linux guests: the ELF `vmlinux`. Empty: the one that fits this host. */
    kernel: text.default(""),
    /** Added to its command line. */
    kernel_arguments: text.default(""),
    /** Directory of its uncompressed modules, loaded in the order of their names. Empty: all is built in. */
    kernel_modules: text.default(""),
    /** Every machine has a root of its own and no capabilities: under the jailer as a user of its own where the server is root, else in a cell. */
    jail: z.boolean().default(false),
    /** For the jailer, as the next one: machines run as this uid and the 9,999 after it. */
    jail_uid_base: z.int().min(1_000).max(2_000_000_000).default(200_000),
    /** Path of a network namespace for them. Empty: one with nothing in it. */
    jail_netns: text.default(""),
  }),
  qemu: section({
    /** As for Firecracker; a bzImage will do as well. */
    kernel: text.default(""),
    kernel_arguments: text.default(""),
    kernel_modules: text.default(""),
  }),
  warm: section({
    /** Keep machines ready for what is asked for often. Templates' `pool_size` counts either way. */
    adaptive: z.boolean().default(true),
    /** Machines kept ready per shape because they are asked for often, at most. */
    max_machines: z.int().min(0).max(256).default(8),
    /** Machines that templates' `pool_size` keeps ready, of all templates together. Owners take of them in turn. 0: none. */
    max_pool_size: z.int().min(0).max(1_024).default(32),
    /** Memory that all of them may take together. 0: a quarter of the host's. */
    max_memory_mb: count.default(0),
    /** Started monitors that know of no machine yet, for restores of whatever is asked for (Firecracker, not with its jail). 0: none. */
    idle_monitors: z.int().min(0).max(64).default(4),
  }),
  snapshots: section({
    /** What golden snapshots and checkpoints may occupy; the least recently used go first, never one in use. 0: no limit. */
    max_bytes: count.default(0),
    /** One that nothing was started from for this long goes. 0: none for that reason. */
    max_unused: duration.default(30 * 86_400_000),
    /** Checkpoints may go too, not only what can be built again. */
    checkpoints: z.boolean().default(false),
    /** How often this is looked after. 0: never by itself. */
    gc_interval: duration.default(600_000),
  }),
  environments: section({
    /** What the build of one that names packages may connect to: the indexes of pip and apt. */
    allowed_hosts: list.default([
      "pypi.org",
      "files.pythonhosted.org",
      "deb.debian.org",
      "security.debian.org",
      "archive.ubuntu.com",
      "security.ubuntu.com",
    ]),
  }),
  images: section({
    /** A reference as clients send it, and what it stands for here. */
    aliases: z.record(text, text).default({}),
    /** Patterns of full references (`docker.io/library/*`); `*` stops at `/`, `**` does not. Empty: all are allowed. */
    allow: list.default([]),
    /** Decides over `allow`. */
    deny: list.default([]),
    /** Ask no registry: what is not on this host is not found. */
    offline: z.boolean().default(false),
    /** By host and port, for example `registry.lan:5000`. */
    registries: z
      .record(
        text,
        z.strictObject({
          /** Plain http although it is not on loopback. */
          insecure: z.boolean().optional(),
          /** Ask there instead: a mirror's URL; its path goes before the image's name. */
          endpoint: z.url({ protocol: /^https?$/ }).optional(),
          username: text.optional(),
          password: text.optional(),
        }),
      )
      .default({}),
    /** What images and layers may occupy; the least recently used go first, never one in use. 0: no limit. */
    max_bytes: count.default(0),
    /** Limits of one image: bytes of its files, and names. */
    max_image_bytes: z
      .int()
      .min(1)
      .default(64 * 2 ** 30),
    max_image_entries: z.int().min(1).default(1_000_000),
    /** How often images that nobody needs are removed. 0: never by itself. */
    gc_interval: duration.default(600_000),
  }),
  network: section({
    /** What sandboxes may be allowed at most, in the form of their own `allowed_hosts`. Empty: no network for anybody. */
    allow: list.default(["*:*", "*:*/udp"]),
    /** Addresses and ranges that may be reached although they are private, or the host's own. */
    private: list.default([]),
    /** Addresses of names, before the host's own resolver is asked. */
    names: z.record(z.string().max(253), z.string().max(64)).default({}),
    /** Ports of this host's own loopback that sandboxes may be allowed, as `host.stacyvm:PORT`. */
    host_ports: z.array(z.int().min(1).max(65_535)).default([]),
    /** Lists of hosts by name: `@name` in a list of allowed hosts. */
    groups: z.record(z.string().max(63), list).default({}),
    /** A file with certificates of authorities (PEM) that hosts of secrets may have theirs from, beside the public ones. */
    ca_file: text.default(""),
    /** What one sandbox may send and receive together, bytes, as long as this server runs. 0: no limit. */
    max_bytes: count.default(0),
    /** The same in each second. 0: no limit. */
    max_bytes_per_second: count.default(0),
    /** New connections of one sandbox. 0: no limit. */
    connections_per_minute: count.default(0),
    /** Connections of one sandbox at once. */
    max_connections: z.int().min(1).max(65_536).default(128),
    /** Of all sandboxes together: each is an open file of the server. */
    max_connections_total: z.int().min(1).max(1_000_000).default(4_096),
    /** A connection to a host over which nothing went for so long is closed. */
    idle_timeout: duration.refine((ms) => ms >= 1_000, "must be at least 1s").default(3_600_000),
  }),
  mounts: section({
    /** Directories of this host that administrators may give sandboxes, with what is below them. Commands of the server's own user may give any. */
    allow: z.array(text.regex(/^\//, "must be an absolute path")).default([]),
    /** What a sandbox asks of such a directory is an error there (`EIO`) when nothing was answered for so long: its disk hangs, or the server is away. */
    answer_timeout: duration.refine((ms) => ms >= 1_000, "must be at least 1s").default(30_000),
  }),
  secrets: section({
    /** Values are kept encrypted with this: 32 random bytes in hex or base64. Empty: in memory alone. */
    key: text.default(""),
    /** A file that has it. Empty: the system's credential `stacyvm-secrets-key`, where there is one. */
    key_file: text.default(""),
  }),
  defaults: section({
    ttl: duration.default(1_800_000),
    image: text.min(1).default("alpine:latest"),
    memory_mb: z.int().min(32).default(DEFAULT_SIZE.memoryMiB),
    vcpus: z.int().min(1).max(32).default(DEFAULT_SIZE.vcpus),
    disk_size_mb: z.int().min(16).default(DEFAULT_SIZE.diskMiB),
    /** Hosts that a sandbox may connect to when neither it nor its template says. */
    allowed_hosts: list.default([]),
    /** Where commands begin that do not say. Empty: the image's own directory. The published StacyVM's was `/workspace`. */
    workdir: text.default(""),
    idle_timeout: duration.default(0),
    idle_action: z.enum(["destroy", "pause", "suspend"]).default("destroy"),
    max_ttl: duration.default(86_400_000),
    default_exec_timeout: duration.default(0),
    max_exec_timeout: duration.default(600_000),
    max_sandboxes: count.default(0),
    max_sandboxes_per_owner: count.default(0),
    /** Volumes of one owner, and their sizes together. */
    max_volumes_per_owner: count.default(0),
    max_volume_mb_per_owner: count.default(0),
    max_memory_mb: count.default(0),
    max_vcpus: z.int().min(0).max(32).default(32),
    max_disk_mb: count.default(0),
    spawn_overflow: z.enum(["reject", "queue"]).default("reject"),
    spawn_queue_timeout: duration.default(30_000),
    max_spawn_queue: count.default(100),
  }),
  auth: section({
    api_key: text.default(""),
    admin_api_key: text.default(""),
    /** With an API key and no admin key: the API key may do everything. */
    admin_fallback_enabled: z.boolean().default(true),
    keys: z.array(keySchema).default([]),
    /** JWTs of this OpenID Connect issuer stand in for keys. Empty: none do. */
    oidc_issuer: text.default(""),
    /** What tokens must be made for. */
    oidc_audience: text.default(""),
    /** Where the issuer's public keys are. Empty: where its discovery document says. */
    oidc_jwks_url: text.default(""),
    /** The claim that names the owner; dots lead into objects. */
    oidc_owner_claim: text.min(1).default("sub"),
    /** The claim with scopes: words `read`, `use`, `admin`, also `stacyvm:use`. */
    oidc_scope_claim: text.min(1).default("scope"),
    /** What a token without such a word may. Empty: nothing. */
    oidc_default_scope: z.enum(["", "read", "use"]).default(""),
  }),
  rate_limit: section({
    enabled: z.boolean().default(false),
    requests_per_minute: z.int().min(1).default(120),
    burst: z.int().min(1).default(60),
    key_by: z.enum(["owner", "api_key", "ip"]).default("owner"),
  }),
  database: section({ path: text.default("") }),
  fleet: section({
    /** `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`: this server is a node of the fleet whose database that is. Empty: it is alone. */
    database_url: text.default(""),
    /** The same database past a PgBouncer in its transaction mode, which passes on no notices. Empty: `database_url`. */
    listen_url: text.default(""),
    /** Connections to it at once, beside the one that listens. */
    database_connections: z.int().min(1).max(100).default(8),
    /** How others call this node. Empty: the host's name. */
    node_name: text.max(63).default(""),
    /** How the others reach it. Empty: `fleet.address`. */
    url: z.union([z.literal(""), z.url({ protocol: /^https?$/ })]).default(""),
    /** `entrance`: takes every call and makes no sandboxes. */
    role: z.enum(["node", "entrance"]).default("node"),
    /** For placement, by name. */
    labels: z.record(z.string().max(63), z.string().max(255)).default({}),
    /** How often it says that it is there; not heard of for three times that, it is silent. */
    heartbeat: duration.refine((ms) => ms >= 100, "must be at least 100ms").default(2_000),
    /** Not heard of for so long, it is lost. */
    lost_after: duration.refine((ms) => ms >= 1_000, "must be at least 1s").default(60_000),
    /** What this node sends of images and saved machines to others, all together, bytes per second. 0: as fast as it goes. */
    transfer_rate: count
      .refine((rate) => rate === 0 || rate >= 2 ** 20, "must be 0, or at least 1048576 (1 MiB/s)")
      .default(0),
    /** HOST:PORT on which other nodes pass requests on to this one; nobody else needs to reach it. */
    address: text.default("127.0.0.1:7424"),
    /** The same on all nodes, 32 characters or more: with it they sign who calls. */
    secret: text.default(""),
    /** Files (PEM) with the certificate that this node shows to others, its key, and the authority that theirs are of (mTLS). Read again when they change. */
    certificate_file: text.default(""),
    key_file: text.default(""),
    ca_file: text.default(""),
  }),
  logging: section({
    level: z.enum(["trace", "debug", "info", "warn", "error", "silent"]).default("info"),
    /** `auto`: lines for people in a terminal, JSON elsewhere. */
    format: z.enum(["auto", "json", "pretty"]).default("auto"),
  }),
  shutdown: section({
    /** End all sandboxes when the daemon stops. */
    destroy: z.boolean().default(false),
    /** How long a stop waits for requests under way. */
    grace: duration.default(10_000),
  }),
});

export type Config = z.output<typeof configSchema>;

/** Every key that can be set from outside, as `section.key`. */
export function configKeys(): string[] {
  const keys: string[] = [];
  for (const [name, schema] of Object.entries(configSchema.shape)) {
    const inner = unwrap(schema);
    if (inner instanceof z.ZodObject) for (const key of Object.keys(inner.shape)) keys.push(`${name}.${key}`);
    else keys.push(name);
  }
  return keys;
}

function unwrap(schema: unknown): unknown {
  let current = schema;
  while (current instanceof z.ZodPrefault || current instanceof z.ZodDefault) current = current.unwrap();
  return current;
}

/** The configuration as it may be shown: no key. */
export function redact(config: Config): Record<string, unknown> {
  const hide = (value: string): string => (value === "" ? "" : "***");
  return {
    ...config,
    images: {
      ...config.images,
      registries: Object.fromEntries(
        Object.entries(config.images.registries).map(([host, registry]) => [
          host,
          { ...registry, ...(registry.password === undefined ? {} : { password: "***" }) },
        ]),
      ),
    },
    secrets: { ...config.secrets, key: hide(config.secrets.key) },
    fleet: {
      ...config.fleet,
      database_url: hide(config.fleet.database_url),
      listen_url: hide(config.fleet.listen_url),
      secret: hide(config.fleet.secret),
    },
    auth: {
      ...config.auth,
      api_key: hide(config.auth.api_key),
      admin_api_key: hide(config.auth.admin_api_key),
      keys: config.auth.keys.map((key) => ({ ...key, key: "***" })),
    },
  };
}
