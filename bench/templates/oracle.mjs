// One message a line, formatted by the official MessageFormat 2 runtime.
import { createInterface } from "node:readline";
import { MessageFormat } from "../../edge/node_modules/messageformat/lib/index.js";

const known = new Map();
for await (const line of createInterface({ input: process.stdin })) {
  const { locale, source, values } = JSON.parse(line);
  const key = `${locale} ${source}`;
  if (!known.has(key)) known.set(key, new MessageFormat(locale, source, { bidiIsolation: "none" }));
  process.stdout.write(JSON.stringify(known.get(key).format(values)) + "\n");
}
