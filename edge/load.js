// From a CDN to a filler: the signed manifest, then the one bundle that it names. Nothing of the reader's is ever sent.
import { filler } from "./fill.js";

const ASK = { credentials: "omit", referrerPolicy: "no-referrer" };

const hex = (buffer) => Array.from(new Uint8Array(buffer), (byte) => byte.toString(16).padStart(2, "0")).join("");
const bytes = (base64) => Uint8Array.from(atob(base64), (char) => char.charCodeAt());
const sha256 = async (data) => hex(await crypto.subtle.digest("SHA-256", data));

/** A manifest's file as text, verified: by a trusted key (base64 of 32 bytes), in its time, no older than `newest`.
 * Throws an Error that says what is wrong. */
export async function verify(text, keys, { now = Date.now(), newest = 0 } = {}) {
  const { payload, signature, key } = JSON.parse(text);
  for (const each of keys.map(bytes)) {
    if ((await sha256(each)).slice(0, 16) !== key) continue;
    const trusted = await crypto.subtle.importKey("raw", each, "Ed25519", false, ["verify"]);
    if (!(await crypto.subtle.verify("Ed25519", trusted, bytes(signature), new TextEncoder().encode(payload)))) break;
    const manifest = JSON.parse(payload);
    if (manifest.version < newest) throw Error(`version ${manifest.version} is older than ${newest}: a replay`);
    if (now < Date.parse(manifest.not_before)) throw Error(`version ${manifest.version} is not valid yet`);
    if (now >= Date.parse(manifest.expires)) throw Error(`version ${manifest.version} has expired`);
    return manifest;
  }
  throw Error("the manifest is not signed by a trusted key");
}

async function get(fetch, url) {
  const reply = await fetch(url, ASK);
  if (!reply.ok) throw Error(`${url}: ${reply.status}`);
  return reply;
}

/** The campaign at `base`: `{fill, version, campaign}`, where `fill(name, values, reader)` is a filler's.
 *
 * `keys`: who may sign. `store`: where the newest version seen is remembered (`localStorage`), against replays.
 * Throws an Error where nothing may be shown: forged, expired, killed, or not there. */
export async function load(base, { keys, locale, sink = "plain", store, fetch = globalThis.fetch.bind(globalThis), now }) {
  const place = `stepwell ${base}`, newest = Number(store?.getItem(place) || 0);
  const manifest = await verify(await (await get(fetch, `${base}/manifest.json`)).text(), keys, { now, newest });
  store?.setItem(place, String(manifest.version));
  if (manifest.state !== "live") throw Error("the campaign was killed");
  const named = manifest.bundles[locale];
  if (!named) throw Error(`no texts in ${locale}`);
  const data = await (await get(fetch, `${base}/${named.path}`)).arrayBuffer();
  if ((await sha256(data)) !== named.sha256) throw Error(`${named.path} is not the bundle that was signed`);
  const fill = filler(JSON.parse(new TextDecoder().decode(data)), sink);
  return { fill, version: manifest.version, campaign: manifest.campaign };
}
