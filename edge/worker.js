// An edge worker (workerd, Cloudflare Workers): loads the campaign from its origin, fills it for each request.
//
//   POST /fill/TEMPLATE?locale=en&sink=html   {"reader": "r1", "values": {"name": "Ann"}}
//
// What is filled is the reader's own: it is never stored anywhere. And in front of a gateway, where one is named: a
// question whose answer is public is answered from the cache of `/q/…` (docs/digest.md), all others are passed on.
//
//   POST /v1/chat/completions                 as OpenAI's API has it
import { finder, PATHS } from "./ask.js";
import { load } from "./load.js";

const REFRESH_MS = 30_000, MAX_BYTES = 64 * 1024;
const SINKS = ["plain", "html", "attribute", "json", "url", "sms"];
const PRIVATE = { "cache-control": "private, no-store", "x-content-type-options": "nosniff" };

const campaigns = new Map();
const versions = new Map();
const store = { getItem: (key) => versions.get(key), setItem: (key, value) => versions.set(key, value) };

const reply = (body, status) =>
  new Response(JSON.stringify(body), { status, headers: { ...PRIVATE, "content-type": "application/json" } });

// One look at the origin for all requests of half a minute; a look that fails leaves the last good one in force.
async function campaign(env, locale, sink) {
  const key = `${locale} ${sink}`, known = campaigns.get(key);
  if (known && Date.now() < known.until) return known.loaded;
  const loading = load(env.ORIGIN, { keys: env.KEYS.split(" "), locale, sink, store, fetch: (url, init) => fetch(url, { ...init, credentials: undefined, referrerPolicy: undefined }) });
  try {
    const loaded = await loading;
    campaigns.set(key, { loaded, until: Date.now() + REFRESH_MS });
    return loaded;
  } catch (error) {
    if (/killed|expired/.test(error.message)) campaigns.delete(key);
    else if (known) return known.loaded;
    throw error;
  }
}

const KINDS = Object.fromEntries(Object.entries(PATHS).map(([kind, path]) => [`/v1/${path}`, kind]));
const finders = new Map();

// The caller's own headers go to the gateway, and nowhere else: what is public is found without them.
async function answered(request, env, path) {
  const kind = KINDS[path], { method, headers } = request;
  if (method !== "POST" || !kind) return fetch(env.GATEWAY + path, { method, headers });
  if (!finders.has(env.GATEWAY)) finders.set(env.GATEWAY, finder(env.GATEWAY, { fetch: (url) => fetch(url) }));
  const body = await request.text(), found = await finders.get(env.GATEWAY)(body, kind);
  return found ?? fetch(env.GATEWAY + path, { method, headers, body });
}

export default {
  async fetch(request, env) {
    const url = new URL(request.url), [, verb, name] = url.pathname.split("/");
    if (env.GATEWAY && ["v1", "q", "a"].includes(verb)) return answered(request, env, url.pathname);
    const locale = url.searchParams.get("locale") || "en", sink = url.searchParams.get("sink") || "plain";
    if (verb !== "fill" || !name) return reply({ error: "POST /fill/TEMPLATE" }, 404);
    if (request.method !== "POST") return reply({ error: "POST the reader's values as JSON" }, 405);
    if (!SINKS.includes(sink)) return reply({ error: `sink is one of ${SINKS.join(", ")}` }, 400);
    const text = await request.text();
    if (text.length > MAX_BYTES) return reply({ error: `at most ${MAX_BYTES} bytes` }, 413);
    let asked;
    try {
      asked = JSON.parse(text);
      if (typeof asked?.values !== "object" || asked.values === null) throw Error();
    } catch {
      return reply({ error: 'send {"reader": "…", "values": {…}}' }, 400);
    }
    try {
      const { fill, version } = await campaign(env, locale, sink);
      const filled = fill(decodeURIComponent(name), asked.values, String(asked.reader ?? ""));
      return reply({ ...filled, version }, "text" in filled ? 200 : 422);
    } catch (error) {
      return reply({ error: error.message }, 503);
    }
  },
};
