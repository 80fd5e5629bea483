// Ask the CDN first: the digest of a question is computed here, and a public answer needs no model and no key.
// docs/digest.md is the specification, docs/digest.json its test vectors.
const OUTSIDE = ["stream", "stream_options", "user", "store", "metadata"];
const NUMBERS = ["temperature", "top_p", "presence_penalty", "frequency_penalty"];
const DEFAULTS = {
  temperature: 1, top_p: 1, presence_penalty: 0, frequency_penalty: 0, n: 1, logprobs: false,
  parallel_tool_calls: true, encoding_format: "float",
};
export const PATHS = { chat: "chat/completions", completion: "completions", embedding: "embeddings" };

// By code points: JavaScript's own order is by UTF-16 units.
function order(left, right) {
  const a = [...left], b = [...right];
  const at = a.findIndex((char, index) => char !== b[index]);
  return at < 0 ? a.length - b.length : at < b.length ? a[at].codePointAt(0) - b[at].codePointAt(0) : 1;
}

function text(value) {
  if (typeof value === "number") {
    if (Math.abs(value) > Number.MAX_SAFE_INTEGER) throw RangeError("a number that is not exact here");
    return String(value);
  }
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(text).join()}]`;
  return `{${Object.keys(value).sort(order).map((key) => `${JSON.stringify(key)}:${text(value[key])}`).join()}}`;
}

const empty = (value) => typeof value === "object" && !Array.isArray(value) && !Object.keys(value).length;

/** The canonical form of a request's body (an object, or JSON); null where it has none that all would agree on. */
export function canonical(body) {
  const fields = JSON.parse(typeof body === "string" ? body : JSON.stringify(body));
  const kept = Object.create(null);
  for (const [name, value] of Object.entries(fields)) {
    if (value === null || OUTSIDE.includes(name) || (Object.hasOwn(DEFAULTS, name) && value === DEFAULTS[name])) continue;
    if (NUMBERS.includes(name) && typeof value !== "number") return null;
    if (name !== "logit_bias" || !empty(value)) kept[name] = value;
  }
  try {
    return text(kept);
  } catch {
    return null;
  }
}

const hex = (buffer) => Array.from(new Uint8Array(buffer), (byte) => byte.toString(16).padStart(2, "0")).join("");

/** The digest of a question in a public partition, both in hex; null where it has none. */
export async function digest(partition, kind, body) {
  const form = canonical(body);
  if (form === null) return null;
  const scope = Uint8Array.from(partition.match(/../g), (byte) => parseInt(byte, 16));
  const rest = new TextEncoder().encode(`${kind}\0${form}`);
  const whole = new Uint8Array(scope.length + rest.length);
  whole.set(scope);
  whole.set(rest, scope.length);
  return hex(await crypto.subtle.digest("SHA-256", whole));
}

/** `find(body, kind)` gives the Response of `edge` (a CDN in front of the gateway) where it has the public answer, else
 * null: also where the question is streamed, has no digest, or the edge fails. `fetch` may be your own. */
export function finder(edge, { fetch = globalThis.fetch.bind(globalThis), refreshMs = 60_000 } = {}) {
  let known = { at: -Infinity, routes: Promise.resolve({}) };

  const looked = async () => {
    const reply = await fetch(`${edge}/q`);
    return reply.ok ? (await reply.json()).routes : {};
  };
  const routes = () => {
    if (Date.now() - known.at >= refreshMs) known = { at: Date.now(), routes: looked().catch(() => ({})) };
    return known.routes;
  };

  async function found(fields, kind) {
    const table = await routes();
    const route = Object.hasOwn(table, fields.model) ? table[fields.model] : undefined;
    if (!route || fields.stream || (fields.temperature !== 0 && kind !== "embedding" && !route.sampled)) return null;
    const name = await digest(route.partition, kind, fields);
    const reply = name && (await fetch(`${edge}/q/${route.partition}/${name}`));
    return reply?.ok ? reply : null;
  }

  return async (body, kind = "chat") => {
    try {
      return await found(typeof body === "string" ? JSON.parse(body) : body, kind);
    } catch {
      return null;
    }
  };
}

/** `ask(body, kind)` gives the Response of `edge` where it has the answer, else that of POSTing to `origin`. */
export function asker(origin, { edge = origin, key, fetch = globalThis.fetch.bind(globalThis), refreshMs } = {}) {
  const find = finder(edge, { fetch, refreshMs });
  const headers = { "content-type": "application/json", ...(key && { authorization: `Bearer ${key}` }) };
  return async (body, kind = "chat") => {
    const json = typeof body === "string" ? body : JSON.stringify(body);
    return (await find(json, kind)) ?? fetch(`${origin}/v1/${PATHS[kind]}`, { method: "POST", headers, body: json });
  };
}
