// Fills the same texts with three runtimes in turn; one line a round: texts a CPU second of each.
import { readFileSync } from "node:fs";
import { FluentBundle, FluentResource } from "../../edge/node_modules/@fluent/bundle/esm/index.js";
import { MessageFormat } from "../../edge/node_modules/messageformat/lib/index.js";
import { filler } from "../../edge/fill.js";

const ROUNDS = 7, SECONDS = 0.4, NUM_READERS = 2000;
const asked = JSON.parse(readFileSync(0, "utf8"));
const readers = Array.from({ length: NUM_READERS }, (_, at) => [
  `reader-${at}`,
  { name: `Name ${at}`, wins: (at * 31) % 977, place: (at % 99) + 1, kind: ["cup", "league"][at % 2] },
]);

const ordinal = new Intl.PluralRules("en", { type: "ordinal" });
for (const [, values] of readers) values.nth = ordinal.select(values.place);

const fill = filler(asked.bundle);
const messages = asked.messageformat.map((source) => new MessageFormat("en", source, { bidiIsolation: "none" }));
const fluents = asked.fluent.map((source) => {
  const bundle = new FluentBundle("en", { useIsolating: false });
  const wrong = bundle.addResource(new FluentResource(source));
  if (wrong.length) throw wrong[0];
  return [bundle, bundle.getMessage("result").value];
});

// The peers are told the variant; ours chooses it, too.
const runtimes = {
  ours: ([reader, values]) => fill("result", values, reader).text,
  messageformat: ([, values], variant) => messages[variant].format(values),
  fluent: ([, values], variant) => fluents[variant][0].formatPattern(fluents[variant][1], values),
};

for (const reader of readers.slice(0, 200)) {
  const { text, variant } = fill("result", reader[1], reader[0]);
  for (const name of ["messageformat", "fluent"])
    if (runtimes[name](reader, variant) !== text) throw Error(`${name}: ${runtimes[name](reader, variant)} is not ${text}`);
}

function rate(make) {
  const began = process.cpuUsage();
  let num = 0, used = 0;
  while (used < SECONDS) {
    for (let at = 0; at < 200; at++) make(readers[num % NUM_READERS], num++ % 24);
    const { user, system } = process.cpuUsage(began);
    used = (user + system) / 1e6;
  }
  return num / used;
}

for (let round = 0; round <= ROUNDS; round++) {
  const rates = Object.fromEntries(Object.entries(runtimes).map(([name, make]) => [name, rate(make)]));
  if (round) console.log(JSON.stringify(rates));  // the first one warms up
}
