// Fill a bundle's blanks for one reader: the JavaScript runtime of docs/bundle.md. Needs nothing of its platform.

const MAX_NUMBER = 1e15, NUM_KEPT = 4096;

const is_string = (value) => typeof value == "string";

// A printable ASCII text without outer spaces, which nearly every value is, is clean.
const clean = (text) =>
  /^[!-~]+( [!-~]+)*$/.test(text)
    ? text
    : text
        .replace(/[\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]/gu, "")
        .replace(/[\0-\x1f\x7f-\x9f\u2028\u2029]/g, " ")
        .replace(/^ +| +$/g, "");

const string = (value) =>
  is_string(value) ? clean(value) : Number.isInteger(number(value)) ? `${value}` : "";

const number = (value) => {
  if (is_string(value) && /^-?\d{1,15}(\.\d{1,9})?$/.test(value)) value = +value;
  return typeof value == "number" && Math.abs(value) < MAX_NUMBER ? value : null;
};

// What a function makes of a number is remembered: most campaigns count to a few hundred.
const kept = (make, known = new Map()) => (value) => {
  let made = known.get(value);
  if (made === undefined && (made = number(value)) !== null) {
    made = make(made);
    if (known.size < NUM_KEPT) known.set(value, made);
  }
  return made;
};

const html = (text) => text.replace(/[&<>"'`=]/g, (char) => `&#${char.charCodeAt()};`);
const sinks = {
  plain: String,
  html,
  attribute: html,
  json: (text) =>
    text.replace(/["\\<>&\0-\x1f\u2028\u2029]/g, (char) => "\\u" + char.charCodeAt().toString(16).padStart(4, 0)),
  url: encodeURIComponent,
  sms: (text) => text.replace(/[‘’“”–—…\xa0\u202f\u2009]/g, (char) => ["'", "'", '"', '"', "-", "-", "..."]["‘’“”–—…".indexOf(char)] ?? " "),
};

const trimmed = (fraction) => fraction.replace(/0+$/, "");

// Integer and fraction digits of a number's size.
const rounded = (value, low, high) => {
  const [integer, fraction = ""] = Math.abs(value).toFixed(high).split(".");
  return [integer, fraction.slice(0, low) + trimmed(fraction.slice(low))];
};

const category = ([integer, fraction], rules = []) => {
  const t = trimmed(fraction), i = +integer, of = { i, v: fraction.length, w: t.length, f: +fraction, t: +t, n: t ? NaN : i };
  const holds = ([operand, modulo, not, ranges]) =>
    ranges.some((range) => {
      const [low, high] = [range, range].flat(), value = of[operand] % (modulo || Infinity);
      return low <= value && value <= high;
    }) != not;
  return rules.find(([, either]) => either.some((every) => every.every(holds)))?.[0];
};

// Which class a selector's value falls into, or null.
const classifier = ([mode, , keys, [low, high, scale] = [0, 3, 1]], plural) => {
  const by_text = mode == "x", others = keys.length;
  const exact = new Map(keys.map((key, place) => [by_text ? key : +key, place]));
  return by_text
    ? (value) => ((value = string(value)) ? exact.get(value) ?? others : null)
    : kept((value) => {
        const place = exact.get(value) ?? (mode == "e" ? -1 : keys.indexOf(category(rounded(value * scale, low, high), plural[mode])));
        return place < 0 ? others : place;
      });
};

// How a blank is written, or null.
const writer = (
  [point, group, minus, primary, secondary, min, zero = "0"],
  names,
  escape,
  [kind, , first = 200, high, scale = 1, before = "", after = "", minus_before = minus + before, minus_after = after],
) => {
  const localized = (text) => text.replace(/\d/g, (digit) => String.fromCodePoint(zero.codePointAt() + +digit));
  if (kind == "s")
    return (value) => {
      const text = string(value);
      return text && (text.length <= first || [...text].length <= first) ? escape(text) : null;
    };
  if (kind == "n")
    return kept((value) => {
      let [integer, fraction] = rounded(value * scale, first, high), text = fraction && point + fraction;
      const negative = value < 0 && +(integer + fraction);
      if (primary && integer.length >= primary + min)
        for (let size = primary; integer.length > size; size = secondary) {
          text = group + integer.slice(-size) + text;
          integer = integer.slice(0, -size);
        }
      text = localized(integer + text);
      return escape(negative ? minus_before + text + minus_after : before + text + after);
    });
  return (value) => {
    const [, date, y, M, d, H = 0, m = 0, s = 0] =
      (is_string(value) && /^((\d{4})-(\d\d)-(\d\d))(?:T([01]\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?)?$/.exec(value)) || [];
    const day = new Date(date);
    // Engines read the 30th of February as the 2nd of March.
    if (!+y || !day.toJSON()?.startsWith(date)) return null;
    const of = { y, M, d, H, h: ((+H + 11) % 12) + 1, m, s, yy: y % 100, L: M, E: day.getUTCDay() + 1, a: 1 + (H > 11) };
    const write = (field, found = +(of[field] ?? of[field[0]])) =>
      names[field]?.[found - 1] ?? localized(`${found}`.padStart(field.length, 0));
    return escape(first.map((piece) => (is_string(piece) ? piece : write(piece[0]))).join(""));
  };
};

// The CRC-32 of a text's UTF-8, without its last inversion.
const crc = (text, sum) => {
  for (const byte of /[^ -~]/.test(text) ? new TextEncoder().encode(text) : text) {
    sum ^= byte.codePointAt?.() ?? byte;
    for (let bit = 8; bit--; ) sum = (sum >>> 1) ^ (sum & 1) * 0xedb88320;
  }
  return sum;
};

/** What fills a bundle (parsed JSON) for a sink: `(name, values, reader)` to `{text, variant}`, or to `{slot, why}` where
 * there is no text for these values. Throws where it is not a bundle. */
export function filler({ v, campaign, missing, default: instead = {}, num = [], plural = {}, names = {}, ops, t, w = {} }, sink = "plain") {
  const escape = sinks[sink];
  if (v != 1 || !escape) throw Error("not a bundle");

  // What a slot's value makes; where it makes nothing, the policy's default. Throws `{slot, why}`.
  const made = ([slot, make], values, value = values[slot]) => {
    const found = make(value) ?? make(instead[slot]);
    if (found != null) return found;
    throw { slot, why: (is_string(value) ? clean(value) : value != null) ? "unfit" : "missing" };
  };

  const writers = ops.map((op) => [op[1], writer(num, names, escape, op)]);

  const pattern = (source) => {
    const texts = [""], blanks = [];
    source.split(/\{(\d*)\}/).forEach((piece, odd) => {
      if (odd % 2 && piece) blanks.push(writers[piece]), texts.push("");
      else texts.push(texts.pop() + escape(odd % 2 ? "{" : piece));
    });
    return [texts, blanks];
  };

  // A variant: from values to a text.
  const variant = (source) => {
    const parts = [source].flat();
    const [selectors, table] = parts[1] ? parts.splice(-2) : [[], [0]];
    const choosers = selectors.map((each) => [each[1], classifier(each, plural), each[2].length + 1]);
    const patterns = parts.map(pattern);
    return (values) => {
      let cell = 0, place = 0;
      for (const each of choosers) cell = cell * each[2] + made(each, values);
      const [texts, blanks] = patterns[table[cell]];
      let text = texts[0];
      for (const each of blanks) text += made(each, values) + texts[++place];
      return text;
    };
  };

  const templates = new Map(
    Object.entries(t).map(([name, sources]) => {
      const variants = sources.map(variant), num_variants = variants.length, weights = w[name] || variants.map(() => 1);
      const start = crc(`${campaign}/${name}:`, -1), total = weights.reduce((sum, weight) => sum + weight);
      return [
        name,
        (values, reader) => {
          let at = ((Math.imul(~crc(reader, start), 2654435761) >>> 0) / 2 ** 32) * total, place = 0, why;
          while (at >= weights[place]) at -= weights[place++];
          for (let turns = missing ? num_variants : 1; turns--; place = (place + 1) % num_variants) {
            try {
              if (weights[place]) return { text: variants[place](values), variant: place };
            } catch (unfilled) {
              why ??= unfilled;
            }
          }
          return why;
        },
      ];
    }),
  );

  return (name, values, reader = "") => templates.get(name)?.(values, reader) ?? { slot: "", why: "unknown" };
}
