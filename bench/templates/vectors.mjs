// Reads {bundles: {locale: bundle}} on the first line and cases on the others; writes one result a line.
import { createInterface } from "node:readline";
import { filler } from "../../edge/fill.js";

const fillers = new Map();
let bundles;
for await (const line of createInterface({ input: process.stdin })) {
  const parsed = JSON.parse(line);
  if (!bundles) {
    bundles = parsed;
    continue;
  }
  const { locale, sink, template, values, reader } = parsed;
  const key = `${locale} ${sink}`;
  if (!fillers.has(key)) fillers.set(key, filler(bundles[locale], sink));
  process.stdout.write(JSON.stringify(fillers.get(key)(template, values, reader)) + "\n");
}
